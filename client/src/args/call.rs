//! `--call`: questions about a Dockerfile in place of a build.

use super::boolean;
use super::csv;
use super::invalid::Invalid;

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// The frontend's name of it, without the prefix `frontend.`.
    pub(crate) name: String,
    /// Whether the answer is wanted as JSON.
    pub(crate) is_json: bool,
    /// Whether an answer that counts as a failure is to be one.
    pub(crate) ignores_status: bool,
}

/// Reads the flag's value; `build` is no question.
pub(crate) fn parse(text: &str) -> Result<Option<Call>, Invalid> {
    let mut call = Call { name: String::new(), is_json: false, ignores_status: false };
    for field in csv::fields(text)? {
        match field.split_once('=') {
            Some(("format", "json")) => call.is_json = true,
            Some(("format", "text" | "")) => call.is_json = false,
            Some(("format", value)) => return Err(Invalid::value("format", value, "json or text")),
            Some(("ignorestatus", value)) => call.ignores_status = boolean::parse(value)?,
            Some((key, _)) => return Err(Invalid::UnknownKey(key.to_owned())),
            None if call.name.is_empty() => call.name = field,
            None => return Err(Invalid::Conflict("only one question can be asked at a time")),
        }
    }
    match call.name.as_str() {
        "" | "build" => return Ok(None),
        "check" => "lint".clone_into(&mut call.name),
        _ => {}
    }
    Ok(Some(call))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_is_the_name_of_lint() {
        let call = |name: &str, is_json| {
            Some(Call { name: name.to_owned(), is_json, ignores_status: false })
        };
        for (text, expected) in [
            ("build", None),
            ("check", call("lint", false)),
            ("outline", call("outline", false)),
            ("targets,format=json", call("targets", true)),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        for text in ["a,b", "check,format=xml", "check,x=y", "check,ignorestatus=perhaps"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
