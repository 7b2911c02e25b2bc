//! Runs the process of an exec op.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use kiln_executor::{
    ExecutorError, ExitStatus, ProcessIo, ProcessSpec, Resources, Rlimit, RlimitResource, Security,
    User,
};
use kiln_proto::pb;
use kiln_snapshotter::{Follow, LayerWriter, NewEntry};

use rustix::io::Errno;

use super::mounts::Mounts;
use super::output::Output;
use super::{cache_map, caches, network};
use crate::graph::Vertex;
use crate::image::Platform;
use crate::ops::owner::{self, Identity};
use crate::ops::path::clean;
use crate::solver::{Build, ProcessError, Snapshot, VertexProgress};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(crate) async fn execute(
    build: &Arc<Build>,
    vertex: &Arc<Vertex>,
    exec: &pb::ExecOp,
    inputs: &[Snapshot],
    progress: &VertexProgress,
) -> anyhow::Result<Vec<Snapshot>> {
    let daemon = &build.daemon;
    let meta = exec.meta.as_ref().context("exec op without a process")?;
    if !exec.cdi_devices.is_empty() {
        bail!("CDI devices are not supported by this daemon");
    }
    // A step that waits for a lock keeps no other from running.
    let waiting = |what: &str| progress.log(2, format!("waiting for {what}\n").into());
    let caches = caches::take(build, vertex, exec, inputs, waiting).await?;
    let _turn = daemon.exec_turns.acquire().await;
    for input in inputs {
        daemon.layers.fetch(build, input).await?;
    }
    let mounts = Mounts::prepare(build, exec, inputs, caches).await?;
    let identity = prepare_root(build, &mounts, meta)?;

    let mut env = meta.env.clone();
    env.extend(proxy_env(meta.proxy_env.as_ref()));
    if !env.iter().any(|var| var.starts_with("PATH=")) {
        env.push(format!("PATH={DEFAULT_PATH}"));
    }
    if !env.iter().any(|var| var.starts_with("HOME=")) {
        env.push(format!("HOME={}", identity.home));
    }
    for secret in &exec.secretenv {
        if let Some(value) = build.secret(&secret.id, secret.optional).await? {
            let value = String::from_utf8(value);
            let value = value.with_context(|| format!("secret {} is not text", secret.id))?;
            env.push(format!("{}={value}", secret.name));
        }
    }
    let network = network::mode(exec);
    let hostname =
        if meta.hostname.is_empty() { "buildkitsandbox" } else { &meta.hostname }.to_owned();
    let mut all_mounts = network::files(build, meta, &hostname, network)?;
    all_mounts.extend(mounts.others.iter().cloned());
    let spec = ProcessSpec {
        id: daemon.next_step_id(),
        rootfs: mounts.rootfs.clone(),
        mounts: all_mounts,
        args: meta.args.iter().map(OsString::from).collect(),
        env,
        cwd: PathBuf::from(clean(&meta.cwd)),
        user: User {
            uid: identity.owner.uid,
            gid: identity.owner.gid,
            additional_gids: identity.groups,
        },
        hostname,
        network,
        security: security(exec),
        read_only_root: mounts.read_only_root,
        rlimits: meta.ulimit.iter().map(rlimit).collect::<Result<_, _>>()?,
        limits: limits(vertex.meta().resources.as_ref()),
        cgroup_parent: Some(meta.cgroup_parent.clone()).filter(|parent| !parent.is_empty()),
        shm_size: shm_size(exec),
        tty: false,
    };
    let (stdout, stdout_end) = Output::new(1)?;
    let (stderr, stderr_end) = Output::new(2)?;
    let io = ProcessIo { stdin: None, stdout: stdout_end, stderr: stderr_end };
    let mut running = daemon.executor.run(spec, io).await?;
    let ((), (), exit) =
        tokio::join!(stdout.forward(progress), stderr.forward(progress), running.wait());
    let exit = exit.map_err(|error| explain(error, vertex))?;
    let code = match exit.status {
        ExitStatus::Code(code) => code,
        ExitStatus::Signal(signal) => 128 + signal,
    };
    let accepted =
        meta.valid_exit_codes.contains(&code) || (code == 0 && meta.valid_exit_codes.is_empty());
    if !accepted {
        let mut reason = format!("exit code: {code}");
        if exit.oom_killed {
            reason.push_str(": killed for using more memory than allowed");
        }
        return Err(ProcessError {
            command: meta.args.join(" "),
            reason,
            exit_code: u32::try_from(code).ok(),
        }
        .into());
    }
    let description = format!("mount / from exec {}", meta.args.join(" "));
    mounts.commit(build, &description, cache_map(vertex, exec)?.outputs).await
}

