use super::{LintOptions, Rule};
use crate::Location;
use crate::lines::Comments;

/// Most findings that are kept: more than anybody reads. Each travels with lines of the file, so
/// that without a limit a file of a few megabytes could be made to fill any memory.
const MOST_WARNINGS: usize = 1000;

/// Collects what the rules find.
#[derive(Clone, Debug, Default)]
pub struct Linter {
    options: LintOptions,
    warnings: Vec<Warning>,
}

/// Something that a rule found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The rule, which also has a description and a URL.
    pub rule: Rule,
    /// What it found here.
    pub detail: String,
    /// The lines it is about.
    pub location: Location,
}

/// Rules found something, and the options say that this is an error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("lint violation found for rules: {}", names(.rules))]
pub struct LintFailure {
    /// The rules, each once, in the order in which they first found something.
    pub rules: Vec<Rule>,
}

fn names(rules: &[Rule]) -> String {
    rules.iter().map(|rule| rule.name()).collect::<Vec<_>>().join(", ")
}

impl Linter {
    /// A linter that has found nothing yet.
    pub fn new(options: LintOptions) -> Self {
        Self { options, warnings: Vec::new() }
    }

    /// Reports a finding, unless the options or a `# check=` comment above the instruction say
    /// that its rule is not checked.
    pub fn warn(&mut self, rule: Rule, location: Location, comments: &Comments, detail: String) {
        let local = self.options.merged_with(comments);
        let options = local.as_ref().unwrap_or(&self.options);
        let is_checked = if rule.is_experimental() {
            options.experimental_all || options.experimental.contains(rule.name())
        } else {
            !options.skip_all && !options.skip.contains(rule.name())
        };
        if is_checked && self.warnings.len() < MOST_WARNINGS {
            self.warnings.push(Warning { rule, detail, location });
        }
    }

    /// What was found so far.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The failure that the findings amount to, if the options ask for that.
    pub fn failure(&self) -> Option<LintFailure> {
        if !self.options.error || self.warnings.is_empty() {
            return None;
        }
        let mut rules = Vec::new();
        for warning in &self.warnings {
            if !rules.contains(&warning.rule) {
                rules.push(warning.rule);
            }
        }
        Some(LintFailure { rules })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linter(options: &str) -> Linter {
        Linter::new(LintOptions::parse(options).unwrap())
    }

    fn found(options: &str, rule: Rule, comment: &str) -> bool {
        let mut linter = linter(options);
        let comments = Comments { texts: vec![comment.to_owned()] };
        linter.warn(rule, Location::line(1), &comments, String::new());
        !linter.warnings().is_empty()
    }

    #[test]
    fn options_switch_rules_off() {
        let rule = Rule::UndefinedVar;
        assert!(found("", rule, ""));
        assert!(!found("skip=all", rule, ""));
        assert!(!found("skip=StageNameCasing,UndefinedVar", rule, ""));
        assert!(found("skip=StageNameCasing", rule, ""));
    }

    #[test]
    fn experimental_rules_are_switched_on() {
        let rule = Rule::InvalidDefinitionDescription;
        assert!(!found("", rule, ""));
        assert!(found("skip=all;experimental=InvalidDefinitionDescription", rule, ""));
        assert!(found("experimental=all", rule, ""));
    }

    #[test]
    fn a_comment_adds_options_for_its_instruction() {
        let rule = Rule::UndefinedVar;
        assert!(!found("", rule, "check=skip=UndefinedVar // because"));
        assert!(!found("", rule, "Check = skip=all"));
        assert!(found("", rule, "check=nonsense"));
        assert!(found("", rule, "skip=all"));
    }

    #[test]
    fn there_is_an_end_to_findings() {
        let mut linter = linter("");
        for _ in 0..2 * MOST_WARNINGS {
            let rule = Rule::UndefinedVar;
            linter.warn(rule, Location::line(1), &Comments::default(), String::new());
        }
        assert_eq!(linter.warnings().len(), MOST_WARNINGS);
    }

    #[test]
    fn findings_fail_a_build_that_asks_for_it() {
        let mut linter = linter("error=true");
        assert_eq!(linter.failure(), None);
        for rule in [Rule::UndefinedVar, Rule::FromAsCasing, Rule::UndefinedVar] {
            linter.warn(rule, Location::line(1), &Comments::default(), String::new());
        }
        let message = linter.failure().unwrap().to_string();
        assert_eq!(message, "lint violation found for rules: UndefinedVar, FromAsCasing");
    }
}
