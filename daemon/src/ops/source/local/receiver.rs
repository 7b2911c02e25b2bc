//! Brings a tree up to date with what its client sends.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use kiln_proto::fsutil::{GoMode, Sink, Stat};
use kiln_snapshotter::tree::{TreeMetadata, TreeWriter};
use kiln_snapshotter::{Device, FileKind, FsError, Owner, Timestamp};

use super::writers::{WriteError, Writers};
use crate::layers::{LocalTree, Manifest, TreeEntry, TreeLease, announced_kind};
use crate::solver::StatusProgress;

/// Why a tree was not brought up to date.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiverError {
    #[error("cannot write the client's files")]
    Tree(#[from] FsError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("{path} has a mode that is no file's: {mode:#o}")]
    Mode { path: String, mode: u32 },
}

/// Whose files a tree has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Those of the same directory as they were some time ago.
    Same,
    /// Perhaps those of another directory, of which this one may or may not be a copy.
    Unknown,
}

impl Origin {
    /// Whether a file that is announced just as it was before is still the same file.
    ///
    /// In two directories that have nothing to do with each other, times to the nanosecond do not
    /// agree by chance; times in whole seconds were set by some tool, perhaps in both.
    fn vouches_for(self, stat: &Stat) -> bool {
        self == Self::Same || stat.mod_time % 1_000_000_000 != 0
    }
}

pub(super) struct Receiver {
    origin: Origin,
    lease: TreeLease,
    tree: Arc<TreeWriter>,
    writers: Writers,
    /// What was there, minus what was announced again.
    old: Manifest,
    /// What is there now.
    new: Manifest,
    /// Files whose content is on its way, by the transfer's number.
    pending: HashMap<u32, Arc<Stat>>,
    /// Made when the files that they name are there.
    hardlinks: Vec<Stat>,
    status: StatusProgress,
}

impl Receiver {
    pub(super) async fn open(
        lease: TreeLease,
        origin: Origin,
        status: StatusProgress,
    ) -> anyhow::Result<Self> {
        let (lease, old) = tokio::task::spawn_blocking(move || {
            let old = lease.open()?;
            anyhow::Ok((lease, old))
        })
        .await??;
        let tree = Arc::new(TreeWriter::open(&lease.files())?);
        let writers = Writers::start(&tree);
        let (new, pending, hardlinks) = (BTreeMap::new(), HashMap::new(), Vec::new());
        Ok(Self { origin, lease, tree, writers, old, new, pending, hardlinks, status })
    }

    /// Ends the transfer, complete or not, and writes down what is there: the next one begins
    /// with it. If the files could not be written here, nothing is left of them: the disk may be
    /// full.
    pub(super) async fn close(self, is_broken: bool) -> anyhow::Result<LocalTree> {
        let Self { lease, tree, writers, mut old, mut new, hardlinks, status, .. } = self;
        let written = writers.finish().await;
        drop(status);
        tokio::task::spawn_blocking(move || {
            let (digests, outcome) = written;
            if is_broken || outcome.is_err() {
                drop(tree);
                lease.discard()?;
                outcome?;
                return Ok(lease.into_tree(Manifest::new()));
            }
            for (path, digest) in digests {
                if let Some(entry) = new.get_mut(&path) {
                    entry.digest = Some(digest);
                }
            }
            // An interrupted transfer leaves entries that it did not come to, files without a
            // digest, and links that it did not make. What stands there is old or incomplete, but
            // it has to be known: the next transfer replaces it, or removes it.
            for stat in hardlinks {
                new.insert(stat.path.clone(), TreeEntry { stat, digest: None });
            }
            old.append(&mut new);
            if let Some(tree) = Arc::into_inner(tree) {
                tree.finish()?;
            }
            lease.save(&old)?;
            Ok(lease.into_tree(old))
        })
        .await?
    }

