use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::directive::{self, Directives};
use crate::error::ErrorKind;
use crate::instruction::{self, ArgDefinition, Command, Instruction, Parsed, Stage, Statement};
use crate::lines::{Comments, Lines};
use crate::{Location, ParseError};

/// Most bytes of a Dockerfile. Real ones have a few thousand.
pub const MOST_BYTES: usize = 8 << 20;

/// A Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// The directives at its head.
    pub directives: Directives,
    /// The ARG instructions before the first stage.
    pub global_args: Vec<GlobalArg>,
    /// The stages, in order; at least one.
    pub stages: Vec<Stage>,
    /// The last lines of instructions that have empty lines between their continuations.
    pub empty_continuations: Vec<Location>,
}

/// An ARG instruction before the first stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalArg {
    /// Its definitions.
    pub definitions: Vec<ArgDefinition>,
    /// Its lines.
    pub location: Location,
    /// The comments before it.
    pub comments: Comments,
}

impl Dockerfile {
    /// Parses a Dockerfile.
    ///
    /// # Errors
    /// The first mistake in the file. Bytes that are not UTF-8 are accepted in comments only.
    pub fn parse(source: &[u8]) -> Result<Self, ParseError> {
        match Self::parse_up_to_error(source) {
            (file, None) => Ok(file),
            (_, Some(error)) => Err(error),
        }
    }

    /// Parses a Dockerfile as far as the first mistake in it, so that what comes before can be
    /// checked. Without a mistake there is at least one stage.
    pub fn parse_up_to_error(source: &[u8]) -> (Self, Option<ParseError>) {
        let mut file = Self {
            directives: Directives::default(),
            global_args: Vec::new(),
            stages: Vec::new(),
            empty_continuations: Vec::new(),
        };
        let error = file.read(source).err();
        (file, error)
    }

    fn read(&mut self, source: &[u8]) -> Result<(), ParseError> {
        let text = Text::new(source)?;
        self.directives = Directives::read(&text.text)?;
        let escape = self.directives.escape;
        let mut lines = Lines::new(&text.text, &text.damaged, &self.directives);
        let mut is_empty = true;
        while let Some(logical) = lines.next_logical()? {
            is_empty = false;
            if logical.has_empty_continuation {
                self.empty_continuations.push(Location::line(lines.number()));
            }
            match instruction::parse(Statement::read(logical, &mut lines, escape)?)? {
                Parsed::Stage(stage) => self.stages.push(stage),
                Parsed::Instruction(instruction) => self.add(instruction)?,
            }
        }
        if self.stages.is_empty() {
            let kind = if is_empty { ErrorKind::Empty } else { ErrorKind::NoStages };
            return Err(ParseError::with_locations(kind, Vec::new()));
        }
        Ok(())
    }

    /// Adds an instruction to the stage that is open, or to the arguments before the first.
    fn add(&mut self, instruction: Instruction) -> Result<(), ParseError> {
        if let Some(stage) = self.stages.last_mut() {
            stage.instructions.push(instruction);
            return Ok(());
        }
        let Instruction { keyword, location, comments, command, .. } = instruction;
        let Command::Arg(definitions) = command else {
            let kind = ErrorKind::OutsideStage { instruction: keyword.to_uppercase() };
            return Err(ParseError::new(kind, location));
        };
        self.global_args.push(GlobalArg { definitions, location, comments });
        Ok(())
    }

    /// The statements of a text that is not a whole Dockerfile.
    pub(crate) fn statements(source: &[u8]) -> Result<Vec<Statement>, ParseError> {
        let text = Text::new(source)?;
        let directives = Directives::read(&text.text)?;
        let mut lines = Lines::new(&text.text, &text.damaged, &directives);
        let mut statements = Vec::new();
        while let Some(logical) = lines.next_logical()? {
            statements.push(Statement::read(logical, &mut lines, directives.escape)?);
        }
        Ok(statements)
    }
}

/// The text of a file, and the lines of it that were not text.
struct Text<'a> {
    text: Cow<'a, str>,
    damaged: BTreeSet<u32>,
}

impl<'a> Text<'a> {
    fn new(source: &'a [u8]) -> Result<Self, ParseError> {
        if source.len() > MOST_BYTES {
            let kind = ErrorKind::TooLarge { limit: MOST_BYTES };
            return Err(ParseError::with_locations(kind, Vec::new()));
        }
        let text = match String::from_utf8_lossy(source) {
            Cow::Borrowed(text) => Cow::Borrowed(directive::strip_bom(text)),
            Cow::Owned(text) => Cow::Owned(directive::strip_bom(&text).to_owned()),
        };
        let mut damaged = BTreeSet::new();
        if matches!(text, Cow::Owned(_)) {
            let lines = (1..).zip(source.split(|byte| *byte == b'\n'));
            damaged.extend(
                lines.filter(|(_, line)| std::str::from_utf8(line).is_err()).map(|(n, _)| n),
            );
        }
        Ok(Self { text, damaged })
    }
}
