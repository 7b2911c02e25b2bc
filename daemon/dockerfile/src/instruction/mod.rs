//! The instructions of a Dockerfile, one type each.
//!
//! Where variables are replaced later, fields hold words as they were written.

mod arg;
mod command_line;
mod copy;
mod device;
mod expose;
mod from;
mod healthcheck;
mod key_value;
mod mount;
mod mount_fields;
mod onbuild;
mod parse;
mod run;
mod statement;

pub use arg::ArgDefinition;
pub use command_line::CommandLine;
pub use copy::{Add, Copy, InlineFile, Transfer};
pub use device::{Device, DeviceError};
pub use expose::{ExposedPorts, PortError, PortRange, Protocol, parse_port};
pub use from::Stage;
pub use healthcheck::{Healthcheck, HealthcheckError, Timing};
pub use key_value::KeyValue;
pub use mount::{
    CacheOwner, FileOwner, Mount, MountError, MountKind, MountSpec, SecretMount, Sharing, SshMount,
    parse_mount,
};
pub use onbuild::parse_trigger;
pub use run::{Network, Program, Run, Security};

pub(crate) use mount::boolean;
pub(crate) use parse::{Parsed, parse};
pub(crate) use statement::Statement;

use crate::Location;
use crate::lines::Comments;

/// One instruction of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The keyword, in the case in which it was written.
    pub keyword: String,
    /// The whole instruction as one line, its continuations joined, without heredoc bodies:
    /// what a step's name and its history comment are made of.
    pub source: String,
    /// Its lines, heredoc bodies included.
    pub location: Location,
    /// The comments before it.
    pub comments: Comments,
    /// What it says.
    pub command: Command,
}

/// What an instruction says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `ADD`
    Add(Add),
    /// `ARG`: one or more definitions.
    Arg(Vec<ArgDefinition>),
    /// `CMD`
    Cmd(CommandLine),
    /// `COPY`
    Copy(Copy),
    /// `ENTRYPOINT`
    Entrypoint(CommandLine),
    /// `ENV`: pairs in order.
    Env(Vec<KeyValue>),
    /// `EXPOSE`: words in sorted order, to be expanded and given to [`parse_port`].
    Expose(Vec<String>),
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `LABEL`: pairs in order.
    Label(Vec<KeyValue>),
    /// `MAINTAINER`
    Maintainer(String),
    /// `ONBUILD`: the trigger as images store it.
    Onbuild(String),
    /// `RUN`
    Run(Run),
    /// `SHELL`
    Shell(Vec<String>),
    /// `STOPSIGNAL`
    StopSignal(String),
    /// `USER`
    User(String),
    /// `VOLUME`
    Volume(Vec<String>),
    /// `WORKDIR`
    Workdir(String),
}
