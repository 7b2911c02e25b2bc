//! Carries out the actions of a file op, each chain of them into one new layer.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use kiln_proto::control::VertexWarning;
use kiln_proto::pb;
use kiln_proto::pb::file_action::Action;
use kiln_proto::pb::user_opt::User;
use kiln_snapshotter::copy::{CopyOptions, ModeChange, copy};
use kiln_snapshotter::unpack::UnpackOptions;
use kiln_snapshotter::{Follow, LayerWriter, NewEntry, Owner, Timestamp, View};

use tokio_util::sync::CancellationToken;

use super::archive;
use super::key::NONE;
use crate::graph::Vertex;
use crate::layers::NewLayer;
use crate::ops::content::NotFound;
use crate::ops::filter::Filter;
use crate::ops::path::clean;
use crate::ops::{mode, owner};
use crate::solver::{Build, LeftBehind, LeftFiles, OpFailure, Snapshot, Stack, Subject};

/// A layer that actions write to.
struct Active {
    base: Stack,
    layer: NewLayer,
}

pub(crate) async fn execute(
    build: &Arc<Build>,
    vertex: &Arc<Vertex>,
    file: &pb::FileOp,
    inputs: &[Snapshot],
) -> Result<Vec<Snapshot>, OpFailure> {
    for input in inputs {
        build.daemon.layers.fetch(build, input).await?;
    }
    let mut actions =
        Actions { build, vertex, inputs, active: HashMap::new(), done: HashMap::new() };
    for (index, action) in file.actions.iter().enumerate() {
        actions.run(file, index, action).await?;
    }
    let mut outputs = Vec::new();
    for (index, action) in file.actions.iter().enumerate() {
        if let Ok(output) = usize::try_from(action.output) {
            let snapshot = actions.result(index).await?;
            if outputs.len() <= output {
                outputs.resize(output + 1, None);
            }
            outputs[output] = Some(snapshot);
        }
    }
    let outputs = outputs.into_iter().collect::<Option<_>>();
    Ok(outputs.context("file op with an output that no action makes")?)
}

struct Actions<'a> {
    build: &'a Arc<Build>,
    vertex: &'a Vertex,
    inputs: &'a [Snapshot],
    /// By action: layers that its successor may go on writing.
    active: HashMap<usize, Active>,
    /// By action: finished results.
    done: HashMap<usize, Snapshot>,
}

