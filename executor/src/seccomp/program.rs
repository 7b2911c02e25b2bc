//! Assembling ranges of system call numbers into a BPF program.
//!
//! The program finds the range of a number by a binary search of jumps, so that a call costs about
//! eight comparisons instead of one for each name.

use super::abi::{Abi, X32_BIT};
use super::profile::{REFUSED, Verdict, ranges};
use crate::sys::seccomp::Instruction;

/// Offsets in the kernel's `struct seccomp_data`. Only low halves of arguments are looked at: the
/// kernel takes the arguments in question as 32 bits, or has no flags in the upper half.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const JUMP_ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Every flag that makes a namespace.
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP) as u32;

/// Linux and Linux with 32-bit uname, each with ADDR_NO_RANDOMIZE or without, and the query.
const PERSONALITIES: [u32; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

const FORBIDDEN_FAMILIES: [u32; 2] = [libc::AF_ALG as u32, libc::AF_VSOCK as u32];

/// The program for a machine with these ABIs; those of one architecture value stand together.
pub(super) fn assemble(abis: &[Abi]) -> Vec<Instruction> {
    let mut program = vec![op(LOAD, ARCH)];
    for family in abis.chunk_by(|one, other| one.arch == other.arch) {
        let Some(arch) = family.first().map(|abi| abi.arch) else { continue };
        let mut body = vec![op(LOAD, NUMBER)];
        let ranges: Vec<_> = family.iter().flat_map(with_gap).collect();
        search(&ranges, &mut body);
        program.push(branch(JUMP_EQUAL, arch, 1, 0));
        program.push(op(JUMP, body.len() as u32));
        program.append(&mut body);
    }
    // A way into the kernel that this profile knows nothing of.
    program.push(op(RETURN, libc::SECCOMP_RET_KILL_PROCESS));
    program
}

/// The ranges of an ABI from the first number it may have on.
fn with_gap(abi: &Abi) -> Vec<(u32, Verdict)> {
    let mut ranges = ranges(abi);
    debug_assert!(abi.offset == 0 || abi.offset == X32_BIT);
    if ranges.first().is_none_or(|(first, _)| *first > abi.offset) {
        ranges.insert(0, (abi.offset, REFUSED));
    }
    ranges
}

/// Emits the search for the range that holds the loaded number.
fn search(ranges: &[(u32, Verdict)], program: &mut Vec<Instruction>) {
    match ranges {
        [] => {}
        [(_, verdict)] => conclude(*verdict, program),
        _ => {
            let (lower, upper) = ranges.split_at(ranges.len() / 2);
            let mut below = Vec::new();
            search(lower, &mut below);
            let boundary = upper[0].0;
            // A conditional jump reaches 255 instructions, an unconditional one any number.
            if let Ok(distance) = u8::try_from(below.len()) {
                program.push(branch(JUMP_AT_LEAST, boundary, distance, 0));
            } else {
                program.push(branch(JUMP_AT_LEAST, boundary, 0, 1));
                program.push(op(JUMP, below.len() as u32));
            }
            program.append(&mut below);
            search(upper, program);
        }
    }
}

/// Emits what happens to the calls of a range.
fn conclude(verdict: Verdict, program: &mut Vec<Instruction>) {
    let allow = op(RETURN, libc::SECCOMP_RET_ALLOW);
    let refuse = op(RETURN, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    match verdict {
        Verdict::Allow => program.push(allow),
        Verdict::Errno(errno) => program.push(op(RETURN, libc::SECCOMP_RET_ERRNO | errno)),
        Verdict::Clone => {
            program.push(op(LOAD, FIRST_ARGUMENT));
            program.push(branch(JUMP_ANY_BIT, NEW_NAMESPACES, 0, 1));
            program.extend([refuse, allow]);
        }
        Verdict::Socket => equal_to_any(&FORBIDDEN_FAMILIES, refuse, allow, program),
        Verdict::Personality => equal_to_any(&PERSONALITIES, allow, refuse, program),
    }
}

fn equal_to_any(
    values: &[u32],
    then: Instruction,
    otherwise: Instruction,
    program: &mut Vec<Instruction>,
) {
    program.push(op(LOAD, FIRST_ARGUMENT));
    for (index, value) in values.iter().enumerate() {
        let to_then = values.len() - index;
        program.push(branch(JUMP_EQUAL, *value, to_then as u8, 0));
    }
    program.extend([otherwise, then]);
}

const fn op(code: u16, k: u32) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: 0, k }
}

const fn branch(code: u16, k: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, k }
}
