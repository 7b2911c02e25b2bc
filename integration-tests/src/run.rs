//! Runs `kiln` as a user does.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::process::Process;
use crate::programs;
use crate::progress::{Progress, State, Step};
use crate::tap::Tap;
use crate::terminal::AtTerminal;

/// No build of the tests comes near; a program that hangs ends the test.
const LIMIT: Duration = Duration::from_mins(3);

/// Variables that mean something to `kiln`.
const FOREIGN: [&str; 9] = [
    "BUILDKIT_COLORS",
    "BUILDKIT_HOST",
    "BUILDKIT_PROGRESS",
    "BUILDX_METADATA_WARNINGS",
    "DOCKER_CONFIG",
    "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY",
    "NO_COLOR",
    "SOURCE_DATE_EPOCH",
    "XDG_STATE_HOME",
];

/// A command line of `kiln` that is not yet running.
pub struct Invocation {
    command: Command,
    stdin: Vec<u8>,
}

impl Invocation {
    /// `kiln` for the daemon at `host`, without the environment of whoever runs the tests; what it
    /// remembers goes to `home`.
    pub(crate) fn new(host: &str, home: &Path) -> Self {
        let mut command = Command::new(programs::kiln());
        for variable in FOREIGN {
            command.env_remove(variable);
        }
        command.env("KILN_HOST", host).env("HOME", home);
        Self { command, stdin: Vec::new() }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// What the program reads from its standard input; nothing if this is not called.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Runs in `folder`.
    pub fn current_dir(mut self, folder: impl AsRef<Path>) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Starts it and returns while it runs.
    pub fn start(mut self) -> Running {
        let mut process = Process::spawn(
            self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()),
        );
        let child = process.child();
        let stdout = Tap::on(child.stdout.take().expect("stdout"));
        let stderr = Tap::on(child.stderr.take().expect("stderr"));
        let mut stdin = child.stdin.take().expect("stdin");
        let bytes = self.stdin;
        // A thread, as the program may write before it has read everything; a program that ends
        // without reading is none of this thread's business.
        std::thread::spawn(move || {
            let _ = stdin.write_all(&bytes);
        });
        Running { process, stdout, stderr }
    }

    /// Starts it with a terminal as its streams.
    pub fn at_terminal(mut self) -> AtTerminal {
        AtTerminal::start(&mut self.command)
    }

    /// Runs it to its end.
    pub fn run(self) -> Outcome {
        self.start().finish()
    }

    /// Runs it to its end, which must be a success.
    #[track_caller]
    pub fn succeeds(self) -> Outcome {
        let outcome = self.run();
        assert_eq!(outcome.code, Some(0), "the command failed:\n{}", outcome.stderr);
        outcome
    }

    /// Runs it to its end, which must be an error that the program reports (no signal, no panic).
    #[track_caller]
    pub fn fails(self) -> Outcome {
        let outcome = self.run();
        assert!(outcome.code.is_some_and(|code| code != 0), "it did not fail:\n{}", outcome.stderr);
        assert!(!outcome.stderr.contains("panicked at"), "a panic:\n{}", outcome.stderr);
        outcome
    }
}

/// A `kiln` that runs.
pub struct Running {
    process: Process,
    stdout: Tap,
    stderr: Tap,
}

impl Running {
    /// Waits until the log has a line with `needle`.
    #[track_caller]
    pub fn until(&self, needle: &str) -> &Self {
        self.until_line(needle, |line| line.contains(needle))
    }

    /// Waits until a step has printed a line that ends with the word `output`. The step's name, which
    /// may have the word in the middle, does not count.
    #[track_caller]
    pub fn until_output(&self, output: &str) -> &Self {
        self.until_line(output, |line| line.ends_with(&format!(" {output}")))
    }

    #[track_caller]
    fn until_line(&self, what: &str, is_it: impl Fn(&str) -> bool) -> &Self {
        let found = self.stderr.line(is_it, LIMIT);
        assert!(found.is_some(), "the log never said {what:?}:\n{}", self.stderr.text());
        self
    }

    /// Sends it `signal`.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Whether it ends within `limit`. For tests that interrupt it at a moment which nothing
    /// announces.
    pub fn ends_within(&mut self, limit: Duration) -> bool {
        self.process.wait_within(limit).is_some()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn finish(mut self) -> Outcome {
        let Some(status) = self.process.wait_within(LIMIT) else {
            panic!("the command does not end; its log so far:\n{}", self.stderr.text());
        };
        Outcome {
            code: status.code(),
            stdout: self.stdout.finish(LIMIT),
            stderr: String::from_utf8_lossy(&self.stderr.finish(LIMIT)).into_owned(),
        }
    }
}

/// What a finished `kiln` has left.
pub struct Outcome {
    /// Exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error: the log.
    pub stderr: String,
}

impl Outcome {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The log's steps.
    pub fn progress(&self) -> Progress {
        Progress::parse(&self.stderr)
    }

    /// The step of an instruction, as the log names it.
    #[track_caller]
    pub fn step(&self, instruction: &str) -> Step {
        let progress = self.progress();
        let step = progress.find(instruction).cloned();
        step.unwrap_or_else(|| panic!("no step {instruction:?} in this log:\n{}", self.stderr))
    }

    /// Fails unless the step of an instruction ended as `expected`.
    #[track_caller]
    pub fn step_is(&self, instruction: &str, expected: &State) -> &Self {
        let state = self.step(instruction).state;
        assert!(state == *expected, "{instruction:?} is {state:?}, in this log:\n{}", self.stderr);
        self
    }

    /// Whether the log has a step of this instruction at all.
    pub fn has_step(&self, instruction: &str) -> bool {
        self.progress().find(instruction).is_some()
    }

    /// The steps of the Dockerfile that were run, not reused; FROM is none.
    pub fn ran(&self) -> Vec<String> {
        self.instructions(&State::Done)
    }

    /// The steps of the Dockerfile that were reused; FROM is none.
    pub fn cached(&self) -> Vec<String> {
        self.instructions(&State::Cached)
    }

    /// Fails unless the log has `text`.
    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        assert!(self.stderr.contains(text), "the log does not say {text:?}:\n{}", self.stderr);
        self
    }

    fn instructions(&self, state: &State) -> Vec<String> {
        self.progress()
            .steps()
            .filter(|step| step.state == *state)
            .filter_map(|step| step.name.strip_prefix('[')?.split_once("] "))
            .filter(|(stage, instruction)| stage.contains('/') && !instruction.starts_with("FROM "))
            .map(|(_, instruction)| instruction.to_owned())
            .collect()
    }
}
