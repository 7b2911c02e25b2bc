//! `--cache-from` and `--cache-to`.

use super::csv;
use super::invalid::Invalid;
use std::collections::BTreeMap;

/// One external cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cache {
    /// The backend's name on the wire.
    pub(crate) kind: String,
    /// Its attributes on the wire.
    pub(crate) attributes: BTreeMap<String, String>,
}

/// Reads one flag's value, which may name several references.
pub(crate) fn parse(text: &str) -> Result<Vec<Cache>, Invalid> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    if !text.contains('=') {
        return Ok(csv::fields(text)?.into_iter().map(Cache::registry).collect());
    }
    let mut attributes: BTreeMap<_, _> = csv::pairs(text)?.into_iter().collect();
    let kind = attributes.remove("type").filter(|kind| !kind.is_empty()).ok_or(Invalid::NoType)?;
    if kind == "registry" && attributes.get("ref").is_none_or(String::is_empty) {
        return Err(Invalid::Missing { key: "ref", of: "type=registry".to_owned() });
    }
    Ok(vec![Cache { kind, attributes }])
}

impl Cache {
    fn registry(reference: String) -> Self {
        Self {
            kind: "registry".to_owned(),
            attributes: BTreeMap::from([("ref".to_owned(), reference)]),
        }
    }

    /// The cache that goes into the image itself.
    pub(crate) fn inline() -> Self {
        Self { kind: "inline".to_owned(), attributes: BTreeMap::new() }
    }

    /// An attribute that is there and not empty.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.attributes.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(kind: &str, attributes: &[(&str, &str)]) -> Cache {
        let attributes = attributes.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        Cache { kind: kind.to_owned(), attributes }
    }

    #[test]
    fn caches_mean_what_they_mean_to_buildx() {
        for (text, expected) in [
            ("", vec![]),
            ("user/app:cache", vec![cache("registry", &[("ref", "user/app:cache")])]),
            ("a,b", vec![cache("registry", &[("ref", "a")]), cache("registry", &[("ref", "b")])]),
            (
                "type=registry,REF=a,mode=max",
                vec![cache("registry", &[("ref", "a"), ("mode", "max")])],
            ),
            ("type=local,src=dir", vec![cache("local", &[("src", "dir")])]),
            ("type=inline", vec![cache("inline", &[])]),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_cache_without_a_type_or_reference_is_refused() {
        for (text, message) in [
            ("ref=a", "type is missing"),
            ("type=registry", "ref is missing (type=registry)"),
            ("type=registry,a", r#""a" is not of the form key=value"#),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message, "{text}");
        }
    }
}
