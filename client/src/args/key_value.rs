//! `KEY=VALUE` lists: build args and labels.

use super::invalid::Invalid;
use std::collections::BTreeMap;

/// Build args: one without a value takes the environment's, and is left out if there is none.
pub(crate) fn build_args(
    values: &[String],
    env: impl Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, Invalid> {
    collect(values, |key| env(key))
}

/// Labels: one without a value is empty.
pub(crate) fn labels(values: &[String]) -> Result<BTreeMap<String, String>, Invalid> {
    collect(values, |_| Some(String::new()))
}

fn collect(
    values: &[String],
    default: impl Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, Invalid> {
    let mut map = BTreeMap::new();
    for pair in values {
        let (key, value) = match pair.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (pair.as_str(), default(pair)),
        };
        if key.is_empty() {
            return Err(Invalid::NoKey(pair.clone()));
        }
        if let Some(value) = value {
            map.insert(key.to_owned(), value);
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(values: &[&str]) -> Vec<String> {
        values.iter().map(|&value| value.to_owned()).collect()
    }

    #[test]
    fn a_build_arg_without_value_comes_from_the_environment() {
        let env = |key: &str| (key == "SET").then(|| "from env".to_owned());
        let args = build_args(&list(&["SET", "UNSET", "A=b=c", "EMPTY="]), env).unwrap();
        let expected = [("A", "b=c"), ("EMPTY", ""), ("SET", "from env")];
        assert!(args.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(expected));
    }

    #[test]
    fn a_label_without_value_is_empty_and_the_last_of_a_name_wins() {
        let labels = labels(&list(&["a", "b=1", "b=2"])).unwrap();
        assert!(labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq([("a", ""), ("b", "2")]));
    }

    #[test]
    fn a_pair_without_key_is_refused() {
        assert_eq!(labels(&list(&["=v"])), Err(Invalid::NoKey("=v".to_owned())));
    }
}
