//! Kiln's daemon: builds container images for clients that speak BuildKit's API.
//!
//! The modules, in the order in which a build flows through them: [`control`] and [`session`]
//! take requests and reach back to clients; [`frontend`] makes a [`graph`]; [`solver`] evaluates
//! it by [`ops`] on [`layers`]; [`image`], [`remote`] and [`exporter`] exchange results with the
//! world; [`history`] remembers what was built.

mod attestation;
mod attributes;
mod builds;
mod caches;
mod caps;
mod check;
mod collector;
mod compression;
mod config;
mod control;
mod daemon;
mod damage;
mod devices;
mod emulation;
mod exporter;
mod frontend;
mod graph;
mod history;
mod image;
mod kept_dirs;
mod layers;
mod network;
mod ops;
mod policy;
mod provenance;
mod remote;
mod reserve;
mod serve;
mod session;
mod solver;
mod state;
mod sys;
mod upkeep;
mod worker;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use crate::config::{Command, Config, Flags};

fn main() -> ExitCode {
    kiln_executor::serve_if_zygote();
    sys::memory::bound();
    let flags = Flags::parse();
    match run(&flags) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let config = Config::load(flags);
    config::start_log(config.as_ref().ok());
    let config = config?;
    if !config::is_root() {
        // Before the first thread as well.
        kiln_executor::enter_user_namespace().context(
            "kilnd cannot run as this user (as root, it needs neither user namespaces nor \
             subordinate ids)",
        )?;
    }
    if let Some(Command::Check(options)) = flags.command {
        return check::run(&config, options);
    }
    let _lock = serve::lock_root(&config.root)?;
    // Forks, so it has to come before the first thread.
    let zygote = kiln_executor::start_zygote().context("cannot start the executor")?;
    // After it: steps have the limits that the daemon was started with.
    sys::files::raise_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve::run(config, zygote))?;
    Ok(ExitCode::SUCCESS)
}
