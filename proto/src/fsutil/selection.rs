//! Which part of a tree is wanted, as the metadata of `FileSync.DiffCopy` says it.

use crate::header::{self, BadName};
use tonic::metadata::MetadataMap;

/// Which entries of a tree are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// An entry must match one of these, or be in a directory that does; none means all.
    pub include_patterns: Vec<String>,
    /// An entry must not match these, in the order and with the exceptions of an ignore file.
    pub exclude_patterns: Vec<String>,
    /// Paths to include with all that their symlinks lead to; the last component, or any, may be
    /// a wildcard.
    pub follow_paths: Vec<String>,
}

/// A call of `FileSync.DiffCopy`, of which all but the packets is metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirectoryRequest {
    /// Which of the directories that the client offers.
    pub name: String,
    /// Which part of it.
    pub selection: Selection,
}

impl DirectoryRequest {
    /// Reads the metadata of a call.
    pub fn from_metadata(metadata: &MetadataMap) -> Self {
        Self {
            name: header::get_first(metadata, header::DIR_NAME).unwrap_or_default(),
            selection: Selection {
                include_patterns: header::get(metadata, header::INCLUDE_PATTERNS),
                exclude_patterns: header::get(metadata, header::EXCLUDE_PATTERNS),
                follow_paths: header::get(metadata, header::FOLLOW_PATHS),
            },
        }
    }

    /// Writes the metadata of a call.
    pub fn write_metadata(&self, metadata: &mut MetadataMap) -> Result<(), BadName> {
        let selection = &self.selection;
        header::set(metadata, header::DIR_NAME, &[&self.name])?;
        header::set(metadata, header::INCLUDE_PATTERNS, &selection.include_patterns)?;
        header::set(metadata, header::EXCLUDE_PATTERNS, &selection.exclude_patterns)?;
        header::set(metadata, header::FOLLOW_PATHS, &selection.follow_paths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_arrives_as_it_was_made() {
        let request = DirectoryRequest {
            name: "context".to_owned(),
            selection: Selection {
                include_patterns: vec!["a".to_owned(), "ä*".to_owned()],
                exclude_patterns: Vec::new(),
                follow_paths: vec!["x y".to_owned()],
            },
        };
        let mut metadata = MetadataMap::new();
        request.write_metadata(&mut metadata).unwrap();
        assert_eq!(DirectoryRequest::from_metadata(&metadata), request);
    }
}
