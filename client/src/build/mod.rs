//! `kiln build`.

mod cache_credentials;
mod caches;
mod call;
mod checks;
mod exports;
mod failed_step;
mod gateway;
mod inputs;
mod inspect;
mod interrupt;
mod outcome;
mod policy;
mod provenance;
mod request;
mod solve;

use crate::args::call::Call;
use crate::args::{BuildFlags, ProgressMode};
use crate::failure::Failure;
use crate::progress::{self, Progress};
use crate::{daemon, paths};
use anyhow::Context;
use interrupt::Interrupts;
use request::Plan;
use solve::{Display, NotBuilt, Response};
use std::io::{self, Write};
use std::path::Path;

/// Builds what a command line asks for.
pub(crate) async fn run(
    flags: &BuildFlags,
    host: Option<&str>,
    is_verbose: bool,
) -> Result<(), Failure> {
    let is_quiet = flags.quiet || flags.progress == ProgressMode::Quiet;
    let mode = progress::mode(flags.progress, flags.quiet, paths::env)?;
    let mut progress = Progress::new(mode, paths::env)?;
    let mut interrupts = Interrupts::listen()?;
    let wants_id = is_quiet || flags.iidfile.is_some() || flags.metadata_file.is_some();
    let mut plan = interrupts.guard(Plan::prepare(flags, wants_id)).await??;
    if let Some(path) = &flags.iidfile {
        // An id of an earlier build must not be taken for this one's if it fails.
        remove(path)?;
    }
    let says_more = matches!(mode, ProgressMode::Auto | ProgressMode::Tty | ProgressMode::Plain);
    if says_more {
        for note in &plan.caches.notes {
            writeln!(io::stderr(), "WARNING: {note}")?;
        }
    }
    let daemon = interrupts.guard(daemon::connect(host)).await??;

    let display = Display { progress: &mut progress, is_verbose };
    let solved = solve::solve(&daemon, &mut plan, display, &mut interrupts).await;
    progress.finish(is_verbose);
    let mut response = match solved {
        Ok(response) => response,
        Err(NotBuilt::Failed(error)) => return Err(Failure::Error(error)),
        Err(NotBuilt::Told) => return Err(Failure::Told),
        Err(NotBuilt::Interrupted(error)) => return Err(Failure::Interrupted(Some(error))),
    };
    keep(&plan, &response)?;
    if flags.metadata_file.is_some() && plan.call.is_none() {
        let mode = provenance::Mode::of_environment(paths::env);
        let told = provenance::fetch(&daemon, &plan.request.r#ref, mode);
        match interrupts.guard(told).await? {
            Ok(told) => response.extend(told),
            // The build itself is done, and has delivered what it was for.
            Err(status) => writeln!(
                io::stderr(),
                "WARNING: the metadata file has no provenance: {}",
                status.message()
            )?,
        }
    }
    tell(flags, &plan, &response, &progress)?;
    if let Some(call) = &plan.call {
        return reply(call, &response, flags.file.as_deref());
    }
    let id = outcome::image_id(&response);
    // What goes to standard output must not be mixed with anything else.
    if is_quiet && !id.is_empty() && !plan.exports.uses_stdout {
        writeln!(io::stdout(), "{id}")?;
    } else if let Some(message) = response.get("frontend.result.inlinemessage") {
        writeln!(io::stdout(), "\n{message}")?;
    }
    if says_more && plan.request.exporters.is_empty() && flags.outputs.is_empty() {
        let hint = "--tag keeps an image, --output and --push deliver it";
        writeln!(io::stderr(), "\nNothing but the cache was kept of the result: {hint}.")?;
    }
    Ok(())
}

/// Shows the answer to a question.
fn reply(call: &Call, response: &Response, dockerfile: Option<&str>) -> Result<(), Failure> {
    let answer = call::render(call, response, dockerfile);
    io::stdout().write_all(answer.text.as_bytes())?;
    match (answer.error, answer.code) {
        (Some(error), _) => Err(Failure::Error(anyhow::Error::msg(error))),
        (None, 0) => Ok(()),
        (None, code) => Err(Failure::Code(code)),
    }
}

/// Enters what the daemon wrote into the layouts of this machine.
fn keep(plan: &Plan, response: &Response) -> Result<(), Failure> {
    if let Some(manifest) = response.get("cache.manifest").filter(|json| !json.is_empty()) {
        let manifest = serde_json::from_str(manifest).context("the cache's manifest")?;
        plan.caches.finish(&manifest)?;
    }
    plan.exports.finish(response)?;
    Ok(())
}

/// Writes the files that say what was built.
fn tell(
    flags: &BuildFlags,
    plan: &Plan,
    response: &Response,
    progress: &Progress,
) -> Result<(), Failure> {
    if let Some(path) = &flags.iidfile {
        std::fs::write(path, outcome::image_id(response))
            .with_context(|| format!("--iidfile {}", path.display()))?;
    }
    if let Some(path) = &flags.metadata_file {
        let wants_warnings = plan.call.is_none() && outcome::wants_warnings(paths::env);
        let warnings = if wants_warnings { progress.warnings() } else { Vec::new() };
        let metadata = outcome::metadata(response, &plan.request.r#ref, &warnings);
        outcome::write_metadata(path, &metadata)?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("--iidfile {}", path.display()))?
        }
        _ => Ok(()),
    }
}
