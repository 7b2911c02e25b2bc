//! Cache mounts: directories that outlive the steps that write to them.

use std::collections::HashMap;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use kiln_cache::{DirId, DirKind, Index, Pin};
use kiln_proto::pb;
use kiln_snapshotter::copy::{CopyOptions, copy};
use kiln_snapshotter::{Follow, LayerWriter, View};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::kept_dirs::KeptDirs;
use crate::ops::path::clean;
use crate::solver::{Build, Snapshot};

/// The daemon's cache mounts.
pub(crate) struct CacheMounts {
    pub(crate) dirs: KeptDirs,
    index: Arc<Index>,
    users: Arc<Users>,
    /// Held while a cache mount is made, so that steps that begin together find the same one.
    making: tokio::sync::Mutex<()>,
}

/// Who uses which directory now.
#[derive(Default)]
struct Users {
    by_dir: Mutex<HashMap<DirId, Use>>,
    /// Changes whenever a directory is given back.
    released: watch::Sender<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Shared(usize),
    Exclusive,
}

/// A cache mount that a step asks for.
pub(crate) struct WantedCache<'a> {
    /// Names the directories that will do.
    pub(crate) name: String,
    options: &'a pb::CacheOpt,
    /// What a new one starts with: the files at `selector`.
    seed: Option<&'a Snapshot>,
    selector: &'a str,
    /// Whether what earlier builds left in it must not be seen.
    is_fresh: bool,
}

/// The right to use one cache mount; given back on drop.
pub(crate) struct CacheLease {
    id: DirId,
    path: PathBuf,
    users: Arc<Users>,
    pin: Pin,
}

impl CacheMounts {
    pub(crate) fn open(root: &Path, index: Arc<Index>) -> anyhow::Result<Self> {
        let dirs = KeptDirs::open(root, "cachemounts")?;
        Ok(Self { dirs, index, users: Arc::default(), making: tokio::sync::Mutex::default() })
    }

    /// Takes the cache mount that is `wanted`, as its sharing mode allows; made from its seed if
    /// there is none yet. `waiting` hears of it once if a lock has to be waited for.
    pub(crate) async fn lease(
        &self,
        build: &Arc<Build>,
        wanted: &WantedCache<'_>,
        waiting: &impl Fn(&str),
    ) -> anyhow::Result<CacheLease> {
        let (name, sharing) = (&wanted.name, wanted.options.sharing());
        if wanted.is_fresh && build.clears_cache(name) {
            self.clear(name).await?;
        }
        let mut released = self.users.released.subscribe();
        let mut told = false;
        loop {
            released.mark_unchanged();
            if let Some(lease) = self.take(name, sharing)? {
                return Ok(lease);
            }
            let must_wait = || {
                let is_locked = sharing == pb::CacheSharingOpt::Locked;
                anyhow::Ok(is_locked && !self.index.dirs(DirKind::CacheMount, name)?.is_empty())
            };
            if !must_wait()? {
                if let Some(seed) = wanted.seed {
                    build.daemon.layers.fetch(build, seed).await?;
                }
                let _making = self.making.lock().await;
                // Somebody may have made it meanwhile.
                if let Some(lease) = self.take(name, sharing)? {
                    return Ok(lease);
                }
                if !must_wait()? {
                    return self.create(build, wanted).await;
                }
            }
            if !std::mem::replace(&mut told, true) {
                waiting(&format!("the lock on cache mount {:?}", wanted.options.id));
            }
            released.changed().await?;
        }
    }

    /// Removes the directories of that name, but those that other steps use now.
    async fn clear(&self, name: &str) -> anyhow::Result<()> {
        let removed = self.index.remove_dirs(DirKind::CacheMount, name)?;
        let dirs = self.dirs.clone();
        let remove = move || removed.into_iter().try_for_each(|id| dirs.remove(id));
        tokio::task::spawn_blocking(remove).await?
    }

