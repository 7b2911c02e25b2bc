use super::{CommandLine, Device, MountSpec, Statement};
use crate::error::ErrorKind;
use crate::flags::{Flags, Takes};
use crate::heredoc::Heredoc;

/// `RUN`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The command, as written; see [`program`](Self::program) for what heredocs make of it.
    pub command: CommandLine,
    /// The heredocs it starts.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`, as often as it was given.
    pub mounts: Vec<MountSpec>,
    /// `--network`, or the default.
    pub network: Network,
    /// `--security`, or the default.
    pub security: Security,
    /// `--device`, as often as it was given.
    pub devices: Vec<Device>,
}

/// The network of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// What the build asks for.
    #[default]
    Default,
    /// Only loopback.
    None,
    /// The host's.
    Host,
}

/// The isolation of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// The usual isolation.
    #[default]
    Sandbox,
    /// All capabilities.
    Insecure,
}

/// What a step runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// This program, without a shell.
    Exec(Vec<String>),
    /// This text, by the stage's shell.
    Shell(String),
    /// This text as an executable file of its own, since it starts with `#!`.
    Script {
        /// The file's name.
        name: String,
        /// The file's content.
        content: String,
    },
}

impl Run {
    pub(crate) fn parse(statement: &Statement) -> Result<Self, ErrorKind> {
        const FLAGS: &[(&str, Takes)] = &[
            ("mount", Takes::Values),
            ("network", Takes::Value),
            ("security", Takes::Value),
            ("device", Takes::Values),
        ];
        let mut flags = Flags::parse(&statement.flags, FLAGS)?;
        let mounts = flags.values("mount");
        let devices = flags.values("device");
        Ok(Self {
            command: CommandLine::parse(statement)?,
            heredocs: statement.heredocs.clone(),
            mounts: mounts.iter().map(|mount| MountSpec::parse(mount)).collect::<Result<_, _>>()?,
            network: network(flags.value("network"))?,
            security: security(flags.value("security"))?,
            devices: devices
                .iter()
                .map(|device| Device::parse(device))
                .collect::<Result<_, _>>()?,
        })
    }

    /// What to run: a heredoc that stands alone is the script itself, others go to the shell
    /// together with the line that they belong to.
    pub fn program(&self) -> Program {
        let line = match &self.command {
            CommandLine::Exec(words) => return Program::Exec(words.clone()),
            CommandLine::Shell(line) => line,
        };
        let Some(first) = self.heredocs.first() else { return Program::Shell(line.clone()) };
        if matches!(Heredoc::from_word(line), Ok(Some(_))) {
            let content = first.body();
            return if content.starts_with("#!") {
                Program::Script { name: first.name.clone(), content }
            } else {
                Program::Shell(content)
            };
        }
        let mut text = line.clone();
        for heredoc in &self.heredocs {
            text.push('\n');
            text.push_str(&heredoc.content);
            text.push_str(&heredoc.name);
        }
        Program::Shell(text)
    }

    /// The first line of a heredoc that is the whole command, for the step's name; with an
    /// ellipsis if there are more lines.
    pub fn summary(&self) -> Option<String> {
        let CommandLine::Shell(line) = &self.command else { return None };
        let first = self.heredocs.first()?;
        if !matches!(Heredoc::from_word(line), Ok(Some(_))) {
            return None;
        }
        let mut lines = first.content.trim().lines();
        let summary = lines.next().unwrap_or_default().to_owned();
        Some(if lines.next().is_some() { summary + "..." } else { summary })
    }
}

fn network(value: Option<String>) -> Result<Network, ErrorKind> {
    match value.as_deref() {
        None | Some("default") => Ok(Network::Default),
        Some("none") => Ok(Network::None),
        Some("host") => Ok(Network::Host),
        Some(_) => Err(ErrorKind::InvalidNetwork { value: value.unwrap_or_default() }),
    }
}

fn security(value: Option<String>) -> Result<Security, ErrorKind> {
    match value.as_deref() {
        None | Some("sandbox") => Ok(Security::Sandbox),
        Some("insecure") => Ok(Security::Insecure),
        Some(_) => Err(ErrorKind::InvalidSecurity { value: value.unwrap_or_default() }),
    }
}
