//! From a configuration to a daemon that answers, and its orderly end.

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures::stream::{SelectAll, StreamExt as _};
use kiln_executor::{Executor, SelinuxLabels, Zygote};
use kiln_proto::content::content_server::ContentServer;
use kiln_proto::control::control_server::ControlServer;
use kiln_proto::gateway::llb_bridge_server::LlbBridgeServer;
use kiln_proto::session::{CONNECTION_WINDOW, MAX_MESSAGE, STREAM_WINDOW};
use kiln_proto::trace::trace_service_server::TraceServiceServer;
use nix::unistd::{Uid, User};
use rustix::fs::{FlockOperation, flock};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::config::{Config, Listener};
use crate::control::{ContentService, ControlService, TraceReceiver};
use crate::daemon::Daemon;
use crate::frontend::gateway::GatewayService;
use crate::state::index_path;
use crate::upkeep;

/// How long builds may go on after the daemon was told to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a damaged index may stay unnoticed.
const HEALTH: Duration = Duration::from_secs(5);

/// Takes the state directory for this process alone, until the file is closed.
pub(crate) fn lock_root(root: &Path) -> anyhow::Result<File> {
    make_root(root).with_context(|| root.display().to_string())?;
    refuse_anothers(root)?;
    let path = root.join("lock");
    let lock = File::create(&path).with_context(|| path.display().to_string())?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("{} is in use by another daemon", root.display());
    }
    Ok(lock)
}

/// Makes the state directory, closed to other users: what is in the layers of images is there with
/// owner and mode, also programs that run as root for whoever executes them.
fn make_root(root: &Path) -> std::io::Result<()> {
    if let Some(parent) = root.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let made = std::fs::DirBuilder::new().mode(0o700).create(root);
    match made {
        Err(_) if root.is_dir() => {
            let mode = std::fs::metadata(root)?.permissions().mode();
            if mode & 0o007 != 0 {
                tracing::warn!(root = %root.display(), mode = %format!("{:o}", mode & 0o7777),
                    "other users of this host can execute what images contain, programs with \
                     setuid included: close the directory to them");
            }
            Ok(())
        }
        made => made,
    }
}

/// Refuses what a daemon of another user has made, which root could read, but not rightly: the owners
/// of files are those of that user's namespace, and there overlayfs has other marks for what is hidden.
fn refuse_anothers(root: &Path) -> anyhow::Result<()> {
    // Where nothing was built, there is nothing to be wrong.
    let Ok(index) = std::fs::metadata(index_path(root)) else { return Ok(()) };
    let owner = Uid::from_raw(index.uid());
    if owner == Uid::effective() {
        return Ok(());
    }
    let account = User::from_uid(owner).ok().flatten();
    let name = account.map_or_else(|| owner.to_string(), |account| account.name);
    bail!(
        "{} was made by a daemon of the user {name}, and is right for no other: start kilnd as that \
         user",
        root.display()
    )
}

/// Serves until a signal or the idle timeout says otherwise.
///
/// The end has this order: no new connections; running builds get [`DRAIN`] to finish, then are
/// cancelled; their records are written; the last results are made durable.
pub(crate) async fn run(config: Config, zygote: Zygote) -> anyhow::Result<()> {
    let idle_timeout = config.idle_timeout;
    let addresses = config.addresses.clone();
    let mut incoming = SelectAll::new();
    let listeners = Listener::open_all(&config)?;
    let own_ports = listeners.iter().filter_map(Listener::port).collect();
    let mut steps = config.executor(own_ports);
    if config.selinux {
        steps.selinux = Some(SelinuxLabels::of_host().context("worker.oci.selinux")?);
    }
    let executor = Executor::new(zygote, steps)?;
    for listener in listeners {
        incoming.push(listener.connections());
    }
    let daemon = tokio::task::spawn_blocking(move || Daemon::open(config, executor)).await??;
    // Who is told that the daemon is ready may tell it to stop.
    let signals = Signals::listen();
    let stop = CancellationToken::new();
    let upkeep = tokio::spawn(upkeep::run(daemon.clone(), stop.clone()));
    tracing::info!(addresses = ?addresses, "ready");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);

    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<ControlServer<ControlService>>().await;
    let control = ControlServer::new(ControlService(daemon.clone()))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let gateway = LlbBridgeServer::new(GatewayService::OfDaemon(daemon.clone()))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let content = ContentServer::new(ContentService(daemon.clone()));
    let traces = TraceServiceServer::new(TraceReceiver(daemon.clone()))
        .max_decoding_message_size(MAX_MESSAGE);
    let ending = CancellationToken::new();
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(Duration::from_secs(60)))
        .add_service(health_service)
        .add_service(control)
        .add_service(gateway)
        .add_service(content)
        .add_service(traces)
        .serve_with_incoming_shutdown(incoming.boxed(), ending.clone().cancelled_owned());
    tokio::pin!(server);
    tokio::select! {
        served = &mut server => served.context("cannot serve")?,
        reason = end_of_life(&daemon, signals, idle_timeout) => {
            tracing::info!(reason, "stopping");
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
            ending.cancel();
            tokio::select! {
                served = &mut server => served.context("cannot serve")?,
                () = idle(&daemon) => {}
                () = tokio::time::sleep(DRAIN) => tracing::warn!("cancelled running builds"),
            }
        }
    }
    daemon.history.close().await;
    stop.cancel();
    upkeep.await?;
    if daemon.index.is_damaged() {
        // For whoever supervises it to start it again: then the cache begins anew.
        bail!("the index of the cache is damaged");
    }
    Ok(())
}

/// The signals that tell the daemon to end, taken from when this is made on.
struct Signals(std::io::Result<(Signal, Signal)>);

impl Signals {
    fn listen() -> Self {
        let both = || Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?));
        Self(both())
    }

    /// The name of the next one.
    async fn next(self) -> &'static str {
        let Ok((mut term, mut interrupt)) = self.0 else { return std::future::pending().await };
        tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    }
}

/// Returns when the daemon should end, with the reason.
async fn end_of_life(
    daemon: &Arc<Daemon>,
    signals: Signals,
    idle_timeout: Option<Duration>,
) -> &'static str {
    let idle = async {
        let Some(timeout) = idle_timeout else { return std::future::pending().await };
        let mut last_use = Instant::now();
        while last_use.elapsed() < timeout {
            tokio::time::sleep(timeout.min(Duration::from_secs(1))).await;
            if daemon.builds.active() > 0 || daemon.sessions.count() > 0 {
                last_use = Instant::now();
            }
        }
        "idle"
    };
    let damaged = async {
        while !daemon.index.is_damaged() {
            tokio::time::sleep(HEALTH).await;
        }
        "the index is damaged"
    };
    tokio::select! {
        reason = signals.next() => reason,
        reason = idle => reason,
        reason = damaged => reason,
    }
}

/// Returns when no build runs.
async fn idle(daemon: &Arc<Daemon>) {
    while daemon.builds.active() > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
