//! RUN's mounts.

use anyhow::bail;
use kiln_dockerfile::instruction::{
    CacheOwner, Instruction, Mount, MountKind, Run, SecretMount, Sharing, SshMount,
};
use kiln_dockerfile::plan::Reference;
use kiln_proto::pb;
use kiln_proto::pb::file_action::Action;
use kiln_proto::pb::user_opt::User;

use super::errors::explained;
use super::evaluate::Evaluation;
use super::graph::{Inputs, NONE, file, named};
use super::paths::absolute;
use super::stage::Stage;
use crate::graph::Edge;
use crate::ops::path::clean;

/// The mounts of a step.
#[derive(Default)]
pub(super) struct Mounts {
    /// Files, caches and memory, each with the files that it shows.
    binds: Vec<(pb::Mount, Option<Edge>)>,
    secrets: Vec<pb::Mount>,
    pub(super) secret_env: Vec<pb::SecretEnv>,
    /// Sockets of ssh agents.
    pub(super) ssh: Vec<pb::Mount>,
}

impl Mounts {
    /// Adds what shows `files`; the mount says all but which input they are.
    pub(super) fn bind(&mut self, files: Option<Edge>, mount: pb::Mount) {
        self.binds.push((mount, files));
    }

    /// Adds memory; without a limit if `size` is 0.
    pub(super) fn tmpfs(&mut self, dest: String, size: i64) {
        let mount = pb::Mount {
            dest,
            output: NONE,
            mount_type: pb::MountType::Tmpfs.into(),
            tmpfs_opt: Some(pb::TmpfsOpt { size }),
            ..Default::default()
        };
        self.bind(None, mount);
    }

    fn secret(&mut self, secret: SecretMount) {
        let optional = !secret.required;
        if let Some(name) = secret.env {
            self.secret_env.push(pb::SecretEnv { id: secret.id.clone(), name, optional });
        }
        let Some(dest) = secret.target else { return };
        self.secrets.push(pb::Mount {
            input: NONE,
            dest,
            output: NONE,
            mount_type: pb::MountType::Secret.into(),
            secret_opt: Some(pb::SecretOpt {
                id: secret.id,
                uid: secret.owner.uid,
                gid: secret.owner.gid,
                mode: secret.owner.mode,
                optional,
            }),
            ..Default::default()
        });
    }

    fn agent(&mut self, ssh: SshMount) {
        let dest = ssh.target;
        let dest = dest.unwrap_or_else(|| format!("/run/buildkit/ssh_agent.{}", self.ssh.len()));
        self.ssh.push(pb::Mount {
            input: NONE,
            dest,
            output: NONE,
            mount_type: pb::MountType::Ssh.into(),
            ssh_opt: Some(pb::SshOpt {
                id: ssh.id,
                uid: ssh.owner.uid,
                gid: ssh.owner.gid,
                mode: ssh.owner.mode,
                optional: !ssh.required,
            }),
            ..Default::default()
        });
    }

    /// All of them, with what they show: first `root`, which becomes the step's result, then by target.
    pub(super) fn into_all(mut self, root: Option<Edge>) -> (Vec<pb::Mount>, Inputs) {
        self.binds.sort_by(|(a, _), (b, _)| a.dest.cmp(&b.dest));
        let result = pb::Mount { dest: "/".to_owned(), output: 0, ..Default::default() };
        let mut inputs = Inputs::default();
        let mut all = Vec::new();
        for (mount, files) in [(result, root)].into_iter().chain(self.binds) {
            all.push(pb::Mount { input: inputs.index(files.as_ref()), ..mount });
        }
        all.extend(self.secrets.into_iter().chain(self.ssh));
        (all, inputs)
    }
}