    /// A directory of that name that is free for this kind of use.
    fn take(&self, name: &str, sharing: pb::CacheSharingOpt) -> anyhow::Result<Option<CacheLease>> {
        for found in self.index.dirs(DirKind::CacheMount, name)? {
            let id = found.row.id;
            let mut users = self.users.by_dir.lock();
            let next = match (users.get(&id), sharing) {
                (None, pb::CacheSharingOpt::Shared) => Use::Shared(1),
                (None, _) => Use::Exclusive,
                (Some(Use::Shared(count)), pb::CacheSharingOpt::Shared) => Use::Shared(count + 1),
                (Some(_), _) => continue,
            };
            users.insert(id, next);
            drop(users);
            let (path, users) = (self.dirs.path(id), self.users.clone());
            let lease = CacheLease { id, path, users, pin: found.pin };
            self.index.open_dir_for_writing(id, &lease.pin)?;
            return Ok(Some(lease));
        }
        Ok(None)
    }

    async fn create(
        &self,
        build: &Arc<Build>,
        wanted: &WantedCache<'_>,
    ) -> anyhow::Result<CacheLease> {
        let &WantedCache { ref name, options, seed, selector, .. } = wanted;
        let layers = &build.daemon.layers;
        let source = match seed {
            Some(seed) => layers.view(seed)?,
            None => View::empty(),
        };
        let layer = layers.create()?;
        let (dir, selector, files) = (layer.dir().clone(), clean(selector), layer.path());
        let seeded = seed.is_some();
        let task = tokio::task::spawn_blocking(move || {
            if !seeded {
                return Ok(());
            }
            let top = source.lookup(&selector, Follow::Last)?;
            let top = top.with_context(|| format!("\"{selector}\": not found"))?;
            let mut writer = LayerWriter::new(&dir, &View::empty())?;
            let mut options =
                CopyOptions { dir_copy_contents: true, own_files: true, ..CopyOptions::default() };
            copy(&source, &selector, &mut writer, "/", &mut options)?;
            writer.finish()?;
            let metadata = top.metadata();
            chown(&files, Some(metadata.uid), Some(metadata.gid))?;
            std::fs::set_permissions(&files, std::fs::Permissions::from_mode(metadata.mode))?;
            anyhow::Ok(())
        });
        task.await?.with_context(|| format!("cannot make cache mount {name:?}"))?;
        let description = format!("cached mount {name} from exec");
        let usage = match options.sharing() {
            pb::CacheSharingOpt::Shared => Use::Shared(1),
            pb::CacheSharingOpt::Private | pb::CacheSharingOpt::Locked => Use::Exclusive,
        };
        // Others may find the row before it is known who uses it. This lets them wait for that.
        let mut by_dir = self.users.by_dir.lock();
        let make = |id| {
            let path = self.dirs.path(id);
            std::fs::rename(layer.path(), &path).with_context(|| path.display().to_string())
        };
        let found = self.index.create_dir(DirKind::CacheMount, name, &description, make)?;
        let id = found.row.id;
        let path = self.dirs.path(id);
        by_dir.insert(id, usage);
        drop(by_dir);
        Ok(CacheLease { id, path, users: self.users.clone(), pin: found.pin })
    }
}

impl<'a> WantedCache<'a> {
    pub(crate) async fn new(
        build: &Build,
        options: &'a pb::CacheOpt,
        seed: Option<&'a Snapshot>,
        selector: &'a str,
        is_fresh: bool,
    ) -> anyhow::Result<Self> {
        let mut name = options.id.clone();
        if let Some(seed) = seed {
            // Another seed is another cache.
            let seed = build.daemon.layers.freeze(seed).await?;
            name = format!("{name}:{:?}:{selector}", seed.ids().last());
        }
        Ok(Self { name, options, seed, selector, is_fresh })
    }
}

impl CacheLease {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for CacheLease {
    fn drop(&mut self) {
        let mut users = self.users.by_dir.lock();
        match users.get_mut(&self.id) {
            Some(Use::Shared(count)) if *count > 1 => *count -= 1,
            _ => drop(users.remove(&self.id)),
        }
        drop(users);
        self.users.released.send_modify(|count| *count += 1);
    }
}
