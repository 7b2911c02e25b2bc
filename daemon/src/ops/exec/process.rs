//! What to run for an exec op, once its mounts are there.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use indexmap::IndexMap;
use kiln_executor::{ExecSpec, ProcessSpec, Resources, Rlimit, RlimitResource, Security, User};
use kiln_proto::pb;
use kiln_snapshotter::{Follow, LayerWriter, NewEntry, Owner, View};

use super::mounts::Mounts;
use super::network;
use crate::devices::Device;
use crate::ops::owner::{self, Identity};
use crate::ops::path::clean;
use crate::solver::Build;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The first process on `mounts`, whose working directory is made if it is not there.
pub(super) async fn first(
    build: &Arc<Build>,
    exec: &pb::ExecOp,
    mounts: &Mounts,
) -> anyhow::Result<ProcessSpec> {
    let meta = meta(exec)?;
    let view = build.daemon.layers.view_of(mounts.base.ids())?;
    let identity = owner::identity(&view, &meta.user).with_context(|| failed(meta))?;
    make_working_directory(&view, mounts, meta, identity.owner)?;
    let ExecSpec { args, env, cwd, user, tty } = command(build, exec, meta, identity).await?;
    let network = build.daemon.network.of(exec.network());
    let hostname =
        if meta.hostname.is_empty() { "buildkitsandbox" } else { &meta.hostname }.to_owned();
    let mut all_mounts = network::files(build, meta, &hostname, network).await?;
    all_mounts.extend(mounts.others.iter().cloned());
    let mut spec = ProcessSpec {
        id: build.daemon.next_step_id(),
        rootfs: mounts.rootfs.clone(),
        mounts: all_mounts,
        args,
        env,
        cwd,
        user,
        hostname,
        network,
        security: security(exec),
        read_only_root: mounts.read_only_root,
        rlimits: meta.ulimit.iter().map(rlimit).collect::<Result<_, _>>()?,
        limits: Resources::default(),
        cgroup_parent: Some(meta.cgroup_parent.clone()).filter(|parent| !parent.is_empty()),
        shm_size: shm_size(exec),
        tty,
        hooks: Vec::new(),
    };
    let devices = build.daemon.config.devices.resolve(&exec.cdi_devices, &build.device_grants())?;
    Device::give(&devices, &mut spec)?;
    Ok(spec)
}

/// A process beside the first one.
pub(super) async fn further(
    build: &Arc<Build>,
    exec: &pb::ExecOp,
    mounts: &Mounts,
) -> anyhow::Result<ExecSpec> {
    let meta = meta(exec)?;
    let view = build.daemon.layers.view_of(mounts.base.ids())?;
    command(build, exec, meta, owner::identity(&view, &meta.user)?).await
}

async fn command(
    build: &Build,
    exec: &pb::ExecOp,
    meta: &pb::Meta,
    identity: Identity,
) -> anyhow::Result<ExecSpec> {
    Ok(ExecSpec {
        args: meta.args.iter().map(OsString::from).collect(),
        env: environment(build, exec, meta, &identity.home).await?,
        cwd: PathBuf::from(clean(&meta.cwd)),
        user: User {
            uid: identity.owner.uid,
            gid: identity.owner.gid,
            additional_gids: identity.groups,
        },
        tty: false,
    })
}

/// What became of a process that could not run.
pub(super) fn failed(meta: &pb::Meta) -> String {
    format!("process \"{}\" did not complete successfully", meta.args.join(" "))
}

fn meta(exec: &pb::ExecOp) -> anyhow::Result<&pb::Meta> {
    exec.meta.as_ref().context("exec op without a process")
}

fn make_working_directory(
    view: &View,
    mounts: &Mounts,
    meta: &pb::Meta,
    owner: Owner,
) -> anyhow::Result<()> {
    let cwd = clean(&meta.cwd);
    if cwd != "/" && view.lookup(&cwd, Follow::Last)?.is_none() {
        let mut writer = LayerWriter::new(mounts.root.dir(), view)?;
        let entry = NewEntry { owner: Some(owner), ..NewEntry::mode(0o755) };
        writer.mkdir_all(&cwd, &entry)?;
        writer.finish()?;
    }
    Ok(())
}

async fn environment(
    build: &Build,
    exec: &pb::ExecOp,
    meta: &pb::Meta,
    home: &str,
) -> anyhow::Result<Vec<String>> {
    // Each variable once: programs disagree about which of two they see.
    let mut env = IndexMap::new();
    for var in &meta.env {
        let (name, value) = var.split_once('=').unwrap_or((var, ""));
        env.insert(name.to_owned(), value.to_owned());
    }
    env.extend(proxy_env(meta.proxy_env.as_ref()));
    for (name, default) in [("PATH", DEFAULT_PATH), ("HOME", home)] {
        env.entry(name.to_owned()).or_insert_with(|| default.to_owned());
    }
    for secret in &exec.secretenv {
        let value = build.secret(&secret.id, secret.optional).await?.unwrap_or_default();
        let value = String::from_utf8(value);
        let value = value.with_context(|| format!("secret {} is not text", secret.id))?;
        env.insert(secret.name.clone(), value);
    }
    Ok(env.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
}

fn proxy_env(proxy: Option<&pb::ProxyEnv>) -> Vec<(String, String)> {
    let Some(proxy) = proxy else { return Vec::new() };
    let vars = [
        ("HTTP_PROXY", &proxy.http_proxy),
        ("HTTPS_PROXY", &proxy.https_proxy),
        ("FTP_PROXY", &proxy.ftp_proxy),
        ("NO_PROXY", &proxy.no_proxy),
        ("ALL_PROXY", &proxy.all_proxy),
    ];
    let both = |(name, value): (&str, &String)| {
        [(name.to_owned(), value.clone()), (name.to_lowercase(), value.clone())]
    };
    vars.into_iter().filter(|(_, value)| !value.is_empty()).flat_map(both).collect()
}

fn security(exec: &pb::ExecOp) -> Security {
    match exec.security() {
        pb::SecurityMode::Sandbox => Security::Sandbox,
        pb::SecurityMode::Insecure => Security::Insecure,
    }
}

fn rlimit(limit: &pb::Ulimit) -> anyhow::Result<Rlimit> {
    let resource = RlimitResource::from_name(&limit.name);
    let resource = resource.with_context(|| format!("unknown ulimit {:?}", limit.name))?;
    // -1 is "unlimited", as in setrlimit(2).
    let value = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    Ok(Rlimit { resource, soft: value(limit.soft), hard: value(limit.hard) })
}

/// `--shm-size` arrives as a tmpfs mount on `/dev/shm`.
fn shm_size(exec: &pb::ExecOp) -> Option<u64> {
    let mount = exec.mounts.iter().find(|mount| clean(&mount.dest) == "/dev/shm")?;
    u64::try_from(mount.tmpfs_opt.as_ref()?.size).ok()
}
