//! The merged files of results, for sending them one by one or as a tar file.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kiln_proto::fsutil::{GoMode, Stat, Tree};
use kiln_snapshotter::{Entry, FileKind, Follow, FsError, View};

/// File systems, each below a directory of its own; the empty name is the top.
pub(super) struct ViewTree {
    views: Vec<(String, View)>,
}

impl ViewTree {
    pub(super) fn new(mut views: Vec<(String, View)>) -> Self {
        views.sort_by(|(a, _), (b, _)| a.cmp(b));
        Self { views }
    }
}

fn st_mode(entry: &Entry) -> u32 {
    let metadata = entry.metadata();
    let kind = match metadata.kind {
        FileKind::File => 0o100_000,
        FileKind::Directory => 0o040_000,
        FileKind::Symlink => 0o120_000,
        FileKind::CharDevice => 0o020_000,
        FileKind::BlockDevice => 0o060_000,
        FileKind::Fifo => 0o010_000,
        FileKind::Socket => 0o140_000,
    };
    kind | metadata.mode
}

fn stat(dir: &str, entry: &Entry) -> Result<Stat, FsError> {
    let metadata = entry.metadata();
    let path = Path::new(dir).join(entry.path());
    let linkname = match metadata.kind {
        FileKind::Symlink => entry.read_link()?.to_string_lossy().into_owned(),
        _ => String::new(),
    };
    let nanos = i64::from(metadata.mtime.nanos);
    let is_file = metadata.is_file();
    Ok(Stat {
        path: path.to_string_lossy().into_owned(),
        mode: GoMode::from_st_mode(st_mode(entry)).0,
        // The client's files are the client's user's.
        uid: 0,
        gid: 0,
        size: if is_file { i64::try_from(metadata.size).unwrap_or(i64::MAX) } else { 0 },
        mod_time: metadata.mtime.secs.saturating_mul(1_000_000_000).saturating_add(nanos),
        linkname,
        devmajor: i64::from(metadata.rdev.major),
        devminor: i64::from(metadata.rdev.minor),
        ..Stat::default()
    })
}

impl Tree for ViewTree {
    type Error = FsError;
    type File = File;

    fn entries(&self) -> impl Iterator<Item = Result<Stat, FsError>> {
        self.views.iter().flat_map(|(dir, view)| {
            let top = (!dir.is_empty()).then(|| {
                Ok(Stat {
                    path: dir.clone(),
                    mode: GoMode::from_st_mode(0o040_755).0,
                    ..Stat::default()
                })
            });
            let (walk, failed) = match view.walk("/") {
                Ok(walk) => (Some(walk), None),
                // Nothing at all is an empty tree.
                Err(FsError::NotFound(_)) => (None, None),
                Err(error) => (None, Some(Err(error))),
            };
            let entries = walk.into_iter().flatten().map(|entry| stat(dir, &entry?));
            top.into_iter().chain(failed).chain(entries)
        })
    }

    fn open(&self, path: &str) -> io::Result<File> {
        for (dir, view) in &self.views {
            if let Ok(below) = Path::new(path).strip_prefix(dir)
                && let Ok(file) = view.open(below)
            {
                return Ok(file);
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Writes file systems as one tar file, with their owners, in a fixed order.
pub(super) fn write_tar(views: &[(String, View)], out: &mut dyn Write) -> anyhow::Result<()> {
    let mut tar = tar::Builder::new(out);
    for (dir, view) in views {
        if view.lookup("/", Follow::Last)?.is_none() {
            continue;
        }
        for entry in view.walk("/")? {
            let entry = entry?;
            let path = Path::new(dir).join(entry.path());
            append(&mut tar, &entry, &path)
                .with_context(|| format!("cannot write {} to the archive", path.display()))?;
        }
    }
    tar.finish().context("cannot finish the archive")
}

fn append(
    tar: &mut tar::Builder<&mut dyn Write>,
    entry: &Entry,
    path: &Path,
) -> anyhow::Result<()> {
    let metadata = entry.metadata();
    let mut header = tar::Header::new_gnu();
    header.set_mode(metadata.mode);
    header.set_uid(metadata.uid.into());
    header.set_gid(metadata.gid.into());
    header.set_mtime(u64::try_from(metadata.mtime.secs).unwrap_or(0));
    header.set_size(0);
    let xattrs = entry.xattrs()?;
    let records: Vec<(String, &[u8])> = xattrs
        .iter()
        .map(|(name, value)| {
            (format!("SCHILY.xattr.{}", String::from_utf8_lossy(name)), value.as_slice())
        })
        .collect();
    if !records.is_empty() {
        tar.append_pax_extensions(records.iter().map(|(name, value)| (name.as_str(), *value)))?;
    }
    match metadata.kind {
        FileKind::File => {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(metadata.size);
            tar.append_data(&mut header, path, entry.open()?)?;
        }
        FileKind::Directory => {
            header.set_entry_type(tar::EntryType::Directory);
            // A directory's name ends with a slash.
            let name = PathBuf::from(format!("{}/", path.display()));
            tar.append_data(&mut header, name, io::empty())?;
        }
        FileKind::Symlink => {
            header.set_entry_type(tar::EntryType::Symlink);
            tar.append_link(&mut header, path, entry.read_link()?)?;
        }
        FileKind::CharDevice | FileKind::BlockDevice => {
            header.set_entry_type(if metadata.kind == FileKind::CharDevice {
                tar::EntryType::Char
            } else {
                tar::EntryType::Block
            });
            header.set_device_major(metadata.rdev.major)?;
            header.set_device_minor(metadata.rdev.minor)?;
            tar.append_data(&mut header, path, io::empty())?;
        }
        FileKind::Fifo => {
            header.set_entry_type(tar::EntryType::Fifo);
            tar.append_data(&mut header, path, io::empty())?;
        }
        // A socket is nothing without its process.
        FileKind::Socket => {}
    }
    Ok(())
}
