//! `--attest`, `--provenance` and `--sbom`.

use super::boolean;
use super::csv;
use super::invalid::Invalid;
use std::collections::BTreeMap;

/// Switches off what is attested unless flags say otherwise.
const NO_DEFAULT: &str = "BUILDX_NO_DEFAULT_ATTESTATIONS";
/// What is attested unless flags say otherwise: nothing that could be private, and only in images,
/// where it is usual.
const DEFAULT: &str = "mode=min,inline-only=true";

/// Reads the flags into the frontend's attributes; the first of a type wins, `false` switches off.
pub(crate) fn parse(
    attest: &[String],
    provenance: Option<&str>,
    sbom: Option<&str>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, Invalid> {
    let mut all: Vec<String> = attest.to_vec();
    all.extend(provenance.and_then(|value| shorthand("provenance", value)));
    all.extend(sbom.and_then(|value| shorthand("sbom", value)));

    let mut seen: BTreeMap<String, Option<String>> = BTreeMap::new();
    for text in &all {
        let mut kind = None;
        let mut is_disabled = false;
        let mut attributes = BTreeMap::new();
        for (key, value) in csv::pairs(text)? {
            match key.as_str() {
                "type" => kind = Some(value),
                "disabled" => is_disabled = boolean::parse(&value)?,
                _ => drop(attributes.insert(key, value)),
            }
        }
        let kind = kind.filter(|kind| !kind.is_empty()).ok_or(Invalid::NoType)?;
        let fields = std::iter::once(format!("type={kind}"))
            .chain(attributes.iter().map(|(key, value)| format!("{key}={value}")))
            .collect::<Vec<_>>();
        let value = (!is_disabled).then(|| csv::join(fields.iter().map(String::as_str)));
        seen.entry(kind).or_insert(value);
    }
    let has_default = match env(NO_DEFAULT) {
        Some(text) => !boolean::parse(&text)?,
        None => true,
    };
    if has_default {
        seen.entry("provenance".to_owned()).or_insert_with(|| Some(DEFAULT.to_owned()));
    }
    Ok(seen
        .into_iter()
        .filter_map(|(kind, value)| Some((format!("attest:{kind}"), value?)))
        .collect())
}

/// `--sbom=true` is `--attest type=sbom`, `--sbom=x=y` is `--attest type=sbom,x=y`.
fn shorthand(kind: &str, value: &str) -> Option<String> {
    match boolean::parse(value) {
        _ if value.is_empty() => None,
        Ok(is_wanted) => Some(format!("type={kind},disabled={}", !is_wanted)),
        Err(_) => Some(format!("type={kind},{value}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shorthands_are_attestations() {
        let parse = |attest: &[&str], provenance, sbom| {
            let attest: Vec<_> = attest.iter().map(|&a| a.to_owned()).collect();
            let env = |_: &str| Some("1".to_owned());
            parse(&attest, provenance, sbom, env).unwrap().into_iter().collect::<Vec<_>>()
        };
        let entry = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(parse(&[], Some("true"), None), [entry("attest:provenance", "type=provenance")]);
        assert_eq!(
            parse(&[], Some("mode=max"), Some("false")),
            [entry("attest:provenance", "type=provenance,mode=max")]
        );
        assert_eq!(
            parse(&["type=sbom,generator=g"], None, Some("false")),
            [entry("attest:sbom", "type=sbom,generator=g")]
        );
    }

    #[test]
    fn the_least_provenance_is_added_unless_it_is_switched_off() {
        let parse = |provenance, value: Option<&str>| {
            let env = |name: &str| value.filter(|_| name == NO_DEFAULT).map(str::to_owned);
            let attributes = parse(&[], provenance, None, env)?;
            Ok::<_, Invalid>(attributes.into_values().collect::<Vec<_>>())
        };
        for value in [None, Some("false")] {
            assert_eq!(parse(None, value), Ok(vec![DEFAULT.to_owned()]));
        }
        assert_eq!(parse(None, Some("1")), Ok(Vec::new()));
        assert_eq!(parse(Some("false"), None), Ok(Vec::new()));
        assert_eq!(parse(Some("mode=max"), None), Ok(vec!["type=provenance,mode=max".to_owned()]));
        assert!(parse(None, Some("perhaps")).is_err());
    }
}
