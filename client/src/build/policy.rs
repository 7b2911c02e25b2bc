//! A policy about sources from a file, which a variable of the environment names.
//!
//! The JSON is that of buildx and of `buildctl`: the messages of the wire with enums by name or by
//! number.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use kiln_proto::sourcepolicy::{
    AttrConstraint, AttrMatch, MatchType, Policy, PolicyAction, Rule, Selector, Update,
};
use serde::Deserialize;

/// The variable that names the file.
pub(super) const VARIABLE: &str = "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY";

/// Reads the policy in a file.
pub(super) fn read(path: &Path) -> Result<Policy> {
    let read = || {
        let json = std::fs::read(path)?;
        let policy: PolicyFile = serde_json::from_slice(&json)?;
        anyhow::Ok(policy.into())
    };
    read().with_context(|| format!("{VARIABLE}: cannot use {}", path.display()))
}

// A misspelt member would make a rule that says something else, so all are known.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    #[serde(default)]
    version: i64,
    #[serde(default)]
    rules: Vec<RuleFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    #[serde(default)]
    action: Choice,
    selector: SelectorFile,
    updates: Option<UpdateFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SelectorFile {
    #[serde(default)]
    identifier: String,
    #[serde(default, alias = "matchType")]
    match_type: Choice,
    #[serde(default)]
    constraints: Vec<ConstraintFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConstraintFile {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value: String,
    #[serde(default)]
    condition: Choice,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateFile {
    #[serde(default)]
    identifier: String,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
}

/// One of a few words: none is the first.
#[derive(Deserialize, Default)]
#[serde(untagged)]
enum Choice {
    #[default]
    First,
    Number(i32),
    Word(String),
}

impl Choice {
    /// Its number. What no daemon would know becomes a number that none knows, for the daemon to say
    /// so.
    fn number<E: Into<i32>>(self, named: impl Fn(&str) -> Option<E>) -> i32 {
        match self {
            Self::First => 0,
            Self::Number(number) => number,
            Self::Word(word) => named(&word).map_or(-1, Into::into),
        }
    }
}

impl From<PolicyFile> for Policy {
    fn from(file: PolicyFile) -> Self {
        Self { version: file.version, rules: file.rules.into_iter().map(Rule::from).collect() }
    }
}

impl From<RuleFile> for Rule {
    fn from(file: RuleFile) -> Self {
        let SelectorFile { identifier, match_type, constraints } = file.selector;
        let selector = Selector {
            identifier,
            match_type: match_type.number(MatchType::from_str_name),
            constraints: constraints.into_iter().map(AttrConstraint::from).collect(),
        };
        let update = |UpdateFile { identifier, attrs }: UpdateFile| Update { identifier, attrs };
        Self {
            action: file.action.number(PolicyAction::from_str_name),
            selector: Some(selector),
            updates: file.updates.map(update),
        }
    }
}

impl From<ConstraintFile> for AttrConstraint {
    fn from(file: ConstraintFile) -> Self {
        let ConstraintFile { key, value, condition } = file;
        Self { key, value, condition: condition.number(AttrMatch::from_str_name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: &str) -> Result<Policy> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("policy.json");
        std::fs::write(&path, json)?;
        read(&path)
    }

    #[test]
    fn a_policy_is_read_as_buildx_reads_it() {
        let json = r#"{"version": 1, "rules": [
            {"action": "DENY", "selector": {"identifier": "docker-image://*"}},
            {"action": 2, "selector": {
                "identifier": "^a$", "match_type": "REGEX",
                "constraints": [{"key": "k", "value": "v", "condition": "NOTEQUAL"}]
            }, "updates": {"identifier": "b", "attrs": {"x": "y"}}}
        ]}"#;
        let policy = policy(json).unwrap();
        let [deny, convert] = policy.rules.as_slice() else { panic!("{policy:?}") };
        assert_eq!(deny.action(), PolicyAction::Deny);
        let selector = deny.selector.clone().unwrap();
        assert_eq!(selector.match_type(), MatchType::Wildcard);
        assert_eq!(convert.action(), PolicyAction::Convert);
        let selector = convert.selector.clone().unwrap();
        assert_eq!(selector.match_type(), MatchType::Regex);
        assert_eq!(selector.constraints[0].condition(), AttrMatch::Notequal);
        assert_eq!(convert.updates.clone().unwrap().attrs["x"], "y");
    }

    #[test]
    fn a_file_that_is_no_policy_is_named() {
        for json in ["", "7", r#"{"rules": [{}]}"#, r#"{"rules": [{"selektor": {}}]}"#] {
            let error = format!("{:#}", policy(json).unwrap_err());
            assert!(error.contains("policy.json"), "{error}");
        }
    }
}
