//! What the daemon's operator has to say of its builds.

use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

/// Members that predicates have in any case.
const OWN: [&str; 3] = ["buildConfig", "builderPlatform", "platform"];

/// Members that are put into each predicate, beside what describes the builder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Environment(pub(super) Map<String, Value>);

impl Environment {
    /// Reads the files `*.json` of a directory, in the order of their names. A directory that is
    /// not there has none.
    pub(crate) fn read(dir: &Path) -> anyhow::Result<Self> {
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(error).with_context(|| dir.display().to_string()),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.with_context(|| dir.display().to_string())?.path();
            if path.extension().is_some_and(|extension| extension == "json") && path.is_file() {
                paths.push(path);
            }
        }
        paths.sort();
        let mut members = Map::new();
        for path in paths {
            let read = || {
                let text = std::fs::read(&path)?;
                anyhow::Ok(serde_json::from_slice::<Map<String, Value>>(&text)?)
            };
            members.extend(read().with_context(|| path.display().to_string())?);
        }
        for name in OWN {
            if members.contains_key(name) {
                bail!("{}: {name:?} is not for the configuration to say", dir.display());
            }
        }
        Ok(Self(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_directory_are_put_together() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("b.json", r#"{ "x": [2], "y": "z" }"#);
        write("a.json", r#"{ "x": 1 }"#);
        write("note.txt", "not read");
        let found = serde_json::to_value(Environment::read(dir.path()).unwrap().0).unwrap();
        assert_eq!(found, serde_json::json!({ "x": [2], "y": "z" }));
        write("c.json", r#"{ "platform": "mine" }"#);
        let error = Environment::read(dir.path()).unwrap_err();
        assert!(error.to_string().contains("\"platform\" is not for the configuration"), "{error}");
        assert_eq!(Environment::read(&dir.path().join("missing")).unwrap(), Environment::default());
    }
}
