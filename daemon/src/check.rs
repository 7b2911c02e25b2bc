//! `kilnd check`: whether the state directory is what it should be, and what is to be dropped if not.
//!
//! A daemon does not need this to start or to build rightly: it settles at start what a crash can
//! leave, and looks at what leaves it. This reads everything, to the last byte:
//!
//! - each row of the index, and all that rows say of each other ([`Index::check`]);
//! - each blob, against its name;
//! - the files of each layer, against whatever is known of them: what they were packed to, their
//!   digests as far as some step asked for them, and the blob that they were unpacked from;
//! - the files that clients have sent, against the digests that were taken on the way;
//! - the copies of git repositories, by git.
//!
//! What it cannot tell: a changed file in a layer that was never packed or copied from, and anything
//! in a cache mount.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, bail};
use kiln_cache::{
    ContentError, Digest, DirKind, DirRow, Finding, Hasher, Index, LayerRow, OnDisk, Problem,
    Subject,
};
use kiln_snapshotter::apply::apply;
use kiln_snapshotter::diff::{DiffOptions, diff};
use kiln_snapshotter::{Follow, LayerDir, Overlay, Snapshotter as _, View};
use serde_json::json;

use crate::compression::Decoder;
use crate::config::Config;
use crate::layers::{FileHeader, read_manifest};
use crate::serve;
use crate::state::{State, index_path, is_damage};
use crate::upkeep;

/// Dropping something may leave rows that lead nowhere, which the next look finds. Each look finds
/// what is further away; there are few kinds of rows.
const ROUNDS: usize = 8;
/// An answer of git is shown up to this length.
const MOST_COMPLAINT: usize = 200;

/// How to check.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// Drop what is broken, and what depends on it
    #[arg(long)]
    repair: bool,
    /// Write one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// What a check has looked at, and found.
#[derive(Default)]
struct Report {
    looked_at: BTreeMap<&'static str, usize>,
    findings: Vec<Finding>,
    /// What a crash left, which is no harm and goes when the daemon starts.
    leftovers: usize,
}