impl Actions<'_> {
    async fn run(
        &mut self,
        file: &pb::FileOp,
        index: usize,
        action: &pb::FileAction,
    ) -> Result<(), OpFailure> {
        let layers = &self.build.daemon.layers;
        let active = match self.earlier(action.input) {
            // The only one that goes on from an unfinished layer may have it.
            Some(earlier) if is_used_once(file, earlier, self.inputs.len()) => {
                self.active.remove(&earlier).context("file action out of order")?
            }
            _ => {
                let base = match self.snapshot(action.input).await? {
                    Some(snapshot) => layers.freeze(&snapshot).await?,
                    None => Stack::default(),
                };
                Active { base, layer: layers.create()? }
            }
        };
        let source = match self.snapshot(action.secondary_input).await? {
            Some(snapshot) => layers.view(&snapshot)?,
            None => View::empty(),
        };
        let base = layers.view_of(active.base.ids())?;
        let kind = action.action.clone().context("file action without an action")?;
        let owner = self.owner(&kind)?;
        let dir = active.layer.dir().clone();
        let given_up = CancellationToken::new();
        // A thread cannot be aborted: it has to look.
        let _give_up = given_up.clone().drop_guard();
        let task = tokio::task::spawn_blocking(move || {
            let mut writer = LayerWriter::new(&dir, &base)?;
            let performed = perform(&kind, owner, &source, &mut writer, &given_up);
            // What was half done may be looked at.
            let finished = writer.finish();
            performed?;
            anyhow::Ok(finished?)
        });
        match task.await.map_err(anyhow::Error::from).flatten() {
            Ok(()) => drop(self.active.insert(index, active)),
            Err(cause) => {
                let is_kept = self.build.failed_steps.are_kept();
                let left = is_kept.then(|| self.left_by(file, index, active));
                return Err(OpFailure { cause, left });
            }
        }
        Ok(())
    }

    /// What the action that has failed leaves, and those before it.
    fn left_by(&mut self, file: &pb::FileOp, action: usize, failed: Active) -> LeftBehind {
        let mut outputs = vec![None; file.actions.len()];
        for (&action, snapshot) in &self.done {
            outputs[action] = Some(LeftFiles { below: Some(snapshot.clone()), written: None });
        }
        for (action, Active { base, layer }) in self.active.drain().chain([(action, failed)]) {
            let (below, written) = (Some(Snapshot::Layers(base)), Some(Arc::new(layer)));
            outputs[action] = Some(LeftFiles { below, written });
        }
        let inputs = self.inputs.iter().cloned().map(Some).collect();
        LeftBehind { subject: Subject::Action(action), inputs, outputs }
    }

    /// The earlier action that an index names.
    fn earlier(&self, index: i64) -> Option<usize> {
        usize::try_from(index).ok()?.checked_sub(self.inputs.len())
    }

    async fn snapshot(&mut self, index: i64) -> anyhow::Result<Option<Snapshot>> {
        if index == NONE {
            return Ok(None);
        }
        if let Some(earlier) = self.earlier(index) {
            return self.result(earlier).await.map(Some);
        }
        let input = usize::try_from(index).ok().and_then(|index| self.inputs.get(index));
        input.cloned().map(Some).with_context(|| format!("file action has no input {index}"))
    }

    async fn result(&mut self, action: usize) -> anyhow::Result<Snapshot> {
        if let Some(snapshot) = self.done.get(&action) {
            return Ok(snapshot.clone());
        }
        let active = self.active.remove(&action).context("file action out of order")?;
        let layers = &self.build.daemon.layers;
        let stack = layers.commit(active.layer, &active.base, self.vertex.name()).await?;
        let snapshot = Snapshot::Layers(stack);
        self.done.insert(action, snapshot.clone());
        Ok(snapshot)
    }

    /// The numbers of the owner that an action names; names are looked up in an input.
    fn owner(&self, action: &Action) -> anyhow::Result<Option<Owner>> {
        let owner = match action {
            Action::Copy(copy) => &copy.owner,
            Action::Mkfile(file) => &file.owner,
            Action::Mkdir(dir) => &dir.owner,
            Action::Symlink(link) => &link.owner,
            Action::Rm(_) => &None,
        };
        let Some(owner) = owner else { return Ok(None) };
        let view = |input: i64| {
            let input = usize::try_from(input).ok().and_then(|index| self.inputs.get(index));
            match input {
                Some(snapshot) => self.build.daemon.layers.view(snapshot),
                None => Ok(View::empty()),
            }
        };
        let mut ids = Owner::default();
        match owner.user.as_ref().and_then(|user| user.user.as_ref()) {
            Some(User::ById(uid)) => ids = Owner { uid: *uid, gid: *uid },
            Some(User::ByName(name)) => match owner::user(&view(name.input)?, &name.name)? {
                Some(found) => ids = found,
                None => self.warn_unknown("user", &name.name),
            },
            None => {}
        }
        match owner.group.as_ref().and_then(|group| group.user.as_ref()) {
            Some(User::ById(gid)) => ids.gid = *gid,
            Some(User::ByName(name)) => match owner::group(&view(name.input)?, &name.name)? {
                Some(found) => ids.gid = found,
                None => self.warn_unknown("group", &name.name),
            },
            None => {}
        }
        Ok(Some(ids))
    }

    /// Says that a name means nothing in the image. BuildKit takes root's number without a word,
    /// so there are Dockerfiles that rely on it.
    fn warn_unknown(&self, what: &str, name: &str) {
        if name.is_empty() {
            return;
        }
        self.build.progress.vertex(self.vertex).warn(VertexWarning {
            level: 1,
            short: format!("{what} {name} is not known in the image: the files are root's").into(),
            ..VertexWarning::default()
        });
    }
}

/// Whether nothing but the next action needs the result of action `index`.
fn is_used_once(file: &pb::FileOp, index: usize, inputs: usize) -> bool {
    let names = |input: i64| usize::try_from(input).is_ok_and(|input| input == inputs + index);
    let uses = file.actions.iter().flat_map(|a| [a.input, a.secondary_input]);
    file.actions[index].output == NONE && uses.filter(|&input| names(input)).count() == 1
}

