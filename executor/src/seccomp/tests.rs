//! The filter is run by a small interpreter, call by call.

use super::abi::{self, Abi, X32_BIT};
use super::program::assemble;
use crate::sys::seccomp::Instruction;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// Runs a program on a call. Follows the kernel's definition of each instruction.
fn run(program: &[Instruction], arch: u32, number: u32, argument: u64) -> u32 {
    let (mut pc, mut accumulator) = (0, 0);
    loop {
        let Instruction { code, jump_true, jump_false, k } = program[pc];
        pc += 1;
        let condition = match code {
            0x20 => {
                accumulator = match k {
                    0 => number,
                    4 => arch,
                    16 => argument as u32,
                    other => panic!("loads offset {other}"),
                };
                continue;
            }
            0x06 => return k,
            0x05 => {
                pc += k as usize;
                continue;
            }
            0x15 => accumulator == k,
            0x35 => accumulator >= k,
            0x45 => accumulator & k != 0,
            other => panic!("instruction {other:#x}"),
        };
        pc += usize::from(if condition { jump_true } else { jump_false });
    }
}

fn verdict(family: &[Abi], abi: usize, name: &str, argument: u64) -> u32 {
    let number = family[abi].numbers[name] + family[abi].offset;
    run(&assemble(family), family[abi].arch, number, argument)
}

#[test]
fn each_abi_allows_and_refuses_what_dockers_profile_does() {
    let table = [
        ("read", 0, ALLOW),
        ("execve", 0, ALLOW),
        ("ptrace", 0, ALLOW),
        ("chroot", 0, ALLOW),
        ("mount", 0, EPERM),
        ("umount2", 0, EPERM),
        ("unshare", 0, EPERM),
        ("setns", 0, EPERM),
        ("keyctl", 0, EPERM),
        ("add_key", 0, EPERM),
        ("bpf", 0, EPERM),
        ("perf_event_open", 0, EPERM),
        ("open_by_handle_at", 0, EPERM),
        ("io_uring_setup", 0, EPERM),
        ("userfaultfd", 0, EPERM),
        ("kexec_load", 0, EPERM),
        ("init_module", 0, EPERM),
        ("clone3", 0, ENOSYS),
        ("clone", libc::SIGCHLD as u64, ALLOW),
        ("clone", libc::CLONE_NEWUSER as u64, EPERM),
        ("clone", (libc::CLONE_NEWNS | libc::SIGCHLD) as u64, EPERM),
        ("socket", libc::AF_INET as u64, ALLOW),
        ("socket", libc::AF_UNIX as u64, ALLOW),
        ("socket", 39, ALLOW),
        ("socket", 41, ALLOW),
        ("socket", libc::AF_ALG as u64, EPERM),
        ("socket", libc::AF_VSOCK as u64, EPERM),
        ("socket", libc::AF_ALG as u64 | 1 << 32, EPERM),
        ("personality", 0, ALLOW),
        ("personality", 0x8, ALLOW),
        ("personality", 0x2_0008, ALLOW),
        ("personality", 0xffff_ffff, ALLOW),
        ("personality", 0x4_0000, EPERM),
    ];
    for family in [abi::x86_64(), abi::aarch64()] {
        for abi in 0..family.len() {
            for (name, argument, expected) in table {
                if family[abi].numbers.contains_key(name) {
                    let arch = family[abi].arch;
                    let found = verdict(&family, abi, name, argument);
                    assert_eq!(found, expected, "{name}({argument:#x}) on {arch:#x} abi {abi}");
                }
            }
        }
    }
}

#[test]
fn every_call_that_is_allowed_by_name_is_allowed_by_number() {
    for family in [abi::x86_64(), abi::aarch64()] {
        let program = assemble(&family);
        for abi in &family {
            for name in include_str!("data/allowed.names").split_whitespace() {
                if let Some(number) = abi.numbers.get(name) {
                    assert_eq!(run(&program, abi.arch, number + abi.offset, 0), ALLOW, "{name}");
                }
            }
        }
    }
}

#[test]
fn names_in_the_profile_exist_on_some_abi() {
    let families = [abi::x86_64(), abi::aarch64()];
    for name in include_str!("data/allowed.names").split_whitespace() {
        let known = families.iter().flatten().any(|abi| abi.numbers.contains_key(name));
        assert!(known, "{name}");
    }
}

#[test]
fn calls_newer_than_the_profile_look_unknown_to_the_kernel() {
    for family in [abi::x86_64(), abi::aarch64()] {
        let program = assemble(&family);
        for abi in &family {
            assert_eq!(run(&program, abi.arch, 1000 + abi.offset, 0), ENOSYS);
        }
    }
}

#[test]
fn an_unknown_architecture_is_killed() {
    let program = assemble(&abi::x86_64());
    assert_eq!(run(&program, 0x1234, 0, 0), libc::SECCOMP_RET_KILL_PROCESS);
}

#[test]
fn x32_calls_are_told_from_x86_64_ones() {
    let family = abi::x86_64();
    let program = assemble(&family);
    // 59 is execve on x86-64; x32 has its own at 520.
    assert_eq!(run(&program, family[0].arch, 59, 0), ALLOW);
    assert_eq!(run(&program, family[0].arch, 59 + X32_BIT, 0), EPERM);
    assert_eq!(run(&program, family[0].arch, 520 + X32_BIT, 0), ALLOW);
}

#[test]
fn the_program_is_within_the_kernels_limit() {
    for family in [abi::x86_64(), abi::aarch64()] {
        assert!(assemble(&family).len() < 4096);
    }
}
