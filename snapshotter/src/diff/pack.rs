//! The walk over a layer that writes its entries.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::diff::compare::{Side, is_same};
use crate::diff::{DiffError, DiffOptions, Diffed};
use crate::error::{At, FsError};
use crate::layer::OverlayMarks;
use crate::metadata::{FileKind, Metadata, Xattrs, is_hosts};
use crate::tar::{Record, RecordKind, Writer};
use crate::view::merged_dir::MergedDir;
use crate::view::{Entry, View};
use crate::whiteout::{self, Mark};

/// Small headers reach the sink, which compresses and digests, in pieces worth its while.
const BUFFER: usize = 256 * 1024;

pub(super) struct Packer<'v, W: Write> {
    marks: OverlayMarks,
    lower: Option<&'v View>,
    out: Writer<BufWriter<W>>,
    options: DiffOptions,
    /// The first name packed of each inode with several.
    links: HashMap<u64, Vec<u8>>,
    levels: Vec<Level>,
    buffer: Vec<u8>,
    diffed: Diffed,
}

/// A directory that the walk is in.
struct Level {
    path: PathBuf,
    /// Its entry, until that is packed.
    pending: Option<Record>,
    below: Below,
}

/// What lies below a directory.
enum Below {
    /// Nobody said: everything is packed.
    Unknown,
    Nothing,
    Directory(MergedDir),
}

impl<'v, W: Write> Packer<'v, W> {
    pub(super) fn new(
        marks: OverlayMarks,
        lower: Option<&'v View>,
        out: W,
        options: DiffOptions,
    ) -> Self {
        Self {
            marks,
            lower,
            out: Writer::new(BufWriter::with_capacity(BUFFER, out)),
            options,
            links: HashMap::new(),
            levels: Vec::new(),
            buffer: vec![0; BUFFER],
            diffed: Diffed::default(),
        }
    }

    pub(super) fn run(mut self, upper: &View) -> Result<Diffed, DiffError> {
        let root = PathBuf::new();
        let opaque = match upper.root().top() {
            Some(top) => top.dir.is_opaque(self.marks).at("read the mark", &root)?,
            None => false,
        };
        let below = match self.lower {
            None => Below::Unknown,
            Some(lower) if !opaque => Below::Directory(lower.root().as_ref().clone()),
            Some(_) => Below::Nothing,
        };
        self.levels.push(Level { path: root, pending: None, below });
        if opaque {
            self.pack_mark(OsStr::new(whiteout::OPAQUE))?;
        }
        for entry in upper.walk("")? {
            let entry = entry?;
            while self
                .levels
                .last()
                .is_some_and(|level| Some(level.path.as_path()) != entry.path().parent())
            {
                self.levels.pop();
            }
            self.entry(&entry)?;
        }
        let mut out = self.out.finish().map_err(DiffError::Write)?;
        out.flush().map_err(DiffError::Write)?;
        Ok(self.diffed)
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), DiffError> {
        let (path, metadata) = (entry.path(), entry.metadata());
        let name = path.file_name().unwrap_or_default();
        if metadata.is_whiteout() {
            if self.below_has(name, path)? {
                self.pack_mark(&whiteout::name_of(name))?;
            }
            return Ok(());
        }
        if whiteout::parse(name) != Mark::None {
            return Err(DiffError::ReservedName(path.to_path_buf()));
        }
        let xattrs = entry.dir.xattrs(&entry.name).at("read the extended attributes", path)?;
        if xattrs.iter().any(|(key, _)| is_redirect(key)) {
            return Err(DiffError::Redirected(path.to_path_buf()));
        }
        let same = self.same_as_below(entry, &xattrs)?;
        if metadata.is_dir() {
            self.directory(entry, name, xattrs, same)
        } else if same {
            Ok(())
        } else {
            self.leaf(entry, xattrs)
        }
    }

    fn directory(
        &mut self,
        entry: &Entry,
        name: &OsStr,
        xattrs: Xattrs,
        same: bool,
    ) -> Result<(), DiffError> {
        let path = entry.path();
        let marked = self.marks.opaque().as_bytes();
        let opaque = xattrs.iter().any(|(key, value)| key == marked && value == b"y");
        let below = match self.levels.last().map(|level| &level.below) {
            None | Some(Below::Unknown) => Below::Unknown,
            Some(Below::Nothing) => Below::Nothing,
            Some(Below::Directory(lower)) => {
                match lower.enter(name).at("open the directory", path)? {
                    Some(lower) => Below::Directory(lower),
                    None => Below::Nothing,
                }
            }
        };
        let hides = opaque && !matches!(below, Below::Nothing);
        let mut directory = path.as_os_str().as_bytes().to_vec();
        directory.push(b'/');
        let record = self.record(directory, RecordKind::Directory, entry.metadata(), xattrs);
        let below = if hides { Below::Nothing } else { below };
        self.levels.push(Level { path: path.to_path_buf(), pending: Some(record), below });
        if !same {
            self.pack_levels()?;
        }
        if hides {
            self.pack_mark(OsStr::new(whiteout::OPAQUE))?;
        }
        Ok(())
    }

