//! The names in one directory, sorted.

use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

/// Room for about a thousand names at a time.
pub(super) const BUFFER: usize = 32 << 10;

/// Names in byte order, in one allocation for all: a directory may have hundreds of thousands that
/// are only compared with a pattern.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Each name with the NUL that ends it.
    names: Vec<u8>,
    entries: Vec<Entry>,
    next: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: usize,
    /// Where the NUL is.
    end: usize,
    kind: FileType,
}

impl Listing {
    /// Reads a directory; `buffer` is scratch space.
    pub(super) fn read(
        directory: impl AsFd,
        buffer: &mut [MaybeUninit<u8>],
    ) -> Result<Self, Errno> {
        let mut listing = Self::default();
        let mut raw = RawDir::new(directory, buffer);
        while let Some(entry) = raw.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes_with_nul();
            if matches!(name, b".\0" | b"..\0") {
                continue;
            }
            let start = listing.names.len();
            listing.names.extend_from_slice(name);
            listing.entries.push(Entry {
                start,
                end: listing.names.len() - 1,
                kind: entry.file_type(),
            });
        }
        let names = &listing.names;
        listing.entries.sort_unstable_by_key(|entry| &names[entry.start..entry.end]);
        Ok(listing)
    }

    /// The next name, and what the directory says it is, which may be
    /// [`FileType::Unknown`](rustix::fs::FileType::Unknown).
    pub(super) fn next(&mut self) -> Option<(&CStr, FileType)> {
        let entry = self.entries.get(self.next)?;
        self.next += 1;
        let name = CStr::from_bytes_with_nul(&self.names[entry.start..=entry.end]).ok()?;
        Some((name, entry.kind))
    }
}
