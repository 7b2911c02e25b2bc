//! Runs the process of an exec op.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kiln_executor::{ExecutorError, ExitStatus, ProcessIo, ProcessSpec, Resources, Usage};
use kiln_proto::kiln::StepUsage;
use kiln_proto::pb;
use rustix::io::Errno;

use super::mounts::Mounts;
use super::output::Output;
use super::{cache_map, caches, process};
use crate::collector;
use crate::graph::Vertex;
use crate::image::Platform;
use crate::network;
use crate::solver::{Build, OpFailure, ProcessError, Snapshot, VertexProgress};

pub(crate) async fn execute(
    build: &Arc<Build>,
    vertex: &Arc<Vertex>,
    exec: &pb::ExecOp,
    inputs: &[Snapshot],
    progress: &VertexProgress,
) -> Result<Vec<Snapshot>, OpFailure> {
    let daemon = &build.daemon;
    let meta = exec.meta.as_ref().context("exec op without a process")?;
    // A step that waits for a lock keeps no other from running.
    let waiting = |what: &str| progress.log(2, format!("waiting for {what}\n").into());
    let caches = caches::take(build, vertex.meta().ignore_cache, exec, inputs, waiting).await?;
    let _turn = daemon.exec_turns.acquire().await;
    for input in inputs {
        daemon.layers.fetch(build, input).await?;
    }
    let mounts = Mounts::prepare(build, exec, inputs, caches).await?;
    if let Err(cause) = run(build, vertex, exec, meta, &mounts, progress).await {
        let is_kept = build.failed_steps.are_kept();
        let left = is_kept.then(|| mounts.leave(exec, inputs));
        return Err(OpFailure { cause, left });
    }
    Ok(mounts.commit(build, exec, cache_map(vertex, exec)?.outputs).await?)
}

/// Runs the process on its mounts, and fails if it does.
async fn run(
    build: &Arc<Build>,
    vertex: &Vertex,
    exec: &pb::ExecOp,
    meta: &pb::Meta,
    mounts: &Mounts,
    progress: &VertexProgress,
) -> anyhow::Result<()> {
    let limits = limits(vertex.meta().resources.as_ref());
    let spec = ProcessSpec { limits, ..process::first(build, exec, mounts).await? };
    let (stdout, stdout_end) = Output::new(1)?;
    let (stderr, stderr_end) = Output::new(2)?;
    let io = ProcessIo { stdin: None, stdout: stdout_end, stderr: stderr_end };
    let running = build.daemon.executor.run(spec, io).await.map_err(network::explain);
    let mut running = running.with_context(|| process::failed(meta))?;
    let ((), (), exit) =
        tokio::join!(stdout.forward(progress), stderr.forward(progress), running.wait());
    let exit = exit.map_err(|error| explain(error, vertex).context(process::failed(meta)))?;
    let used = exit.usage;
    tracing::debug!(
        build = build.id,
        vertex = %vertex.digest(),
        wall = ?used.wall,
        cpu_user = ?used.cpu_user,
        cpu_system = ?used.cpu_system,
        peak_memory = used.peak_memory,
        io_read = used.io_read,
        io_write = used.io_write,
        oom_killed = exit.oom_killed,
        "a step's process has ended"
    );
    build.note_usage(vertex.digest(), used);
    progress.used(shown(&used));
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
        if exit.out_of_pids {
            reason.push_str(": it had as many processes as allowed (worker.oci.pidsLimit)");
        }
        if collector::is_disk_full(&build.daemon) {
            build.daemon.collector.disk_is_full();
            reason.push_str(": the disk of the daemon's cache is full");
        }
        return Err(ProcessError {
            command: meta.args.join(" "),
            reason,
            exit_code: u32::try_from(code).ok(),
        }
        .into());
    }
    Ok(())
}

/// What was used, for who watches; whose it is is not in it.
fn shown(used: &Usage) -> StepUsage {
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    StepUsage {
        vertex: String::new(),
        wall: nanos(used.wall),
        cpu_user: nanos(used.cpu_user),
        cpu_system: nanos(used.cpu_system),
        peak_memory: used.peak_memory,
        io_read: used.io_read,
        io_write: used.io_write,
    }
}

/// Says why a program may be in a format that the kernel does not know, or whose emulator it does
/// not find.
fn explain(error: ExecutorError, vertex: &Vertex) -> anyhow::Error {
    let errno = match &error {
        ExecutorError::NotExecutable { source, .. } => source.raw_os_error(),
        _ => None,
    };
    let (platform, host) = (vertex.platform().map(Platform::from), Platform::host());
    let error = anyhow::Error::new(error);
    match (platform.filter(|platform| *platform != host), errno.map(Errno::from_raw_os_error)) {
        (Some(platform), Some(Errno::NOEXEC)) => error.context(format!(
            "this step is for {platform} and this host is {host}, without an emulator for it: \
             install one that registers with binfmt_misc, such as qemu-user-static"
        )),
        (Some(platform), Some(Errno::NOENT)) => error.context(format!(
            "this step is for {platform} and this host is {host}: either the program's interpreter \
             is missing in the image, or the emulator is, which is so if it was registered with \
             binfmt_misc without the flag F (fix binary)"
        )),
        _ => error,
    }
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
