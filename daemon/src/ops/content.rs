//! Content digests: what some files of a snapshot are, whatever made them.
//!
//! A file counts by its path below the selected one, type, mode, owner, link target, extended
//! attributes, device number and content, never by its times. The digests of file contents are kept per
//! layer (layers never change), so that hashing one more path of a known layer reads nothing
//! twice.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use kiln_cache::{Checksum, Digest, FileList, FileListBuilder, Hasher};
use kiln_proto::pattern::Matcher;
use kiln_snapshotter::{Entry, FileKind, Follow, View};

use crate::layers::FileDigests;
use crate::solver::{Build, Selector, Snapshot};

/// A selected path does not exist.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\": not found")]
pub(crate) struct NotFound(pub(crate) String);

impl NotFound {
    /// Names a path inside a snapshot.
    pub(crate) fn at(path: &Path) -> Self {
        Self(Path::new("/").join(path).display().to_string())
    }
}

/// The digest of what `selectors` choose of `snapshot`, whose layers are fetched if need be, and which
/// files those are.
pub(crate) async fn digest(
    build: &Arc<Build>,
    snapshot: &Snapshot,
    selectors: &[Selector],
) -> anyhow::Result<(Digest, Option<FileList>)> {
    let layers = &build.daemon.layers;
    layers.fetch(build, snapshot).await?;
    let view = layers.view(snapshot)?;
    let files = layers.file_digests(snapshot)?;
    let selectors = selectors.to_vec();
    let task = tokio::task::spawn_blocking(move || {
        let mut hashing = Hashing { view, files, list: FileListBuilder::default() };
        let mut all = Hasher::new();
        for selector in &selectors {
            let digest = hashing.selector(selector)?;
            all.update(digest.as_bytes());
        }
        let digest = all.finish();
        hashing.files.save()?;
        anyhow::Ok((digest, hashing.list.finish()))
    });
    task.await?
}

struct Hashing {
    view: View,
    files: FileDigests,
    list: FileListBuilder,
}

impl Hashing {
    fn selector(&mut self, selector: &Selector) -> anyhow::Result<Digest> {
        for path in &selector.required {
            let found = self.view.lookup(path, Follow::Last)?;
            found.ok_or_else(|| NotFound(path.clone()))?;
        }
        let follow = if selector.follow_links { Follow::Last } else { Follow::NoLast };
        let paths = if selector.wildcard {
            self.view.glob(&selector.path, follow)?
        } else {
            vec![PathBuf::from(&selector.path)]
        };
        let filter = Filter::new(selector)?;
        let mut hasher = Hasher::new();
        for path in paths {
            // A link's target is what is copied; with wildcards its name is part of the result.
            let found = self.view.lookup(&path, follow)?;
            let entry = match found {
                Some(entry) => entry,
                None if path == Path::new("/") => continue,
                None => return Err(NotFound::at(&path).into()),
            };
            if selector.wildcard {
                let name = path.file_name().unwrap_or_default().as_encoded_bytes();
                hasher.update((name.len() as u64).to_le_bytes());
                hasher.update(name);
            }
            self.tree(&entry, &filter, &mut hasher)?;
        }
        Ok(hasher.finish())
    }

    fn tree(&mut self, top: &Entry, filter: &Filter, hasher: &mut Hasher) -> anyhow::Result<()> {
        self.entry(top, Path::new(""), hasher)?;
        if !top.metadata().is_dir() {
            return Ok(());
        }
        let mut walk = self.view.walk(top.path())?;
        // Directories that only a match below them would bring in.
        let mut pending: Vec<Entry> = Vec::new();
        while let Some(entry) = walk.next() {
            let entry = entry?;
            let path = entry.path().strip_prefix(top.path()).unwrap_or(entry.path()).to_owned();
            pending.retain(|dir| entry.path().starts_with(dir.path()));
            let chosen = filter.chooses(&path);
            if !chosen {
                if entry.metadata().is_dir() {
                    if filter.can_skip(&path) {
                        walk.skip_dir();
                    } else {
                        pending.push(entry);
                    }
                }
                continue;
            }
            for dir in std::mem::take(&mut pending) {
                let path = dir.path().strip_prefix(top.path()).unwrap_or(dir.path()).to_owned();
                self.entry(&dir, &path, hasher)?;
            }
            self.entry(&entry, &path, hasher)?;
        }
        Ok(())
    }

    /// Adds one entry under a path relative to what was selected.
    fn entry(&mut self, entry: &Entry, path: &Path, hasher: &mut Hasher) -> anyhow::Result<()> {
        let metadata = entry.metadata();
        let path = path.as_os_str().as_encoded_bytes();
        let kind = match metadata.kind {
            FileKind::File => b'f',
            FileKind::Directory => b'd',
            FileKind::Symlink => b'l',
            FileKind::CharDevice => b'c',
            FileKind::BlockDevice => b'b',
            FileKind::Fifo => b'p',
            FileKind::Socket => b's',
        };
        hasher.update((path.len() as u64).to_le_bytes());
        hasher.update(path);
        let mut rest = Checksum::EMPTY;
        let mut add = |bytes: &[u8]| {
            hasher.update(bytes);
            rest.update(bytes);
        };
        add(&[kind]);
        for number in
            [metadata.mode, metadata.uid, metadata.gid, metadata.rdev.major, metadata.rdev.minor]
        {
            add(&number.to_le_bytes());
        }
        for (name, value) in entry.xattrs()? {
            for part in [name, value] {
                add(&(part.len() as u64).to_le_bytes());
                add(&part);
            }
        }
        let mut content = None;
        match metadata.kind {
            FileKind::Symlink => add(entry.read_link()?.as_encoded_bytes()),
            FileKind::File => {
                let digest = self.files.get(entry.layer(), entry.path(), || {
                    let mut content = Hasher::new();
                    std::io::copy(&mut entry.open()?, &mut content)?;
                    anyhow::Ok(content.finish())
                });
                let digest = digest.with_context(|| format!("/{}", entry.path().display()))?;
                hasher.update(digest.as_bytes());
                content = Some(digest);
            }
            _ => {}
        }
        self.list.push(entry.path().as_os_str().as_encoded_bytes(), content.as_ref(), &rest);
        hasher.update([0]);
        Ok(())
    }
}

/// The include and exclude patterns of a selector.
struct Filter {
    include: Option<Matcher>,
    exclude: Option<Matcher>,
}

impl Filter {
    fn new(selector: &Selector) -> anyhow::Result<Self> {
        let matcher = |patterns: &[String]| {
            (!patterns.is_empty()).then(|| Matcher::new(patterns)).transpose()
        };
        Ok(Self { include: matcher(&selector.include)?, exclude: matcher(&selector.exclude)? })
    }

    fn chooses(&self, path: &Path) -> bool {
        let path = path.to_string_lossy();
        let matches = |matcher: &Matcher| matcher.matches(&path);
        self.include.as_ref().is_none_or(matches) && !self.exclude.as_ref().is_some_and(matches)
    }

    /// Whether nothing below the directory can be chosen.
    fn can_skip(&self, dir: &Path) -> bool {
        let excluded = |matcher: &Matcher| {
            matcher.matches(&dir.to_string_lossy()) && !matcher.has_exceptions()
        };
        self.exclude.as_ref().is_some_and(excluded)
    }
}