fn timestamp(nanos: i64) -> Option<Timestamp> {
    (nanos != -1).then(|| Timestamp::from_nanos(nanos))
}

fn perform(
    action: &Action,
    owner: Option<Owner>,
    source: &View,
    writer: &mut LayerWriter,
    given_up: &CancellationToken,
) -> anyhow::Result<()> {
    let new = |mode: i32, time: i64| NewEntry {
        mode: mode as u32 & 0o777,
        owner,
        mtime: timestamp(time),
    };
    match action {
        Action::Mkdir(dir) => {
            let new = new(dir.mode, dir.timestamp);
            if dir.make_parents {
                writer.mkdir_all(&dir.path, &new)?;
            } else {
                writer.mkdir(&dir.path, &new)?;
            }
        }
        Action::Mkfile(file) => {
            writer.write_file(&file.path, &file.data, &new(file.mode, file.timestamp))?;
        }
        Action::Symlink(link) => {
            writer.symlink(&link.oldpath, &link.newpath, &new(0o777, link.timestamp))?;
        }
        Action::Rm(rm) => {
            let paths = if rm.allow_wildcard {
                writer.view().glob(&rm.path, Follow::NoLast)?
            } else {
                vec![PathBuf::from(clean(&rm.path))]
            };
            for path in paths {
                if path.as_os_str().is_empty() || path == Path::new("/") {
                    bail!("cannot remove the root directory");
                }
                let found = writer.view().lookup(&path, Follow::NoLast)?.is_some();
                if found {
                    writer.remove(&path)?;
                } else if !rm.allow_not_found {
                    return Err(NotFound::at(&path).into());
                }
            }
        }
        Action::Copy(action) => copy_files(action, owner, source, writer, given_up)?,
    }
    Ok(())
}

fn copy_files(
    action: &pb::FileActionCopy,
    owner: Option<Owner>,
    source: &View,
    writer: &mut LayerWriter,
    given_up: &CancellationToken,
) -> anyhow::Result<()> {
    let cancelled = || given_up.is_cancelled();
    let paths = if action.allow_wildcard {
        let follow = if action.follow_symlink { Follow::Last } else { Follow::NoLast };
        let paths = source.glob(&action.src, follow)?;
        if paths.is_empty() && !action.allow_empty_wildcard {
            return Err(NotFound(clean(&action.src)).into());
        }
        paths
    } else {
        vec![PathBuf::from(clean(&action.src))]
    };
    let unpacking = UnpackOptions { owner, timestamp: timestamp(action.timestamp) };
    let symbolic = match action.mode_str.as_str() {
        "" => None,
        text => Some(text.parse::<mode::ModeSpec>()?),
    };
    let map = |mode: u32, is_dir: bool| {
        symbolic.as_ref().map_or(mode, |symbolic| symbolic.apply(mode, is_dir))
    };
    let mut filter = Filter::new(&action.include_patterns, &action.exclude_patterns)?;
    let is_filtered = !filter.is_empty();
    let mut decide = |path: &Path, is_dir: bool| filter.decide(path, is_dir);
    let mut options = CopyOptions {
        owner,
        mode: match (&symbolic, action.mode) {
            (Some(_), _) => Some(ModeChange::Map(&map)),
            (None, -1) => None,
            (None, mode) => Some(ModeChange::Set(mode as u32)),
        },
        timestamp: timestamp(action.timestamp),
        dir_copy_contents: action.dir_copy_contents,
        follow_symlink: action.follow_symlink,
        create_dest_path: action.create_dest_path,
        always_replace: action.always_replace_existing_dest_paths,
        own_files: false,
        filter: is_filtered.then_some(&mut decide as _),
        cancelled: Some(&cancelled),
    };
    for path in paths {
        if action.attempt_unpack_docker_compatibility
            && archive::unpack_if_archive(source, &path, writer, &action.dest, &unpacking)?
        {
            continue;
        }
        copy(source, &path, writer, &action.dest, &mut options)
            .with_context(|| format!("cannot copy {} to {}", path.display(), action.dest))?;
    }
    Ok(())
}
