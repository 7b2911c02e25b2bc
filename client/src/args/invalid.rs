//! What can be wrong with a flag's value. The flag itself is named by the caller.

use thiserror::Error;

/// A flag's value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Invalid {
    /// A quote where none can be.
    #[error("field {0} has a quote that does not open or close it")]
    Quote(usize),
    /// A part that is not `key=value`.
    #[error("{0:?} is not of the form key=value")]
    NotKeyValue(String),
    /// A pair without a key.
    #[error("{0:?} has no key")]
    NoKey(String),
    /// A key that means nothing here.
    #[error("unknown key {0:?}")]
    UnknownKey(String),
    /// A value that its key does not take.
    #[error("{key} cannot be {value:?}: expected {expected}")]
    Value {
        /// The key.
        key: String,
        /// What it was set to.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
    /// A list of fields that does not say what it is.
    #[error("type is missing")]
    NoType,
    /// Fields without one that has to be there.
    #[error("{key} is missing ({of})")]
    Missing {
        /// The field.
        key: &'static str,
        /// What needs it.
        of: String,
    },
    /// Something that is not what it should be.
    #[error("{value:?} is not {expected}")]
    Not {
        /// What was given.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Things that exclude each other.
    #[error("{0}")]
    Conflict(&'static str),
    /// Something that Kiln does not do.
    #[error("{0} is not supported yet")]
    Unsupported(String),
}

impl Invalid {
    pub(crate) fn not(value: &str, expected: &'static str) -> Self {
        Self::Not { value: value.to_owned(), expected }
    }

    pub(crate) fn value(key: &str, value: &str, expected: &'static str) -> Self {
        Self::Value { key: key.to_owned(), value: value.to_owned(), expected }
    }
}
