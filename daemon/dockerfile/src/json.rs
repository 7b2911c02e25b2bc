use serde_json::Value;

use crate::error::ErrorKind;

/// The strings of an instruction in JSON form; `None` if it is in shell form.
///
/// Text that starts like an array but is no JSON is left to the shell, as it always was. An array
/// of something else than strings is a mistake.
pub(crate) fn string_array(text: &str) -> Result<Option<Vec<String>>, ErrorKind> {
    if !text.trim_start().starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<Value>>(text) else { return Ok(None) };
    let strings = values.into_iter().map(|value| match value {
        Value::String(text) => Ok(text),
        _ => Err(ErrorKind::NotStrings),
    });
    strings.collect::<Result<_, _>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_strings_are_json_form() {
        let cases: &[(&str, &[&str])] = &[
            ("[]", &[]),
            ("[\"\"]", &[""]),
            (" [ \"a\",\t\"b\" ] ", &["a", "b"]),
            ("[\"♥\", \"\\\" \\\\ \\n \\u0041\"]", &["♥", "\" \\ \n A"]),
        ];
        for (text, expected) in cases {
            assert_eq!(string_array(text).unwrap().unwrap(), *expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_shell_form() {
        for text in ["", "a", "[a]", "['a']", "[\"a\"", "[\"a\"] b", "[ -f x ]", "{\"a\": 1}"] {
            assert_eq!(string_array(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn arrays_of_anything_else_are_refused() {
        for text in ["[1]", "[\"a\", null]", "[[\"a\"]]", "[{}]", "[true]"] {
            assert_eq!(string_array(text), Err(ErrorKind::NotStrings), "{text}");
        }
    }
}
