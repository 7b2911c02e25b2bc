//! What is on the disk between builds: the index, and what it knows of.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use kiln_cache::{ContentStore, Index, IndexError};
use kiln_executor::SelinuxLabels;
use kiln_snapshotter::label_trees;

use crate::caches::CacheMounts;
use crate::kept_dirs::KeptDirs;
use crate::layers::{Layers, LocalTrees};
use crate::ops::source::git::Repositories;
use crate::reserve::Reserve;
use crate::upkeep;

/// The state directory, opened.
pub(crate) struct State {
    pub(crate) index: Arc<Index>,
    pub(crate) content: Arc<ContentStore>,
    pub(crate) layers: Layers,
    pub(crate) caches: CacheMounts,
    pub(crate) trees: LocalTrees,
    pub(crate) repositories: Repositories,
}

impl State {
    /// Opens what is below `root`, and puts it in order. A damaged index is set aside, and the cache
    /// begins anew: a daemon that starts is worth more than what it had.
    pub(crate) fn open(root: &Path) -> anyhow::Result<Self> {
        let reserve = Reserve::of(root);
        reserve.release_if_needed();
        // Left over from a daemon that was killed.
        let tmp = root.join("tmp");
        if tmp.exists() {
            std::fs::remove_dir_all(&tmp).with_context(|| tmp.display().to_string())?;
        }
        std::fs::create_dir_all(&tmp).with_context(|| tmp.display().to_string())?;
        let in_order = || {
            let state = Self::open_as_is(root)?;
            upkeep::reconcile(&state).context("cannot put the state directory in order")?;
            anyhow::Ok(state)
        };
        let opened = match in_order() {
            Err(error) if is_damage(&error) => {
                reserve.release();
                let aside = Index::set_aside(index_path(root))?;
                tracing::error!(
                    aside = %aside.display(),
                    "the index cannot be read, so the cache begins anew: {error:#}"
                );
                in_order()
            }
            opened => opened,
        };
        reserve.restore();
        opened
    }

    /// Opens what is below `root`, and changes nothing.
    pub(crate) fn open_as_is(root: &Path) -> anyhow::Result<Self> {
        let index = Arc::new(Index::open(index_path(root))?);
        let content = Arc::new(ContentStore::open(root)?);
        Ok(Self {
            layers: Layers::open(root, index.clone(), content.clone())?,
            caches: CacheMounts::open(root, index.clone())?,
            trees: LocalTrees::open(root, index.clone())?,
            repositories: Repositories::open(root, index.clone())?,
            index,
            content,
        })
    }

    /// Labels what steps get to see, for SELinux. Layers are joined to file systems that have a label of
    /// their own, but for some of its checks the kernel looks at the files below (mprotect).
    pub(crate) fn label(&self, labels: &SelinuxLabels) -> anyhow::Result<()> {
        let layers = self.layers.overlay().root();
        for dir in [layers, self.caches.dirs.root(), self.trees.dirs.root()] {
            label_trees(dir, &labels.file).with_context(|| dir.display().to_string())?;
        }
        Ok(())
    }

    /// The directories that the index keeps by id.
    pub(crate) fn kept_dirs(&self) -> [&KeptDirs; 3] {
        [&self.caches.dirs, &self.trees.dirs, &self.repositories.dirs]
    }
}

/// Where the index is.
pub(crate) fn index_path(root: &Path) -> std::path::PathBuf {
    root.join("index")
}

/// Whether something failed because the index is damaged.
pub(crate) fn is_damage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref().is_some_and(IndexError::is_damage))
}
