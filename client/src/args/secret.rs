//! `--secret`: values that steps may mount and that the daemon never stores.

use super::csv;
use super::invalid::Invalid;
use std::path::PathBuf;

/// One secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Secret {
    /// The name that steps ask for.
    pub(crate) id: String,
    /// Where its value is.
    pub(crate) source: Source,
}

/// Where a secret's value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// The content of a file.
    File(PathBuf),
    /// An environment variable.
    Env(String),
}

/// Reads one `--secret`. Without a source, the id names a variable, or else a file.
pub(crate) fn parse(text: &str, env: impl Fn(&str) -> Option<String>) -> Result<Secret, Invalid> {
    let (mut id, mut file, mut variable, mut is_env) = (String::new(), None, None, false);
    for (key, value) in csv::pairs(text)? {
        match key.as_str() {
            "id" => id = value,
            "source" | "src" => file = Some(value),
            "env" => variable = Some(value),
            "type" => match value.as_str() {
                "file" => is_env = false,
                "env" => is_env = true,
                _ => return Err(Invalid::value("type", &value, "file or env")),
            },
            _ => return Err(Invalid::UnknownKey(key)),
        }
    }
    if id.is_empty() {
        return Err(Invalid::Missing { key: "id", of: "a secret".to_owned() });
    }
    if is_env && variable.is_none() {
        variable = file.take();
    }
    let source = match (variable.filter(|name| !name.is_empty()), file.filter(|f| !f.is_empty())) {
        (Some(variable), _) => Source::Env(variable),
        (None, Some(file)) => Source::File(file.into()),
        (None, None) if env(&id).is_some() => Source::Env(id.clone()),
        (None, None) => Source::File(id.clone().into()),
    };
    Ok(Secret { id, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_comes_from_a_file_or_a_variable() {
        let env = |key: &str| (key == "TOKEN").then(String::new);
        let file = |path: &str| Source::File(path.into());
        let variable = |name: &str| Source::Env(name.to_owned());
        for (text, id, source) in [
            ("id=a,src=f", "a", file("f")),
            ("id=a,source=f,type=file", "a", file("f")),
            ("id=a,env=V", "a", variable("V")),
            ("type=env,id=a,src=V", "a", variable("V")),
            ("id=TOKEN", "TOKEN", variable("TOKEN")),
            ("id=plain.txt", "plain.txt", file("plain.txt")),
        ] {
            let expected = Secret { id: id.to_owned(), source };
            assert_eq!(parse(text, env), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_secret_needs_an_id_and_knows_its_keys() {
        for (text, message) in [
            ("src=f", "id is missing (a secret)"),
            ("id=a,type=vault", r#"type cannot be "vault": expected file or env"#),
            ("id=a,mode=1", r#"unknown key "mode""#),
            ("id", r#""id" is not of the form key=value"#),
        ] {
            assert_eq!(parse(text, |_| None).unwrap_err().to_string(), message, "{text}");
        }
    }
}
