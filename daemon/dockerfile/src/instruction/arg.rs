use super::Statement;
use crate::error::ErrorKind;

/// One definition of an ARG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgDefinition {
    /// The variable.
    pub name: String,
    /// The default as written, if there is one.
    pub default: Option<String>,
    /// The description that a comment before the instruction gives.
    pub description: Option<String>,
}

impl ArgDefinition {
    pub(crate) fn parse_all(statement: &Statement) -> Result<Vec<Self>, ErrorKind> {
        let words = statement.quoted_words();
        if words.is_empty() {
            return Err(ErrorKind::MissingArguments { instruction: "ARG" });
        }
        words.into_iter().map(|word| Self::parse(&word, statement)).collect()
    }

    fn parse(word: &str, statement: &Statement) -> Result<Self, ErrorKind> {
        let (name, default) = match word.split_once('=') {
            Some(("", _)) => return Err(ErrorKind::BlankName { instruction: "ARG" }),
            Some((name, default)) => (name, Some(default.to_owned())),
            None => (word, None),
        };
        let description = statement.comments.describe(name);
        Ok(Self { name: name.to_owned(), default, description })
    }
}