/// Checks the state directory that the configuration names, and prints what is wrong.
pub(crate) fn run(config: &Config, options: Options) -> anyhow::Result<ExitCode> {
    let root = &config.root;
    if !index_path(root).exists() {
        bail!("{} has no index: nothing was built there", root.display());
    }
    let _lock = serve::lock_root(root)?;
    let mut out = std::io::stdout().lock();
    let state = match State::open_as_is(root) {
        Ok(state) => state,
        Err(error) if is_damage(&error) => {
            return index_is_damaged(root, options, &error, &mut out);
        }
        Err(error) => return Err(error),
    };
    let report = match check(&state, root) {
        Ok(report) => report,
        Err(error) if is_damage(&error) => {
            drop(state);
            return index_is_damaged(root, options, &error, &mut out);
        }
        Err(error) => return Err(error),
    };
    print(&report, options, &mut out)?;
    let mut left = report.findings;
    if options.repair {
        for _ in 0..ROUNDS {
            if left.is_empty() {
                break;
            }
            state.index.drop_broken(&state.content, &left)?;
            upkeep::reconcile(&state)?;
            left = check(&state, root)?.findings;
        }
        if !left.is_empty() {
            bail!("{} things are still wrong, the first: {}", left.len(), left[0]);
        }
        upkeep::reconcile(&state)?;
    }
    Ok(if left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// An index that cannot be read has nothing that could be kept.
fn index_is_damaged(
    root: &Path,
    options: Options,
    error: &anyhow::Error,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let problem = format!("{error:#}");
    if options.repair {
        // The data goes when there is an index again that does not know it.
        drop(Index::set_aside(index_path(root))?);
        upkeep::reconcile(&State::open_as_is(root)?)?;
    }
    if options.json {
        let findings = json!([{ "subject": "index", "problem": problem }]);
        writeln!(out, "{}", json!({ "findings": findings, "repaired": options.repair }))?;
    } else {
        writeln!(out, "{problem}")?;
        let consequence = if options.repair {
            "It was set aside, and the cache is empty."
        } else {
            "With --repair, or when the daemon starts, it is set aside and the cache begins anew."
        };
        writeln!(out, "{consequence}")?;
    }
    Ok(if options.repair { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(report: &Report, options: Options, out: &mut impl Write) -> anyhow::Result<()> {
    let Report { looked_at, findings, leftovers } = report;
    if options.json {
        let findings: Vec<_> = findings
            .iter()
            .map(|Finding { subject, problem }| {
                json!({ "subject": subject.to_string(), "problem": problem.to_string() })
            })
            .collect();
        let report = json!({
            "checked": looked_at,
            "findings": findings,
            "leftovers": leftovers,
            "repaired": options.repair,
        });
        return Ok(writeln!(out, "{report}")?);
    }
    for finding in findings {
        writeln!(out, "{finding}")?;
    }
    let counts: Vec<_> = looked_at.iter().map(|(what, count)| format!("{count} {what}")).collect();
    writeln!(out, "Checked {}.", counts.join(", "))?;
    if *leftovers > 0 {
        writeln!(
            out,
            "{leftovers} files or directories belong to nothing: left by a crash, gone \
                       when the daemon starts."
        )?;
    }
    match (findings.len(), options.repair) {
        (0, _) => writeln!(out, "Nothing is wrong.")?,
        (count, true) => writeln!(out, "Wrong: {count}; dropped, with what depends on them.")?,
        (count, false) => {
            writeln!(
                out,
                "Wrong: {count}. `kilnd check --repair` drops them, with what depends on \
                           them."
            )?;
        }
    }
    Ok(())
}

/// Looks at everything.
fn check(state: &State, root: &Path) -> anyhow::Result<Report> {
    let on_disk = upkeep::on_disk(state)?;
    let findings = state.index.check(&on_disk)?;
    let is_broken = |subject: &Subject| findings.iter().any(|known| known.subject == *subject);
    // Rows that cannot be read have been found by now.
    let readable = !findings.iter().any(|finding| finding.problem == Problem::Undecodable);
    let (mut layers, mut dirs, mut blobs) = (Vec::new(), Vec::new(), Vec::new());
    if readable {
        layers = state.index.layer_rows()?;
        dirs = state.index.dir_rows()?;
        blobs = state.index.blob_rows()?;
    }
    let leftovers = leftovers(&on_disk, &layers, &dirs, blobs.len());
    let looked_at =
        BTreeMap::from([("layers", layers.len()), ("blobs", blobs.len()), ("dirs", dirs.len())]);
    layers.retain(|row| row.presence.is_local && !is_broken(&Subject::Layer(row.id)));
    dirs.retain(|row| !is_broken(&Subject::Dir(row.id)));
    let mut blobs: Vec<Digest> = blobs.into_iter().map(|(digest, _)| digest).collect();
    blobs.retain(|&digest| !is_broken(&Subject::Blob(digest)));

    let mut findings = findings.clone();
    let of = |subject: Subject| move |problem| Finding { subject, problem };
    findings
        .extend(each(&blobs, |digest| Ok(blob(state, digest).map(of(Subject::Blob(*digest)))))?);
    findings
        .extend(each(&layers, |row| Ok(layer(state, root, row)?.map(of(Subject::Layer(row.id)))))?);
    findings.extend(each(&dirs, |row| Ok(dir(state, row).map(of(Subject::Dir(row.id)))))?);
    findings.sort_unstable();
    Ok(Report { looked_at, findings, leftovers })
}

/// How many things on the disk have no row.
fn leftovers(on_disk: &OnDisk, layers: &[LayerRow], dirs: &[DirRow], blobs: usize) -> usize {
    let has_layer = |id| layers.iter().any(|row| row.id == id && row.presence.is_local);
    let has_dir = |id| dirs.iter().any(|row| row.id == id);
    on_disk.layers.iter().filter(|&&id| !has_layer(id)).count()
        + on_disk.dirs.iter().filter(|&&id| !has_dir(id)).count()
        + on_disk.blobs.len().saturating_sub(blobs)
}

/// Looks at things on all processors.
fn each<T: Sync>(
    things: &[T],
    look: impl Fn(&T) -> anyhow::Result<Option<Finding>> + Sync,
) -> anyhow::Result<Vec<Finding>> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let work = || -> anyhow::Result<()> {
            while let Some(thing) = things.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Some(finding) = look(thing)? {
                    found.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(finding);
                }
            }
            Ok(())
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    Ok(found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

fn blob(state: &State, digest: &Digest) -> Option<Problem> {
    match state.content.open_sound(digest) {
        Ok(_) => None,
        Err(ContentError::NotFound(_)) => Some(Problem::NotOnDisk),
        Err(ContentError::Damaged { actual, .. }) => {
            Some(Problem::Content(format!("has the content of {actual}")))
        }
        // A disk that does not give it back has lost it.
        Err(error) => Some(Problem::Content(format!("cannot be read: {error}"))),
    }
}

/// The files of a layer.
fn layer(state: &State, root: &Path, row: &LayerRow) -> anyhow::Result<Option<Problem>> {
    let dir = state.layers.overlay().layer(kiln_snapshotter::LayerId(row.id.0))?;
    match layer_content(state, root, row, &dir) {
        Ok(problem) => Ok(problem.map(Problem::Content)),
        Err(error) if is_damage(&error) => Err(error),
        Err(error) => Ok(Some(Problem::Content(format!("cannot be read: {error:#}")))),
    }
}

fn layer_content(
    state: &State,
    root: &Path,
    row: &LayerRow,
    dir: &LayerDir,
) -> anyhow::Result<Option<String>> {
    let files = View::of_directory(&dir.fs())?;
    for (path, expected) in state.layers.known_file_digests(row.id)? {
        let shown = path.display();
        let Some(entry) = files.lookup(&path, Follow::NoLast)? else {
            return Ok(Some(format!("has lost {shown}")));
        };
        let actual = FileHeader::of(&entry)?.digest(&entry)?;
        if actual != expected {
            return Ok(Some(format!("has another {shown}: {actual}, not {expected}")));
        }
    }
    let below = || anyhow::Ok(state.layers.view_of(state.layers.below(row)?.ids())?);
    let mut was_packed = false;
    for is_relative in [true, false] {
        let Some(expected) = state.layers.packed(row.id, is_relative)? else { continue };
        let lower = is_relative.then(below).transpose()?;
        let actual = packed(dir, lower.as_ref())?;
        if actual != *expected.digest() {
            return Ok(Some(format!("packs to {actual}, not {expected}")));
        }
        was_packed = true;
    }
    if was_packed {
        return Ok(None);
    }
    for descriptor in &row.blobs {
        // What is wrong with the blob is not this layer's.
        if state.index.blob(&descriptor.digest)?.is_none() {
            continue;
        }
        let Ok(blob) = state.content.open_sound(&descriptor.digest) else { continue };
        let scratch = tempfile::tempdir_in(root.join("tmp"))?;
        let again = Overlay::open(scratch.path())?.create(dir.id())?;
        apply(&mut Decoder::detect(Box::new(blob))?, &again, Some(&below()?))?;
        return Ok((packed(dir, None)? != packed(&again, None)?)
            .then(|| format!("is not what its blob {} unpacks to", descriptor.digest)));
    }
    Ok(None)
}

/// The digest of a layer's archive.
fn packed(dir: &LayerDir, lower: Option<&View>) -> anyhow::Result<Digest> {
    let mut hasher = Hasher::new();
    diff(dir, lower, &mut hasher, &DiffOptions::default())?;
    Ok(hasher.finish())
}

fn dir(state: &State, row: &DirRow) -> Option<Problem> {
    let problem = match row.kind {
        DirKind::CacheMount => Ok(None),
        DirKind::LocalSource => tree(&state.trees.dirs.path(row.id)),
        DirKind::GitRepository => repository(&state.repositories.dirs.path(row.id)),
    };
    let problem = problem.unwrap_or_else(|error| Some(format!("cannot be read: {error:#}")));
    problem.map(Problem::Content)
}

/// The files of a client, as far as they are known: a tree that was being changed is not.
fn tree(dir: &Path) -> anyhow::Result<Option<String>> {
    let Some(manifest) = read_manifest(dir) else { return Ok(None) };
    let files = View::of_directory(&dir.join("fs"))?;
    for (path, known) in &manifest {
        let Some(entry) = files.lookup(path, Follow::NoLast)? else {
            return Ok(Some(format!("has lost {path}")));
        };
        let Some(expected) = known.digest else { continue };
        // A further name of a file was announced without what is the file's.
        let named = known.stat.is_hardlink().then(|| manifest.get(&known.stat.linkname)).flatten();
        let stat = &named.unwrap_or(known).stat;
        let actual = FileHeader::of_announced(stat).digest(&entry)?;
        if actual != expected {
            return Ok(Some(format!("has another {path}: {actual}, not {expected}")));
        }
    }
    Ok(None)
}

/// Asks git, if the host has one. Fetched commits have no history, and git knows that.
fn repository(path: &Path) -> anyhow::Result<Option<String>> {
    let mut command = Command::new("git");
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    command.args(["-c", "safe.directory=*", "--git-dir"]).arg(path);
    command.args(["fsck", "--no-dangling", "--no-progress"]).stdin(Stdio::null());
    let said = match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        said => said.context("git")?,
    };
    if said.status.success() {
        return Ok(None);
    }
    let complaint = String::from_utf8_lossy(&said.stderr);
    let complaint: String = complaint.trim().chars().take(MOST_COMPLAINT).collect();
    Ok(Some(format!("is not sound: {complaint}")))
}
