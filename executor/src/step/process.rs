//! The last part of the way, in the process that becomes the command.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Access, AtFlags, CWD, Gid, Mode, OFlags, Uid, accessat, fchown, open};
use rustix::io::{Errno, write};

use super::{Descriptors, Prepared, Users, capabilities, control_groups, labels, users};
use crate::sys::process::{CStringArray, execve};
use crate::sys::{self, fd, fork, signal};
use crate::user_namespace::in_user_namespace;
use crate::zygote::protocol::{At, CgroupJoin, Failure, Process, Stage};

/// Becomes the command, or reports why that is impossible and exits.
pub(super) fn start(
    process: &Process,
    descriptors: &Descriptors,
    reply: &OwnedFd,
    prepared: &Prepared,
) -> ! {
    let taken =
        prepared.users_of(process).and_then(|users| take_over(process, users, descriptors, reply));
    match taken {
        Err(failure) => super::report(reply, failure),
        Ok((reply, namespace)) => {
            super::report(&reply, become_command(process, namespace, prepared));
        }
    }
    fork::exit(127)
}

/// Enters the cgroup, takes on the streams, and closes everything else but the reply socket and the
/// user namespace to enter, which are returned.
///
/// This comes before any path of the step is followed: a working directory or command that leads
/// through /proc/self/fd must not find a descriptor of the host there.
fn take_over(
    process: &Process,
    users: Option<&Users>,
    descriptors: &Descriptors,
    reply: &OwnedFd,
) -> Result<(OwnedFd, Option<OwnedFd>), Failure> {
    enter_cgroup(process, descriptors)?;
    rustix::process::setsid().at(Stage::Streams, "new session")?;
    connect(process, users, descriptors).at(Stage::Streams, "standard streams")?;
    let reply = rustix::io::fcntl_dupfd_cloexec(reply, 3).at(Stage::Streams, "dup")?;
    let Some(users) = users else {
        let closed = fd::close_all_but([reply]).at(Stage::Streams, "close_range");
        return closed.map(|[reply]| (reply, None));
    };
    users.make_files_as_root().at(Stage::Privileges, "ids of files")?;
    let namespace = users.namespace().at(Stage::Streams, "dup")?;
    let closed = fd::close_all_but([reply, namespace]).at(Stage::Streams, "close_range");
    closed.map(|[reply, namespace]| (reply, Some(namespace)))
}

/// Returns only with the reason why there is no command to become.
fn become_command(process: &Process, namespace: Option<OwnedFd>, prepared: &Prepared) -> Failure {
    match confine(process, namespace, prepared) {
        Err(failure) => failure,
        Ok(()) => execute(process),
    }
}

fn confine(
    process: &Process,
    namespace: Option<OwnedFd>,
    prepared: &Prepared,
) -> Result<(), Failure> {
    set_oom_score(process.oom_score_adj).at(Stage::Privileges, "oom_score_adj")?;
    for (resource, soft, hard) in &process.rlimits {
        sys::process::set_rlimit(*resource, *soft, *hard)
            .at(Stage::Rlimit, resource.to_string())?;
    }
    if let Some(profile) = &process.apparmor_profile {
        let subject = [b"AppArmor profile ", profile.as_bytes()].concat();
        change_profile_on_exec(profile).at(Stage::Privileges, subject)?;
    }
    if let Some(labels) = &process.selinux {
        let subject = [b"SELinux label ", labels.process.as_bytes()].concat();
        labels::label_next_program(labels).at(Stage::Privileges, subject)?;
    }
    // What comes before takes rights over the host.
    if let Some(namespace) = namespace {
        users::join(&namespace)?;
    }
    new_session_keyring().at(Stage::Privileges, "session keyring")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    signal::reset();
    // Root may have to enter what the user must not, and the user what root cannot see (a network
    // file system), so it is tried as both.
    let entered = enter_working_directory(&process.cwd);
    // Without no_new_privs, which Docker's builders leave off so that sudo works, a filter can
    // only be installed while the process is still privileged.
    if !process.insecure {
        sys::seccomp::install(&prepared.filter).at(Stage::Seccomp, "default profile")?;
    }
    capabilities::take_on(process).at(Stage::Privileges, "user and capabilities")?;
    match entered {
        Err(Errno::ACCESS | Errno::PERM) => enter_working_directory(&process.cwd),
        other => other,
    }
    .at(Stage::WorkingDirectory, process.cwd.as_bytes())
}

/// Also makes sure that the directory is inside the root directory: the kernel says so of one that
/// is not.
fn enter_working_directory(path: &CStr) -> Result<(), Errno> {
    rustix::process::chdir(path)?;
    let inside = rustix::process::getcwd(Vec::new())?.to_bytes().starts_with(b"/");
    if inside { Ok(()) } else { Err(Errno::XDEV) }
}

/// With version 1 by writing 0 to `tasks`, which moves the calling thread, all of this process,
/// without the grace period that moving another one costs. With version 2 the process was born
/// where it belongs.
fn enter_cgroup(process: &Process, descriptors: &Descriptors) -> Result<(), Failure> {
    match process.cgroup {
        CgroupJoin::None => Ok(()),
        CgroupJoin::V1(count) => {
            let mut tasks = descriptors.cgroup.iter().take(count.into());
            tasks.try_for_each(|tasks| write(tasks, b"0").map(drop)).at(Stage::Cgroup, "tasks")
        }
        CgroupJoin::V2 => {
            let is_first = descriptors.member.is_none();
            control_groups::show_v2(process.insecure, is_first).at(Stage::Cgroup, "namespace")
        }
    }
}

