//! The permitted devices as a BPF program, which is what version 2 has in place of a controller.

use super::devices::{Kind, Rule};
use crate::sys::bpf::Instruction;

/// Bits of the access asked for, in the upper half of the first field of the kernel's `struct
/// bpf_cgroup_dev_ctx`; the lower half has the kind.
const MAKE: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const BLOCK: i32 = 1;
const CHAR: i32 = 2;

/// Offsets of the fields of that structure.
const ACCESS_AND_KIND: i16 = 0;
const MAJOR: i16 = 4;
const MINOR: i16 = 8;

/// Registers: the result, the context, and what the program keeps its values in.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND_ASKED: u8 = 2;
const ACCESS_ASKED: u8 = 3;
const MAJOR_ASKED: u8 = 4;
const MINOR_ASKED: u8 = 5;
const SCRATCH: u8 = 6;

const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbf;
const MOVE_IMMEDIATE: u8 = 0xb7;
const AND_IMMEDIATE: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_NOT_EQUAL_IMMEDIATE: u8 = 0x55;
const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5d;
const EXIT: u8 = 0x95;

/// A program that allows what one of `rules` allows.
pub(super) fn assemble(rules: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![
        op(LOAD_WORD, KIND_ASKED, CONTEXT, ACCESS_AND_KIND, 0),
        op(MOVE_REGISTER, ACCESS_ASKED, KIND_ASKED, 0, 0),
        op(SHIFT_RIGHT, ACCESS_ASKED, 0, 0, 16),
        op(AND_IMMEDIATE, KIND_ASKED, 0, 0, 0xffff),
        op(LOAD_WORD, MAJOR_ASKED, CONTEXT, MAJOR, 0),
        op(LOAD_WORD, MINOR_ASKED, CONTEXT, MINOR, 0),
    ];
    for rule in rules {
        append(rule, &mut program);
    }
    program.extend([op(MOVE_IMMEDIATE, RESULT, 0, 0, 0), op(EXIT, 0, 0, 0, 0)]);
    program
}

/// Appends the checks of a rule, each of which skips to the next rule if it does not hold.
fn append(rule: &Rule, program: &mut Vec<Instruction>) {
    let kind = match rule.kind {
        Kind::Block => BLOCK,
        Kind::Char => CHAR,
    };
    let read = if rule.access.read { READ } else { 0 };
    let write = if rule.access.write { WRITE } else { 0 };
    let access = MAKE | read | write;
    let mut checks = vec![
        op(JUMP_NOT_EQUAL_IMMEDIATE, KIND_ASKED, 0, 0, kind),
        op(MOVE_REGISTER, SCRATCH, ACCESS_ASKED, 0, 0),
        op(AND_IMMEDIATE, SCRATCH, 0, 0, access),
        op(JUMP_NOT_EQUAL_REGISTER, SCRATCH, ACCESS_ASKED, 0, 0),
    ];
    for (register, number) in [(MAJOR_ASKED, rule.major), (MINOR_ASKED, rule.minor)] {
        checks.extend(
            number.map(|number| op(JUMP_NOT_EQUAL_IMMEDIATE, register, 0, 0, number as i32)),
        );
    }
    checks.extend([op(MOVE_IMMEDIATE, RESULT, 0, 0, 1), op(EXIT, 0, 0, 0, 0)]);
    let length = checks.len();
    for (index, check) in checks.iter_mut().enumerate() {
        if matches!(check.code, JUMP_NOT_EQUAL_IMMEDIATE | JUMP_NOT_EQUAL_REGISTER) {
            check.offset = (length - index - 1) as i16;
        }
    }
    program.extend(checks);
}

const fn op(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: from << 4 | to, offset, immediate }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::devices::{ALLOWED, given};
    use crate::spec::Device;

    /// Runs a program on what is asked. Follows the kernel's definition of each instruction.
    fn run(program: &[Instruction], access: i32, kind: i32, major: u32, minor: u32) -> u64 {
        let context = [(access << 16 | kind) as u32, major, minor];
        let (mut registers, mut pc) = ([0_u64; 11], 0);
        loop {
            let Instruction { code, registers: both, offset, immediate } = program[pc];
            let (to, from) = (usize::from(both & 0xf), usize::from(both >> 4));
            pc += 1;
            let value = registers[to];
            match code {
                LOAD_WORD => registers[to] = context[offset as usize / 4].into(),
                MOVE_REGISTER => registers[to] = registers[from],
                MOVE_IMMEDIATE => registers[to] = immediate as u64,
                AND_IMMEDIATE => registers[to] = value & immediate as u64,
                SHIFT_RIGHT => registers[to] = value >> immediate,
                JUMP_NOT_EQUAL_IMMEDIATE if value != immediate as u64 => pc += offset as usize,
                JUMP_NOT_EQUAL_REGISTER if value != registers[from] => pc += offset as usize,
                JUMP_NOT_EQUAL_IMMEDIATE | JUMP_NOT_EQUAL_REGISTER => {}
                EXIT => return registers[0],
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn a_device_that_was_given_can_be_used_as_it_was_given() {
        let disk = Device { is_block: true, major: 8, minor: 0, read: true, write: false };
        let program = assemble(&[&ALLOWED[..], &[given(&disk)]].concat());
        for (what, access, major, minor, allowed) in [
            ("read", READ, 8, 0, true),
            ("make and read", MAKE | READ, 8, 0, true),
            ("write", WRITE, 8, 0, false),
            ("read and write", READ | WRITE, 8, 0, false),
            ("read another", READ, 8, 1, false),
        ] {
            assert_eq!(run(&program, access, BLOCK, major, minor) == 1, allowed, "{what}");
        }
    }

    #[test]
    fn usual_devices_open_and_others_can_only_be_made() {
        let program = assemble(&ALLOWED);
        for (what, access, kind, major, minor, allowed) in [
            ("read null", READ, CHAR, 1, 3, true),
            ("write and make null", WRITE | MAKE, CHAR, 1, 3, true),
            ("write a terminal", WRITE, CHAR, 136, 77, true),
            ("read memory", READ, CHAR, 1, 1, false),
            ("write the kernel log", WRITE, CHAR, 1, 11, false),
            ("make memory", MAKE, CHAR, 1, 1, true),
            ("make a disk", MAKE, BLOCK, 8, 0, true),
            ("read a disk", READ, BLOCK, 8, 0, false),
            ("make and read a disk", MAKE | READ, BLOCK, 8, 0, false),
            ("read a disk with the numbers of null", READ, BLOCK, 1, 3, false),
        ] {
            assert_eq!(run(&program, access, kind, major, minor) == 1, allowed, "{what}");
        }
    }
}
