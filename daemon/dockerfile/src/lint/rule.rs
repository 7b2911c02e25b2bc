use std::fmt;

/// A lint rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "`description` says what each rule is about")]
pub enum Rule {
    ConsistentInstructionCasing,
    CopyIgnoredFile,
    DuplicateStageName,
    ExposeInvalidFormat,
    ExposeProtoCasing,
    FromAsCasing,
    FromPlatformFlagConstDisallowed,
    InvalidBaseImagePlatform,
    InvalidDefaultArgInFrom,
    InvalidDefinitionDescription,
    JSONArgsRecommended,
    LegacyKeyValueFormat,
    MaintainerDeprecated,
    MultipleInstructionsDisallowed,
    NoEmptyContinuation,
    RedundantTargetPlatform,
    ReservedStageName,
    SecretsUsedInArgOrEnv,
    StageNameCasing,
    UndefinedArgInFrom,
    UndefinedVar,
    WorkdirRelativePath,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 22] = [
        Self::ConsistentInstructionCasing,
        Self::CopyIgnoredFile,
        Self::DuplicateStageName,
        Self::ExposeInvalidFormat,
        Self::ExposeProtoCasing,
        Self::FromAsCasing,
        Self::FromPlatformFlagConstDisallowed,
        Self::InvalidBaseImagePlatform,
        Self::InvalidDefaultArgInFrom,
        Self::InvalidDefinitionDescription,
        Self::JSONArgsRecommended,
        Self::LegacyKeyValueFormat,
        Self::MaintainerDeprecated,
        Self::MultipleInstructionsDisallowed,
        Self::NoEmptyContinuation,
        Self::RedundantTargetPlatform,
        Self::ReservedStageName,
        Self::SecretsUsedInArgOrEnv,
        Self::StageNameCasing,
        Self::UndefinedArgInFrom,
        Self::UndefinedVar,
        Self::WorkdirRelativePath,
    ];

    /// Its name, as `# check=skip=` takes it.
    pub fn name(self) -> &'static str {
        self.facts().0
    }

    /// What it is about, in one sentence.
    pub fn description(self) -> &'static str {
        self.facts().2
    }

    /// The page that explains it; empty for a rule that has none.
    pub fn url(self) -> String {
        match self.facts().1 {
            "" => String::new(),
            slug => format!("https://docs.docker.com/go/dockerfile/rule/{slug}/"),
        }
    }

    /// Whether it is checked only when `# check=experimental=` asks for it.
    pub fn is_experimental(self) -> bool {
        self == Self::InvalidDefinitionDescription
    }

    /// Name, last part of the URL, description.
    fn facts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::ConsistentInstructionCasing => (
                "ConsistentInstructionCasing",
                "consistent-instruction-casing",
                "Instructions should all be written in the same case, upper or lower",
            ),
            Self::CopyIgnoredFile => (
                "CopyIgnoredFile",
                "copy-ignored-file",
                "A file to be copied is excluded from the context by .dockerignore",
            ),
            Self::DuplicateStageName => (
                "DuplicateStageName",
                "duplicate-stage-name",
                "Each stage should have a name of its own",
            ),
            Self::ExposeInvalidFormat => (
                "ExposeInvalidFormat",
                "expose-invalid-format",
                "EXPOSE takes ports of the container only, without addresses or ports of the host",
            ),
            Self::ExposeProtoCasing => (
                "ExposeProtoCasing",
                "expose-proto-casing",
                "The protocol in EXPOSE should be in lower case",
            ),
            Self::FromAsCasing => (
                "FromAsCasing",
                "from-as-casing",
                "The keywords FROM and AS should be written in the same case",
            ),
            Self::FromPlatformFlagConstDisallowed => (
                "FromPlatformFlagConstDisallowed",
                "from-platform-flag-const-disallowed",
                "FROM --platform should follow a variable and not name one platform",
            ),
            Self::InvalidBaseImagePlatform => (
                "InvalidBaseImagePlatform",
                "",
                "The base image is for another platform than the build",
            ),
            Self::InvalidDefaultArgInFrom => (
                "InvalidDefaultArgInFrom",
                "invalid-default-arg-in-from",
                "The base image should be a valid name with the defaults of the global ARGs alone",
            ),
            Self::InvalidDefinitionDescription => (
                "InvalidDefinitionDescription",
                "invalid-definition-description",
                "A comment right above a stage or ARG should describe it: \
                 `# <name> <description>`",
            ),
            Self::JSONArgsRecommended => (
                "JSONArgsRecommended",
                "json-args-recommended",
                "CMD and ENTRYPOINT should be in JSON form, or signals reach a shell instead of \
                 the program",
            ),
            Self::LegacyKeyValueFormat => (
                "LegacyKeyValueFormat",
                "legacy-key-value-format",
                "Names and values should be joined by an equals sign and not by a blank",
            ),
            Self::MaintainerDeprecated => (
                "MaintainerDeprecated",
                "maintainer-deprecated",
                "MAINTAINER is deprecated: a label can name the image's author",
            ),
            Self::MultipleInstructionsDisallowed => (
                "MultipleInstructionsDisallowed",
                "multiple-instructions-disallowed",
                "Of several such instructions in a stage only the last one has an effect",
            ),
            Self::NoEmptyContinuation => (
                "NoEmptyContinuation",
                "no-empty-continuation",
                "Empty lines inside an instruction will not be accepted for ever",
            ),
            Self::RedundantTargetPlatform => (
                "RedundantTargetPlatform",
                "redundant-target-platform",
                "FROM uses $TARGETPLATFORM without being told so",
            ),
            Self::ReservedStageName => (
                "ReservedStageName",
                "reserved-stage-name",
                "Reserved words should not be names of stages",
            ),
            Self::SecretsUsedInArgOrEnv => (
                "SecretsUsedInArgOrEnv",
                "secrets-used-in-arg-or-env",
                "Secrets should not be passed by ARG or ENV, which end up in the image",
            ),
            Self::StageNameCasing => {
                ("StageNameCasing", "stage-name-casing", "Names of stages should be in lower case")
            }
            Self::UndefinedArgInFrom => {
                ("UndefinedArgInFrom", "undefined-arg-in-from", "FROM can use global ARGs only")
            }
            Self::UndefinedVar => {
                ("UndefinedVar", "undefined-var", "A variable is used that is not defined")
            }
            Self::WorkdirRelativePath => (
                "WorkdirRelativePath",
                "workdir-relative-path",
                "A relative WORKDIR without an absolute one before it moves with the base image",
            ),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_rule_has_its_own_name_and_page() {
        let names: BTreeSet<&str> = Rule::ALL.into_iter().map(Rule::name).collect();
        let urls: BTreeSet<String> = Rule::ALL.into_iter().map(Rule::url).collect();
        assert_eq!((names.len(), urls.len()), (Rule::ALL.len(), Rule::ALL.len()));
        for rule in Rule::ALL {
            assert_eq!(format!("{rule:?}"), rule.name());
        }
    }

    #[test]
    fn a_page_is_named_like_its_rule() {
        let url = Rule::JSONArgsRecommended.url();
        assert_eq!(url, "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/");
    }
}
