//! What can be wrong with a tar stream.

use std::io;

/// A tar stream cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream itself failed.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// It ends inside an entry.
    #[error("the archive ends inside an entry")]
    Truncated,
    /// A header's checksum is wrong: not a tar stream, or a damaged one.
    #[error("a header of the archive has a wrong checksum")]
    Checksum,
    /// Something other than the end follows an empty block.
    #[error("the archive has an empty block between entries")]
    LoneZeroBlock,
    /// A field is not a number, or not one that the field can have.
    #[error("{name}: the header's {field} is not valid")]
    Number {
        /// The entry.
        name: String,
        /// The field.
        field: &'static str,
    },
    /// A long name or a set of PAX records is larger than any sensible one.
    #[error("{name}: the extended header has {size} bytes, more than the {MAX_SPECIAL} allowed", MAX_SPECIAL = super::MAX_SPECIAL)]
    SpecialTooLarge {
        /// The entry that carries it.
        name: String,
        /// What it claims to have.
        size: u64,
    },
    /// PAX records are malformed.
    #[error("{name}: malformed extended header")]
    Pax {
        /// The entry that carries them.
        name: String,
    },
    /// The map of a sparse file contradicts itself or its sizes.
    #[error("{name}: malformed sparse file map")]
    Sparse {
        /// The entry.
        name: String,
    },
    /// An entry is of a type that a file tree cannot have.
    #[error("{name}: unsupported entry type {}", kind.escape_ascii())]
    Kind {
        /// The entry.
        name: String,
        /// The type flag.
        kind: u8,
    },
}
