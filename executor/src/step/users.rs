//! The user namespace of confined steps, where the daemon is the host's root.
//!
//! There is one for all of them, made once: what keeps steps apart is their other namespaces, and
//! ids of their own would take 65,536 of the host's each. Only the command enters it. What sets the
//! step up, and process 1, stay outside, so that the step has no rights over its own mounts, control
//! groups and host name, and everything is mounted as without it; only network namespaces belong to
//! it, because programs such as `ping` need rights there.
//!
//! Layers and caches keep the ids that steps know: they are reached through idmapped mounts. These
//! are made once, too, as a mount over the daemon's directory in a mount namespace that is otherwise
//! the host's. A step is set up from there, and takes overlays and binds with it without knowing.
//! What lies elsewhere on the host is shown with the host's ids, which are nobody's in the step.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use super::attach::{copy, onto};
use super::{overlay, root};
use crate::sys::mount::{isolate_mapped, new_namespace, receive_only};
use crate::sys::{net, user};
use crate::user_namespace::SubordinateIds;
use crate::zygote::protocol::{At, Failure, Overlay, Stage, UsersRequest};

/// The namespace with what belongs to it.
#[derive(Debug)]
pub(crate) struct Users {
    namespace: OwnedFd,
    /// The host's mounts with the daemon's directory idmapped.
    mounts: OwnedFd,
    ids: SubordinateIds,
}

impl Users {
    /// Makes it, in the zygote, which returns to the mount namespace that it is in.
    pub(crate) fn make(wanted: &UsersRequest) -> Result<Self, Failure> {
        let ids = wanted.ids.clone();
        let namespace = user::namespace(&ids.uid_map(), &ids.gid_map())
            .at(Stage::Namespaces, "make a user namespace")?;
        let home = root::this_namespace().at(Stage::Namespaces, "open the host's")?;
        new_namespace().at(Stage::Namespaces, "unshare mounts")?;
        let made = map_directory(&wanted.directory, &namespace);
        root::enter(&home).at(Stage::Namespaces, "return to the host's")?;
        Ok(Self { namespace, mounts: made?, ids })
    }

    /// Shows that layers can be joined there, in a process made for it. The upper directory is empty,
    /// and stays so.
    pub(crate) fn try_out(&self, layers: &Overlay) -> Result<(), Failure> {
        self.enter_mounts()?;
        overlay::mount(layers, false, None).map(drop)
    }

    /// Moves this process, which is to set a step up, to where the daemon's directory is idmapped. What
    /// it makes in file systems then belongs to root of the namespace.
    pub(super) fn enter_mounts(&self) -> Result<(), Failure> {
        root::enter(&self.mounts).at(Stage::Namespaces, "enter idmapped mounts")?;
        self.make_files_as_root().at(Stage::Privileges, "ids of files")
    }

    /// The namespace, for [`join`].
    pub(super) fn namespace(&self) -> Result<OwnedFd, Errno> {
        self.namespace.as_fd().try_clone_to_owned().map_err(|_| Errno::MFILE)
    }

    /// A network namespace in which root of this one has rights, for a process made for it.
    pub(crate) fn new_network(&self) -> Result<OwnedFd, Failure> {
        let make = || {
            user::enter(&self.namespace)?;
            net::new_namespace()?;
            open(c"/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        };
        make().at(Stage::Network, "make a network namespace")
    }

    /// The host's ids for those of a step; a request has none that has no such.
    pub(super) fn ids(&self, uid: u32, gid: u32) -> Result<(u32, u32), Errno> {
        self.ids.uid(uid).zip(self.ids.gid(gid)).ok_or(Errno::OVERFLOW)
    }

    /// Has this process own what it makes in file systems as root of the namespace.
    pub(super) fn make_files_as_root(&self) -> Result<(), Errno> {
        let (uid, gid) = self.ids(0, 0)?;
        user::make_files_as(uid, gid)
    }
}

/// Moves this process, which is to become a command, into the namespace, where it is nobody yet.
pub(super) fn join(namespace: &OwnedFd) -> Result<(), Failure> {
    user::enter(namespace).at(Stage::Namespaces, "enter the user namespace")
}

/// Mounts `directory` over itself in this mount namespace, a copy of the host's, with the ids of
/// `users`, and returns the namespace.
fn map_directory(directory: &CStr, users: &OwnedFd) -> Result<OwnedFd, Failure> {
    receive_only().at(Stage::Namespaces, "leave the host's mounts")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let map = || {
        let place = open(directory, flags, Mode::empty())?;
        let mapped = copy(place.as_fd(), c"", true)?;
        isolate_mapped(mapped.as_fd(), users.as_fd(), true)?;
        onto(mapped.as_fd(), place.as_fd())
    };
    map().at(Stage::Idmap, directory.to_bytes())?;
    root::this_namespace().at(Stage::Namespaces, "open the idmapped mounts")
}
