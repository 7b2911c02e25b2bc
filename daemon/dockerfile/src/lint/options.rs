use std::collections::BTreeSet;

use crate::directive;
use crate::lines::Comments;

/// Which rules are checked, and what their findings mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LintOptions {
    /// Nothing is checked, except experimental rules that are asked for.
    pub skip_all: bool,
    /// Names of rules that are not checked.
    pub skip: BTreeSet<String>,
    /// Every experimental rule is checked.
    pub experimental_all: bool,
    /// Names of experimental rules that are checked.
    pub experimental: BTreeSet<String>,
    /// A finding makes the build fail.
    pub error: bool,
}

/// Options that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// An option that is not known, or has no value.
    #[error("invalid check option {option:?}: known are skip=, experimental= and error=")]
    Unknown {
        /// The option.
        option: String,
    },
    /// `error=` something that is no boolean.
    #[error("failed to parse check option {option:?}: it is true or false")]
    NotBoolean {
        /// The option.
        option: String,
    },
}

impl LintOptions {
    /// Parses the value of a `check` directive or of the build argument
    /// `BUILDKIT_DOCKERFILE_CHECK`: `skip=A,B;experimental=C;error=true`.
    pub fn parse(text: &str) -> Result<Self, OptionsError> {
        let mut options = Self::default();
        if text.trim().is_empty() {
            return Ok(options);
        }
        for option in text.split(';') {
            let unknown = |option: &str| OptionsError::Unknown { option: option.to_owned() };
            let (key, value) = option.split_once('=').ok_or_else(|| unknown(option))?;
            let value = value.trim();
            match key.trim() {
                "skip" if value == "all" => options.skip_all = true,
                "skip" => options.skip = names(value),
                "experimental" if value == "all" => options.experimental_all = true,
                "experimental" => options.experimental = names(value),
                "error" => {
                    options.error = crate::instruction::boolean(value)
                        .ok_or_else(|| OptionsError::NotBoolean { option: option.to_owned() })?;
                }
                other => return Err(unknown(other)),
            }
        }
        Ok(options)
    }

    /// These options and those that a comment above an instruction adds for it alone. Comments
    /// that cannot be understood add nothing.
    pub(crate) fn merged_with(&self, comments: &Comments) -> Option<Self> {
        let (_, value) = comments
            .texts
            .iter()
            .filter_map(|text| directive::parse(text))
            .find(|(name, _)| name == "check")?;
        let local = Self::parse(value.split(' ').next().unwrap_or_default()).ok()?;
        let mut merged = self.clone();
        merged.skip_all |= local.skip_all;
        merged.experimental_all |= local.experimental_all;
        merged.skip.extend(local.skip);
        merged.experimental.extend(local.experimental);
        Some(merged)
    }
}

fn names(list: &str) -> BTreeSet<String> {
    list.split(',').map(|name| name.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_separated_by_semicolons() {
        let options = LintOptions::parse(" skip=A, B ; experimental=all;error=true ").unwrap();
        assert_eq!(options.skip, names("A,B"));
        assert!(options.experimental_all && options.error && !options.skip_all);
        assert_eq!(LintOptions::parse(""), Ok(LintOptions::default()));
        assert!(LintOptions::parse("skip=all").unwrap().skip_all);
    }

    #[test]
    fn mistakes_are_named() {
        for text in ["skip", "skp=A", "error=maybe", "skip=A;;"] {
            assert!(LintOptions::parse(text).is_err(), "{text}");
        }
    }
}
