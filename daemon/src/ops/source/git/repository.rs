//! Repositories that are kept, so that only what is new is fetched.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use anyhow::Context as _;
use kiln_cache::{DirKind, Index, Pin};
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use super::command::{Git, WITHOUT_HISTORY};
use super::error::GitError;
use super::resolve::{REMOTE, Resolved};
use super::source::GitSource;
use crate::kept_dirs::KeptDirs;
use crate::solver::VertexProgress;

/// Says that a repository was made to its end.
const READY: &str = "kiln-ready";
/// What a git that was killed may have left.
const LOCKS: [&str; 4] = ["shallow.lock", "packed-refs.lock", "config.lock", "HEAD.lock"];

type Turn = Arc<tokio::sync::Mutex<()>>;

/// The daemon's copies of repositories: `<root>/repositories/<id>/`, bare.
pub(crate) struct Repositories {
    pub(crate) dirs: KeptDirs,
    index: Arc<Index>,
    /// One at a time uses a repository.
    turns: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

/// A repository in the hands of one build.
pub(super) struct Repository {
    pub(super) path: PathBuf,
    _pin: Pin,
    _turn: OwnedMutexGuard<()>,
}

impl Repositories {
    pub(crate) fn open(root: &Path, index: Arc<Index>) -> anyhow::Result<Self> {
        Ok(Self { dirs: KeptDirs::open(root, "repositories")?, index, turns: Mutex::default() })
    }

    fn turn(&self, name: &str) -> Turn {
        let mut turns = self.turns.lock();
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(name).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Turn::default();
        turns.insert(name.to_owned(), Arc::downgrade(&turn));
        turn
    }

    /// The copy of the repository of `source` that has objects of the kind that `resolved` is.
    pub(super) async fn lease(
        &self,
        git: &Git,
        source: &GitSource,
        resolved: &Resolved,
        progress: &VertexProgress,
    ) -> anyhow::Result<Repository> {
        let format = if resolved.checksum.len() == 64 { "sha256" } else { "sha1" };
        let name = format!("{}#{format}", source.shown());
        let turn = self.turn(&name).lock_owned().await;
        let hit = match self.index.dirs(DirKind::GitRepository, &name)?.into_iter().next() {
            Some(hit) => hit,
            None => {
                let description = format!("shared git repo for {}", source.shown());
                let make = |id| self.dirs.create(id);
                self.index.create_dir(DirKind::GitRepository, &name, &description, make)?
            }
        };
        self.index.open_dir_for_writing(hit.row.id, &hit.pin)?;
        let path = self.dirs.path(hit.row.id);
        let repository = Repository { path: path.clone(), _pin: hit.pin, _turn: turn };
        if tokio::fs::try_exists(path.join(READY)).await? {
            for lock in LOCKS {
                let _ = tokio::fs::remove_file(path.join(lock)).await;
            }
            return Ok(repository);
        }
        let at = || path.display().to_string();
        let (dirs, id) = (self.dirs.clone(), hit.row.id);
        tokio::task::spawn_blocking(move || dirs.empty(id)).await??;
        let git = git.with_git_dir(&path);
        let format = format!("--object-format={format}");
        git.run(progress, &["init", "--quiet", "--bare", "--template=", &format]).await?;
        // Submodules with relative addresses are found from here.
        let origin = source.shown();
        git.run(progress, &["config", "remote.origin.url", &origin]).await?;
        git.run(progress, &["config", "uploadpack.allowAnySHA1InWant", "true"]).await?;
        tokio::fs::write(path.join(READY), "").await.with_context(at)?;
        Ok(repository)
    }
}

impl Repository {
    /// Whether git finds that the copy is not what git wrote.
    pub(super) async fn is_unsound(&self, git: &Git, progress: &VertexProgress) -> bool {
        let git = git.with_git_dir(&self.path);
        git.run(progress, &["fsck", "--no-dangling", "--no-progress"]).await.is_err()
    }

    /// Has the next one who wants the copy make a new one.
    pub(super) async fn condemn(&self) -> anyhow::Result<()> {
        let ready = self.path.join(READY);
        tokio::fs::remove_file(&ready).await.with_context(|| ready.display().to_string())
    }

    /// Fetches what `resolved` is, if it is not here.
    pub(super) async fn fetch(
        &self,
        git: &Git,
        source: &GitSource,
        resolved: &Resolved,
        progress: &VertexProgress,
    ) -> anyhow::Result<()> {
        let git = git.with_git_dir(&self.path);
        let id = resolved.checksum.as_str();
        // Git sets it when all that belongs to the commit is here.
        let kept = format!("refs/kiln/{id}");
        let is_here = async || {
            let found = git.run(progress, &["for-each-ref", "--format=%(objectname)", &kept]).await;
            found.map(|found| found.trim_ascii() == id.as_bytes())
        };
        if is_here().await? {
            return Ok(());
        }
        let mut failure = None;
        // What the branch or tag is now, which may be another commit by now; then the commit, which
        // not all servers give away.
        let is_reference = resolved.reference.starts_with("refs/") && !source.fetch_by_commit;
        for wanted in [Some(resolved.reference.as_str()).filter(|_| is_reference), Some(id)] {
            let Some(wanted) = wanted else { continue };
            let refspec = format!("+{wanted}:{kept}");
            let arguments =
                ["fetch", WITHOUT_HISTORY, "--no-tags", "--force", "--", REMOTE, &refspec];
            failure = git.run(progress, &arguments).await.err();
            if failure.is_none() && is_here().await? {
                return Ok(());
            }
            git.succeeds(&["update-ref", "-d", &kept]).await?;
        }
        let all = ["+refs/heads/*:refs/remotes/kiln/*", "+refs/tags/*:refs/tags/*"];
        let is_shallow = tokio::fs::try_exists(self.path.join("shallow")).await?;
        let options: &[&str] = if is_shallow { &["--unshallow"] } else { &[] };
        let arguments = [&["fetch"], options, &["--force", "--", REMOTE], &all].concat();
        git.run(progress, &arguments).await.map_err(|error| failure.unwrap_or(error))?;
        if !git.succeeds(&["cat-file", "-e", id]).await? {
            let (remote, commit) = (source.shown(), id.to_owned());
            return Err(GitError::NoCommit { remote, commit }.into());
        }
        git.run(progress, &["update-ref", &kept, id]).await?;
        Ok(())
    }
}
