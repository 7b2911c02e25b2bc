use super::Statement;
use crate::error::ErrorKind;

/// The command of RUN, CMD or ENTRYPOINT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// Exec form: a JSON array. Empty for `[]`.
    Exec(Vec<String>),
    /// Shell form: one string for the stage's shell. Empty if nothing was given.
    Shell(String),
}

impl CommandLine {
    pub(crate) fn parse(statement: &Statement) -> Result<Self, ErrorKind> {
        Ok(match statement.json()? {
            Some(words) => Self::Exec(words),
            None => Self::Shell(statement.arguments.clone()),
        })
    }

    /// Whether the stage's shell runs it.
    pub fn needs_shell(&self) -> bool {
        matches!(self, Self::Shell(_))
    }
}
