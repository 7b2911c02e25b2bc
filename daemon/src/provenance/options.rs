//! `attest:provenance`: how provenance is wanted.

use std::collections::BTreeMap;

use crate::attributes::boolean;

/// How many layers a record lists. Each step has those of the steps before it, too, so that the list
/// grows with the square of the steps: this many are those of a hundred steps, and a megabyte; of
/// five hundred they would be thirty, after each build.
const LAYERS_OF_RECORD: usize = 5000;

/// How provenance is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProvenanceOptions {
    pub(super) mode: Mode,
    pub(super) version: Version,
    pub(super) inline_only: bool,
    pub(super) reproducible: bool,
    pub(super) complete_materials: bool,
    /// Whether steps say what they used.
    pub(super) captures_usage: bool,
    /// How many layers may be listed, of all steps together.
    pub(super) most_layers: usize,
    pub(super) builder_id: String,
    pub(super) filename: String,
}

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// What went in, but no values of arguments.
    Min,
    /// All that is known, also every step.
    Max,
}

/// The form of the predicate, by its version of SLSA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Slsa02,
    Slsa1,
}

/// Why options were refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidOption {
    #[error("invalid mode {0:?}: provenance has min and max")]
    Mode(String),
    #[error("invalid provenance SLSA version: {0}: there are v0.2 and v1")]
    Version(String),
    #[error("failed to parse {name} flag {value:?} of provenance")]
    Flag { name: &'static str, value: String },
    #[error("provenance option {0:?} is not known to this daemon")]
    Unknown(String),
}

impl Version {
    pub(super) fn predicate_type(self) -> &'static str {
        match self {
            Self::Slsa02 => "https://slsa.dev/provenance/v0.2",
            Self::Slsa1 => "https://slsa.dev/provenance/v1",
        }
    }
}

impl Default for ProvenanceOptions {
    fn default() -> Self {
        Self {
            mode: Mode::Max,
            version: Version::Slsa1,
            inline_only: false,
            reproducible: false,
            complete_materials: false,
            captures_usage: false,
            most_layers: usize::MAX,
            builder_id: String::new(),
            filename: "provenance.json".to_owned(),
        }
    }
}

impl ProvenanceOptions {
    /// All that is known, but for layers of very many steps, for the daemon's own records.
    pub(super) fn of_record(wanted: Option<&Self>) -> Self {
        let builder_id = wanted.map(|wanted| wanted.builder_id.clone()).unwrap_or_default();
        let most_layers = LAYERS_OF_RECORD;
        Self { builder_id, captures_usage: true, most_layers, ..Self::default() }
    }

    /// Reads the options of `attest:provenance`.
    pub(crate) fn parse(given: &BTreeMap<String, String>) -> Result<Self, InvalidOption> {
        let mut options = Self::default();
        for (name, value) in given {
            match name.as_str() {
                "mode" => {
                    options.mode = match value.as_str() {
                        "min" => Mode::Min,
                        "max" | "full" => Mode::Max,
                        _ => return Err(InvalidOption::Mode(value.clone())),
                    };
                }
                "version" => {
                    options.version = match value.as_str() {
                        "v0.2" => Version::Slsa02,
                        "v1" => Version::Slsa1,
                        _ => return Err(InvalidOption::Version(value.clone())),
                    };
                }
                "inline-only" => options.inline_only = flag("inline-only", value)?,
                "reproducible" => options.reproducible = flag("reproducible", value)?,
                "complete-materials" => {
                    options.complete_materials = flag("complete-materials", value)?;
                }
                "capture-usage" => options.captures_usage = flag("capture-usage", value)?,
                "builder-id" => options.builder_id.clone_from(value),
                "filename" => options.filename.clone_from(value),
                // What clients' flags have besides.
                "type" => {}
                _ => return Err(InvalidOption::Unknown(name.clone())),
            }
        }
        Ok(options)
    }
}

fn flag(name: &'static str, value: &str) -> Result<bool, InvalidOption> {
    boolean(value).ok_or_else(|| InvalidOption::Flag { name, value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_say_how_much_is_told_and_in_which_form() {
        let parse = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into()));
            ProvenanceOptions::parse(&pairs.collect())
        };
        assert_eq!(parse(&[]), Ok(ProvenanceOptions::default()));
        let min = parse(&[("mode", "min"), ("version", "v0.2"), ("inline-only", "true")]).unwrap();
        assert_eq!((min.mode, min.version, min.inline_only), (Mode::Min, Version::Slsa02, true));
        assert_eq!(parse(&[("mode", "full")]), Ok(ProvenanceOptions::default()));
        for refused in [("mode", "huge"), ("version", "9"), ("capture-usage", "x"), ("size", "1")] {
            assert!(parse(&[refused]).is_err(), "{refused:?}");
        }
    }
}