/// Says why a program may be in a format that the kernel does not know.
fn explain(error: ExecutorError, vertex: &Vertex) -> anyhow::Error {
    let is_format = matches!(&error, ExecutorError::NotExecutable { source, .. }
        if source.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()));
    let (platform, host) = (vertex.platform().map(Platform::from), Platform::host());
    let error = anyhow::Error::new(error);
    match platform.filter(|platform| is_format && *platform != host) {
        Some(platform) => error.context(format!(
            "this step is for {platform} and this host is {host}, without an emulator for it: \
             install one that registers with binfmt_misc, such as qemu-user-static"
        )),
        None => error,
    }
}

/// Resolves the user in the step's own account files, and makes the working directory.
fn prepare_root(build: &Arc<Build>, mounts: &Mounts, meta: &pb::Meta) -> anyhow::Result<Identity> {
    let view = build.daemon.layers.view_of(mounts.base.ids())?;
    let identity = owner::identity(&view, &meta.user)?;
    let cwd = clean(&meta.cwd);
    if cwd != "/" && view.lookup(&cwd, Follow::Last)?.is_none() {
        let mut writer = LayerWriter::new(mounts.root.dir(), &view)?;
        let entry = NewEntry { owner: Some(identity.owner), ..NewEntry::mode(0o755) };
        writer.mkdir_all(&cwd, &entry)?;
        writer.finish()?;
    }
    Ok(identity)
}

fn proxy_env(proxy: Option<&pb::ProxyEnv>) -> Vec<String> {
    let Some(proxy) = proxy else { return Vec::new() };
    let vars = [
        ("HTTP_PROXY", &proxy.http_proxy),
        ("HTTPS_PROXY", &proxy.https_proxy),
        ("FTP_PROXY", &proxy.ftp_proxy),
        ("NO_PROXY", &proxy.no_proxy),
        ("ALL_PROXY", &proxy.all_proxy),
    ];
    let both = |(name, value): (&str, &String)| {
        [format!("{name}={value}"), format!("{}={value}", name.to_lowercase())]
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

fn limits(sent: Option<&pb::LinuxResources>) -> Resources {
    let Some(sent) = sent else { return Resources::default() };
    let positive = |value: i64| u64::try_from(value).ok().filter(|&value| value > 0);
    let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    Resources {
        memory: positive(sent.memory),
        memory_swap: Some(sent.memory_swap).filter(|&swap| swap != 0),
        cpu_shares: Some(sent.cpu_shares).filter(|&shares| shares > 0),
        cpu_quota: Some(sent.cpu_quota).filter(|&quota| quota != 0),
        cpu_period: Some(sent.cpu_period).filter(|&period| period > 0),
        cpuset_cpus: text(&sent.cpuset_cpus),
        cpuset_mems: text(&sent.cpuset_mems),
        pids: None,
    }
}

/// `--shm-size` arrives as a tmpfs mount on `/dev/shm`.
fn shm_size(exec: &pb::ExecOp) -> Option<u64> {
    let mount = exec.mounts.iter().find(|mount| clean(&mount.dest) == "/dev/shm")?;
    u64::try_from(mount.tmpfs_opt.as_ref()?.size).ok()
}
