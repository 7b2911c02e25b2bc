//! Kiln's client: builds container images with a daemon, `kilnd`, which it starts if need be.
//!
//! It speaks BuildKit's API, so that a BuildKit daemon serves it as well. A build goes from left to
//! right:
//!
//! ```text
//! args ──► build (request) ──► daemon ──► build (solve) ──► progress
//!                                            │  ▲
//!                                            ▼  │
//!                                          session: what the daemon may use of this machine
//! ```

#![forbid(unsafe_code)]

mod args;
mod build;
mod daemon;
mod failure;
mod info;
mod paths;
mod progress;
mod session;
mod source;
mod terminal;
mod units;
mod usage;

use args::{Cli, Command};
use clap::Parser;
use failure::Failure;
use std::io::Write;
use std::process::ExitCode;

/// Threads for the file system; more of them only fight for it.
const BLOCKING_THREADS: usize = 16;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            // Help is an answer, anything else a failure. Nobody is there to read it if this fails.
            let _ = usage.print();
            return if usage.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let host = cli.host.as_deref();
    if matches!(cli.command, Command::Version) {
        writeln!(std::io::stdout(), "kiln {}", env!("CARGO_PKG_VERSION"))?;
        return Ok(());
    }
    // One thread is enough to shuffle packets, and the quickest to start.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()?;
    let result = runtime.block_on(async {
        match &cli.command {
            Command::Build(flags) => build::run(flags, host, cli.debug).await,
            Command::Du(flags) => usage::du(flags, host).await,
            Command::Prune(flags) => usage::prune(flags, host).await,
            Command::Info => info::run(host).await,
            Command::Version => Ok(()),
        }
    });
    // A read of standard input may never end: it is not waited for.
    runtime.shutdown_background();
    result
}
