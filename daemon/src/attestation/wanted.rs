//! What a client wants attested: options `attest:TYPE`, each with a list `KEY=VALUE,…`.

use std::collections::BTreeMap;

use kiln_dockerfile::{CsvError, csv_fields};
use kiln_registry::{ImageRef, RefError};

use crate::image::Resolve;
use crate::provenance::{InvalidOption, ProvenanceOptions};

/// The scanner that is used where none is named.
const SCANNER: &str = "docker/buildkit-syft-scanner:stable-1";

/// What a client wants attested.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) provenance: Option<ProvenanceOptions>,
    pub(crate) sbom: Option<SbomOptions>,
}

/// How an SBOM is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SbomOptions {
    pub(super) generator: ImageRef,
    /// What else the scanner is told.
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) resolve_mode: Resolve,
    /// Whether the scanner runs even if it has seen the same files before.
    pub(super) ignore_cache: bool,
}

/// Why options were refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidAttestation {
    #[error("unknown attestation type {0:?}: there are provenance and sbom")]
    Type(String),
    #[error("failed to parse attest:{kind}")]
    List { kind: String, source: CsvError },
    #[error("sbom generator cannot be empty")]
    NoGenerator,
    #[error("failed to parse sbom generator {name}")]
    Generator { name: String, source: RefError },
    #[error(transparent)]
    Provenance(#[from] InvalidOption),
    #[error(transparent)]
    ResolveMode(anyhow::Error),
}

impl Wanted {
    /// Reads what the options of a request say of attestations.
    pub(crate) fn parse<'a>(
        options: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Result<Self, InvalidAttestation> {
        let (mut lists, mut resolve_mode, mut ignore_cache) = (BTreeMap::new(), "", false);
        for (name, value) in options {
            let kind = name
                .strip_prefix("attest:")
                .or_else(|| name.strip_prefix("build-arg:BUILDKIT_ATTEST_"));
            match kind {
                Some(kind) => drop(lists.insert(kind.to_ascii_lowercase(), value)),
                None if name == "image-resolve-mode" => resolve_mode = value,
                // With a list of stages it is about these.
                None if name == "no-cache" => ignore_cache = value.is_empty(),
                None => {}
            }
        }
        let mut wanted = Self::default();
        for (kind, list) in lists {
            let options = pairs(list)
                .map_err(|source| InvalidAttestation::List { kind: kind.clone(), source })?;
            let Some(options) = options else { continue };
            match kind.as_str() {
                "provenance" => wanted.provenance = Some(ProvenanceOptions::parse(&options)?),
                "sbom" => {
                    let resolve_mode =
                        Resolve::parse(resolve_mode).map_err(InvalidAttestation::ResolveMode)?;
                    wanted.sbom = Some(SbomOptions::parse(options, resolve_mode, ignore_cache)?);
                }
                _ => return Err(InvalidAttestation::Type(kind)),
            }
        }
        Ok(wanted)
    }
}

/// The members of a list; none if it says that it counts for nothing.
fn pairs(list: &str) -> Result<Option<BTreeMap<String, String>>, CsvError> {
    let mut pairs = BTreeMap::new();
    if list.is_empty() {
        return Ok(Some(pairs));
    }
    for field in csv_fields(list)? {
        let (name, value) = field.split_once('=').unwrap_or((&field, ""));
        pairs.insert(name.to_owned(), value.to_owned());
    }
    let is_disabled = pairs.remove("disabled").is_some_and(|value| value != "false");
    Ok((!is_disabled).then_some(pairs))
}

impl SbomOptions {
    fn parse(
        mut options: BTreeMap<String, String>,
        resolve_mode: Resolve,
        ignore_cache: bool,
    ) -> Result<Self, InvalidAttestation> {
        // What clients' flags have besides.
        options.remove("type");
        let name = options.remove("generator").unwrap_or_else(|| SCANNER.to_owned());
        if name.is_empty() {
            return Err(InvalidAttestation::NoGenerator);
        }
        let generator =
            name.parse().map_err(|source| InvalidAttestation::Generator { name, source })?;
        Ok(Self { generator, parameters: options, resolve_mode, ignore_cache })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[(&str, &str)]) -> Result<Wanted, InvalidAttestation> {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Wanted::parse(&options.collect::<BTreeMap<_, _>>())
    }

    #[test]
    fn each_type_has_its_options() {
        assert_eq!(parse(&[("build-arg:A", "b")]).unwrap(), Wanted::default());
        let both = [("attest:provenance", ""), ("build-arg:BUILDKIT_ATTEST_SBOM", "a=b,\"c=d,e\"")];
        let wanted = parse(&both).unwrap();
        assert_eq!(wanted.provenance, Some(ProvenanceOptions::default()));
        let sbom = wanted.sbom.unwrap();
        assert_eq!(sbom.generator.to_string(), format!("docker.io/{SCANNER}"));
        let parameters = [("a", "b"), ("c", "d,e")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(sbom.parameters, BTreeMap::from(parameters));
    }

    #[test]
    fn what_is_disabled_is_not_wanted() {
        let disabled = ("attest:provenance", "type=provenance,disabled=true");
        assert_eq!(parse(&[disabled]).unwrap(), Wanted::default());
    }

    #[test]
    fn the_cache_is_not_used_for_a_scan_if_it_is_not_used_at_all() {
        let scan = |no_cache: &[(&str, &str)]| {
            let options = [&[("attest:sbom", "generator=g")], no_cache].concat();
            parse(&options).unwrap().sbom.unwrap().ignore_cache
        };
        assert!(!scan(&[]));
        assert!(scan(&[("no-cache", "")]));
        assert!(!scan(&[("no-cache", "stage")]));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (name, value, message) in [
            (
                "attest:foo",
                "a=b",
                "unknown attestation type \"foo\": there are provenance and sbom",
            ),
            ("attest:sbom", "generator=", "sbom generator cannot be empty"),
            ("attest:sbom", "generator=A:B", "failed to parse sbom generator A:B"),
            ("attest:sbom", "a\"b", "failed to parse attest:sbom"),
            ("attest:provenance", "mode=x", "invalid mode \"x\": provenance has min and max"),
        ] {
            assert_eq!(parse(&[(name, value)]).unwrap_err().to_string(), message);
        }
    }
}
