//! The tar format, read from foreign bytes and written for OCI layers.
//!
//! Reading bounds everything that a header can claim before believing it. Writing gives the bytes
//! that Go's `archive/tar` gives for the same entries, which is what other builders produce.

mod error;
mod extended;
mod number;
mod pax;
mod reader;
mod sparse;
mod writer;

#[cfg(test)]
mod tests;

pub use error::TarError;
pub(crate) use reader::{Entry, EntryKind, Reader, is_header, printable};
pub(crate) use sparse::Sparse;
pub(crate) use writer::{Record, RecordKind, Writer};

/// The unit of the format.
const BLOCK: usize = 512;

/// The most that one long name or set of PAX records may take; Go's bound as well.
const MAX_SPECIAL: u64 = 1024 * 1024;

/// PAX's prefix of extended attributes.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// How many bytes follow `size` bytes of content to fill the last block.
fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}
