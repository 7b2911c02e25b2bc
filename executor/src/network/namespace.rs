//! Network namespaces that no process has to be in.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::sys::net;

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
        work: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<(Self, T), Errno> {
        let visit = || {
            net::new_namespace()?;
            net::bring_up_loopback()?;
            Ok((Self::current()?, work()?))
        };
        let visited = visit();
        enter(self.as_fd())?;
        visited
    }
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
