//! The rules of one policy.

use std::sync::Arc;

use kiln_proto::pb;
use kiln_proto::sourcepolicy::{
    AttrConstraint, AttrMatch, MatchType, Policy, PolicyAction, Rule as SentRule, Update,
};
use regex::{Regex, RegexBuilder};

use super::Denied;

/// A policy's rules, in its order.
#[derive(Clone)]
pub(super) struct Rules(Arc<[Rule]>);

/// A policy that makes no sense.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidPolicy {
    #[error("source policy: rule {0} has no selector")]
    NoSelector(usize),
    #[error("source policy: rule {rule} has the unknown {what} {value}")]
    Unknown { rule: usize, what: &'static str, value: i32 },
    #[error("source policy: rule {0} converts, but does not say to what")]
    NoUpdate(usize),
    #[error("source policy: {0:?} has two asterisks in a row")]
    Wildcard(String),
    #[error("source policy: {pattern:?} is no regular expression")]
    Regex { pattern: String, source: regex::Error },
}

struct Rule {
    action: Action,
    selector: Selector,
}

enum Action {
    Allow,
    Deny,
    Convert(Update),
}

struct Selector {
    identifier: String,
    matcher: Matcher,
    constraints: Vec<Constraint>,
}

enum Matcher {
    Exact,
    /// Asterisks stand for anything, and are numbered.
    Wildcard(Regex),
    Regex(Regex),
}

struct Constraint {
    key: String,
    test: Test,
}

