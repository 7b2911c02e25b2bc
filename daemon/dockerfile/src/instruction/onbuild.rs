use super::{Instruction, Parsed, Statement};
use crate::dockerfile::Dockerfile;
use crate::error::ErrorKind;
use crate::words;
use crate::{Location, ParseError};

/// The trigger as images store it: the instruction's text with the bodies of its heredocs.
pub(crate) fn parse(statement: &Statement) -> Result<String, ErrorKind> {
    let trigger = words::split(&statement.arguments, statement.escape);
    match trigger.keyword.to_ascii_uppercase().as_str() {
        "" => return Err(ErrorKind::MissingArguments { instruction: "ONBUILD" }),
        "ONBUILD" => return Err(ErrorKind::ChainedOnbuild),
        instruction @ ("FROM" | "MAINTAINER") => {
            return Err(ErrorKind::ForbiddenTrigger { instruction: instruction.to_owned() });
        }
        _ => {}
    }
    // A trigger that cannot work is refused here, not in the builds that inherit it.
    let arguments = trigger.arguments.to_owned();
    super::parse(Statement {
        keyword: trigger.keyword.to_owned(),
        flags: trigger.flags,
        arguments,
        heredocs: statement.heredocs.clone(),
        line: statement.arguments.clone(),
        location: statement.location,
        comments: statement.comments.clone(),
        escape: statement.escape,
    })
    .map_err(ParseError::into_kind)?;

    let mut stored = statement.line.trim_start()[statement.keyword.len()..].trim_start().to_owned();
    for heredoc in &statement.heredocs {
        stored.push('\n');
        stored.push_str(&heredoc.content);
        stored.push_str(&heredoc.name);
    }
    Ok(stored)
}

/// Parses a trigger that an image brings along. Errors, and the instruction, are located at
/// `location`: the FROM that chose the image.
pub fn parse_trigger(trigger: &str, location: Location) -> Result<Instruction, ParseError> {
    let relocate = |error: ParseError| ParseError::new(error.into_kind(), location);
    let statements = Dockerfile::statements(trigger.as_bytes()).map_err(relocate)?;
    let [statement] = <[Statement; 1]>::try_from(statements)
        .map_err(|_| ParseError::new(ErrorKind::NotOneTrigger, location))?;
    match super::parse(Statement { location, ..statement }).map_err(relocate)? {
        Parsed::Instruction(instruction) => Ok(instruction),
        Parsed::Stage(_) => {
            let kind = ErrorKind::ForbiddenTrigger { instruction: "FROM".to_owned() };
            Err(ParseError::new(kind, location))
        }
    }
}
