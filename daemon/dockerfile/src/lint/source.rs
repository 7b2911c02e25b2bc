use std::collections::HashSet;

use super::{Linter, Rule};
use crate::Location;
use crate::dockerfile::Dockerfile;
use crate::instruction::{Command, Stage};
use crate::lines::Comments;

/// Names that mean something else in FROM and `COPY --from`.
const RESERVED: [&str; 2] = ["context", "scratch"];

/// Checks the rules about single instructions, as far as the file could be read.
pub fn check_source(file: &Dockerfile, linter: &mut Linter) {
    for location in &file.empty_continuations {
        let detail = "Empty continuation line".to_owned();
        linter.warn(Rule::NoEmptyContinuation, *location, &Comments::default(), detail);
    }
    for arg in &file.global_args {
        let names: Vec<&str> = arg.definitions.iter().map(|arg| arg.name.as_str()).collect();
        description(linter, "ARG", &names, arg.location, &arg.comments);
    }
    for stage in &file.stages {
        stage_name(linter, stage);
        from_as_casing(linter, stage);
        if let Some(name) = &stage.name {
            description(linter, "FROM", &[name], stage.location, &stage.comments);
        }
        instructions(linter, stage);
    }
}

/// Checks the rules that compare instructions with each other, for which the file has to be whole.
pub fn check_whole(file: &Dockerfile, linter: &mut Linter) {
    let mut names = HashSet::new();
    for stage in &file.stages {
        let Some(name) = &stage.name else { continue };
        let mut warn = |rule, detail| linter.warn(rule, stage.location, &stage.comments, detail);
        if RESERVED.contains(&name.as_str()) {
            let detail =
                format!("Stage name should not use the same name as reserved stage {name:?}");
            warn(Rule::ReservedStageName, detail);
        }
        if !names.insert(name) {
            let detail = format!("Duplicate stage name {name:?}, stage names should be unique");
            warn(Rule::DuplicateStageName, detail);
        }
    }
    casing(linter, file);
}

fn stage_name(linter: &mut Linter, stage: &Stage) {
    let (Some(name), Some(written)) = (&stage.name, &stage.written_name) else { return };
    if name != written {
        let detail = format!("Stage name '{written}' should be lowercase");
        linter.warn(Rule::StageNameCasing, stage.location, &stage.comments, detail);
    }
}

fn from_as_casing(linter: &mut Linter, stage: &Stage) {
    let (from, Some(keyword)) = (&stage.keyword, &stage.as_keyword) else { return };
    let matches = if *from == from.to_lowercase() {
        *keyword == keyword.to_lowercase()
    } else if *from == from.to_uppercase() {
        *keyword == keyword.to_uppercase()
    } else {
        // A keyword in mixed case is the business of another rule.
        true
    };
    if !matches {
        let detail = format!("'{keyword}' and '{from}' keywords' casing do not match");
        linter.warn(Rule::FromAsCasing, stage.location, &stage.comments, detail);
    }
}

fn instructions(linter: &mut Linter, stage: &Stage) {
    for instruction in &stage.instructions {
        let (location, comments) = (instruction.location, &instruction.comments);
        match &instruction.command {
            Command::Maintainer(_) => {
                let detail = "Maintainer instruction is deprecated in favor of using label";
                linter.warn(Rule::MaintainerDeprecated, location, comments, detail.to_owned());
            }
            Command::Arg(definitions) => {
                let names: Vec<&str> = definitions.iter().map(|arg| arg.name.as_str()).collect();
                description(linter, "ARG", &names, location, comments);
            }
            _ => {}
        }
    }
}

/// A comment above a definition describes it, and starts with its name.
fn description(
    linter: &mut Linter,
    instruction: &str,
    names: &[&str],
    location: Location,
    comments: &Comments,
) {
    let Some(last) = comments.texts.last() else { return };
    let first_word = last.split(' ').next().unwrap_or_default();
    if names.contains(&first_word) {
        return;
    }
    let name = if let [name] = names { name } else { "<arg_key>" };
    let detail =
        format!("Comment for {instruction} should follow the format: `# {name} <description>`");
    linter.warn(Rule::InvalidDefinitionDescription, location, comments, detail);
}