impl Evaluation<'_> {
    pub(super) fn add_mounts(
        &mut self,
        stage: &mut Stage,
        instruction: &Instruction,
        run: &Run,
        mounts: &mut Mounts,
    ) -> anyhow::Result<()> {
        for spec in &run.mounts {
            let mount = spec.resolve(|word| self.expand(stage, instruction, word));
            let mount = mount.map_err(explained)?;
            stage.needs.mount(&mount, instruction.location);
            self.add_mount(stage, mount, mounts)?;
        }
        Ok(())
    }

    fn add_mount(
        &mut self,
        stage: &Stage,
        mount: Mount,
        mounts: &mut Mounts,
    ) -> anyhow::Result<()> {
        let target = |target: &str| {
            let dest = absolute(&stage.workdir, target);
            if dest == "/" {
                bail!("invalid mount target {dest:?}");
            }
            Ok(dest)
        };
        match mount.kind {
            MountKind::Secret(secret) => mounts.secret(secret),
            MountKind::Ssh(ssh) => mounts.agent(ssh),
            MountKind::Tmpfs { size } => {
                let size = i64::try_from(size.unwrap_or(0)).unwrap_or(i64::MAX);
                mounts.tmpfs(target(&mount.target)?, size);
            }
            MountKind::Bind { from, source, read_only } => {
                let files = self.mounted(from.as_deref(), &source)?;
                let bind = pb::Mount {
                    selector: selector(&source),
                    dest: target(&mount.target)?,
                    output: NONE,
                    readonly: read_only,
                    ..Default::default()
                };
                mounts.bind(files, bind);
            }
            MountKind::Cache { id, sharing, from, source, read_only, owner } => {
                let mut edge = match from.as_deref() {
                    Some(from) => self.mounted(Some(from), &source)?,
                    None => None,
                };
                let mut selector = selector(&source);
                if selector.is_empty()
                    && let Some(owner) = owner
                {
                    edge = Some(cache_seed(edge.as_ref(), owner, stage));
                    "/cache".clone_into(&mut selector);
                }
                let sharing = match sharing {
                    Sharing::Shared => pb::CacheSharingOpt::Shared,
                    Sharing::Private => pb::CacheSharingOpt::Private,
                    Sharing::Locked => pb::CacheSharingOpt::Locked,
                };
                let id = format!("{}/{id}", self.conversion.options.cache_namespace);
                let cache = pb::Mount {
                    selector,
                    dest: target(&mount.target)?,
                    output: NONE,
                    readonly: read_only,
                    mount_type: pb::MountType::Cache.into(),
                    cache_opt: Some(pb::CacheOpt { id, sharing: sharing.into() }),
                    ..Default::default()
                };
                mounts.bind(edge, cache);
            }
        }
        Ok(())
    }

    /// The files that a mount shows, of which `source` is read.
    fn mounted(&mut self, from: Option<&str>, source: &str) -> anyhow::Result<Option<Edge>> {
        let Some(from) = from else {
            self.used.context.add(source);
            return Ok(self.sources.context.clone());
        };
        let reference: Reference = self.planned.plan.mount_source(from);
        let (edge, local) = self.files_of(reference)?;
        self.mark_used(local.as_deref(), source);
        Ok(edge)
    }
}

/// The path in the mounted files; empty for all of them.
fn selector(source: &str) -> String {
    Some(clean(source)).filter(|path| path != "/").unwrap_or_default()
}

/// A directory `/cache` on top of `base` for a cache to start from.
fn cache_seed(base: Option<&Edge>, cache: CacheOwner, stage: &Stage) -> Edge {
    let id = |id: u32| Some(pb::UserOpt { user: Some(User::ById(id)) });
    let action = Action::Mkdir(pb::FileActionMkDir {
        path: "/cache".to_owned(),
        mode: i32::try_from(cache.mode).unwrap_or(0o755),
        make_parents: false,
        owner: Some(pb::ChownOpt { user: id(cache.uid), group: id(cache.gid) }),
        timestamp: -1,
    });
    let mut meta = named("[internal] setting cache mount permissions");
    // Another seed is another cache: a stage without a cache starts with an empty one.
    meta.ignore_cache = stage.ignore_cache;
    file(base, action, &stage.platform, meta)
}
