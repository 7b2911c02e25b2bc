//! The system calls that rustix does not offer, each behind a safe function. The only module of
//! this crate with unsafe code.
#![allow(unsafe_code)]

pub(crate) mod async_fd;
pub(crate) mod bpf;
pub(crate) mod fd;
pub(crate) mod fork;
pub(crate) mod mount;
pub(crate) mod net;
pub(crate) mod process;
pub(crate) mod seccomp;
pub(crate) mod signal;
pub(crate) mod user;

use rustix::io::Errno;

/// Turns the result of a raw system call into rustix's form.
fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result < 0 { Err(last_errno()) } else { Ok(result) }
}

fn last_errno() -> Errno {
    Errno::from_raw_os_error(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}
