//! `RUN --mount`

use super::mount_fields::Fields;
use crate::csv::{self, CsvError};
use crate::expand::ExpandError;
use crate::suggest;

/// A mount as written. Its options may contain variables, except the one that names a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountSpec {
    fields: Vec<String>,
    from: Option<String>,
}

/// A mount whose variables are replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it goes, as given; empty if it was not given. Relative paths start at the working
    /// directory.
    pub target: String,
    /// What is mounted.
    pub kind: MountKind,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// Files of the build context, a stage or an image.
    Bind {
        /// The stage, image or named context; the build context if absent.
        from: Option<String>,
        /// The path in there, empty for all of it.
        source: String,
        /// Whether writing fails; otherwise what is written is dropped after the step.
        read_only: bool,
    },
    /// A directory that is kept from build to build.
    Cache {
        /// What tells it from others; the cleaned target unless given.
        id: String,
        /// Who may use it at the same time.
        sharing: Sharing,
        /// The stage, image or named context it starts from; empty if absent.
        from: Option<String>,
        /// The path in there.
        source: String,
        /// Whether writing fails.
        read_only: bool,
        /// Owner and mode of a new directory, if any part of that was given.
        owner: Option<CacheOwner>,
    },
    /// Memory that is gone after the step.
    Tmpfs {
        /// Its size in bytes, unlimited if absent.
        size: Option<u64>,
    },
    /// A secret of the client's.
    Secret(SecretMount),
    /// The client's ssh agent.
    Ssh(SshMount),
}

/// How a cache mount may be shared by steps that run at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// All of them write to it.
    #[default]
    Shared,
    /// Each has its own.
    Private,
    /// One waits for the other.
    Locked,
}

/// Owner and mode of a new cache directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheOwner {
    /// User, 0 unless given.
    pub uid: u32,
    /// Group, 0 unless given.
    pub gid: u32,
    /// Permissions, 0755 unless given.
    pub mode: u32,
}

/// Owner and mode of a mounted secret or socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileOwner {
    /// User, 0 unless given.
    pub uid: u32,
    /// Group, 0 unless given.
    pub gid: u32,
    /// Permissions, 0400 for secrets and 0600 for sockets unless given.
    pub mode: u32,
}

/// A secret in a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretMount {
    /// Its name: the id, or source, or last part of the target.
    pub id: String,
    /// The file it is mounted on; absent if it is only a variable.
    pub target: Option<String>,
    /// The variable it is put in, if one was given.
    pub env: Option<String>,
    /// Whether the step fails without it.
    pub required: bool,
    /// Owner and mode of the file.
    pub owner: FileOwner,
}

/// An ssh agent in a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshMount {
    /// Which agent, `default` unless given.
    pub id: String,
    /// The socket's path, if one was given.
    pub target: Option<String>,
    /// Whether the step fails without it.
    pub required: bool,
    /// Owner and mode of the socket.
    pub owner: FileOwner,
}

/// A `RUN --mount` that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// Not comma-separated values.
    #[error("invalid --mount: {0}")]
    Csv(#[from] CsvError),
    /// An option without a value that needs one.
    #[error("invalid field '{field}' must be a key=value pair")]
    NotAPair {
        /// The option.
        field: String,
    },
    /// A variable in `from`.
    #[error("'from' doesn't support variable expansion, define alias stage instead")]
    VariableFrom,
    /// A variable that cannot be replaced.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// An option that is not known.
    #[error("unexpected key '{key}' in '{field}'")]
    UnknownKey {
        /// The option.
        key: String,
        /// The whole field.
        field: String,
        /// The option probably meant.
        suggestion: Option<String>,
    },
    /// An option that this type of mount does not have.
    #[error("unexpected key '{key}' for mount type '{kind}'")]
    NotForType {
        /// The option.
        key: &'static str,
        /// The type.
        kind: &'static str,
    },
    /// A type that is not known.
    #[error("unsupported mount type {given:?}")]
    UnknownType {
        /// What was given.
        given: String,
        /// The type probably meant.
        suggestion: Option<String>,
    },
    /// A way of sharing that is not known.
    #[error("unsupported sharing value {given:?}")]
    UnknownSharing {
        /// What was given.
        given: String,
        /// The value probably meant.
        suggestion: Option<String>,
    },
    /// An option's value that cannot be read.
    #[error("invalid value for {key}: {value}")]
    InvalidValue {
        /// The option.
        key: String,
        /// What it was given.
        value: String,
    },
    /// A secret without a name.
    #[error("invalid secret mount: one of id, source, target is required")]
    NamelessSecret,
    /// A secret with two names.
    #[error("invalid secret mount: both source and id can't be set")]
    TwiceNamedSecret,
}

impl MountError {
    pub(crate) fn suggestion(&self) -> Option<&str> {
        match self {
            Self::UnknownKey { suggestion, .. }
            | Self::UnknownType { suggestion, .. }
            | Self::UnknownSharing { suggestion, .. } => suggestion.as_deref(),
            _ => None,
        }
    }
}

impl MountSpec {
    /// Takes a mount apart as far as that is possible before variables are known.
    pub(crate) fn parse(text: &str) -> Result<Self, MountError> {
        let fields = csv::fields(text)?;
        let mut from = None;
        for field in &fields {
            if let Some((key, value)) = field.split_once('=')
                && key.eq_ignore_ascii_case("from")
            {
                if value.trim_end_matches('$').contains('$') {
                    return Err(MountError::VariableFrom);
                }
                from = Some(value.to_owned()).filter(|from| !from.is_empty());
            }
        }
        Ok(Self { fields, from })
    }

    /// The stage, image or named context it needs.
    pub fn from(&self) -> Option<&str> {
        self.from.as_deref()
    }

    /// Replaces the variables in the options' values by `expand`, and gives them their meaning.
    pub fn resolve(
        &self,
        expand: impl FnMut(&str) -> Result<String, ExpandError>,
    ) -> Result<Mount, MountError> {
        Fields::read(&self.fields, expand)?.into_mount()
    }
}

/// Reads a mount in which nothing is left to expand.
pub fn parse_mount(text: &str) -> Result<Mount, MountError> {
    MountSpec::parse(text)?.resolve(|value| Ok(value.to_owned()))
}

impl Sharing {
    pub(super) fn parse(text: &str) -> Result<Self, MountError> {
        match text.to_ascii_lowercase().as_str() {
            "shared" => Ok(Self::Shared),
            "private" => Ok(Self::Private),
            "locked" => Ok(Self::Locked),
            _ => Err(MountError::UnknownSharing {
                given: text.to_owned(),
                suggestion: suggest::closest(text, ["shared", "private", "locked"])
                    .map(str::to_owned),
            }),
        }
    }
}

/// A boolean in any of Go's spellings.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
