//! The mounts of a step: its root file system, binds, caches, secrets and temporary space.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use kiln_executor::{Inert, Mount, OverlayUpper, Rootfs};
use kiln_proto::pb;
use kiln_snapshotter::View;

use super::caches::Caches;
use super::key::{NONE, description};
use crate::caches::CacheLease;
use crate::layers::NewLayer;
use crate::ops::agent::AgentSocket;
use crate::ops::path::clean;
use crate::solver::{Build, LeftBehind, LeftFiles, Snapshot, Stack, Subject};

/// Everything a step sees, held until it has ended.
pub(super) struct Mounts {
    pub(super) rootfs: Rootfs,
    pub(super) read_only_root: bool,
    /// What the root file system is made of, below what the step writes.
    pub(super) base: Stack,
    /// The layer that receives what the step writes to its root.
    pub(super) root: NewLayer,
    root_output: Option<usize>,
    /// Further mounts, parents before what is mounted below them.
    pub(super) others: Vec<Mount>,
    /// Layers that receive writes to other mounts; kept if they are outputs.
    written: Vec<Written>,
    agents: Vec<AgentSocket>,
    caches: Caches,
}

/// A mount that can be written to.
struct Written {
    /// Of the mount in its op.
    position: usize,
    output: Option<usize>,
    base: Stack,
    layer: NewLayer,
}

impl Mounts {
    pub(super) async fn prepare(
        build: &Arc<Build>,
        exec: &pb::ExecOp,
        inputs: &[Snapshot],
        caches: Caches,
    ) -> anyhow::Result<Self> {
        let layers = &build.daemon.layers;
        let root = exec
            .mounts
            .iter()
            .find(|mount| is_root(mount))
            .context("exec op without a root mount")?;
        if !matches!(root.mount_type(), pb::MountType::Bind) {
            bail!("the root of an exec op must be a bind mount");
        }
        let base = match input(root, inputs)? {
            Some(snapshot) => layers.freeze(snapshot).await?,
            None => Stack::default(),
        };
        if clean(&root.selector) != "/" {
            bail!("a root mount with a selector is not supported");
        }
        let upper = layers.create()?;
        let mut prepared = Self {
            rootfs: layers.rootfs(base.ids(), &upper)?,
            read_only_root: root.readonly,
            base,
            root: upper,
            root_output: usize::try_from(root.output).ok(),
            others: Vec::new(),
            written: Vec::new(),
            agents: Vec::new(),
            caches: caches.clone(),
        };
        let mut others: Vec<_> = exec.mounts.iter().enumerate().zip(caches).collect();
        others.retain(|((_, mount), _)| !is_root(mount));
        others.sort_by_key(|((_, mount), _)| clean(&mount.dest).matches('/').count());
        for ((position, mount), cache) in others {
            let made = prepared.add(build, (position, mount), inputs, cache.as_deref()).await;
            made.with_context(|| format!("cannot prepare mount {}", mount.dest))?;
        }
        Ok(prepared)
    }

    async fn add(
        &mut self,
        build: &Arc<Build>,
        (position, mount): (usize, &pb::Mount),
        inputs: &[Snapshot],
        cache: Option<&CacheLease>,
    ) -> anyhow::Result<()> {
        let target = PathBuf::from(clean(&mount.dest));
        match mount.mount_type() {
            pb::MountType::Bind => self.bind(build, (position, mount), inputs).await,
            pb::MountType::Cache => {
                let cache = cache.context("cache mount that was not taken")?;
                self.others.push(Mount::Bind {
                    source: cache.path().to_owned(),
                    subpath: None,
                    target,
                    read_only: mount.readonly,
                    recursive: false,
                    inert: Inert::default(),
                });
                Ok(())
            }
            pb::MountType::Tmpfs => {
                let size = mount.tmpfs_opt.as_ref().map(|options| options.size);
                let size = size.and_then(|size| u64::try_from(size).ok()).filter(|&size| size > 0);
                self.others.push(Mount::Tmpfs { target, size, mode: 0o1777 });
                Ok(())
            }
            pb::MountType::Secret => {
                let options = mount.secret_opt.as_ref().context("secret mount without options")?;
                let secret = build.secret(&options.id, options.optional).await?;
                let Some(content) = secret else { return Ok(()) };
                self.others.push(Mount::File {
                    content,
                    target,
                    mode: options.mode,
                    uid: options.uid,
                    gid: options.gid,
                });
                Ok(())
            }
            pb::MountType::Ssh => {
                let options = mount.ssh_opt.as_ref().context("ssh mount without options")?;
                let Some(agent) = AgentSocket::open(build, options).await? else { return Ok(()) };
                self.others.push(Mount::Bind {
                    source: agent.path(),
                    subpath: None,
                    target,
                    read_only: false,
                    recursive: false,
                    inert: Inert::default(),
                });
                self.agents.push(agent);
                Ok(())
            }
        }
    }

