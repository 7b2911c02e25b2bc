//! The content of regular files.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::apply::{ApplyError, metadata};
use crate::error::At;
use crate::tar::{Entry, Reader, Sparse};

/// Fills a new file with an entry's content and metadata, and returns the content's size.
pub(crate) fn write_entry<R: Read>(
    mut file: File,
    entry: &Entry,
    path: &Path,
    reader: &mut Reader<R>,
) -> Result<u64, ApplyError> {
    let size = match &entry.sparse {
        Some(sparse) => write_sparse(&file, path, sparse, reader)?,
        None => write_content(&mut file, path, reader)?,
    };
    metadata::set_on_file(&file, entry).at("set the metadata", path)?;
    Ok(size)
}

fn write_content<R: Read>(
    file: &mut File,
    path: &Path,
    reader: &mut Reader<R>,
) -> Result<u64, ApplyError> {
    let mut size = 0;
    reader.content(|piece| {
        size += piece.len() as u64;
        Ok::<_, ApplyError>(file.write_all(piece).at("write the file", path)?)
    })?;
    Ok(size)
}

fn write_sparse<R: Read>(
    file: &File,
    path: &Path,
    sparse: &Sparse,
    reader: &mut Reader<R>,
) -> Result<u64, ApplyError> {
    file.set_len(sparse.size).at("set the file's size", path)?;
    let mut segments = sparse.segments.iter().copied();
    let (mut offset, mut rest) = (0, 0);
    let mut size = 0;
    reader.content(|mut piece| {
        while !piece.is_empty() {
            if rest == 0 {
                // The layout was checked to have as much room as there is content.
                let Some(next) = segments.next() else { break };
                (offset, rest) = next;
            }
            let length = piece.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
            file.write_all_at(&piece[..length], offset).at("write the file", path)?;
            piece = &piece[length..];
            offset += length as u64;
            rest -= length as u64;
            size += length as u64;
        }
        Ok::<_, ApplyError>(())
    })?;
    Ok(size)
}