/// All keywords are in the case of the majority; upper case wins a draw.
fn casing(linter: &mut Linter, file: &Dockerfile) {
    let keywords = || {
        file.stages.iter().flat_map(|stage| {
            let from = (stage.keyword.as_str(), stage.location, &stage.comments);
            let rest = stage.instructions.iter().map(|instruction| {
                (instruction.keyword.as_str(), instruction.location, &instruction.comments)
            });
            std::iter::once(from).chain(rest)
        })
    };
    let lower = keywords().filter(|(keyword, ..)| *keyword == keyword.to_lowercase()).count();
    let upper = keywords().filter(|(keyword, ..)| *keyword == keyword.to_uppercase()).count();
    for (keyword, location, comments) in keywords() {
        let (expected, name) = if lower > upper {
            (keyword.to_lowercase(), "lowercase")
        } else {
            (keyword.to_uppercase(), "uppercase")
        };
        if keyword != expected {
            let detail = format!(
                "Command '{keyword}' should match the case of the command majority ({name})"
            );
            linter.warn(Rule::ConsistentInstructionCasing, location, comments, detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::LintOptions;
    use super::*;

    fn warnings(source: &str) -> Vec<String> {
        let file = Dockerfile::parse(source.as_bytes()).unwrap();
        let options = file.directives.check.as_ref().map_or("", |check| check.first_word());
        let mut linter = Linter::new(LintOptions::parse(options).unwrap());
        check_source(&file, &mut linter);
        check_whole(&file, &mut linter);
        linter
            .warnings()
            .iter()
            .map(|warning| format!("{} {}: {}", warning.location, warning.rule, warning.detail))
            .collect()
    }

    #[test]
    fn a_tidy_file_has_no_findings() {
        let source =
            "# syntax=x\n\n# some words\n\nFROM a AS b\nRUN x \\\n# why\n y\nfrom c as d\n";
        assert_eq!(warnings(&source.replace("from c as d", "FROM c AS d")), [] as [&str; 0]);
    }

    #[test]
    fn each_rule_finds_what_it_is_about() {
        let cases: &[(&str, &[&str])] = &[
            ("FROM a AS Build\n", &["1 StageNameCasing: Stage name 'Build' should be lowercase"]),
            ("FROM a as b\n", &["1 FromAsCasing: 'as' and 'FROM' keywords' casing do not match"]),
            ("from a AS b\n", &["1 FromAsCasing: 'AS' and 'from' keywords' casing do not match"]),
            (
                "FROM a AS scratch\n",
                &["1 ReservedStageName: Stage name should not use the same name as reserved \
                   stage \"scratch\""],
            ),
            (
                "FROM a AS b\nFROM a AS b\n",
                &["2 DuplicateStageName: Duplicate stage name \"b\", stage names should be unique"],
            ),
            (
                "FROM a\nMAINTAINER me\n",
                &["2 MaintainerDeprecated: Maintainer instruction is deprecated in favor of \
                   using label"],
            ),
            (
                "FROM a\nRUN x \\\n\n y\nRUN z\n",
                &["4 NoEmptyContinuation: Empty continuation line"],
            ),
            (
                "FROM a\nRun x\nrun y\nCOPY a b\n",
                &[
                    "2 ConsistentInstructionCasing: Command 'Run' should match the case of the \
                     command majority (uppercase)",
                    "3 ConsistentInstructionCasing: Command 'run' should match the case of the \
                     command majority (uppercase)",
                ],
            ),
            (
                "from a\nRUN x\nrun y\n",
                &["2 ConsistentInstructionCasing: Command 'RUN' should match the case of the \
                   command majority (lowercase)"],
            ),
        ];
        for (source, expected) in cases {
            assert_eq!(warnings(source), *expected, "{source}");
        }
    }

    #[test]
    fn descriptions_start_with_the_name_they_describe() {
        let source = "# check=experimental=InvalidDefinitionDescription\n\
                      # foo is fine\nARG foo=bar\n\
                      # a bad one\nARG version=latest\n\
                      # not about this\n#\nFROM scratch AS base\n\
                      # Base is wrong\nFROM scratch AS other\n\
                      # baz of three\nARG foo=baz bar=qux baz=quux\n\
                      # none of three\nARG foo=baz bar=qux\n";
        assert_eq!(
            warnings(source),
            [
                "5 InvalidDefinitionDescription: Comment for ARG should follow the format: \
                 `# version <description>`",
                "10 InvalidDefinitionDescription: Comment for FROM should follow the format: \
                 `# other <description>`",
                "14 InvalidDefinitionDescription: Comment for ARG should follow the format: \
                 `# <arg_key> <description>`",
            ]
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_to_its_end_is_checked_up_to_the_mistake() {
        let (file, error) = Dockerfile::parse_up_to_error(b"FROM a as B\nMAINTAINER me\nRNU x\n");
        let mut linter = Linter::default();
        check_source(&file, &mut linter);
        let rules: Vec<Rule> = linter.warnings().iter().map(|warning| warning.rule).collect();
        let expected = [Rule::StageNameCasing, Rule::FromAsCasing, Rule::MaintainerDeprecated];
        assert_eq!((error.is_some(), rules.as_slice()), (true, expected.as_slice()));
    }

    #[test]
    fn directives_and_comments_switch_rules_off() {
        assert_eq!(warnings("# check=skip=FromAsCasing\nFROM a as b\n"), [] as [&str; 0]);
        assert_eq!(warnings("# check=skip=all # x\nFROM a as B\n"), [] as [&str; 0]);
        let source = "FROM a\n# check=skip=MaintainerDeprecated\nMAINTAINER me\nMAINTAINER me\n";
        assert_eq!(warnings(source).len(), 1);
    }
}