    async fn bind(
        &mut self,
        build: &Arc<Build>,
        (position, mount): (usize, &pb::Mount),
        inputs: &[Snapshot],
    ) -> anyhow::Result<()> {
        let layers = &build.daemon.layers;
        let target = PathBuf::from(clean(&mount.dest));
        let subpath = Some(clean(&mount.selector)).filter(|path| path != "/").map(PathBuf::from);
        let source = input(mount, inputs)?;
        if mount.readonly
            && let Some(Snapshot::Tree(tree)) = source
        {
            let (source, inert) = (tree.path().to_owned(), Inert::default());
            let (read_only, recursive) = (true, false);
            let bind = Mount::Bind { source, subpath, target, read_only, recursive, inert };
            self.others.push(bind);
            return Ok(());
        }
        let is_output = mount.output != NONE;
        let (base, mut lower) = match source {
            // What is written is discarded, so the tree itself may lie below.
            Some(Snapshot::Tree(tree)) if !is_output => {
                (Stack::default(), vec![tree.path().to_owned()])
            }
            Some(snapshot) => {
                let base = layers.freeze(snapshot).await?;
                layers.fetch(build, &Snapshot::Layers(base.clone())).await?;
                let lower = layers.directories(base.ids())?;
                (base, lower)
            }
            None => (Stack::default(), Vec::new()),
        };
        lower.insert(0, layers.empty_directory().to_owned());
        let (upper, read_only) = if mount.readonly {
            (None, true)
        } else {
            let layer = layers.create()?;
            let upper = OverlayUpper { upper: layer.path(), work: layer.work_path() };
            let output = usize::try_from(mount.output).ok();
            self.written.push(Written { position, output, base, layer });
            (Some(upper), false)
        };
        self.others.push(Mount::Overlay { lower, upper, subpath, target, read_only });
        Ok(())
    }

    /// The files of a mount as they are now, by its position in the op.
    pub(super) fn view(
        &self,
        build: &Build,
        exec: &pb::ExecOp,
        inputs: &[Snapshot],
        position: usize,
    ) -> anyhow::Result<View> {
        let layers = &build.daemon.layers;
        let count = exec.mounts.len();
        let mount = exec.mounts.get(position);
        let mount = mount.with_context(|| format!("no mount {position}: there are {count}"))?;
        let written = self.written.iter().find(|written| written.position == position);
        if is_root(mount) {
            return Ok(layers.view_of(self.base.ids())?.with_layer(self.root.dir())?);
        }
        if let Some(Written { layer, .. }) = written {
            // Of a tree that lies below the layer, there is no stack.
            let below = input(mount, inputs)?.map(|snapshot| layers.view(snapshot)).transpose()?;
            return Ok(below.unwrap_or(View::empty()).with_layer(layer.dir())?);
        }
        match (mount.mount_type(), self.caches.get(position), input(mount, inputs)?) {
            (pb::MountType::Cache, Some(Some(cache)), _) => Ok(View::of_directory(cache.path())?),
            (pb::MountType::Bind, _, Some(snapshot)) => layers.view(snapshot),
            _ => bail!("mount {} has no files that can be read", mount.dest),
        }
    }

    /// What a process that has failed leaves; caches and agents are given back.
    pub(super) fn leave(self, exec: &pb::ExecOp, inputs: &[Snapshot]) -> LeftBehind {
        let found = exec.mounts.iter().map(|mount| input(mount, inputs).ok().flatten().cloned());
        let inputs: Vec<Option<Snapshot>> = found.collect();
        let left = |below: &Option<Snapshot>| {
            let below = below.clone();
            below.map(|below| LeftFiles { below: Some(below), written: None })
        };
        let mut outputs: Vec<_> = inputs.iter().map(left).collect();
        let mut write = |position: usize, layer: NewLayer| {
            let (below, written) = (inputs[position].clone(), Some(Arc::new(layer)));
            outputs[position] = Some(LeftFiles { below, written });
        };
        if let Some(position) = exec.mounts.iter().position(is_root) {
            write(position, self.root);
        }
        self.written.into_iter().for_each(|one| write(one.position, one.layer));
        LeftBehind { subject: Subject::Process, inputs, outputs }
    }

    /// Keeps what was written to outputs, and discards the rest.
    pub(super) async fn commit(
        self,
        build: &Arc<Build>,
        exec: &pb::ExecOp,
        outputs: usize,
    ) -> anyhow::Result<Vec<Snapshot>> {
        let layers = &build.daemon.layers;
        let mut made = vec![None; outputs];
        let root = (self.root_output, self.base, self.root);
        let others = self.written.into_iter().map(|one| (one.output, one.base, one.layer));
        for (output, base, layer) in std::iter::once(root).chain(others) {
            if let Some((output, made)) = output.and_then(|o| Some((o, made.get_mut(o)?))) {
                let description = description(exec, u32::try_from(output)?);
                let stack = layers.commit(layer, &base, description).await?;
                *made = Some(Snapshot::Layers(stack));
            }
        }
        made.into_iter().collect::<Option<_>>().context("exec op with an output that no mount has")
    }
}

fn is_root(mount: &pb::Mount) -> bool {
    clean(&mount.dest) == "/"
}

/// The snapshot that a mount shows; none for a new, empty one.
pub(super) fn input<'a>(
    mount: &pb::Mount,
    inputs: &'a [Snapshot],
) -> anyhow::Result<Option<&'a Snapshot>> {
    if mount.input == NONE {
        return Ok(None);
    }
    let found = usize::try_from(mount.input).ok().and_then(|index| inputs.get(index));
    found.map(Some).with_context(|| format!("no input {}", mount.input))
}
