//! The zygote's loop: receive a request, fork, forget.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::process::Pid;

use super::channel::{Receiver, send};
use super::program::TITLE;
use super::protocol::{At, Failure, Reply, Request, Stage, UsersRequest};
use super::socket_pair;
use crate::step::{self, Descriptors, Prepared, Users, hooks};
use crate::sys::{fd, fork, process, signal};
use crate::user_namespace::in_user_namespace;

/// Serves requests until the daemon's end of `socket` closes.
pub(super) fn run(socket: OwnedFd) -> ! {
    let Ok(socket) = become_daemon(socket) else { fork::exit(1) };
    let mut prepared = Prepared::new();
    let mut receiver = Receiver::new();
    loop {
        match receiver.receive::<Request>(&socket, RecvFlags::empty()) {
            Ok(Some((Request::Users(wanted), fds))) => set_users(&wanted, fds, &mut prepared),
            Ok(Some((Request::NetworkNamespace, fds))) => {
                answer_from_child(fds, || new_network(&prepared).map(Some));
            }
            Ok(Some((request, fds))) => serve(&request, fds, socket.as_fd(), &prepared),
            Ok(None) => fork::exit(0),
            // A request that cannot be read has closed its reply socket by now, which tells its
            // sender.
            Err(Errno::INTR | Errno::BADMSG) => {}
            Err(_) => fork::exit(1),
        }
    }
}

/// Lets go of everything that belongs to the daemon: descriptors, terminal, signals, name.
fn become_daemon(socket: OwnedFd) -> Result<OwnedFd, Errno> {
    signal::ignore_children_and_outside();
    let [socket] = fd::close_all_but([socket])?;
    let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    for stream in 0..=2 {
        fd::duplicate_onto(null.as_fd(), stream)?;
    }
    rustix::process::chdir(c"/")?;
    // A failure means that it leads a session already.
    let _ = rustix::process::setsid();
    process::set_command_line(TITLE.to_bytes());
    process::make_undumpable()?;
    if in_user_namespace() {
        // Not the user's own, which is left alone for what the daemon's host has in it.
        process::new_session_keyring().or_else(|error| match error {
            Errno::NOSYS => Ok(()),
            error => Err(error),
        })?;
    }
    rustix::thread::set_name(c"kiln-zygote")?;
    Ok(socket)
}

fn serve(request: &Request, fds: Vec<OwnedFd>, socket: BorrowedFd<'_>, prepared: &Prepared) {
    let Some((reply, mut descriptors)) = Descriptors::sort(fds, request) else { return };
    let namespaces = step::namespaces(request);
    let mut start = || {
        let runner = hooks::need_runner(request).then(socket_pair).transpose()?;
        let (step_end, runner_end) = runner.unzip();
        descriptors.runner = step_end;
        let Some(pid) = fork::clone3(namespaces, None)? else { return Ok(true) };
        if let Some(connection) = runner_end {
            start_runner(request, pid, connection, prepared)?;
        }
        Ok(false)
    };
    match start().at(Stage::Namespaces, "clone") {
        Ok(false) => {}
        Ok(true) => {
            // Holding the zygote's end would hide its death from the daemon.
            fd::close_inherited(socket);
            step::run(request, &reply, descriptors, prepared)
        }
        // The daemon may have given up on the step already.
        Err(failure) => drop(send(&reply, &Reply::Failed(failure), &[])),
    }
}

/// Makes the process that runs hooks outside of the step that has just been started. If that cannot be, the
/// step sees its connection close.
fn start_runner(
    request: &Request,
    step: Pid,
    connection: OwnedFd,
    prepared: &Prepared,
) -> Result<(), Errno> {
    if fork::clone3(0, None)?.is_none() {
        let users = prepared.users.as_ref();
        match fd::close_all_but([connection]) {
            Ok([connection]) => hooks::serve(request, step, &connection, users),
            Err(_) => fork::exit(1),
        }
    }
    Ok(())
}

/// Makes the user namespace of confined steps, and tries it out before anyone relies on it.
fn set_users(wanted: &UsersRequest, fds: Vec<OwnedFd>, prepared: &mut Prepared) {
    let made = Users::make(wanted);
    answer_from_child(fds, || match &made {
        Ok(users) => users.try_out(&wanted.trial).map(|()| None),
        Err(failure) => Err(failure.clone()),
    });
    prepared.users = made.ok();
}

fn new_network(prepared: &Prepared) -> Result<OwnedFd, Failure> {
    match &prepared.users {
        Some(users) => users.new_network(),
        None => Err(Errno::BADMSG).at(Stage::Request, "a network namespace"),
    }
}

/// Does `work` in a process of its own, and sends what comes of it to the reply socket, the only
/// descriptor of such requests.
fn answer_from_child(fds: Vec<OwnedFd>, work: impl FnOnce() -> Result<Option<OwnedFd>, Failure>) {
    let Some(reply) = fds.into_iter().next() else { return };
    // Whoever has asked may have given up.
    match fork::clone3(0, None).at(Stage::Namespaces, "clone") {
        Ok(Some(_)) => {}
        Ok(None) => {
            let _ = match work() {
                Ok(made) => {
                    let made: Vec<_> = made.iter().map(AsFd::as_fd).collect();
                    send(&reply, &Reply::Made, &made)
                }
                Err(failure) => send(&reply, &Reply::Failed(failure), &[]),
            };
            fork::exit(0)
        }
        Err(failure) => drop(send(&reply, &Reply::Failed(failure), &[])),
    }
}