enum Test {
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl Rules {
    pub(super) fn parse(policy: &Policy) -> Result<Self, InvalidPolicy> {
        let rules = policy.rules.iter().enumerate();
        rules.map(|(number, rule)| Rule::parse(number, rule)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the source was converted, after which the rules are to be applied once more. The last
    /// rule that allows or denies it has the last word.
    pub(super) fn apply(&self, source: &mut pb::SourceOp) -> Result<bool, Denied> {
        let mut is_denied = false;
        for rule in &*self.0 {
            if !rule.selector.matches(source) {
                continue;
            }
            match &rule.action {
                Action::Allow => is_denied = false,
                Action::Deny => is_denied = true,
                Action::Convert(update) => {
                    if rule.selector.convert(source, update) {
                        return Ok(true);
                    }
                }
            }
        }
        if is_denied {
            return Err(Denied::ByRule(source.identifier.clone()));
        }
        Ok(false)
    }
}

impl Rule {
    fn parse(number: usize, rule: &SentRule) -> Result<Self, InvalidPolicy> {
        let unknown = |what, value| InvalidPolicy::Unknown { rule: number, what, value };
        let selector = rule.selector.as_ref().ok_or(InvalidPolicy::NoSelector(number))?;
        let identifier = selector.identifier.clone();
        let matcher = match MatchType::try_from(selector.match_type) {
            Ok(MatchType::Exact) => Matcher::Exact,
            Ok(MatchType::Wildcard) => Matcher::Wildcard(wildcard(&identifier)?),
            Ok(MatchType::Regex) => Matcher::Regex(regex(&identifier)?),
            Err(_) => return Err(unknown("match type", selector.match_type)),
        };
        let constraint = |sent: &AttrConstraint| {
            let value = sent.value.clone();
            let test = match AttrMatch::try_from(sent.condition) {
                Ok(AttrMatch::Equal) => Test::Equal(value),
                Ok(AttrMatch::Notequal) => Test::NotEqual(value),
                Ok(AttrMatch::Matches) => Test::Matches(regex(&value)?),
                Err(_) => return Err(unknown("condition", sent.condition)),
            };
            Ok(Constraint { key: sent.key.clone(), test })
        };
        let constraints =
            selector.constraints.iter().map(constraint).collect::<Result<_, InvalidPolicy>>()?;
        let action = match PolicyAction::try_from(rule.action) {
            Ok(PolicyAction::Allow) => Action::Allow,
            Ok(PolicyAction::Deny) => Action::Deny,
            Ok(PolicyAction::Convert) => {
                let update = rule.updates.clone().ok_or(InvalidPolicy::NoUpdate(number))?;
                Action::Convert(update)
            }
            Err(_) => return Err(unknown("action", rule.action)),
        };
        Ok(Self { action, selector: Selector { identifier, matcher, constraints } })
    }
}

fn regex(pattern: &str) -> Result<Regex, InvalidPolicy> {
    // Bounded, since a client chooses it.
    let regex = RegexBuilder::new(pattern).size_limit(1 << 20).build();
    regex.map_err(|source| InvalidPolicy::Regex { pattern: pattern.to_owned(), source })
}

fn wildcard(pattern: &str) -> Result<Regex, InvalidPolicy> {
    if pattern.contains("**") {
        return Err(InvalidPolicy::Wildcard(pattern.to_owned()));
    }
    let parts: Vec<String> = pattern.split('*').map(regex::escape).collect();
    regex(&format!("^{}$", parts.join("(.*)")))
}

impl Selector {
    fn matches(&self, source: &pb::SourceOp) -> bool {
        let attribute = |key: &str| source.attrs.get(key).map_or("", String::as_str);
        let holds = |constraint: &Constraint| match &constraint.test {
            Test::Equal(value) => attribute(&constraint.key) == value,
            Test::NotEqual(value) => attribute(&constraint.key) != value,
            Test::Matches(pattern) => pattern.is_match(attribute(&constraint.key)),
        };
        let identifier = &source.identifier;
        self.constraints.iter().all(holds)
            && (self.identifier == *identifier
                || match &self.matcher {
                    Matcher::Exact => false,
                    Matcher::Wildcard(pattern) | Matcher::Regex(pattern) => {
                        pattern.is_match(identifier)
                    }
                })
    }

    /// Makes of a source what `update` says; `false` if it is that already.
    fn convert(&self, source: &mut pb::SourceOp, update: &Update) -> bool {
        let identifier = match update.identifier.as_str() {
            // Only attributes are new.
            "" => source.identifier.clone(),
            format => self.format(&source.identifier, format),
        };
        let mut is_new = identifier != source.identifier;
        source.identifier = identifier;
        for (key, value) in &update.attrs {
            is_new |= source.attrs.get(key) != Some(value);
            source.attrs.insert(key.clone(), value.clone());
        }
        is_new
    }

    /// Replaces `$1`, `${name}` and so on by what they stand for in `identifier`.
    fn format(&self, identifier: &str, format: &str) -> String {
        match &self.matcher {
            Matcher::Exact => format.to_owned(),
            Matcher::Regex(pattern) => pattern.replace_all(identifier, format).into_owned(),
            Matcher::Wildcard(pattern) => {
                let Some(found) = pattern.captures(identifier) else {
                    return identifier.to_owned();
                };
                let mut formatted = String::new();
                found.expand(format, &mut formatted);
                formatted
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kiln_proto::sourcepolicy::Selector as SentSelector;

    use super::*;

    fn source(identifier: &str) -> pb::SourceOp {
        let attrs = [("http.checksum".to_owned(), "sha256:a".to_owned())].into();
        pb::SourceOp { identifier: identifier.to_owned(), attrs }
    }

    fn rules(selector: SentSelector, action: PolicyAction, update: Option<Update>) -> Rules {
        let rule = SentRule { action: action.into(), selector: Some(selector), updates: update };
        Rules::parse(&Policy { version: 1, rules: vec![rule] }).unwrap()
    }

    #[test]
    fn a_selector_matches_exactly_by_asterisks_or_by_a_regular_expression() {
        let table = [
            (MatchType::Wildcard, "https://a/*", "https://a/b/c", true),
            (MatchType::Wildcard, "https://a/*", "http://a/b", false),
            (MatchType::Wildcard, "https://a.b/", "https://axb/", false),
            (MatchType::Exact, "https://a/*", "https://a/b", false),
            (MatchType::Exact, "https://a/*", "https://a/*", true),
            (MatchType::Regex, "^https://a/[bc]$", "https://a/c", true),
            (MatchType::Regex, "^https://a/[bc]$", "https://a/cc", false),
            (MatchType::Regex, "a/", "https://a/cc", true),
        ];
        for (kind, pattern, identifier, expected) in table {
            let selector = SentSelector {
                identifier: pattern.to_owned(),
                match_type: kind.into(),
                constraints: Vec::new(),
            };
            let denied = rules(selector, PolicyAction::Deny, None).apply(&mut source(identifier));
            assert_eq!(denied.is_err(), expected, "{kind:?} {pattern} {identifier}");
        }
    }

    #[test]
    fn constraints_look_at_attributes() {
        let table = [
            (AttrMatch::Equal, "http.checksum", "sha256:a", true),
            (AttrMatch::Equal, "http.checksum", "sha256:b", false),
            (AttrMatch::Equal, "http.uid", "", true),
            (AttrMatch::Notequal, "http.checksum", "", true),
            (AttrMatch::Matches, "http.checksum", "^sha256:", true),
            (AttrMatch::Matches, "http.uid", ".", false),
        ];
        for (condition, key, value, expected) in table {
            let constraint = AttrConstraint {
                key: key.to_owned(),
                value: value.to_owned(),
                condition: condition.into(),
            };
            let selector = SentSelector {
                identifier: "*".to_owned(),
                constraints: vec![constraint],
                ..SentSelector::default()
            };
            let denied = rules(selector, PolicyAction::Deny, None).apply(&mut source("local://a"));
            assert_eq!(denied.is_err(), expected, "{condition:?} {key} {value}");
        }
    }

    #[test]
    fn a_conversion_says_what_becomes_of_the_parts_of_a_name() {
        let table = [
            (MatchType::Wildcard, "https://*/x/*", "https://b/${2}?${1}", "https://b/f?a"),
            (MatchType::Regex, "^https://(?P<host>[^/]+)", "http://${host}", "http://a/x/f"),
            (MatchType::Exact, "https://a/x/f", "local://$1", "local://$1"),
            (MatchType::Wildcard, "https://a/*", "", "https://a/x/f"),
        ];
        for (kind, pattern, format, expected) in table {
            let selector = SentSelector {
                identifier: pattern.to_owned(),
                match_type: kind.into(),
                constraints: Vec::new(),
            };
            let attrs = [("http.checksum".to_owned(), "sha256:b".to_owned())].into();
            let update = Update { identifier: format.to_owned(), attrs };
            let rules = rules(selector, PolicyAction::Convert, Some(update));
            let mut source = source("https://a/x/f");
            assert!(rules.apply(&mut source).unwrap(), "{pattern}");
            assert_eq!(source.identifier, expected);
            assert_eq!(source.attrs["http.checksum"], "sha256:b");
        }
    }

    #[test]
    fn a_policy_that_makes_no_sense_is_refused() {
        let selector = |identifier: &str, match_type: i32| {
            Some(SentSelector {
                identifier: identifier.to_owned(),
                match_type,
                constraints: vec![],
            })
        };
        let rule = |action, selector| SentRule { action, selector, updates: None };
        for (rule, said) in [
            (rule(0, None), "no selector"),
            (rule(0, selector("a**", 0)), "two asterisks"),
            (rule(0, selector("(", 2)), "no regular expression"),
            (rule(0, selector("a", 7)), "unknown match type 7"),
            (rule(9, selector("a", 0)), "unknown action 9"),
            (rule(2, selector("a", 0)), "does not say to what"),
        ] {
            let error = Rules::parse(&Policy { version: 1, rules: vec![rule] }).err().unwrap();
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
