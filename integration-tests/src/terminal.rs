//! `kiln` as somebody at a terminal runs it.

use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::process::Process;
use crate::tap::Tap;

/// As long as anything at a terminal may take.
const LIMIT: Duration = Duration::from_mins(1);

/// A program whose streams are a terminal, and the hands and eyes of its user.
pub struct AtTerminal {
    process: Process,
    keyboard: File,
    screen: Tap,
}

impl AtTerminal {
    pub(crate) fn start(command: &mut Command) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
        let ours = ours.expect("a terminal");
        grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("a terminal");
        let name = ptsname(&ours, Vec::new()).expect("the name of a terminal");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let theirs = open(name, flags, Mode::empty()).expect("the other end of a terminal");
        let stream = || Stdio::from(theirs.try_clone().expect("a descriptor"));
        let process = Process::spawn(command.stdin(stream()).stdout(stream()).stderr(stream()));
        // The command has copies, which would keep the terminal open.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let keyboard = File::from(ours.try_clone().expect("a descriptor"));
        Self { process, keyboard, screen: Tap::on(File::from(ours)) }
    }

    /// Waits until the screen has had `text`.
    #[track_caller]
    pub fn until(&self, text: &str) -> &Self {
        let found = self.screen.text_with(text, LIMIT);
        assert!(found, "the screen never had {text:?}:\n{}", self.screen.text());
        self
    }

    /// Types `text`.
    pub fn types(&mut self, text: &str) -> &mut Self {
        self.keyboard.write_all(text.as_bytes()).expect("a terminal");
        self
    }

    /// Gives the terminal another size, of which the program is told.
    pub fn resizes(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.keyboard, size).expect("a terminal");
        self.process.signal(rustix::process::Signal::WINCH);
    }

    /// Whether the terminal handles lines and signals itself, as it does unless a program wants keys.
    pub fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.keyboard).expect("a terminal").local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ISIG | LocalModes::ECHO)
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        self.process.signal(signal);
    }

    /// Waits for the program's end: its exit code, and all that was on the screen.
    #[track_caller]
    pub fn finish(mut self) -> (Option<i32>, String) {
        let Some(status) = self.process.wait_within(LIMIT) else {
            panic!("the program does not end:\n{}", self.screen.text());
        };
        assert!(self.is_cooked(), "the terminal is not as it was");
        (status.code(), String::from_utf8_lossy(&self.screen.finish(LIMIT)).into_owned())
    }
}
