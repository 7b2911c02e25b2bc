//! Network namespaces that no process has to be in.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::sys::net;
use crate::zygote::{self, protocol::Request};

/// A network namespace. It exists as long as this, or a process in it.
#[derive(Debug)]
pub(crate) struct Namespace(OwnedFd);

impl Namespace {
    /// That of the calling thread.
    pub(super) fn current() -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        open(c"/proc/thread-self/ns/net", flags, Mode::empty()).map(Self)
    }

    /// Makes another, in which loopback is up, and does `work` in it. For a thread that is in this
    /// one, and is again afterwards.
    pub(super) fn visit_new<T>(
        &self,
        owner: &Owner,
        work: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<(Self, T), Errno> {
        let visit = || {
            match owner {
                Owner::Daemon => net::new_namespace()?,
                Owner::Steps(zygote) => enter(new_of_steps(zygote)?.as_fd())?,
            }
            net::bring_up_loopback()?;
            Ok((Self::current()?, work()?))
        };
        let visited = visit();
        enter(self.as_fd())?;
        visited
    }
}

/// Whose root has rights over a network namespace.
#[derive(Debug)]
pub(crate) enum Owner {
    /// The user namespace that this process is in.
    Daemon,
    /// That of confined steps, which the zygote at the other end can enter.
    Steps(OwnedFd),
}

fn new_of_steps(zygote: &OwnedFd) -> Result<OwnedFd, Errno> {
    let made = zygote::ask(zygote.as_fd(), &Request::NetworkNamespace);
    made.map_err(|failure| Errno::from_raw_os_error(failure.errno))?.ok_or(Errno::BADMSG)
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Moves the calling thread into a network namespace.
pub(crate) fn enter(namespace: BorrowedFd<'_>) -> Result<(), Errno> {
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
}
