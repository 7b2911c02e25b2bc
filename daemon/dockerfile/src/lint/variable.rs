use std::fmt::Write as _;

use super::{Linter, Rule};
use crate::instruction::Instruction;
use crate::suggest;

/// Variables that an instruction used and that are not set. Those that an ARG declares without
/// giving them a value are not amiss.
pub fn undefined_variables<'a>(
    linter: &mut Linter,
    instruction: &Instruction,
    unset: impl IntoIterator<Item = &'a str>,
    is_declared: impl Fn(&str) -> bool,
    known: &[&str],
) {
    for name in unset {
        if is_declared(name) {
            continue;
        }
        let mut detail = format!("Usage of undefined variable '${name}'");
        if let Some(meant) = suggest::closest(name, known.iter().copied()) {
            let _ = write!(detail, " (did you mean ${meant}?)");
        }
        linter.warn(Rule::UndefinedVar, instruction.location, &instruction.comments, detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::Dockerfile;

    #[test]
    fn unset_variables_are_found_and_near_names_suggested() {
        let file = Dockerfile::parse(b"FROM a\nCOPY $foo .\n").unwrap();
        let instruction = &file.stages[0].instructions[0];
        let mut linter = Linter::default();
        let unset = ["foo", "PAHT", "declared"];
        let is_declared = |name: &str| name == "declared";
        undefined_variables(&mut linter, instruction, unset, is_declared, &["PATH", "HOME"]);
        let details: Vec<&str> =
            linter.warnings().iter().map(|warning| warning.detail.as_str()).collect();
        assert_eq!(
            details,
            [
                "Usage of undefined variable '$foo'",
                "Usage of undefined variable '$PAHT' (did you mean $PATH?)",
            ]
        );
    }
}
