//! ADD of archives: they are unpacked where the file would have gone.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::Context as _;
use kiln_snapshotter::unpack::{UnpackOptions, is_archive, unpack};
use kiln_snapshotter::{Follow, LayerWriter, View};

use crate::compression::Decoder;

/// How much of a file tells whether it is an archive: a tar header.
const HEADER: u64 = 512;

/// Unpacks the file at `path` of `source` below `dest`, if it is an archive, compressed or not;
/// says whether it was.
pub(super) fn unpack_if_archive(
    source: &View,
    path: &Path,
    writer: &mut LayerWriter,
    dest: &str,
    options: &UnpackOptions,
) -> anyhow::Result<bool> {
    let Some(entry) = source.lookup(path, Follow::Last)?.filter(|e| e.metadata().is_file()) else {
        return Ok(false);
    };
    let mut file = entry.open()?;
    if !begins_like_archive(&mut file) {
        return Ok(false);
    }
    file.seek(SeekFrom::Start(0)).with_context(|| path.display().to_string())?;
    unpack(Decoder::detect(file)?, writer, dest, options)
        .with_context(|| format!("cannot unpack {} to {dest}", path.display()))?;
    Ok(true)
}

/// Whether the file begins with a tar header once it is decompressed. A stream that only looked
/// compressed is no archive.
fn begins_like_archive(file: &mut std::fs::File) -> bool {
    let Ok(decoder) = Decoder::detect(file) else { return false };
    let mut header = Vec::new();
    decoder.take(HEADER).read_to_end(&mut header).is_ok() && is_archive(&header)
}