    fn leaf(&mut self, entry: &Entry, xattrs: Xattrs) -> Result<(), DiffError> {
        let (path, metadata) = (entry.path(), entry.metadata());
        let name = path.as_os_str().as_bytes().to_vec();
        let first = match metadata.nlink {
            0 | 1 => None,
            _ => self.links.get(&metadata.ino).cloned(),
        };
        let kind = match metadata.kind {
            // Nothing that a layer could keep.
            FileKind::Socket | FileKind::Directory => return Ok(()),
            _ if first.is_some() => RecordKind::Hardlink(first.unwrap_or_default()),
            FileKind::File => RecordKind::File(metadata.size),
            FileKind::Symlink => RecordKind::Symlink(entry.read_link()?.as_bytes().to_vec()),
            FileKind::CharDevice => RecordKind::CharDevice(metadata.rdev),
            FileKind::BlockDevice => RecordKind::BlockDevice(metadata.rdev),
            FileKind::Fifo => RecordKind::Fifo,
        };
        if metadata.nlink > 1 && !matches!(kind, RecordKind::Hardlink(_)) {
            self.links.insert(metadata.ino, name.clone());
        }
        let content = matches!(kind, RecordKind::File(_));
        let record = self.record(name, kind, metadata, xattrs);
        self.pack_levels()?;
        self.pack(&record)?;
        if content { self.content(entry) } else { Ok(()) }
    }

    /// Writes a file's content, which has to be as long as was announced.
    fn content(&mut self, entry: &Entry) -> Result<(), DiffError> {
        let path = entry.path();
        let mut rest = entry.metadata().size;
        if rest == 0 {
            return Ok(());
        }
        let mut file = entry.open()?;
        while rest > 0 {
            let wanted = self.buffer.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
            let length = file.read(&mut self.buffer[..wanted]).at("read the file", path)?;
            if length == 0 {
                return Err(DiffError::Changed(path.to_path_buf()));
            }
            self.out.content(&self.buffer[..length]).map_err(DiffError::Write)?;
            rest -= length as u64;
        }
        self.diffed.content += entry.metadata().size;
        Ok(())
    }

    /// Packs a whiteout or opaque mark in the current directory.
    fn pack_mark(&mut self, name: &OsStr) -> Result<(), DiffError> {
        self.pack_levels()?;
        let path = self.levels.last().map(|level| level.path.join(name)).unwrap_or_default();
        self.pack(&Record {
            name: path.into_os_string().into_encoded_bytes(),
            kind: RecordKind::File(0),
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: 0,
            xattrs: Xattrs::new(),
        })
    }

    /// Packs the directories on the way that were not worth it so far.
    fn pack_levels(&mut self) -> Result<(), DiffError> {
        for index in 0..self.levels.len() {
            if let Some(record) = self.levels[index].pending.take() {
                self.pack(&record)?;
            }
        }
        Ok(())
    }

    fn pack(&mut self, record: &Record) -> Result<(), DiffError> {
        self.diffed.entries += 1;
        self.out.record(record).map_err(DiffError::Write)
    }

    fn record(
        &self,
        name: Vec<u8>,
        kind: RecordKind,
        metadata: &Metadata,
        mut xattrs: Xattrs,
    ) -> Record {
        let mtime = match self.options.max_mtime {
            Some(max) => metadata.mtime.min(max),
            None => metadata.mtime,
        };
        if matches!(kind, RecordKind::Hardlink(_)) {
            xattrs.clear();
        }
        xattrs.retain(|(key, _)| is_portable(key));
        Record {
            name,
            kind,
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            mtime: mtime.secs,
            xattrs,
        }
    }

    fn below_has(&self, name: &OsStr, path: &Path) -> Result<bool, FsError> {
        match self.levels.last().map(|level| &level.below) {
            None | Some(Below::Unknown) => Ok(true),
            Some(Below::Nothing) => Ok(false),
            Some(Below::Directory(lower)) => Ok(lower.child(name).at("look up", path)?.is_some()),
        }
    }

    fn same_as_below(&self, entry: &Entry, xattrs: &Xattrs) -> Result<bool, FsError> {
        let path = entry.path();
        let Some(Below::Directory(lower)) = self.levels.last().map(|level| &level.below) else {
            return Ok(false);
        };
        let Some((part, metadata)) = lower.child(&entry.name).at("look up", path)? else {
            return Ok(false);
        };
        let above = Side { dir: &entry.dir, name: &entry.name, metadata: entry.metadata() };
        let below = Side { dir: &part.dir, name: &entry.name, metadata: &metadata };
        is_same(&above, xattrs, &below).at("compare with the layer below", path)
    }
}

/// Whether an attribute says that overlayfs keeps an entry's name or content elsewhere.
fn is_redirect(key: &[u8]) -> bool {
    [b"redirect".as_slice(), b"metacopy"].iter().any(|what| {
        [b"trusted.overlay.".as_slice(), b"user.overlay."]
            .iter()
            .any(|space| key.strip_prefix(*space) == Some(*what))
    })
}

/// Whether an attribute means the same on another machine.
fn is_portable(key: &[u8]) -> bool {
    key == b"security.capability" || (key.starts_with(b"user.") && !is_hosts(key))
}
