//! `kiln du` and `kiln prune`: what the daemon keeps, and letting go of it.

mod filter;
mod table;
mod template;

use crate::args::{DuFlags, DuFormat, PruneFlags};
use crate::daemon;
use crate::failure::{Failure, Refused};
use anyhow::Context;
use filter::Filters;
use kiln_proto::control::{DiskUsageRequest, PruneRequest};
use std::io::{self, BufRead, Write};

/// Shows what is kept.
pub(crate) async fn du(flags: &DuFlags, host: Option<&str>) -> Result<(), Failure> {
    let filters = Filters::parse(&flags.filters).context("--filter")?;
    let is_filtered = !flags.filters.is_empty();
    let daemon = daemon::connect(host).await?;
    let request =
        DiskUsageRequest { filter: filters.expressions, age_limit: filters.until_nanoseconds };
    let response = daemon.control().disk_usage(request).await.map_err(Refused::from)?;
    let mut records = response.into_inner().record;
    // The largest is next to the sum.
    records.sort_by(|a, b| (a.size, &a.id).cmp(&(b.size, &b.id)));

    let mut out = io::stdout().lock();
    let format = match flags.format.clone() {
        Some(format) => format,
        None if flags.verbose => DuFormat::Pretty,
        None => DuFormat::Table,
    };
    match format {
        DuFormat::Json => {
            for record in &records {
                writeln!(out, "{}", table::json(record))?;
            }
            return Ok(());
        }
        DuFormat::Template(template) => {
            write!(out, "{}", template::render(&template, &records))?;
            return Ok(());
        }
        DuFormat::Pretty => {
            for record in &records {
                writeln!(out, "{}", table::pretty(record))?;
            }
        }
        DuFormat::Table => {
            writeln!(out, "{}", table::header())?;
            for record in &records {
                writeln!(out, "{}", table::row(record))?;
            }
        }
    }
    if !is_filtered {
        write!(out, "{}", table::summary(&records))?;
    }
    Ok(())
}

/// Removes what is not in use.
pub(crate) async fn prune(flags: &PruneFlags, host: Option<&str>) -> Result<(), Failure> {
    let filters = Filters::parse(&flags.filters).context("--filter")?;
    if !flags.force && !is_confirmed(flags.all)? {
        return Ok(());
    }
    let daemon = daemon::connect(host).await?;
    let request = PruneRequest {
        filter: filters.expressions,
        all: flags.all,
        keep_duration: filters.until_nanoseconds,
        reserved_space: flags.reserved_space.unwrap_or(0),
        max_used_space: flags.max_used_space.unwrap_or(0),
        min_free_space: flags.min_free_space.unwrap_or(0),
    };
    let mut records = daemon.control().prune(request).await.map_err(Refused::from)?.into_inner();
    let mut total: i64 = 0;
    let mut is_first = true;
    while let Some(record) = records.message().await.map_err(Refused::from)? {
        total = total.saturating_add(record.size);
        let mut out = io::stdout().lock();
        if flags.verbose {
            writeln!(out, "{}", table::pretty(&record))?;
            continue;
        }
        if std::mem::take(&mut is_first) {
            writeln!(out, "{}", table::header())?;
        }
        writeln!(out, "{}", table::row(&record))?;
    }
    writeln!(io::stdout(), "Total:\t{}", crate::units::short_bytes(total))?;
    Ok(())
}

/// Asks the user; silence means no.
fn is_confirmed(all: bool) -> io::Result<bool> {
    let what = if all { "all build cache" } else { "all dangling build cache" };
    let mut out = io::stdout().lock();
    write!(out, "WARNING! This will remove {what}. Are you sure you want to continue? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
