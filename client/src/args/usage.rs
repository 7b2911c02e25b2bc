//! The flags of `kiln du` and `kiln prune`.

use super::invalid::Invalid;
use super::size;
use super::template::Template;
use clap::Args;
use std::str::FromStr;

/// The command line of `kiln du`.
#[derive(Debug, Args)]
pub(crate) struct DuFlags {
    /// Only records that match: KEY=VALUE (id, type, shared, inuse, until...)
    #[arg(long = "filter", value_name = "FILTER")]
    pub(crate) filters: Vec<String>,

    /// Show all that is known of each record
    #[arg(long, conflicts_with = "format")]
    pub(crate) verbose: bool,

    /// How to show records: table, pretty, json, or a template such as '{{.ID}} {{.Size}}', which
    /// is a table if it begins with 'table '
    #[arg(long)]
    pub(crate) format: Option<DuFormat>,
}

/// How records are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DuFormat {
    /// As a table.
    Table,
    /// All that is known of each.
    Pretty,
    /// As JSON, one record a line.
    Json,
    /// As the user wants it.
    Template(Template),
}

impl FromStr for DuFormat {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Ok(match text {
            "table" => Self::Table,
            "pretty" => Self::Pretty,
            "json" => Self::Json,
            template => Self::Template(template.parse()?),
        })
    }
}

/// The command line of `kiln prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneFlags {
    /// Also remove internal and frontend images
    #[arg(short, long)]
    pub(crate) all: bool,

    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,

    /// Show all that is known of each record
    #[arg(long)]
    pub(crate) verbose: bool,

    /// Only records that match: KEY=VALUE (id, type, until...)
    #[arg(long = "filter", value_name = "FILTER")]
    pub(crate) filters: Vec<String>,

    /// Always keep this much
    #[arg(long, alias = "keep-storage", value_name = "SIZE", value_parser = size::parse)]
    pub(crate) reserved_space: Option<i64>,

    /// Keep at most this much
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(crate) max_used_space: Option<i64>,

    /// Remove until this much of the disk is free
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(crate) min_free_space: Option<i64>,
}
