//! Dockerfiles.

use indexmap::IndexMap;
use kiln_dockerfile::expand::{Expander, NoVariables};
use kiln_dockerfile::instruction::{Command, parse_mount, parse_trigger};
use kiln_dockerfile::lint::{Linter, check_source, check_whole};
use kiln_dockerfile::plan::{GlobalArgs, Plan};
use kiln_dockerfile::{Dockerfile, ParseError, detect_syntax, excerpt};

/// A Dockerfile, as far as it goes without a build: parsed, checked, its stages planned, and an
/// error printed with its lines.
pub fn dockerfile(data: &[u8]) {
    let _ = detect_syntax(data);
    let (file, error) = Dockerfile::parse_up_to_error(data);
    let mut linter = Linter::default();
    check_source(&file, &mut linter);
    check_whole(&file, &mut linter);
    let result = match error {
        Some(error) => Err(error),
        None => plan(&file, &mut linter),
    };
    if let Err(error) = result {
        let text = String::from_utf8_lossy(data);
        let lines: Vec<&str> = text.split('\n').collect();
        let _ = excerpt("Dockerfile", &lines, error.locations());
        let _ = error.to_string();
    }
}

fn plan(file: &Dockerfile, linter: &mut Linter) -> Result<(), ParseError> {
    for stage in &file.stages {
        for instruction in &stage.instructions {
            if let Command::Onbuild(trigger) = &instruction.command {
                parse_trigger(trigger, stage.location)?;
            }
        }
    }
    let globals = GlobalArgs::evaluate(file, IndexMap::new(), &NoVariables)?;
    let plan = Plan::new(file, &globals, |_| false, linter)?;
    plan.reachable([plan.target(None)?])?;
    Ok(())
}

/// A word with variables, in each way in which words are expanded. The first line is the value of
/// `$v`.
pub fn expansion(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (value, word) = text.split_once('\n').unwrap_or(("value", &text));
    let variables = IndexMap::from([("v".to_owned(), value.to_owned())]);
    for escape in ['\\', '`'] {
        let plain = || Expander::new(escape);
        for expander in [
            plain(),
            plain().keep_quotes(),
            plain().keep_escapes(),
            plain().ignore_quotes(),
            plain().keep_quotes().keep_unset(),
        ] {
            match expander.expand(word, &variables) {
                Ok(expansion) => {
                    assert!(expansion.used.iter().all(|name| name == "v"));
                    assert!(!expansion.unset.contains("v"));
                }
                Err(error) => drop(error.to_string()),
            }
        }
    }
}

/// The options of `RUN --mount`, as they are and with what they are after expansion.
pub fn mount_options(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    let variables = IndexMap::from([("v".to_owned(), "a,b=\"c".to_owned())]);
    let expanded = Expander::new('\\').word(&text, &variables);
    for text in std::iter::once(text).chain(expanded.ok()) {
        if let Err(error) = parse_mount(&text) {
            let _ = error.to_string();
        }
    }
}
