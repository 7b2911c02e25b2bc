//! What the user sees of a build while it runs.
//!
//! [`Trace`](trace::Trace) knows what the daemon has told, and each view shows it in its way.

mod color;
mod interval;
mod log;
mod plain;
mod rawjson;
mod step;
mod term;
mod time;
mod trace;
mod tty;
mod warnings;

#[cfg(test)]
mod tests;

pub(crate) use rawjson::warning as warning_json;
pub(crate) use time::Time;

use crate::args::ProgressMode;
use color::Colors;
use kiln_proto::control::{StatusResponse, VertexWarning};
use plain::Plain;
use rustix::termios;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};
use thiserror::Error;
use tty::{Size, Tty};

/// Views are not drawn more often than this, and at least as often as [`TICK`].
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// How often a view is to be told that time has passed.
pub(crate) const TICK: Duration = Duration::from_millis(150);

/// A progress that cannot be shown.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum BadMode {
    /// There is no terminal.
    #[error("--progress=tty: standard error is not a terminal")]
    NoTerminal,
    /// Two wishes that exclude each other.
    #[error("--progress={0} and --quiet cannot be used together")]
    QuietAnd(&'static str),
    /// A variable that names none.
    #[error("BUILDKIT_PROGRESS: {0:?} is not a type of progress")]
    Variable(String),
}

/// The view of a build. Nothing that happens to it fails the build: the terminal may be gone.
#[derive(Debug)]
pub(crate) struct Progress {
    view: View,
    colors: Colors,
    drawn: Option<Instant>,
    is_finished: bool,
    warnings: Vec<VertexWarning>,
}

#[derive(Debug)]
enum View {
    Tty(Box<Tty>),
    Plain(Box<Plain>),
    RawJson,
    Silent,
}

/// The mode that a command line and the environment ask for.
pub(crate) fn mode(
    flag: ProgressMode,
    is_quiet: bool,
    env: impl Fn(&str) -> Option<String>,
) -> Result<ProgressMode, BadMode> {
    let name = match flag {
        ProgressMode::Auto | ProgressMode::Quiet | ProgressMode::None => None,
        ProgressMode::Tty => Some("tty"),
        ProgressMode::Plain => Some("plain"),
        ProgressMode::Rawjson => Some("rawjson"),
    };
    match (is_quiet, name, flag) {
        (true, Some(name), _) => Err(BadMode::QuietAnd(name)),
        (true, None, ProgressMode::None) => Err(BadMode::QuietAnd("none")),
        (true, ..) => Ok(ProgressMode::Quiet),
        (false, _, ProgressMode::Auto) => match env("BUILDKIT_PROGRESS").as_deref() {
            None | Some("" | "auto") => Ok(ProgressMode::Auto),
            Some("tty") => Ok(ProgressMode::Tty),
            Some("plain") => Ok(ProgressMode::Plain),
            Some("quiet" | "none") => Ok(ProgressMode::None),
            Some("rawjson") => Ok(ProgressMode::Rawjson),
            Some(other) => Err(BadMode::Variable(other.to_owned())),
        },
        (false, _, flag) => Ok(flag),
    }
}

impl Progress {
    /// A view on standard error.
    pub(crate) fn new(
        mode: ProgressMode,
        env: impl Fn(&str) -> Option<String> + Copy,
    ) -> Result<Self, BadMode> {
        let is_terminal = io::stderr().is_terminal();
        let colors = if is_terminal { Colors::from_env(env) } else { Colors::none() };
        let tty = || {
            let rows = env("BUILDKIT_TTY_LOG_LINES").and_then(|rows| rows.parse().ok());
            View::Tty(Box::new(Tty::new(colors.clone(), rows)))
        };
        let plain = || {
            let truncates = env("PROGRESS_NO_TRUNC").as_deref() == Some("0");
            View::Plain(Box::new(Plain::new(truncates)))
        };
        let view = match mode {
            ProgressMode::Auto | ProgressMode::Tty if is_terminal => tty(),
            ProgressMode::Tty => return Err(BadMode::NoTerminal),
            ProgressMode::Auto | ProgressMode::Plain => plain(),
            ProgressMode::Rawjson => View::RawJson,
            ProgressMode::Quiet | ProgressMode::None => View::Silent,
        };
        Ok(Self { view, colors, drawn: None, is_finished: false, warnings: Vec::new() })
    }

    /// Takes in what the daemon told, and shows it, perhaps a little later.
    pub(crate) fn update(&mut self, status: &StatusResponse) {
        self.warnings.extend(status.warnings.iter().cloned());
        if self.is_finished {
            return;
        }
        match &mut self.view {
            View::Tty(tty) => tty.update(status, Time::now()),
            View::Plain(plain) => plain.update(status, Time::now()),
            View::RawJson => drop(rawjson::write(status, &mut io::stderr().lock())),
            View::Silent => {}
        }
        if self.drawn.is_none_or(|drawn| drawn.elapsed() >= SHORTEST_PAUSE) {
            self.refresh();
        }
    }

    /// Shows what is new, and that time has passed.
    pub(crate) fn refresh(&mut self) {
        if self.is_finished {
            return;
        }
        self.drawn = Some(Instant::now());
        let mut out = io::stderr().lock();
        let _ = match &mut self.view {
            View::Tty(tty) => tty.refresh(size(), Time::now(), &mut out),
            View::Plain(plain) => plain.refresh(Time::now(), &mut out),
            View::RawJson | View::Silent => Ok(()),
        };
    }

    /// Shows how it ended: what is left, the output of steps that failed, and warnings, with
    /// their details if `is_verbose`. Nothing more is shown after that.
    pub(crate) fn finish(&mut self, is_verbose: bool) {
        if std::mem::replace(&mut self.is_finished, true) {
            return;
        }
        let mut out = io::stderr().lock();
        let _ = match &mut self.view {
            View::Tty(tty) => tty.finish(size(), Time::now(), &mut out),
            View::Plain(plain) => plain.finish(Time::now(), &mut out),
            View::RawJson | View::Silent => return,
        };
        let _ = warnings::write(&self.warnings(), &self.colors, is_verbose, &mut out);
    }

    /// The warnings that came, each once.
    pub(crate) fn warnings(&self) -> Vec<VertexWarning> {
        warnings::unique(&self.warnings)
    }
}

/// The size of the terminal, or of a small one.
fn size() -> Size {
    match termios::tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            Size { columns: size.ws_col.into(), rows: size.ws_row.into() }
        }
        _ => Size { columns: 80, rows: 10 },
    }
}
