//! What Docker's default profile does to each system call, given the default capabilities.

use std::collections::BTreeMap;

use super::abi::Abi;

/// Names allowed whatever their arguments.
const ALLOWED: &str = include_str!("data/allowed.names");

/// Allowed on all kernels that this runs on (the profile asks for 4.8), by the capability
/// SYS_CHROOT, or by the family of architectures. Names that an ABI does not have are skipped.
const ALLOWED_BESIDES: [&str; 12] = [
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "chroot",
    "arch_prctl",
    "modify_ldt",
    "arm_fadvise64_64",
    "arm_sync_file_range",
    "sync_file_range2",
    "breakpoint",
    "cacheflush",
    "set_tls",
];

/// Numbers from here on are not system calls but 32-bit Arm's private ones.
const ARM_PRIVATE: u32 = 0xf0000;

/// What happens to a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    /// Fails with this error.
    Errno(u32),
    /// Allowed if it makes no namespace: the mask of forbidden bits in the first argument.
    Clone,
    /// Allowed but for the address families AF_ALG and AF_VSOCK.
    Socket,
    /// Allowed for the personalities that only concern the process itself.
    Personality,
}

pub(super) const REFUSED: Verdict = Verdict::Errno(libc::EPERM as u32);
const UNKNOWN: Verdict = Verdict::Errno(libc::ENOSYS as u32);

/// The verdict for every number of an ABI, as ranges: each holds from its number to the next.
///
/// Numbers above all that the profile knows fail with ENOSYS, as if the kernel were older, so
/// that C libraries take their fallbacks instead of reporting a refusal.
pub(super) fn ranges(abi: &Abi) -> Vec<(u32, Verdict)> {
    let mut verdicts: BTreeMap<u32, Verdict> = BTreeMap::new();
    for number in abi.numbers.values() {
        verdicts.insert(*number, REFUSED);
    }
    let mut set = |name: &str, verdict| {
        if let Some(number) = abi.numbers.get(name) {
            verdicts.insert(*number, verdict);
        }
    };
    for name in ALLOWED.split_whitespace().chain(ALLOWED_BESIDES) {
        set(name, Verdict::Allow);
    }
    set("socket", Verdict::Socket);
    set("personality", Verdict::Personality);
    set("clone", Verdict::Clone);
    // The flags of clone3 are in memory, where no filter can look; C libraries fall back to clone.
    set("clone3", UNKNOWN);

    let last = verdicts.keys().copied().filter(|number| *number < ARM_PRIVATE).max().unwrap_or(0);
    let mut ranges: Vec<(u32, Verdict)> = Vec::new();
    let mut push = |number: u32, verdict| {
        if ranges.last().is_none_or(|(_, previous)| *previous != verdict) {
            ranges.push((number, verdict));
        }
    };
    for number in 0..=last {
        push(number + abi.offset, verdicts.get(&number).copied().unwrap_or(REFUSED));
    }
    push(last + 1 + abi.offset, UNKNOWN);
    for (number, verdict) in verdicts.range(ARM_PRIVATE..) {
        push(*number, *verdict);
        push(number + 1, UNKNOWN);
    }
    ranges
}
