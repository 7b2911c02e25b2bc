//! `--annotation`: `[TYPE[PLATFORM],…:]KEY=VALUE`.

use super::invalid::Invalid;
use std::collections::BTreeMap;

const TYPES: [&str; 4] = ["index", "index-descriptor", "manifest", "manifest-descriptor"];

/// Reads the flag's values into exporter attributes.
pub(crate) fn parse(values: &[String]) -> Result<BTreeMap<String, String>, Invalid> {
    let mut attributes = BTreeMap::new();
    for text in values.iter().filter(|text| !text.is_empty()) {
        let (key, value) =
            text.split_once('=').ok_or_else(|| Invalid::NotKeyValue(text.clone()))?;
        let Some((types, key)) = key.split_once(':') else {
            attributes.insert(format!("annotation.{key}"), value.to_owned());
            continue;
        };
        for kind in types.split(',') {
            let (name, platform) = match kind.strip_suffix(']').and_then(|k| k.split_once('[')) {
                Some((name, platform)) => (name, format!("[{platform}]")),
                None => (kind, String::new()),
            };
            if !TYPES.contains(&name) {
                return Err(Invalid::not(kind, "a type of annotation"));
            }
            attributes.insert(format!("annotation-{name}{platform}.{key}"), value.to_owned());
        }
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_attributes_of_every_exporter() {
        for (text, expected) in [
            ("a=b", vec!["annotation.a"]),
            ("index:a=b", vec!["annotation-index.a"]),
            (
                "index,manifest[linux/amd64]:a=b",
                vec!["annotation-index.a", "annotation-manifest[linux/amd64].a"],
            ),
        ] {
            let attributes = parse(&[text.to_owned()]).unwrap();
            assert!(attributes.keys().eq(expected.iter()), "{text}: {attributes:?}");
        }
        assert!(parse(&["a".to_owned()]).is_err());
        assert!(parse(&["layer:a=b".to_owned()]).is_err());
    }
}
