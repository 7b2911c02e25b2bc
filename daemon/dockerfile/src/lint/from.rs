//! Rules about FROM, whose words are expanded with global arguments.

use std::fmt::Write as _;

use indexmap::{IndexMap, IndexSet};

use super::{Linter, Rule};
use crate::dockerfile::Dockerfile;
use crate::expand::{Expander, Expansion, NoVariables, Variables};
use crate::instruction::Stage;
use crate::plan::GlobalArgs;
use crate::suggest;

/// The variable that FROM's platform follows anyway.
const TARGET_PLATFORM: &str = "TARGETPLATFORM";

/// Variables in a FROM that no global ARG declares.
pub fn undefined_args(
    linter: &mut Linter,
    stage: &Stage,
    unset: &IndexSet<String>,
    globals: &GlobalArgs,
) {
    for name in unset {
        if globals.declared.contains_key(name) || globals.values.contains_key(name) {
            continue;
        }
        let mut detail = format!("FROM argument '{name}' is not declared");
        let known = globals.declared.keys().chain(globals.values.keys()).map(String::as_str);
        if let Some(meant) = suggest::closest(name, known) {
            let _ = write!(detail, " (did you mean {meant}?)");
        }
        linter.warn(Rule::UndefinedArgInFrom, stage.location, &stage.comments, detail);
    }
}

/// A `--platform` that is `$TARGETPLATFORM` and nothing else.
pub fn redundant_platform(
    linter: &mut Linter,
    stage: &Stage,
    platform: &Expansion,
    variables: &dyn Variables,
) {
    let only_that = platform.unset.is_empty()
        && platform.used.len() == 1
        && platform.used.contains(TARGET_PLATFORM);
    if only_that && variables.get(TARGET_PLATFORM) == Some(platform.text.as_str()) {
        let written = stage.platform.as_deref().unwrap_or_default();
        let detail = format!(
            "Setting platform to predefined {written} in FROM is redundant as this is the default \
             behavior"
        );
        linter.warn(Rule::RedundantTargetPlatform, stage.location, &stage.comments, detail);
    }
}

/// A `--platform` without variables, whose parsed form is `os` and `architecture`. A stage that
/// has either in its name is for that platform on purpose.
pub fn constant_platform(
    linter: &mut Linter,
    stage: &Stage,
    platform: &Expansion,
    os: &str,
    architecture: &str,
) {
    if !platform.used.is_empty() || !platform.unset.is_empty() {
        return;
    }
    let name = stage.name.as_deref().unwrap_or_default();
    if name.contains(os) || name.contains(architecture) {
        return;
    }
    let detail = format!("FROM --platform flag should not use constant value {:?}", platform.text);
    let rule = Rule::FromPlatformFlagConstDisallowed;
    linter.warn(rule, stage.location, &stage.comments, detail);
}

/// Base images that are no valid names if no build argument is given. `is_valid` says what a
/// valid name is.
pub fn default_args(
    linter: &mut Linter,
    file: &Dockerfile,
    automatic: &IndexMap<String, String>,
    is_valid: impl Fn(&str) -> bool,
) {
    // A mistake in these is reported when they are evaluated with the build's arguments.
    let Ok(globals) = GlobalArgs::evaluate(file, automatic.clone(), &NoVariables) else { return };
    let expander = Expander::new(file.directives.escape);
    for stage in &file.stages {
        let Ok(base) = expander.word(&stage.base, &globals.values) else { return };
        if !is_valid(&base) {
            let detail = format!(
                "Default value for ARG {} results in empty or invalid base image name",
                stage.base
            );
            linter.warn(Rule::InvalidDefaultArgInFrom, stage.location, &stage.comments, detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn automatic() -> IndexMap<String, String> {
        [(TARGET_PLATFORM, "linux/amd64"), ("BUILDPLATFORM", "linux/arm64")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    fn details(source: &str, check: impl Fn(&mut Linter, &Dockerfile, &GlobalArgs)) -> Vec<String> {
        let file = Dockerfile::parse(source.as_bytes()).unwrap();
        let globals = GlobalArgs::evaluate(&file, automatic(), &NoVariables).unwrap();
        let mut linter = Linter::default();
        check(&mut linter, &file, &globals);
        linter.warnings().iter().map(|warning| warning.detail.clone()).collect()
    }

    fn platform(stage: &Stage, globals: &GlobalArgs) -> Expansion {
        Expander::new('\\').expand(stage.platform.as_ref().unwrap(), &globals.values).unwrap()
    }

    #[test]
    fn args_in_from_must_be_declared() {
        let check = |linter: &mut Linter, file: &Dockerfile, globals: &GlobalArgs| {
            let stage = &file.stages[0];
            let base = Expander::new('\\').expand(&stage.base, &globals.values).unwrap();
            undefined_args(linter, stage, &base.unset, globals);
        };
        let expected = ["FROM argument 'VERSON' is not declared (did you mean VERSION?)"];
        assert_eq!(details("ARG VERSION=1\nFROM a:$VERSON\n", check), expected);
        assert_eq!(details("ARG VERSION\nFROM a:$VERSION\n", check), [] as [&str; 0]);
        assert_eq!(details("FROM a:$x\n", check), ["FROM argument 'x' is not declared"]);
    }

    #[test]
    fn the_target_platform_is_redundant() {
        let check = |linter: &mut Linter, file: &Dockerfile, globals: &GlobalArgs| {
            let stage = &file.stages[0];
            redundant_platform(linter, stage, &platform(stage, globals), &globals.values);
        };
        for (flag, count) in [
            ("$TARGETPLATFORM", 1),
            ("${TARGETPLATFORM}", 1),
            ("$BUILDPLATFORM", 0),
            ("${TARGETPLATFORM}$X", 0),
            ("linux/amd64", 0),
        ] {
            let found = details(&format!("FROM --platform={flag} a\n"), check);
            assert_eq!(found.len(), count, "{flag}");
        }
    }

    #[test]
    fn a_constant_platform_needs_a_name_that_says_so() {
        let check = |linter: &mut Linter, file: &Dockerfile, globals: &GlobalArgs| {
            let stage = &file.stages[0];
            constant_platform(linter, stage, &platform(stage, globals), "linux", "amd64");
        };
        for (from, count) in [
            ("FROM --platform=linux/amd64 a AS build", 1),
            ("FROM --platform=linux/amd64 a AS build-amd64", 0),
            ("FROM --platform=linux/amd64 a AS linux-tools", 0),
            ("FROM --platform=$BUILDPLATFORM a AS build", 0),
        ] {
            assert_eq!(details(&format!("{from}\n"), check).len(), count, "{from}");
        }
    }

    #[test]
    fn defaults_must_make_a_valid_base_image() {
        let check = |linter: &mut Linter, file: &Dockerfile, _: &GlobalArgs| {
            default_args(linter, file, &automatic(), |name| {
                !name.is_empty() && !name.ends_with(':')
            });
        };
        assert_eq!(
            details("ARG TAG\nFROM a:${TAG}\n", check),
            ["Default value for ARG a:${TAG} results in empty or invalid base image name"]
        );
        assert_eq!(details("ARG TAG=1\nFROM a:${TAG}\n", check), [] as [&str; 0]);
        assert_eq!(details("ARG TAG\nFROM a${TAG:+:$TAG}\n", check), [] as [&str; 0]);
    }
}
