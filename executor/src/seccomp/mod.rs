//! The system call filter of a confined step: Docker's default profile, as a BPF program.
//!
//! The profile is data (`data/`): the names that are always allowed, and the numbers that each
//! ABI gives to names. [`profile`] turns them into ranges of numbers with what happens to each,
//! [`program`] turns these into a decision tree. It is built once, when the zygote starts.

mod abi;
mod profile;
mod program;

use crate::sys::seccomp::Instruction;

/// The filter for steps on this machine.
pub(crate) fn default_filter() -> Vec<Instruction> {
    program::assemble(&abi::native())
}

#[cfg(test)]
mod tests;
