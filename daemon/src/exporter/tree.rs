//! The files of an export in one tree, for sending them one by one or as a tar file.

use std::collections::{BTreeMap, HashMap, hash_map};
use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::iter::Peekable;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use kiln_proto::fsutil::{GoMode, Stat, Tree};
use kiln_snapshotter::{Entry, FileKind, FsError, View};

/// One file system of an export, and files that are put beside its own.
pub(super) struct Root {
    /// The id of its platform.
    pub(super) id: String,
    /// The directory that it is in; empty is the top.
    pub(super) dir: String,
    pub(super) view: View,
    pub(super) beside: BTreeMap<String, Bytes>,
    /// When the files beside were made, in seconds.
    pub(super) made_at: i64,
}

/// File systems, each in its directory. Where several are in the same one they are merged.
pub(super) struct Roots(pub(super) Vec<Root>);

/// Why a tree cannot be exported.
#[derive(Debug, thiserror::Error)]
pub(super) enum TreeError {
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error("cannot overwrite {} from {one} with {other} when split option is disabled", path.display())]
    Conflict { path: PathBuf, one: String, other: String },
}

/// Something in the tree.
struct Item<'a> {
    path: PathBuf,
    root: &'a Root,
    what: What<'a>,
}

enum What<'a> {
    Entry(Entry),
    /// The directory of a file system.
    Top,
    /// A file beside those of a file system.
    Beside(&'a Bytes),
}

type Items<'a> = Box<dyn Iterator<Item = Result<Item<'a>, FsError>> + 'a>;

/// Items of several walks in the order of their paths.
struct Merged<'a>(Vec<Peekable<Items<'a>>>);

/// The content of a file.
pub(super) enum TreeFile {
    Disk(File),
    Memory(Cursor<Bytes>),
}

impl Read for TreeFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Disk(file) => file.read(buffer),
            Self::Memory(bytes) => bytes.read(buffer),
        }
    }
}

impl Root {
    fn items(&self) -> [Items<'_>; 2] {
        let top = (!self.dir.is_empty())
            .then(|| Ok(Item { path: PathBuf::from(&self.dir), root: self, what: What::Top }));
        let (walk, failed) = match self.view.walk("/") {
            Ok(walk) => (Some(walk), None),
            // Nothing at all is an empty tree.
            Err(FsError::NotFound(_)) => (None, None),
            Err(error) => (None, Some(Err(error))),
        };
        let entries = walk.into_iter().flatten().map(|entry| {
            let entry = entry?;
            let path = Path::new(&self.dir).join(entry.path());
            Ok(Item { path, root: self, what: What::Entry(entry) })
        });
        let beside = self.beside.iter().map(|(name, content)| {
            let path = Path::new(&self.dir).join(name);
            Ok(Item { path, root: self, what: What::Beside(content) })
        });
        [Box::new(top.into_iter().chain(failed).chain(entries)), Box::new(beside)]
    }
}

impl Roots {
    fn items(&self) -> Merged<'_> {
        Merged(self.0.iter().flat_map(Root::items).map(Iterator::peekable).collect())
    }

    /// Writes all as one tar file, with their owners, in a fixed order.
    pub(super) fn write_tar(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let mut tar = tar::Builder::new(out);
        for item in self.items() {
            let item = item?;
            append(&mut tar, &item)
                .with_context(|| format!("cannot write {} to the archive", item.path.display()))?;
        }
        tar.finish().context("cannot finish the archive")
    }
}

impl<'a> Iterator for Merged<'a> {
    type Item = Result<Item<'a>, TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut first: Option<(usize, PathBuf)> = None;
        for (index, items) in self.0.iter_mut().enumerate() {
            match items.peek() {
                None => {}
                Some(Ok(item)) if first.as_ref().is_some_and(|(_, path)| *path <= item.path) => {}
                Some(Ok(item)) => first = Some((index, item.path.clone())),
                Some(Err(_)) => return Some(items.next()?.map_err(TreeError::from)),
            }
        }
        let (index, path) = first?;
        let item = match self.0[index].next()? {
            Ok(item) => item,
            Err(error) => return Some(Err(error.into())),
        };
        for items in &mut self.0 {
            let other = items.next_if(|other| matches!(other, Ok(other) if other.path == path));
            // Directories are merged.
            if let Some(Ok(other)) = other
                && !(item.is_dir() && other.is_dir())
            {
                let (one, other) = (item.root.id.clone(), other.root.id.clone());
                return Some(Err(TreeError::Conflict { path, one, other }));
            }
        }
        Some(Ok(item))
    }
}

