use std::fmt;

use crate::Location;
use crate::expand::ExpandError;
use crate::instruction::{DeviceError, HealthcheckError, MountError};

/// A Dockerfile that cannot be built, and the lines that say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    kind: Box<ErrorKind>,
    locations: Vec<Location>,
}

impl ParseError {
    /// A mistake on the lines of `location`.
    pub fn new(kind: ErrorKind, location: Location) -> Self {
        Self { kind: Box::new(kind), locations: vec![location] }
    }

    pub(crate) fn with_locations(kind: ErrorKind, locations: Vec<Location>) -> Self {
        Self { kind: Box::new(kind), locations }
    }

    /// What is wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    pub(crate) fn into_kind(self) -> ErrorKind {
        *self.kind
    }

    /// What is wrong, in words, without the place and without [`help`](Self::help).
    pub fn message(&self) -> String {
        self.kind.to_string()
    }

    /// The word that was probably meant.
    pub fn suggestion(&self) -> Option<&str> {
        match &*self.kind {
            ErrorKind::UnknownInstruction { suggestion, .. }
            | ErrorKind::UnknownFlag { suggestion, .. }
            | ErrorKind::BlankPlatform { suggestion, .. }
            | ErrorKind::UnknownTarget { suggestion, .. } => suggestion.as_deref(),
            ErrorKind::Mount(error) => error.suggestion(),
            ErrorKind::Device(error) => error.suggestion(),
            _ => None,
        }
    }

    /// What to do about it, where that is known.
    pub fn help(&self) -> Option<String> {
        self.suggestion().map(|word| format!("did you mean {word}?"))
    }

    /// The lines concerned, in the order in which they lead to the mistake. Empty if the mistake
    /// is not in the file, as with an unknown target.
    pub fn locations(&self) -> &[Location] {
        &self.locations
    }

    /// The first of [`locations`](Self::locations).
    pub fn location(&self) -> Option<Location> {
        self.locations.first().copied()
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = self.location() {
            write!(f, "dockerfile parse error on line {}: ", location.start)?;
        }
        write!(f, "{}", self.kind)?;
        if let Some(help) = self.help() {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

impl std::error::Error for ParseError {}

/// What can be wrong with a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ErrorKind {
    /// The file has more bytes than are accepted.
    #[error("the Dockerfile is larger than {limit} bytes")]
    TooLarge {
        /// Most bytes accepted.
        limit: usize,
    },
    /// A line that is no comment is not UTF-8.
    #[error("the line is not valid UTF-8")]
    NotUtf8,
    /// Nothing but comments and blank lines.
    #[error("the Dockerfile cannot be empty: file with no instructions")]
    Empty,
    /// Only ARG instructions.
    #[error("dockerfile contains no stages to build")]
    NoStages,
    /// A parser directive was given again.
    #[error("only one {name} parser directive can be used")]
    RepeatedDirective {
        /// The directive.
        name: String,
    },
    /// `# escape=` with another character than `\` or a backtick.
    #[error("invalid escape token '{value}' does not match ` or \\")]
    InvalidEscape {
        /// What was given.
        value: String,
    },
    /// A heredoc whose terminator never comes.
    #[error("unterminated heredoc {name:?}")]
    UnterminatedHeredoc {
        /// The terminator.
        name: String,
    },
    /// A word that is no instruction, where one is due.
    #[error("unknown instruction: {name}")]
    UnknownInstruction {
        /// The word.
        name: String,
        /// The instruction probably meant.
        suggestion: Option<String>,
    },
    /// Another instruction than ARG before the first FROM.
    #[error("no build stage in current context: {instruction} needs a FROM before it")]
    OutsideStage {
        /// The instruction.
        instruction: String,
    },
    /// A flag that the instruction does not have.
    #[error("unknown flag: --{name}")]
    UnknownFlag {
        /// The flag, without its dashes.
        name: String,
        /// The flag probably meant, without its dashes.
        suggestion: Option<String>,
    },
    /// A flag given twice that may be given once.
    #[error("duplicate flag specified: --{name}")]
    RepeatedFlag {
        /// The flag, without its dashes.
        name: String,
    },
    /// A flag that needs a value and has none.
    #[error("missing a value on flag: --{name}")]
    MissingFlagValue {
        /// The flag, without its dashes.
        name: String,
    },
    /// A switch with another value than `true` or `false`.
    #[error("expecting boolean value for flag --{name}, not: {value}")]
    NotBoolean {
        /// The flag, without its dashes.
        name: String,
        /// What it was given.
        value: String,
    },
    /// A JSON array with something else than strings in it.
    #[error("arrays in JSON form may contain strings only")]
    NotStrings,
    /// The instruction was given nothing.
    #[error("{instruction} requires at least one argument")]
    MissingArguments {
        /// The instruction.
        instruction: &'static str,
    },
    /// The instruction was given nothing, or too much.
    #[error("{instruction} requires exactly one argument")]
    NotOneArgument {
        /// The instruction.
        instruction: &'static str,
    },
    /// `ENV NAME` or `LABEL NAME` without a value.
    #[error("{instruction} must have two arguments")]
    MissingValue {
        /// The instruction.
        instruction: &'static str,
    },
    /// A word without an equals sign among `name=value` pairs.
    #[error("can't find = in {word:?}: every pair must be of the form name=value")]
    MissingEquals {
        /// The word.
        word: String,
    },
    /// A pair without a name.
    #[error("{instruction} names can not be blank")]
    BlankName {
        /// The instruction.
        instruction: &'static str,
    },
    /// COPY or ADD with a single path.
    #[error("{instruction} requires at least two arguments: sources, then a destination")]
    MissingDestination {
        /// The instruction.
        instruction: &'static str,
    },
    /// COPY or ADD into a heredoc.
    #[error("{instruction} cannot accept a heredoc as a destination")]
    HeredocDestination {
        /// The instruction.
        instruction: &'static str,
    },
    /// FROM with a wrong number of words, or without AS between them.
    #[error("FROM requires either one or three arguments: FROM <image> [AS <name>]")]
    FromArguments,
    /// A name that no stage can have.
    #[error(
        "invalid name for build stage: {name:?}, a name starts with a letter and has only \
         letters, digits, '-', '_' and '.'"
    )]
    InvalidStageName {
        /// The name.
        name: String,
    },
    /// `ONBUILD ONBUILD`.
    #[error("ONBUILD can't be its own trigger")]
    ChainedOnbuild,
    /// An instruction that may not be a trigger.
    #[error("{instruction} isn't allowed as an ONBUILD trigger")]
    ForbiddenTrigger {
        /// The instruction.
        instruction: String,
    },
    /// An image's trigger is not one instruction.
    #[error("an ONBUILD trigger must be a single instruction")]
    NotOneTrigger,
    /// `SHELL` in shell form.
    #[error("SHELL requires the arguments to be in JSON form")]
    ShellNotJson,
    /// `VOLUME` of nothing.
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
    /// A HEALTHCHECK that makes no sense.
    #[error(transparent)]
    Healthcheck(#[from] HealthcheckError),
    /// An invalid `RUN --mount`.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// An invalid `RUN --device`.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// An unknown `RUN --network`.
    #[error("invalid network mode {value:?}: it is default, none or host")]
    InvalidNetwork {
        /// What was given.
        value: String,
    },
    /// An unknown `RUN --security`.
    #[error("security {value:?} is not valid: it is sandbox or insecure")]
    InvalidSecurity {
        /// What was given.
        value: String,
    },
    /// A word with unbalanced quotes or a bad substitution.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// A FROM whose image is empty once its variables are replaced.
    #[error("base name ({written}) should not be blank")]
    BlankBase {
        /// The image as written.
        written: String,
    },
    /// A FROM whose platform is empty once its variables are replaced.
    #[error("empty platform value from expression {written}")]
    BlankPlatform {
        /// The platform as written.
        written: String,
        /// The variable probably meant.
        suggestion: Option<String>,
    },
    /// `COPY --from` with a variable in it.
    #[error(
        "variable expansion is not supported for --from, define a new stage with FROM using ARG \
         from global scope as a workaround"
    )]
    VariableFrom,
    /// `COPY --from` a number that no stage has.
    #[error("invalid stage index {index}")]
    InvalidStageIndex {
        /// The number.
        index: i64,
    },
    /// Stages that need each other, or themselves.
    #[error("circular dependency detected on stage: {stage}")]
    Circular {
        /// A stage of the circle.
        stage: String,
    },
    /// A stage that uses one defined after it.
    #[error(
        "cannot {verb} from stage {uses:?}, it needs to be defined before current stage {stage:?}"
    )]
    ForwardReference {
        /// The stage that uses the other.
        stage: String,
        /// What it does with the other: `copy` or `mount`.
        verb: &'static str,
        /// The later stage.
        uses: String,
    },
    /// A target that no stage has.
    #[error("target stage {target:?} could not be found")]
    UnknownTarget {
        /// The target asked for.
        target: String,
        /// The stage probably meant.
        suggestion: Option<String>,
    },
}
