//! The command line: flags as the user wrote them, and what their values mean.

pub(crate) mod annotation;
pub(crate) mod attestation;
pub(crate) mod boolean;
pub(crate) mod cache;
pub(crate) mod call;
pub(crate) mod context;
pub(crate) mod csv;
pub(crate) mod entitlement;
pub(crate) mod hosts;
pub(crate) mod invalid;
pub(crate) mod key_value;
pub(crate) mod on_error;
pub(crate) mod output;
pub(crate) mod platform;
pub(crate) mod reference;
pub(crate) mod resource;
pub(crate) mod secret;
pub(crate) mod size;
pub(crate) mod ssh;
pub(crate) mod template;
pub(crate) mod ulimit;

mod build;
mod usage;

pub(crate) use build::{BuildFlags, ProgressMode};
pub(crate) use template::{FIELDS, Piece, Template};
pub(crate) use usage::{DuFlags, DuFormat, PruneFlags};

use clap::{Parser, Subcommand};

/// Builds container images.
#[derive(Debug, Parser)]
#[command(name = "kiln", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// The daemon to talk to: unix://PATH or tcp://HOST:PORT
    ///
    /// Without one, BUILDKIT_HOST says, or else a daemon of this machine, which is started when
    /// there is none.
    #[arg(short = 'H', long, global = true, env = "KILN_HOST", value_name = "ADDRESS")]
    pub(crate) host: Option<String>,

    /// Print details of warnings and errors
    #[arg(short = 'D', long, global = true)]
    pub(crate) debug: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a Dockerfile
    #[command(visible_alias = "b")]
    Build(Box<BuildFlags>),
    /// Show what the daemon's cache holds
    Du(DuFlags),
    /// Remove cache that is not in use
    Prune(PruneFlags),
    /// Show the daemon, its platforms and its rules for the cache
    Info,
    /// Print the client's version
    Version,
}
