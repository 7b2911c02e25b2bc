//! Values of the form `key=value,key="with, comma"`.

use super::invalid::Invalid;

/// Splits one line of comma-separated values; a quoted field may hold commas and doubled quotes.
pub(crate) fn fields(line: &str) -> Result<Vec<String>, Invalid> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let index = fields.len() + 1;
        let (field, after) = if let Some(quoted) = rest.strip_prefix('"') {
            quoted_field(quoted).ok_or(Invalid::Quote(index))?
        } else {
            let (field, after) = match rest.split_once(',') {
                Some((field, after)) => (field, Some(after)),
                None => (rest, None),
            };
            if field.contains('"') {
                return Err(Invalid::Quote(index));
            }
            (field.to_owned(), after)
        };
        fields.push(field);
        match after {
            Some(after) => rest = after,
            None => return Ok(fields),
        }
    }
}

/// The field after an opening quote, and what follows its comma.
fn quoted_field(mut rest: &str) -> Option<(String, Option<&str>)> {
    let mut field = String::new();
    loop {
        let (before, after) = rest.split_once('"')?;
        field.push_str(before);
        if let Some(after) = after.strip_prefix('"') {
            field.push('"');
            rest = after;
        } else if after.is_empty() {
            return Some((field, None));
        } else {
            return Some((field, Some(after.strip_prefix(',')?)));
        }
    }
}

/// Joins fields into one line that [`fields`] splits again.
pub(crate) fn join<'a>(fields: impl IntoIterator<Item = &'a str>) -> String {
    let quote = |field: &str| {
        if field.contains([',', '"', '\n']) {
            format!("\"{}\"", field.replace('"', "\"\""))
        } else {
            field.to_owned()
        }
    };
    fields.into_iter().map(quote).collect::<Vec<_>>().join(",")
}

/// Splits a line into its pairs, keys in lower case.
pub(crate) fn pairs(line: &str) -> Result<Vec<(String, String)>, Invalid> {
    fields(line)?
        .into_iter()
        .map(|field| match field.split_once('=') {
            Some((key, value)) => Ok((key.trim().to_ascii_lowercase(), value.to_owned())),
            None => Err(Invalid::NotKeyValue(field)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_are_split_at_commas_outside_of_quotes() {
        for (line, expected) in [
            ("a", vec!["a"]),
            ("", vec![""]),
            ("a,b", vec!["a", "b"]),
            ("a,", vec!["a", ""]),
            (r#"type=x,"names=a,b",c"#, vec!["type=x", "names=a,b", "c"]),
            (r#""say ""hi""""#, vec![r#"say "hi""#]),
        ] {
            assert_eq!(fields(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn a_stray_quote_is_named_by_its_field() {
        for (line, field) in [(r#"a"b"#, 1), (r#"a,"b"#, 2), (r#"a,"b"c"#, 2)] {
            assert_eq!(fields(line), Err(Invalid::Quote(field)), "{line}");
        }
    }

    #[test]
    fn keys_have_one_letter_case_and_values_keep_theirs() {
        assert_eq!(
            pairs("Type=Local,DEST=A=B").unwrap(),
            [("type".to_owned(), "Local".to_owned()), ("dest".to_owned(), "A=B".to_owned())]
        );
        assert_eq!(pairs("type"), Err(Invalid::NotKeyValue("type".to_owned())));
    }

    proptest! {
        #[test]
        fn joined_fields_split_again(expected in prop::collection::vec("[a-z,\" =]{0,6}", 1..5)) {
            let line = join(expected.iter().map(String::as_str));
            prop_assert_eq!(fields(&line).unwrap(), expected);
        }
    }
}
