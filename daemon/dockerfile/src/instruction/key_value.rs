use super::Statement;
use crate::error::ErrorKind;
use crate::words;

/// A pair of ENV or LABEL, both sides as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The name.
    pub key: String,
    /// The value.
    pub value: String,
    /// Whether a blank stood between them (`ENV name value`), the form that is discouraged.
    pub is_legacy: bool,
}

impl KeyValue {
    /// The pairs of `instruction`: `name=value …`, or one `name value` to the end of the line.
    pub(crate) fn parse_all(
        statement: &Statement,
        instruction: &'static str,
    ) -> Result<Vec<Self>, ErrorKind> {
        let words = statement.quoted_words();
        let Some(first) = words.first() else {
            return Err(ErrorKind::MissingArguments { instruction });
        };
        if !first.contains('=') {
            let (key, value) = words::split_blank(&statement.arguments)
                .ok_or(ErrorKind::MissingValue { instruction })?;
            let (key, value) = (key.to_owned(), value.to_owned());
            return Ok(vec![Self { key, value, is_legacy: true }]);
        }
        words.into_iter().map(|word| Self::parse(word, instruction)).collect()
    }

    fn parse(word: String, instruction: &'static str) -> Result<Self, ErrorKind> {
        match word.split_once('=') {
            None => Err(ErrorKind::MissingEquals { word }),
            Some(("", _)) => Err(ErrorKind::BlankName { instruction }),
            Some((key, value)) => {
                Ok(Self { key: key.to_owned(), value: value.to_owned(), is_legacy: false })
            }
        }
    }
}
