//! Steps with a terminal.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use common::Bench;
use kiln_executor::{ExitStatus, ProcessIo};
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// The daemon's side of a new terminal, and streams on the step's side.
fn terminal() -> (File, ProcessIo) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let theirs = open(ptsname(&ours, Vec::new()).unwrap(), flags, Mode::empty()).unwrap();
    let clone = || OwnedFd::try_clone(&theirs).unwrap();
    let io = ProcessIo { stdin: Some(clone()), stdout: clone(), stderr: theirs };
    (ours.into(), io)
}

/// Reads until `end` has been printed, or the other side is closed.
fn read_until(terminal: &mut File, end: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while !text.contains(end) {
        match terminal.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => text.push_str(&String::from_utf8_lossy(&buffer[..length])),
        }
    }
    text
}

#[tokio::test]
async fn a_terminal_is_the_controlling_one_and_has_a_name_and_a_size() {
    let bench = Bench::new();
    let script = "tty; [ -t 0 ] && echo terminal; echo hello > /dev/tty; read line; \
        until [ \"$(stty size)\" = '33 99' ]; do sleep 0.01; done; echo sized; exit 3";
    let mut spec = bench.spec(script);
    spec.tty = true;
    let (mut ours, io) = terminal();
    let mut running = bench.executor.run(spec, io).await.unwrap();
    let handle = running.handle().clone();
    let read = tokio::task::spawn_blocking(move || {
        let before = read_until(&mut ours, "hello\r\n");
        handle.resize(33, 99);
        ours.write_all(b"go\n").unwrap();
        // Closing the terminal here would hang up on the step.
        (before, read_until(&mut ours, "sized"), ours)
    });
    assert_eq!(running.wait().await.unwrap().status, ExitStatus::Code(3));
    let (before, after, _ours) = read.await.unwrap();
    assert_eq!(before, "/dev/console\r\nterminal\r\nhello\r\n");
    assert!(after.contains("sized"), "{after}");
}

#[tokio::test]
async fn interrupt_typed_at_a_terminal_reaches_the_command() {
    let bench = Bench::new();
    let mut spec = bench.spec("echo ready; sleep 100");
    spec.tty = true;
    let (mut ours, io) = terminal();
    let mut running = bench.executor.run(spec, io).await.unwrap();
    let read = tokio::task::spawn_blocking(move || {
        read_until(&mut ours, "ready");
        ours.write_all(b"\x03").unwrap();
        ours
    });
    assert_eq!(running.wait().await.unwrap().status, ExitStatus::Signal(libc::SIGINT));
    drop(read.await.unwrap());
}
