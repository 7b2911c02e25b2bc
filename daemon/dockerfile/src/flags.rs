//! Flags of instructions: `--name`, `--name=value`.

use std::collections::HashMap;

use crate::error::ErrorKind;
use crate::suggest;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// `true` or `false`, or nothing for `true`.
    Switch,
    /// One value, once.
    Value,
    /// One value, any number of times.
    Values,
}

/// The flags given to one instruction, all of them known to it.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    given: HashMap<&'static str, Vec<String>>,
}

impl Flags {
    /// Checks `written` against the flags that the instruction knows.
    pub(crate) fn parse(
        written: &[String],
        known: &[(&'static str, Takes)],
    ) -> Result<Self, ErrorKind> {
        let mut flags = Self::default();
        for flag in written {
            let flag = flag.strip_prefix("--").unwrap_or(flag);
            let (name, value) =
                flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
            let Some((known_name, takes)) = known.iter().find(|(known, _)| *known == name) else {
                let names = known.iter().map(|(name, _)| *name);
                return Err(ErrorKind::UnknownFlag {
                    name: name.to_owned(),
                    suggestion: suggest::closest(name, names).map(str::to_owned),
                });
            };
            let values = flags.given.entry(known_name).or_default();
            if !values.is_empty() && *takes != Takes::Values {
                return Err(ErrorKind::RepeatedFlag { name: name.to_owned() });
            }
            values.push(match (takes, value) {
                (Takes::Switch, value) => switch(name, value)?.to_string(),
                (Takes::Value | Takes::Values, Some(value)) => value.to_owned(),
                (Takes::Value | Takes::Values, None) => {
                    return Err(ErrorKind::MissingFlagValue { name: name.to_owned() });
                }
            });
        }
        Ok(flags)
    }

    /// A switch's position, if it was given.
    pub(crate) fn switch(&self, name: &str) -> Option<bool> {
        self.given.get(name).map(|values| values.iter().any(|value| value == "true"))
    }

    /// A flag's value, if it was given; it may be empty.
    pub(crate) fn value(&mut self, name: &str) -> Option<String> {
        self.given.remove(name)?.pop()
    }

    /// A flag's value, where an empty one means the same as none.
    pub(crate) fn non_empty(&mut self, name: &str) -> Option<String> {
        self.value(name).filter(|value| !value.is_empty())
    }

    /// All values of a flag, in order.
    pub(crate) fn values(&mut self, name: &str) -> Vec<String> {
        self.given.remove(name).unwrap_or_default()
    }
}

fn switch(name: &str, value: Option<&str>) -> Result<bool, ErrorKind> {
    match value {
        None => Ok(true),
        Some("") => Err(ErrorKind::MissingFlagValue { name: name.to_owned() }),
        Some(value) if value.eq_ignore_ascii_case("true") => Ok(true),
        Some(value) if value.eq_ignore_ascii_case("false") => Ok(false),
        Some(value) => {
            Err(ErrorKind::NotBoolean { name: name.to_owned(), value: value.to_owned() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[(&str, Takes)] =
        &[("link", Takes::Switch), ("from", Takes::Value), ("exclude", Takes::Values)];

    fn parse(flags: &[&str]) -> Result<Flags, ErrorKind> {
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Flags::parse(&flags, KNOWN)
    }

    #[test]
    fn each_kind_of_flag_gives_its_value() {
        let mut flags = parse(&["--link", "--from=a=b", "--exclude=x", "--exclude="]).unwrap();
        assert_eq!(flags.switch("link"), Some(true));
        assert_eq!(flags.value("from").as_deref(), Some("a=b"));
        assert_eq!(flags.values("exclude"), ["x", ""]);
        assert_eq!(parse(&["--link=False"]).unwrap().switch("link"), Some(false));
        assert_eq!(parse(&[]).unwrap().switch("link"), None);
        assert_eq!(parse(&["--from="]).unwrap().non_empty("from"), None);
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            (&["--form=a"][..], "unknown flag: --form"),
            (&["--"], "unknown flag: --"),
            (&["--link", "--link"], "duplicate flag specified: --link"),
            (&["--from"], "missing a value on flag: --from"),
            (&["--exclude"], "missing a value on flag: --exclude"),
            (&["--link="], "missing a value on flag: --link"),
            (&["--link=yes"], "expecting boolean value for flag --link, not: yes"),
        ];
        for (flags, message) in cases {
            assert_eq!(parse(flags).unwrap_err().to_string(), message, "{flags:?}");
        }
    }

    #[test]
    fn a_near_flag_is_suggested() {
        let error = parse(&["--form=a"]).unwrap_err();
        let suggestion = Some("from".to_owned());
        assert_eq!(error, ErrorKind::UnknownFlag { name: "form".to_owned(), suggestion });
    }
}
