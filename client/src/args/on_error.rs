//! `--on-error`: what comes after a step that fails.

use super::invalid::Invalid;

/// What is done when a step fails.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum OnError {
    /// The build ends.
    #[default]
    Fail,
    /// A program runs in the place of the step before that: the one of that path, or a shell.
    Run(Option<String>),
}

/// Reads the flag's value.
pub(crate) fn parse(text: &str) -> Result<OnError, Invalid> {
    match text {
        "fail" => Ok(OnError::Fail),
        "shell" => Ok(OnError::Run(None)),
        path if path.starts_with('/') => Ok(OnError::Run(Some(path.to_owned()))),
        other => Err(Invalid::not(other, "fail, shell or the absolute path of a program")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_named_by_its_path() {
        assert_eq!(parse("fail"), Ok(OnError::Fail));
        assert_eq!(parse("shell"), Ok(OnError::Run(None)));
        assert_eq!(parse("/bin/bash"), Ok(OnError::Run(Some("/bin/bash".to_owned()))));
        for text in ["", "bash", "Shell", "./sh", "shell=/bin/sh"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
