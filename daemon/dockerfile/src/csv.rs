//! One line of comma-separated values, as in `--mount=type=bind,"source=a,b"`.

/// A line that is not comma-separated values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsvError {
    /// There is nothing.
    #[error("the value is empty")]
    Empty,
    /// A quote inside a field that does not start with one.
    #[error("a quote in a field that is not quoted")]
    BareQuote,
    /// A quoted field that does not end, or goes on after its closing quote.
    #[error("a quoted field that does not end with its quote")]
    UnclosedQuote,
}

/// Splits `line` into its fields. A field may be put in double quotes, where two stand for one.
pub fn fields(line: &str) -> Result<Vec<String>, CsvError> {
    if line.is_empty() {
        return Err(CsvError::Empty);
    }
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => plain_field(rest)?,
        };
        fields.push(field);
        match after {
            Some(after) => rest = after,
            None => return Ok(fields),
        }
    }
}

/// A field and what follows its comma, if there is one.
type Field<'a> = (String, Option<&'a str>);

fn plain_field(text: &str) -> Result<Field<'_>, CsvError> {
    let (field, rest) = text.split_once(',').map_or((text, None), |(f, rest)| (f, Some(rest)));
    if field.contains('"') {
        return Err(CsvError::BareQuote);
    }
    Ok((field.to_owned(), rest))
}

fn quoted_field(text: &str) -> Result<Field<'_>, CsvError> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"').ok_or(CsvError::UnclosedQuote)?;
        field.push_str(part);
        if after.is_empty() {
            return Ok((field, None));
        }
        if let Some(next) = after.strip_prefix(',') {
            return Ok((field, Some(next)));
        }
        rest = after.strip_prefix('"').ok_or(CsvError::UnclosedQuote)?;
        field.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_split_at_commas_outside_quotes() {
        let cases: &[(&str, &[&str])] = &[
            ("a", &["a"]),
            ("a,b=c,", &["a", "b=c", ""]),
            ("\"a,b\",c", &["a,b", "c"]),
            ("\"a\"\"b\"", &["a\"b"]),
            ("\"\"", &[""]),
            (" a, b", &[" a", " b"]),
        ];
        for (line, expected) in cases {
            assert_eq!(fields(line).unwrap(), *expected, "{line}");
        }
    }

    #[test]
    fn stray_quotes_are_refused() {
        assert_eq!(fields(""), Err(CsvError::Empty));
        assert_eq!(fields("a\"b"), Err(CsvError::BareQuote));
        assert_eq!(fields("\"a"), Err(CsvError::UnclosedQuote));
        assert_eq!(fields("\"a\"b"), Err(CsvError::UnclosedQuote));
    }
}
