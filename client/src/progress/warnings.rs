//! The warnings of a build, at its end.

use super::color::{self, Colors};
use crate::source;
use kiln_proto::control::VertexWarning;
use std::io::{self, Write};

/// Each warning once, whichever step told it.
pub(crate) fn unique(warnings: &[VertexWarning]) -> Vec<VertexWarning> {
    let mut unique: Vec<VertexWarning> = Vec::new();
    for warning in warnings {
        let is_same = |other: &VertexWarning| {
            let file = |warning: &VertexWarning| warning.info.clone().map(|info| info.filename);
            other.short == warning.short
                && other.detail == warning.detail
                && other.level == warning.level
                && other.ranges == warning.ranges
                && file(other) == file(warning)
        };
        if !unique.iter().any(is_same) {
            unique.push(warning.clone());
        }
    }
    unique
}

/// Tells of the warnings.
pub(crate) fn write(
    warnings: &[VertexWarning],
    colors: &Colors,
    is_verbose: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    if warnings.is_empty() {
        return Ok(());
    }
    let count = match warnings.len() {
        1 => "1 warning found".to_owned(),
        count => format!("{count} warnings found"),
    };
    let hint = if is_verbose { "" } else { " (use --debug to expand)" };
    let headline = color::paint(colors.warning.as_ref(), &format!("{count}{hint}:"));
    writeln!(out, "\n {headline}")?;
    for warning in warnings {
        writeln!(out, " - {}", String::from_utf8_lossy(&warning.short))?;
        if !is_verbose {
            continue;
        }
        for line in &warning.detail {
            writeln!(out, "{}", String::from_utf8_lossy(line))?;
        }
        if !warning.url.is_empty() {
            writeln!(out, "More info: {}", warning.url)?;
        }
        if let Some(info) = &warning.info {
            let ranges: Vec<_> = warning.ranges.iter().map(source::Lines::from).collect();
            let text = String::from_utf8_lossy(&info.data);
            write!(out, "{}", source::excerpt(&info.filename, &text, &ranges))?;
        }
        writeln!(out)?;
    }
    Ok(())
}
