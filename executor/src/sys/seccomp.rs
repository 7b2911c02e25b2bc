//! Installing a system call filter.

use rustix::io::Errno;

use super::check;

/// One instruction of classic BPF, laid out as the kernel's `struct sock_filter`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) jump_true: u8,
    pub(crate) jump_false: u8,
    pub(crate) k: u32,
}

/// Puts this process and all it becomes under `program`, for good.
///
/// Speculative store bypass stays allowed, as it is for runc's containers: the mitigation slows
/// everything down and guards against code that shares the process with its attacker.
pub(crate) fn install(program: &[Instruction]) -> Result<(), Errno> {
    let Ok(len) = libc::c_ushort::try_from(program.len()) else { return Err(Errno::INVAL) };
    let filter = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: `Instruction` is laid out as sock_filter is, `len` is the number of them, and the
    // kernel copies the program before the call returns.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const filter,
        )
    })
    .map(drop)
}
