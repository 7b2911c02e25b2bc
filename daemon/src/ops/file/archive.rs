//! ADD of archives: they are unpacked where the file would have gone.

use std::io::{Read as _, Seek as _, SeekFrom};

use anyhow::Context as _;
use kiln_snapshotter::apply::apply;
use kiln_snapshotter::copy::{CopyOptions, copy};
use kiln_snapshotter::{Follow, LayerWriter, View};

use crate::compression::Decoder;
use crate::layers::NewLayer;

/// A tar header's size, and where its magic is.
const BLOCK: usize = 512;
const MAGIC: std::ops::Range<usize> = 257..262;

/// Unpacks the file at `path` of `source` below `dest`, if it is an archive; says whether it was.
///
/// The archive is unpacked into `scratch` first and its files are linked from there, so that its
/// names cannot lead through what is in the destination already.
pub(super) fn unpack(
    source: &View,
    path: &str,
    writer: &mut LayerWriter,
    dest: &str,
    options: &mut CopyOptions<'_>,
    scratch: &NewLayer,
) -> anyhow::Result<bool> {
    let Some(entry) = source.lookup(path, Follow::Last)?.filter(|e| e.metadata().is_file()) else {
        return Ok(false);
    };
    let mut file = entry.open()?;
    if !is_archive(&mut file) {
        return Ok(false);
    }
    file.seek(SeekFrom::Start(0)).with_context(|| path.to_owned())?;
    let applied = apply(Decoder::detect(file)?, scratch.dir(), Some(&View::empty()));
    applied.with_context(|| format!("cannot unpack {path}"))?;
    let view = View::of_layers(std::slice::from_ref(scratch.dir()))?;
    let whole = std::mem::replace(&mut options.dir_copy_contents, true);
    let copied = copy(&view, "/", writer, dest, options);
    options.dir_copy_contents = whole;
    copied.with_context(|| format!("cannot unpack {path} to {dest}"))?;
    Ok(true)
}

/// Whether a file is a tar archive, compressed or not.
fn is_archive(file: &mut std::fs::File) -> bool {
    let Ok(decoder) = Decoder::detect(file) else { return false };
    let mut header = Vec::with_capacity(BLOCK);
    // A stream that only looked compressed is no archive.
    let read = decoder.take(BLOCK as u64).read_to_end(&mut header);
    read.is_ok() && header.len() == BLOCK && &header[MAGIC] == b"ustar"
}