fn connect(
    process: &Process,
    users: Option<&Users>,
    descriptors: &Descriptors,
) -> Result<(), Errno> {
    let null;
    let stdin = if let Some(stdin) = &descriptors.stdin {
        stdin
    } else {
        null = open(c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        &null
    };
    let streams: [&OwnedFd; 3] = [stdin, &descriptors.stdout, &descriptors.stderr];
    for (number, stream) in streams.into_iter().enumerate() {
        fd::duplicate_onto(stream.as_fd(), number as i32)?;
    }
    if process.uid != 0 || users.is_some() {
        let ids = (process.uid, process.gid);
        let ids = users.map_or(Ok(ids), |users| users.ids(process.uid, process.gid))?;
        give_to_user(ids, &streams[usize::from(descriptors.stdin.is_none())..])?;
    }
    if process.tty {
        if let Some(labels) = &process.selinux {
            labels::label_file(&descriptors.stdout, labels)?;
        }
        sys::process::set_controlling_terminal(descriptors.stdout.as_fd())?;
    }
    Ok(())
}

/// Lets a user without rights over the daemon's files open /dev/stdout and the like, which are its
/// pipes.
fn give_to_user((uid, gid): (u32, u32), streams: &[&OwnedFd]) -> Result<(), Errno> {
    for stream in streams {
        match fchown(stream, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))) {
            // Not something that has an owner.
            Ok(()) | Err(Errno::INVAL | Errno::PERM | Errno::ROFS) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Has AppArmor put what is executed next under `profile`. The files are those of /proc itself, where
/// nothing can be mounted and no link lies.
fn change_profile_on_exec(profile: &CStr) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Where the kernel has several modules, the file without a name belongs to one of the others.
    let file = match open(c"/proc/self/attr/apparmor/exec", flags, Mode::empty()) {
        Err(Errno::NOENT) => open(c"/proc/self/attr/exec", flags, Mode::empty()),
        other => other,
    }?;
    write(&file, &[b"exec ", profile.to_bytes()].concat()).map(drop)
}

pub(super) fn new_session_keyring() -> Result<(), Errno> {
    match sys::process::new_session_keyring() {
        // A kernel without keyrings has no keys to protect.
        Err(Errno::NOSYS) => Ok(()),
        // An ordinary user may have few of them. The zygote's, which is then kept, is empty, and
        // the filter keeps confined steps from it.
        Err(Errno::DQUOT) if in_user_namespace() => Ok(()),
        other => other,
    }
}

fn set_oom_score(score: i32) -> Result<(), Errno> {
    let file = open(c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    match write(&file, score.to_string().as_bytes()) {
        // An ordinary user may not go below what the service manager has set.
        Err(Errno::ACCESS) if in_user_namespace() => Ok(()),
        other => other.map(drop),
    }
}

/// Looks the command up as `execvpe` does and executes it.
fn execute(process: &Process) -> Failure {
    let Some(command) = process.args.first() else {
        return fail(Stage::FindCommand, b"", Errno::NOENT);
    };
    let (args, env) = (CStringArray::new(&process.args), CStringArray::new(&process.env));
    if command.as_bytes().contains(&b'/') {
        let errno = execve(command, &args, &env);
        return fail(stage_of(errno, command), command.as_bytes(), errno);
    }
    let mut denied = false;
    for directory in search_path(&process.env).split(|byte| *byte == b':') {
        let Some(candidate) = join(directory, command) else { continue };
        match execve(&candidate, &args, &env) {
            Errno::NOENT if exists(&candidate) => {
                return fail(Stage::Exec, candidate.as_bytes(), Errno::NOENT);
            }
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => denied |= exists(&candidate),
            errno => return fail(Stage::Exec, candidate.as_bytes(), errno),
        }
    }
    if denied {
        return fail(Stage::Exec, command.as_bytes(), Errno::ACCESS);
    }
    fail(Stage::FindCommand, command.as_bytes(), Errno::NOENT)
}

/// The kernel says "no such file" of a script's missing interpreter, too.
fn stage_of(errno: Errno, command: &CStr) -> Stage {
    match errno {
        Errno::NOENT if !exists(command) => Stage::FindCommand,
        Errno::NOTDIR => Stage::FindCommand,
        _ => Stage::Exec,
    }
}

fn exists(path: &CStr) -> bool {
    accessat(CWD, path, Access::EXISTS, AtFlags::empty()).is_ok()
}

fn search_path(env: &[CString]) -> &[u8] {
    env.iter().rev().find_map(|entry| entry.as_bytes().strip_prefix(b"PATH=")).unwrap_or_default()
}

/// An empty entry of `PATH` means the working directory.
fn join(directory: &[u8], command: &CStr) -> Option<CString> {
    let directory = if directory.is_empty() { b"." } else { directory };
    CString::new([directory, b"/", command.to_bytes()].concat()).ok()
}

fn fail(stage: Stage, subject: &[u8], errno: Errno) -> Failure {
    Failure { stage, subject: subject.to_vec(), errno: errno.raw_os_error() }
}
