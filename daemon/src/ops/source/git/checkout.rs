//! From a repository to a layer with its files.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use kiln_cache::RecordType;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::command::{Git, WITHOUT_HISTORY};
use super::error::GitError;
use super::object::Objects;
use super::repository::Repository;
use super::resolve::Resolved;
use super::source::GitSource;
use crate::solver::{Build, Stack, VertexProgress};

/// Makes a layer with the files of what `resolved` is, which `repository` has.
pub(super) async fn checkout(
    build: &Arc<Build>,
    (git, repository): (&Git, &Repository),
    source: &GitSource,
    resolved: &Resolved,
    progress: &VertexProgress,
) -> anyhow::Result<Stack> {
    let layers = &build.daemon.layers;
    let layer = layers.create()?;
    let (files, work) = (layer.path(), layer.work_path());
    tokio::fs::create_dir_all(&work).await.with_context(|| work.display().to_string())?;
    let target = if source.subdir.is_empty() { files.clone() } else { work.join("checkout") };
    tokio::fs::create_dir_all(&target).await.with_context(|| target.display().to_string())?;
    let git = with_lfs(git.clone());
    let keeps_git_dir = source.keep_git_dir && source.subdir.is_empty();
    let git = if keeps_git_dir {
        clone(&git, repository, source, resolved, &target, progress).await?
    } else {
        let git = git.with_git_dir(&repository.path).with_index(&work.join("index"));
        let git = git.with_work_tree(&target);
        git.run(progress, &["read-tree", "--reset", "-u", &resolved.checksum]).await?;
        git
    };
    if !source.skip_submodules && target.join(".gitmodules").is_file() {
        let arguments =
            ["submodule", "--quiet", "update", "--init", "--recursive", WITHOUT_HISTORY];
        git.run(progress, &arguments).await?;
    }
    let mtime = if source.has_commit_times {
        let bare = git.with_git_dir(&repository.path);
        Objects::read(&bare, &resolved.checksum, progress).await?.time()
    } else {
        None
    };
    let subdir = source.subdir.clone();
    let finish = move || {
        if !subdir.is_empty() {
            move_up(&target, &subdir, &files)?;
        }
        let finish = Finish { mtime, keeps_git_dir };
        finish.tree(&files, false).with_context(|| "cannot finish the checkout")?;
        // The index, and the files that were not asked for.
        std::fs::remove_dir_all(&work).with_context(|| work.display().to_string())
    };
    tokio::task::spawn_blocking(finish).await??;
    let description = format!("git snapshot for {}#{}", source.shown(), resolved.reference);
    let is_checkout = |row: &mut kiln_cache::LayerRow| row.record_type = RecordType::GitCheckout;
    let (id, pin) = layers.commit_as(layer, Vec::new(), description, is_checkout).await?;
    Ok(Stack::default().with(id, pin))
}

/// A repository of its own for the files, as users make one with `git clone --depth=1`.
async fn clone(
    git: &Git,
    repository: &Repository,
    source: &GitSource,
    resolved: &Resolved,
    target: &Path,
    progress: &VertexProgress,
) -> anyhow::Result<Git> {
    let git = git.with_git_dir(&target.join(".git")).with_work_tree(target);
    let format = if resolved.checksum.len() == 64 { "sha256" } else { "sha1" };
    let format = format!("--object-format={format}");
    git.run(progress, &["init", "--quiet", "--template=", &format]).await?;
    git.run(progress, &["config", "remote.origin.url", &source.shown()]).await?;
    let fetch = ["config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"];
    git.run(progress, &fetch).await?;
    // By the protocol, so that git copies objects and no files.
    let from = format!("file://{}", repository.path.display());
    let id = &resolved.checksum;
    let refspec = match resolved.reference.as_str() {
        reference if reference.starts_with("refs/") => format!("+{id}:{reference}"),
        _ => id.clone(),
    };
    let fetch = ["fetch", "--quiet", "-u", WITHOUT_HISTORY, "--no-tags", "--", &from, &refspec];
    git.reading_local().run(progress, &fetch).await?;
    git.run(progress, &["checkout", "--quiet", "--detach", id]).await?;
    // Says where the daemon's copy is.
    let _ = tokio::fs::remove_file(target.join(".git/FETCH_HEAD")).await;
    Ok(git)
}

/// Git with the filter of large files, if the host has it.
fn with_lfs(git: Git) -> Git {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|dir| dir.join("git-lfs").is_file());
    if !is_there {
        return git;
    }
    git.with_setting("filter.lfs.smudge", "git-lfs smudge -- %f")
        .with_setting("filter.lfs.process", "git-lfs filter-process")
        .with_setting("filter.lfs.required", "true")
}

/// Moves what is in a directory of a checkout to where the files are to be. No link is followed.
fn move_up(checkout: &Path, subdir: &str, files: &Path) -> anyhow::Result<()> {
    let refuse = |problem| GitError::Subdir { subdir: subdir.to_owned(), problem };
    let mut directory = PathBuf::from(checkout);
    for name in subdir.split('/') {
        directory.push(name);
        let found = directory.symlink_metadata().map_err(|_| refuse("it is not there"))?;
        if !found.is_dir() || name == ".git" {
            return Err(refuse("it is no directory").into());
        }
    }
    for entry in std::fs::read_dir(&directory)? {
        let entry = entry?;
        std::fs::rename(entry.path(), files.join(entry.file_name()))?;
    }
    Ok(())
}

/// What is done with every file of a checkout.
struct Finish {
    mtime: Option<i64>,
    keeps_git_dir: bool,
}

impl Finish {
    /// Finishes a directory after all that is in it, for that changes its times.
    fn tree(&self, directory: &Path, is_gits: bool) -> std::io::Result<()> {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let (path, metadata) = (entry.path(), entry.metadata()?);
            let is_gits = is_gits || entry.file_name() == OsStr::new(".git");
            if is_gits && metadata.is_file() && !self.keeps_git_dir {
                // A submodule's, which says where the daemon's copy is.
                std::fs::remove_file(&path)?;
            } else if metadata.is_dir() {
                self.tree(&path, is_gits)?;
            } else {
                self.entry(&path, &metadata, is_gits)?;
            }
        }
        self.entry(directory, &directory.symlink_metadata()?, is_gits)
    }

    /// Git knows no modes but these, and what it makes depends on the daemon's own mask.
    fn entry(&self, path: &Path, metadata: &Metadata, is_gits: bool) -> std::io::Result<()> {
        let is_program = metadata.is_dir() || metadata.mode() & 0o100 != 0;
        let mode = if is_program { 0o755 } else { 0o644 };
        if !is_gits && !metadata.is_symlink() && metadata.mode() & 0o7777 != mode {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        }
        if let Some(seconds) = self.mtime {
            let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }
}
