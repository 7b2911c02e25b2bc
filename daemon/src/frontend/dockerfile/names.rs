//! Names of steps: `[stage-0 2/5] RUN make`.

use indexmap::IndexMap;

use crate::image::Platform;

/// Counts the steps of a stage.
#[derive(Clone, Debug, Default)]
pub(super) struct StepNames {
    /// The stage's name; empty if it is the only one.
    pub(super) stage: String,
    /// The platform, where a build has several.
    pub(super) platform: Option<Platform>,
    /// How many steps the stage has; without any there are no numbers.
    pub(super) total: usize,
    /// Whether the instruction at hand is a trigger of the base image.
    pub(super) is_trigger: bool,
    index: usize,
}

impl StepNames {
    pub(super) fn new(stage: &str, platform: Option<Platform>, total: usize) -> Self {
        Self { stage: stage.to_owned(), platform, total, is_trigger: false, index: 0 }
    }

    /// The name of the next step, which does what `text` says.
    pub(super) fn next(&mut self, text: &str, env: &IndexMap<String, String>) -> String {
        self.index += 1;
        self.current(text, env)
    }

    /// Another name with the same number.
    pub(super) fn current(&self, text: &str, env: &IndexMap<String, String>) -> String {
        if self.total == 0 {
            return text.to_owned();
        }
        let platform = match &self.platform {
            Some(platform) => format!("{platform}{} ", cross_target(platform, env)),
            None => String::new(),
        };
        let stage = if self.stage.is_empty() { String::new() } else { format!("{} ", self.stage) };
        let trigger = if self.is_trigger { "ONBUILD " } else { "" };
        let width = self.total.to_string().len();
        let (index, total) = (self.index, self.total);
        format!("[{platform}{stage}{index:>width$}/{total}] {trigger}{text}")
    }
}

/// Which platform a stage of `platform` builds for, if its arguments name another one.
fn cross_target(platform: &Platform, env: &IndexMap<String, String>) -> String {
    let get = |name: &str| env.get(name).map(String::as_str);
    let whole = get("TARGETPLATFORM").and_then(|text| text.parse::<Platform>().ok());
    let target = whole.or_else(|| {
        let (os, arch, variant) = (get("TARGETOS"), get("TARGETARCH"), get("TARGETVARIANT"));
        if os.is_none() && arch.is_none() && variant.is_none() {
            return None;
        }
        let os = os.filter(|os| !os.is_empty()).unwrap_or(&platform.os);
        let arch = arch.filter(|arch| !arch.is_empty()).unwrap_or(&platform.architecture);
        Some(Platform::new(os, arch, variant.unwrap_or_default()))
    });
    let Some(target) = target else { return String::new() };
    if target.os != platform.os {
        return format!("->{target}");
    }
    if target.architecture == platform.architecture {
        return String::new();
    }
    match target.variant.as_str() {
        "" => format!("->{}", target.architecture),
        variant => format!("->{}/{variant}", target.architecture),
    }
}

/// The text with its first word in upper case, as instructions are shown.
pub(super) fn uppercase_keyword(text: &str) -> String {
    match text.split_once(' ') {
        Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
        None => text.to_uppercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted_within_their_stage() {
        let env = IndexMap::new();
        let mut names = StepNames::new("build", None, 12);
        assert_eq!(names.next("FROM x", &env), "[build  1/12] FROM x");
        assert_eq!(names.next("RUN y", &env), "[build  2/12] RUN y");
        assert_eq!(names.current("LINK z", &env), "[build  2/12] LINK z");
        names.is_trigger = true;
        assert_eq!(names.next("RUN t", &env), "[build  3/12] ONBUILD RUN t");
        assert_eq!(StepNames::new("", None, 1).next("FROM x", &env), "[1/1] FROM x");
        assert_eq!(StepNames::default().next("FROM x", &env), "FROM x");
    }

    #[test]
    fn a_cross_build_names_both_platforms() {
        let platform = Platform::new("linux", "amd64", "");
        let mut names = StepNames::new("build", Some(platform), 1);
        let env = |pairs: &[(&str, &str)]| -> IndexMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
        };
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[], "[linux/amd64 build 1/1] x"),
            (&[("TARGETPLATFORM", "linux/amd64")], "[linux/amd64 build 1/1] x"),
            (&[("TARGETPLATFORM", "linux/arm64")], "[linux/amd64->arm64 build 1/1] x"),
            (
                &[("TARGETARCH", "arm"), ("TARGETVARIANT", "v6")],
                "[linux/amd64->arm/v6 build 1/1] x",
            ),
            (&[("TARGETOS", "windows")], "[linux/amd64->windows/amd64 build 1/1] x"),
        ];
        names.index = 1;
        for (pairs, expected) in cases {
            assert_eq!(names.current("x", &env(pairs)), *expected);
        }
    }

    #[test]
    fn only_the_keyword_is_shown_in_upper_case() {
        assert_eq!(uppercase_keyword("run echo a"), "RUN echo a");
        assert_eq!(uppercase_keyword("run"), "RUN");
    }
}
