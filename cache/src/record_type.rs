//! What kind of thing takes up disk space, in BuildKit's vocabulary.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The `type` of a row of disk usage.
///
/// The order is part of the index's format: add at the end.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub enum RecordType {
    /// What a step made or an image holds.
    #[default]
    Regular,
    /// Kept for Kiln's own use; pruned only with `all`.
    Internal,
    /// A frontend's image; pruned only with `all`.
    Frontend,
    /// Files received from a client.
    LocalSource,
    /// A git working tree.
    GitCheckout,
    /// A cache mount.
    CacheMount,
}

impl RecordType {
    /// The name on the wire and in filters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::Internal => "internal",
            Self::Frontend => "frontend",
            Self::LocalSource => "source.local",
            Self::GitCheckout => "source.git.checkout",
            Self::CacheMount => "exec.cachemount",
        }
    }
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
