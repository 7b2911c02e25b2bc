//! Failures on request: for tests of what is left when a process ends, or its disk fails, between
//! two steps.
//!
//! Every step that a crash may part from the next one passes a **point** here: before and after a
//! batch of rows, before a blob gets its name, between the removal of a row and that of its
//! directory. Points are counted from the start of the process. If the environment has
//! `KILN_TEST_FAULT`, the process fails at one of them:
//!
//! - `kill:7`: it sends itself SIGKILL at the seventh point;
//! - `EIO:7` or `ENOSPC:7-20`: from the seventh point on (to the twentieth) the points at which
//!   something is written to a file fail with that error.
//!
//! It is part of the program, not of a build for tests, since it is the program that is tested; a
//! point costs the read of one variable. What RocksDB does with a disk that fails is tested with
//! disks that fail.

use std::{
    io,
    ops::RangeInclusive,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    io::Errno,
    process::{Signal, getpid, kill_process},
};

/// The variable that asks for a failure.
const VARIABLE: &str = "KILN_TEST_FAULT";

/// A failure that was asked for.
struct Fault {
    kind: Kind,
    at: RangeInclusive<u64>,
    passed: AtomicU64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Kill,
    Fail(Errno),
}

/// Of the process, as its environment is.
static FAULT: OnceLock<Option<Fault>> = OnceLock::new();

/// A point at which the process may be killed.
pub fn may_die() {
    if let Some(fault) = asked_for() {
        // A failure needs somebody to tell it to.
        _ = fault.pass(|kind| kind == Kind::Kill);
    }
}

/// A point at which, besides, something is about to be written.
pub fn may_fail() -> io::Result<()> {
    match asked_for() {
        Some(fault) => fault.pass(|_| true),
        None => Ok(()),
    }
}

fn asked_for() -> Option<&'static Fault> {
    let read = || {
        let text = std::env::var(VARIABLE).ok()?;
        let fault = parse(&text);
        if fault.is_none() {
            tracing::warn!(text, "{VARIABLE} is not understood");
        }
        fault
    };
    FAULT.get_or_init(read).as_ref()
}

fn parse(text: &str) -> Option<Fault> {
    let (kind, at) = text.split_once(':')?;
    let kind = match kind {
        "kill" => Kind::Kill,
        "EIO" => Kind::Fail(Errno::IO),
        "ENOSPC" => Kind::Fail(Errno::NOSPC),
        _ => return None,
    };
    let at = match at.split_once('-') {
        Some((first, last)) => first.parse().ok()?..=last.parse().ok()?,
        None => at.parse().ok()?..=u64::MAX,
    };
    Some(Fault { kind, at, passed: AtomicU64::new(0) })
}

impl Fault {
    fn pass(&self, applies: impl FnOnce(Kind) -> bool) -> io::Result<()> {
        let number = self.passed.fetch_add(1, Ordering::Relaxed) + 1;
        if !self.at.contains(&number) || !applies(self.kind) {
            return Ok(());
        }
        match self.kind {
            Kind::Kill => {
                _ = kill_process(getpid(), Signal::KILL);
                // The signal has been sent to all threads, of which this one goes no further.
                loop {
                    std::thread::park();
                }
            }
            Kind::Fail(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_asked_for_by_kind_and_points() {
        for (text, kind, at) in [
            ("kill:3", Kind::Kill, 3..=u64::MAX),
            ("EIO:1-2", Kind::Fail(Errno::IO), 1..=2),
            ("ENOSPC:10", Kind::Fail(Errno::NOSPC), 10..=u64::MAX),
        ] {
            let fault = parse(text).unwrap();
            assert_eq!((fault.kind, fault.at), (kind, at), "{text}");
        }
        for text in ["", "kill", "kill:", "EIO:x", "EPERM:1", "EIO:1-"] {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn the_points_asked_for_fail_and_no_others() {
        let fault = parse("EIO:2-3").unwrap();
        let failed: Vec<_> = (0..5).map(|_| fault.pass(|_| true).is_err()).collect();
        assert_eq!(failed, [false, true, true, false, false]);
    }
}
