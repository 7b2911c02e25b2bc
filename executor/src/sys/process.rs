//! Properties of the calling process, and its replacement by another program.

use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rustix::io::Errno;

use super::{check, last_errno};
use crate::zygote::protocol::Used;

/// Has the kernel send `signal` when the parent process ends.
pub(crate) fn die_with_parent() -> Result<(), Errno> {
    // SAFETY: PR_SET_PDEATHSIG takes a number.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }.into()).map(drop)
}

/// Makes this process the parent of what its descendants leave behind.
pub(crate) fn adopt_orphans() -> Result<(), Errno> {
    // SAFETY: PR_SET_CHILD_SUBREAPER takes a number.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) }.into()).map(drop)
}

/// Ends `leader`, a child which leads a session, and everything else that descends from this process, which
/// must have called [`adopt_orphans`]. Where the kernel does not tell of children, what has left the
/// session stays.
pub(crate) fn end_descendants(leader: rustix::process::Pid) {
    // SAFETY: kill takes numbers. There being no such process is no error to the caller.
    unsafe { libc::kill(-leader.as_raw_nonzero().get(), libc::SIGKILL) };
    while let Ok(children) = std::fs::read_to_string("/proc/thread-self/children") {
        let pids = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
        for pid in pids.filter_map(rustix::process::Pid::from_raw) {
            // One that has ended is reaped below.
            let _ = signal_one(pid, libc::SIGKILL);
        }
        // What the ended ones have left is a child of this process by now.
        match wait_any(true) {
            Waited::Ended(..) | Waited::Running => {}
            Waited::Childless => return,
        }
    }
}

/// Has the kernel end what `command` starts with the thread that starts it.
pub(crate) fn end_with_thread(command: &mut Command) {
    // SAFETY: between fork and exec, the closure makes one system call and touches no memory.
    unsafe { command.pre_exec(|| Ok(die_with_parent()?)) };
}

/// Closes `/proc/<pid>` and ptrace of this process to those without CAP_SYS_PTRACE.
pub(crate) fn make_undumpable() -> Result<(), Errno> {
    // SAFETY: PR_SET_DUMPABLE takes a number.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) }.into()).map(drop)
}

/// Shows `title` as the command line of this process instead of the one it inherited.
///
/// Inside a step, process 1 would otherwise show the daemon's arguments. Where the kernel does not
/// tell where these are, they stay. For a forked process that does not read its arguments.
pub(crate) fn set_command_line(title: &[u8]) {
    let Some((start, length)) = command_line() else { return };
    // SAFETY: the kernel has put the arguments into this range of the stack's lowest part, which
    // stays mapped and writable; no reference to them is in use in this process.
    let memory = unsafe { std::slice::from_raw_parts_mut(start as *mut u8, length) };
    memory.fill(0);
    for (to, from) in memory.iter_mut().zip(title) {
        *to = *from;
    }
}

/// Address and length of the arguments: fields 48 and 49 of /proc/self/stat, counted from 1. The
/// second field, a name in parentheses, may itself contain spaces.
fn command_line() -> Option<(usize, usize)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(45);
    let start: usize = fields.next()?.parse().ok()?;
    let end: usize = fields.next()?.parse().ok()?;
    (start != 0).then_some((start, end.checked_sub(start)?))
}

/// Starts an empty session keyring, so that the daemon's keys are out of reach.
pub(crate) fn new_session_keyring() -> Result<(), Errno> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    check(unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<c_char>())
    })
    .map(drop)
}

/// Makes the control group that this process is in the root of what it sees of them.
pub(crate) fn new_cgroup_namespace() -> Result<(), Errno> {
    // SAFETY: of what unshare separates, only descriptor tables matter to memory safety; this asks
    // for control groups.
    check(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }.into()).map(drop)
}

/// Sets a resource limit by its `RLIMIT_*` number.
pub(crate) fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: prlimit64 reads the limit, which lives until the call returns; no old one is asked
    // for.
    check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            &raw const limit,
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    })
    .map(drop)
}

/// Makes the terminal `fd` the controlling one of this session.
pub(crate) fn set_controlling_terminal(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: TIOCSCTTY takes a number.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY, 0) }.into()).map(drop)
}

/// A list of strings as `execve` takes it.
pub(crate) struct CStringArray<'a> {
    pointers: Vec<*const c_char>,
    _strings: std::marker::PhantomData<&'a CStr>,
}

impl<'a> CStringArray<'a> {
    /// Borrows `strings` for as long as the array lives.
    pub(crate) fn new(strings: &'a [CString]) -> Self {
        let mut pointers: Vec<_> = strings.iter().map(|string| string.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Self { pointers, _strings: std::marker::PhantomData }
    }
}

/// Replaces this program by `path`; returns only if that fails.
pub(crate) fn execve(path: &CStr, args: &CStringArray<'_>, env: &CStringArray<'_>) -> Errno {
    // SAFETY: the path ends in NUL, and both arrays hold pointers to live strings and end in null.
    unsafe { libc::execve(path.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr()) };
    last_errno()
}

/// Replaces this program by the file `program`; returns only if that fails.
pub(crate) fn execveat(
    program: BorrowedFd<'_>,
    args: &CStringArray<'_>,
    env: &CStringArray<'_>,
) -> Errno {
    // SAFETY: the path is empty and ends in NUL, and both arrays hold pointers to live strings and
    // end in null.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            args.pointers.as_ptr(),
            env.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    last_errno()
}

/// Sends `signal` to every process of this pid namespace but its init, which is the caller.
pub(crate) fn signal_all(signal: i32) {
    // SAFETY: kill takes numbers. There being no other process is no error to the caller.
    unsafe { libc::kill(-1, signal) };
}

/// Sends the signal of this number to a process.
pub(crate) fn signal_one(pid: rustix::process::Pid, signal: i32) -> Result<(), Errno> {
    // SAFETY: kill takes numbers.
    check(unsafe { libc::kill(pid.as_raw_nonzero().get(), signal) }.into()).map(drop)
}

/// What `wait4` found.
pub(crate) enum Waited {
    /// A child has ended, with this status as `waitpid` encodes it.
    Ended(i32, i32),
    /// There are children, but none has ended.
    Running,
    /// There is no child.
    Childless,
}

/// What the children of this process that have been reaped have used, with all that they have reaped
/// themselves.
pub(crate) fn used_by_children() -> Used {
    // SAFETY: rusage is plain data for which zero is valid, and getrusage fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let time = |time: libc::timeval| {
        let micros = u64::try_from(time.tv_usec).unwrap_or(0);
        Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0)) + Duration::from_micros(micros)
    };
    // Memory is in kilobytes, and input and output are in blocks of the oldest size.
    let bytes = |count: libc::c_long, unit: u64| u64::try_from(count).unwrap_or(0) * unit;
    Used {
        cpu_user: time(usage.ru_utime),
        cpu_system: time(usage.ru_stime),
        peak_memory: bytes(usage.ru_maxrss, 1024),
        io_read: bytes(usage.ru_inblock, 512),
        io_write: bytes(usage.ru_oublock, 512),
    }
}

/// Reaps any one child; waits for one to end if `block`.
pub(crate) fn wait_any(block: bool) -> Waited {
    let mut status = 0;
    let flags = libc::__WALL | if block { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: waitpid writes the status to a live integer.
        match unsafe { libc::waitpid(-1, &raw mut status, flags) } {
            0 => return Waited::Running,
            pid if pid > 0 => return Waited::Ended(pid, status),
            _ if last_errno() == Errno::INTR => {}
            _ => return Waited::Childless,
        }
    }
}
