//! The ABIs in which a program may call this machine's kernel.

use std::collections::BTreeMap;

/// Marks the numbers of x32 calls, which otherwise look like those of x86-64.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// One ABI: how the kernel tells it apart, and its numbers.
#[derive(Debug)]
pub(super) struct Abi {
    /// The kernel's `AUDIT_ARCH_*` value.
    pub(super) arch: u32,
    /// What is added to each number.
    pub(super) offset: u32,
    /// Number by name.
    pub(super) numbers: BTreeMap<&'static str, u32>,
}

impl Abi {
    fn new(arch: u32, offset: u32, table: &'static str) -> Self {
        let numbers = table.lines().filter_map(|line| {
            let (name, number) = line.split_once(' ')?;
            Some((name, number.parse().ok()?))
        });
        Self { arch, offset, numbers: numbers.collect() }
    }
}

/// x86-64 with its two 32-bit ABIs.
pub(super) fn x86_64() -> Vec<Abi> {
    vec![
        Abi::new(0xc000_003e, 0, include_str!("data/x86_64.numbers")),
        Abi::new(0xc000_003e, X32_BIT, include_str!("data/x32.numbers")),
        Abi::new(0x4000_0003, 0, include_str!("data/x86.numbers")),
    ]
}

/// 64-bit Arm with its 32-bit ABI.
pub(super) fn aarch64() -> Vec<Abi> {
    vec![
        Abi::new(0xc000_00b7, 0, include_str!("data/aarch64.numbers")),
        Abi::new(0x4000_0028, 0, include_str!("data/arm.numbers")),
    ]
}

/// Those of the machine this is compiled for.
pub(super) fn native() -> Vec<Abi> {
    if cfg!(target_arch = "aarch64") { aarch64() } else { x86_64() }
}

// A filter with another machine's numbers would kill every step.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("there is no table of system calls for this architecture");