    /// Removes a directory and forgets what is below it, for something else to take its place.
    fn remove_directory(&mut self, path: &str) -> Result<(), ReceiverError> {
        self.tree.remove(path)?;
        // `0` is what comes after the `/`.
        let below = format!("{path}/")..format!("{path}0");
        for path in self.old.range(below).map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            self.old.remove(&path);
        }
        Ok(())
    }

    fn make(&mut self, stat: &Stat, kind: FileKind) -> Result<(), ReceiverError> {
        let metadata = metadata(stat);
        match kind {
            FileKind::Directory => self.tree.directory(&stat.path, &metadata)?,
            FileKind::Symlink => self.tree.symlink(&stat.path, &stat.linkname, &metadata)?,
            kind => {
                let number = |number: i64| u32::try_from(number).unwrap_or(0);
                let device = Device { major: number(stat.devmajor), minor: number(stat.devminor) };
                self.tree.node(&stat.path, kind, device, &metadata)?;
            }
        }
        Ok(())
    }
}

fn kind(stat: &Stat) -> Result<FileKind, ReceiverError> {
    announced_kind(stat)
        .ok_or_else(|| ReceiverError::Mode { path: stat.path.clone(), mode: stat.mode })
}

pub(super) fn metadata(stat: &Stat) -> TreeMetadata {
    let mut xattrs: Vec<_> = stat
        .xattrs
        .iter()
        .map(|(name, value)| (name.clone().into_bytes(), value.to_vec()))
        .collect();
    xattrs.sort();
    TreeMetadata {
        owner: Owner { uid: stat.uid, gid: stat.gid },
        mode: GoMode(stat.mode).permissions(),
        mtime: Timestamp::from_nanos(stat.mod_time),
        xattrs,
    }
}

impl Sink for Receiver {
    type Error = ReceiverError;

    async fn entry(&mut self, id: u32, stat: Stat) -> Result<bool, ReceiverError> {
        let kind = kind(&stat)?;
        let old = self.old.remove(&stat.path);
        if kind != FileKind::Directory
            && old.as_ref().is_some_and(|old| old.stat.go_mode().is_dir())
        {
            self.remove_directory(&stat.path)?;
        }
        if stat.is_hardlink() {
            self.hardlinks.push(stat);
            return Ok(false);
        }
        if let Some(old) = old
            && old.stat == stat
            && (kind != FileKind::File || (old.digest.is_some() && self.origin.vouches_for(&stat)))
        {
            self.new.insert(stat.path.clone(), old);
            return Ok(false);
        }
        let wanted = kind == FileKind::File;
        if wanted {
            self.pending.insert(id, Arc::new(stat.clone()));
        } else {
            self.make(&stat, kind)?;
        }
        self.new.insert(stat.path.clone(), TreeEntry { stat, digest: None });
        Ok(wanted)
    }

    async fn data(&mut self, id: u32, data: Bytes) -> Result<(), ReceiverError> {
        self.status.add(data.len() as u64);
        if let Some(stat) = self.pending.get(&id) {
            self.writers.data(id, stat, data).await?;
        }
        Ok(())
    }

    async fn end(&mut self, id: u32) -> Result<(), ReceiverError> {
        if let Some(stat) = self.pending.remove(&id) {
            self.writers.end(id, stat).await?;
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), ReceiverError> {
        self.writers.drain().await?;
        for stat in std::mem::take(&mut self.hardlinks) {
            self.tree.hardlink(&stat.path, &stat.linkname)?;
            let digest = self.new.get(&stat.linkname).and_then(|entry| entry.digest);
            self.new.insert(stat.path.clone(), TreeEntry { stat, digest });
        }
        // What was not announced is gone. Directories take their content along.
        let gone = std::mem::take(&mut self.old);
        let mut removed: Option<&str> = None;
        for path in gone.keys() {
            let is_below = removed.is_some_and(|dir| Path::new(path).starts_with(dir));
            if !is_below && !self.new.contains_key(path) {
                self.tree.remove(path)?;
                removed = Some(path);
            }
        }
        Ok(())
    }
}
