//! Pseudo terminals, for processes that are used by hand.

use std::os::fd::OwnedFd;

use anyhow::Context as _;
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// A terminal: the end that is held here, and the one that the process gets.
pub(super) fn terminal() -> anyhow::Result<(OwnedFd, OwnedFd)> {
    let make = || {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let theirs = open(ptsname(&ours, Vec::new())?, flags, Mode::empty())?;
        Ok::<_, rustix::io::Errno>((ours, theirs))
    };
    make().context("cannot make a terminal")
}
