use super::{
    Add, ArgDefinition, Command, CommandLine, Copy, Healthcheck, Instruction, KeyValue, Run, Stage,
    Statement, onbuild,
};
use crate::ParseError;
use crate::error::ErrorKind;
use crate::flags::Flags;
use crate::suggest;

/// Every keyword.
const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// What a statement turns out to be.
pub(crate) enum Parsed {
    /// FROM: a stage that has no instructions yet.
    Stage(Stage),
    /// Anything else.
    Instruction(Instruction),
}

/// Gives a statement its meaning.
pub(crate) fn parse(statement: Statement) -> Result<Parsed, ParseError> {
    let located = |kind| ParseError::new(kind, statement.location);
    if statement.keyword.eq_ignore_ascii_case("from") {
        return Stage::parse(&statement).map(Parsed::Stage).map_err(located);
    }
    let command = command(&statement).map_err(located)?;
    Ok(Parsed::Instruction(Instruction {
        source: statement.line.trim().to_owned(),
        keyword: statement.keyword,
        location: statement.location,
        comments: statement.comments,
        command,
    }))
}

fn command(statement: &Statement) -> Result<Command, ErrorKind> {
    Ok(match statement.keyword.to_ascii_uppercase().as_str() {
        "ADD" => Command::Add(Add::parse(statement)?),
        "ARG" => Command::Arg(ArgDefinition::parse_all(no_flags(statement)?)?),
        "CMD" => Command::Cmd(CommandLine::parse(no_flags(statement)?)?),
        "COPY" => Command::Copy(Copy::parse(statement)?),
        "ENTRYPOINT" => Command::Entrypoint(CommandLine::parse(no_flags(statement)?)?),
        "ENV" => Command::Env(KeyValue::parse_all(no_flags(statement)?, "ENV")?),
        "EXPOSE" => Command::Expose(expose(no_flags(statement)?)?),
        "HEALTHCHECK" => Command::Healthcheck(Healthcheck::parse(statement)?),
        "LABEL" => Command::Label(KeyValue::parse_all(no_flags(statement)?, "LABEL")?),
        "MAINTAINER" => Command::Maintainer(no_flags(statement)?.only_argument("MAINTAINER")?),
        "ONBUILD" => Command::Onbuild(onbuild::parse(no_flags(statement)?)?),
        "RUN" => Command::Run(Run::parse(statement)?),
        "SHELL" => Command::Shell(shell(no_flags(statement)?)?),
        "STOPSIGNAL" => Command::StopSignal(no_flags(statement)?.only_argument("STOPSIGNAL")?),
        "USER" => Command::User(no_flags(statement)?.only_argument("USER")?),
        "VOLUME" => Command::Volume(volume(no_flags(statement)?)?),
        "WORKDIR" => Command::Workdir(no_flags(statement)?.only_argument("WORKDIR")?),
        _ => return Err(unknown(&statement.keyword)),
    })
}

fn no_flags(statement: &Statement) -> Result<&Statement, ErrorKind> {
    Flags::parse(&statement.flags, &[]).map(|_| statement)
}

fn unknown(keyword: &str) -> ErrorKind {
    ErrorKind::UnknownInstruction {
        name: keyword.to_owned(),
        suggestion: suggest::closest_any_case(keyword, KEYWORDS),
    }
}

fn expose(statement: &Statement) -> Result<Vec<String>, ErrorKind> {
    let mut ports = statement.blank_words();
    if ports.is_empty() {
        return Err(ErrorKind::MissingArguments { instruction: "EXPOSE" });
    }
    ports.sort_unstable();
    Ok(ports)
}

fn shell(statement: &Statement) -> Result<Vec<String>, ErrorKind> {
    match statement.json()? {
        _ if statement.arguments.is_empty() => {
            Err(ErrorKind::MissingArguments { instruction: "SHELL" })
        }
        Some(words) if words.is_empty() => {
            Err(ErrorKind::MissingArguments { instruction: "SHELL" })
        }
        Some(words) => Ok(words),
        None => Err(ErrorKind::ShellNotJson),
    }
}

fn volume(statement: &Statement) -> Result<Vec<String>, ErrorKind> {
    let volumes = match statement.json()? {
        Some(words) => words,
        None => statement.blank_words(),
    };
    if volumes.is_empty() {
        return Err(ErrorKind::MissingArguments { instruction: "VOLUME" });
    }
    let volumes: Vec<String> = volumes.into_iter().map(|volume| volume.trim().to_owned()).collect();
    if volumes.iter().any(String::is_empty) {
        return Err(ErrorKind::EmptyVolume);
    }
    Ok(volumes)
}