impl<'a> Item<'a> {
    fn is_dir(&self) -> bool {
        match &self.what {
            What::Entry(entry) => entry.metadata().kind == FileKind::Directory,
            What::Top => true,
            What::Beside(_) => false,
        }
    }

    /// What other names of the same file have, too. Across layers an inode says nothing: they share
    /// files of which the image has several.
    fn shared_inode(&self) -> Option<(&'a str, usize, u64)> {
        let What::Entry(entry) = &self.what else { return None };
        let metadata = entry.metadata();
        (metadata.is_file() && metadata.nlink > 1)
            .then(|| (self.root.id.as_str(), entry.layer(), metadata.ino))
    }

    fn stat(&self) -> Result<Stat, FsError> {
        let path = self.path.to_string_lossy().into_owned();
        match &self.what {
            What::Entry(entry) => stat(path, entry),
            What::Top => {
                Ok(Stat { path, mode: GoMode::from_st_mode(0o040_755).0, ..Stat::default() })
            }
            What::Beside(content) => Ok(Stat {
                path,
                mode: GoMode::from_st_mode(0o100_600).0,
                size: i64::try_from(content.len()).unwrap_or(i64::MAX),
                mod_time: self.root.made_at.saturating_mul(1_000_000_000),
                ..Stat::default()
            }),
        }
    }
}

impl Tree for Roots {
    type Error = TreeError;
    type File = TreeFile;

    fn entries(&self) -> impl Iterator<Item = Result<Stat, TreeError>> {
        let mut names = HashMap::new();
        self.items().map(move |item| {
            let item = item?;
            let mut stat = item.stat()?;
            if let Some(inode) = item.shared_inode() {
                match names.entry(inode) {
                    // The fsutil protocol's hard link: a file that names one before it.
                    hash_map::Entry::Occupied(first) => {
                        stat.linkname.clone_from(first.get());
                        stat.size = 0;
                    }
                    hash_map::Entry::Vacant(first) => drop(first.insert(stat.path.clone())),
                }
            }
            Ok(stat)
        })
    }

    fn open(&self, path: &str) -> io::Result<TreeFile> {
        for root in &self.0 {
            let Ok(below) = Path::new(path).strip_prefix(&root.dir) else { continue };
            if let Some(content) = below.to_str().and_then(|name| root.beside.get(name)) {
                return Ok(TreeFile::Memory(Cursor::new(content.clone())));
            }
            if let Ok(file) = root.view.open(below) {
                return Ok(TreeFile::Disk(file));
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }
}

fn stat(path: String, entry: &Entry) -> Result<Stat, FsError> {
    let metadata = entry.metadata();
    let linkname = match metadata.kind {
        FileKind::Symlink => entry.read_link()?.to_string_lossy().into_owned(),
        _ => String::new(),
    };
    let nanos = i64::from(metadata.mtime.nanos);
    let is_file = metadata.is_file();
    Ok(Stat {
        path,
        mode: GoMode::from_st_mode(metadata.st_mode()).0,
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

/// The header of what is in no file system.
fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn append(tar: &mut tar::Builder<&mut dyn Write>, item: &Item<'_>) -> anyhow::Result<()> {
    match &item.what {
        What::Entry(entry) => append_entry(tar, entry, &item.path),
        What::Top => {
            let mut header = header(0o755, 0);
            header.set_entry_type(tar::EntryType::Directory);
            let name = PathBuf::from(format!("{}/", item.path.display()));
            Ok(tar.append_data(&mut header, name, io::empty())?)
        }
        What::Beside(content) => {
            let mut header = header(0o600, content.len() as u64);
            header.set_mtime(u64::try_from(item.root.made_at).unwrap_or(0));
            Ok(tar.append_data(&mut header, &item.path, content.as_ref())?)
        }
    }
}

fn append_entry(
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
