//! Frontends in images: a container whose standard input and output are a connection on which it
//! calls the gateway (moby/buildkit, `docs/dev/frontend-gateway`).

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::Context as _;
use futures::{StreamExt as _, stream};
use kiln_executor::{Exit, ExitStatus, Mount, ProcessIo, Running};
use kiln_proto::gateway::llb_bridge_server::LlbBridgeServer;
use kiln_proto::pb;
use kiln_proto::session::MAX_MESSAGE;
use kiln_registry::ImageRef;
use oci_spec::image::ImageConfiguration;
use prost::Message as _;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tonic::transport::Server;

use super::{GatewayBuild, GatewayService};
use crate::attributes::boolean;
use crate::frontend::{
    Assignment, FrontendResult, GATEWAY, Request, UnsupportedCapability, metadata,
};
use crate::graph::{Edge, Vertex, VertexMeta, to_definition};
use crate::image::{Platform, Resolve};
use crate::ops::exec::{Container, ContainerProcess, streams};
use crate::solver::{Build, SolveError};
use crate::worker;

/// The label of an image that says what its frontend can do, separated by commas.
const CAPABILITIES: &str = "moby.buildkit.frontend.caps";
/// The label of an image whose frontend needs no network.
const WITHOUT_NETWORK: &str = "moby.buildkit.frontend.network.none";
/// Where a frontend finds the definition of its own image.
const OWN_DEFINITION: &str = "/run/config/buildkit/metadata/frontend.bin";
/// What is run if the image does not say.
const COMMAND: &str = "/run";
/// How many frontends may wait for one another; each is a container.
const MOST_NESTED: usize = 8;
/// How much of a frontend's last words an error has.
const LAST_WORDS: usize = 4 << 10;

/// Frontends that leave their work to one another for ever.
#[derive(Debug, thiserror::Error)]
#[error("the frontend {0} is asked by a frontend that was asked by {MOST_NESTED} others")]
struct TooDeep(String);

/// A frontend that did not do its work.
#[derive(Debug, thiserror::Error)]
#[error("the frontend {source_name} {how}{last_words}")]
struct Failed {
    source_name: String,
    how: String,
    /// On lines of their own.
    last_words: String,
}

/// A frontend, ready to be run.
struct Frontend {
    source: String,
    root: Edge,
    config: ImageConfiguration,
}

/// Lets the frontend in the image `source` answer.
pub(crate) async fn solve(
    work: &Assignment,
    source: &str,
    mut request: Request,
) -> Result<FrontendResult, SolveError> {
    GATEWAY.clone_into(&mut request.frontend);
    request.options.insert("source".to_owned(), source.to_owned());
    let work = work.below(request.clone());
    if work.depth() > MOST_NESTED {
        return Err(TooDeep(source.to_owned()).into());
    }
    let frontend = load(&work, source, &request).await?;
    frontend.check(&request)?;
    let definition = |edge: &Option<Edge>| to_definition(edge.as_ref());
    let inputs = request.inputs.iter().map(|(name, edge)| (name.clone(), definition(edge)));
    let gateway = Arc::new(GatewayBuild::new(work, inputs.collect()));
    let outcome = run(&frontend, &gateway, &request.options).await;
    gateway.close();
    outcome?;
    // It has ended, and so it has said what it had to say.
    let unsaid = || frontend.failed("ended without a result", String::new());
    gateway.answer().unwrap_or_else(|| Err(unsaid().into()))
}

/// Finds the image, which a named context may stand for.
async fn load(work: &Assignment, source: &str, request: &Request) -> Result<Frontend, SolveError> {
    let named: ImageRef = source.parse().with_context(|| format!("frontend {source:?}"))?;
    work.daemon.config.check_frontend(&named)?;
    let image = match replacement(&named, &request.options) {
        None => named,
        Some(context) => {
            let image = context.strip_prefix("docker-image://").with_context(|| {
                format!("context {context:?} cannot stand for the frontend {source}: an image can")
            })?;
            image.parse().with_context(|| format!("context {context:?}"))?
        }
    };
    let host = Platform::host();
    let step = format!("resolve image config for docker-image://{image}");
    let mode = Resolve::Default;
    let loaded = metadata::load_permitted(work, work.policy(), &image, &host, mode, &step).await;
    let (image, found) = loaded.map_err(|error| {
        if error.is_canceled() {
            return error;
        }
        let what = format!("failed to resolve source metadata for {image}");
        error.into_cause().context(what).into()
    })?;
    let identifier = match image.digest() {
        Some(_) => format!("docker-image://{image}"),
        None => format!("docker-image://{image}@{}", found.digest),
    };
    let op = pb::SourceOp { identifier, ..pb::SourceOp::default() };
    let op = pb::op::Op::Source(op);
    let root = Vertex::new(op, Vec::new(), Some(host.to_pb()), VertexMeta::default()).output(0);
    let root = work.admit(&root).await?;
    let config = serde_json::from_slice(&found.config)
        .with_context(|| format!("the config of the frontend {image}"))?;
    Ok(Frontend { source: source.to_owned(), root, config })
}

/// The named context that stands for an image.
fn replacement<'a>(image: &ImageRef, options: &'a BTreeMap<String, String>) -> Option<&'a str> {
    let name = image.familiar();
    let short = name.strip_suffix(":latest").unwrap_or(&name);
    let found = [short, &name].into_iter().find_map(|name| options.get(&format!("context:{name}")));
    found.map(String::as_str)
}

impl Frontend {
    fn label(&self, name: &str) -> Option<&str> {
        let labels = self.config.config().as_ref()?.labels().as_ref()?;
        labels.get(name).map(String::as_str)
    }

    /// Fails if the client insists on what the frontend does not say that it can do.
    fn check(&self, request: &Request) -> Result<(), UnsupportedCapability> {
        // A capability may carry conditions behind a `+`.
        let names = |list: &str| -> BTreeSet<String> {
            let names = list.split(',').filter_map(|cap| cap.split('+').next());
            names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
        };
        let has = names(self.label(CAPABILITIES).unwrap_or_default());
        let mut wanted = names(request.options.get("frontend.caps").map_or("", String::as_str));
        if !request.inputs.is_empty() {
            wanted.insert("moby.buildkit.frontend.inputs".to_owned());
        }
        match wanted.into_iter().find(|name| !has.contains(name)) {
            Some(missing) => Err(UnsupportedCapability(missing)),
            None => Ok(()),
        }
    }

    async fn process(&self, build: &Build, options: &BTreeMap<String, String>) -> pb::Meta {
        let config = self.config.config().clone().unwrap_or_default();
        let mut env = config.env().clone().unwrap_or_default();
        let options = options.iter().enumerate();
        env.extend(options.map(|(n, (k, v))| format!("BUILDKIT_FRONTEND_OPT_{n}={k}={v}")));
        env.push(format!("BUILDKIT_SESSION_ID={}", build.session_id().unwrap_or_default()));
        let host = &build.daemon.config;
        let workers = json!([{
            "id": host.worker_id,
            "labels": worker::labels(host),
            "platforms": build.daemon.platforms().await,
        }]);
        env.push(format!("BUILDKIT_WORKERS={workers}"));
        env.push("BUILDKIT_EXPORTEDPRODUCT=buildkit".to_owned());
        let command = config.entrypoint().clone().unwrap_or_else(|| vec![COMMAND.to_owned()]);
        let cwd = config.working_dir().clone().filter(|cwd| !cwd.is_empty());
        pb::Meta {
            args: command,
            env,
            cwd: cwd.unwrap_or_else(|| "/".to_owned()),
            ..pb::Meta::default()
        }
    }

    fn failed(&self, how: impl Into<String>, last_words: String) -> Failed {
        Failed { source_name: self.source.clone(), how: how.into(), last_words }
    }
}

/// Runs the frontend until it ends.
async fn run(
    frontend: &Frontend,
    gateway: &Arc<GatewayBuild>,
    options: &BTreeMap<String, String>,
) -> Result<(), SolveError> {
    let build: &Arc<Build> = &gateway.work;
    let root = gateway.work.look_at(&frontend.root).await?;
    let network = match frontend.label(WITHOUT_NETWORK) {
        Some(text) if boolean(text) == Some(true) => pb::NetMode::None,
        _ => pb::NetMode::Unset,
    };
    let mount = pb::Mount { dest: "/".to_owned(), output: -1, ..pb::Mount::default() };
    let exec = pb::ExecOp { mounts: vec![mount], network: network.into(), ..pb::ExecOp::default() };
    let own_definition = Mount::File {
        content: to_definition(Some(&frontend.root)).encode_to_vec(),
        target: OWN_DEFINITION.into(),
        mode: 0o400,
        uid: 0,
        gid: 0,
    };
    let container = Container::new(build.clone(), exec, vec![root]).await?.with(own_definition);
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let connection = UnixStream::from_std(ours)?;
    let theirs = OwnedFd::from(theirs);
    let (rest, heard) = streams([false, false, true], false)?;
    let io = ProcessIo { stdin: Some(theirs.try_clone()?), stdout: theirs, stderr: rest.stderr };
    let meta = frontend.process(build, options).await;
    let running = container.start(ContainerProcess { meta, ..Default::default() }, io).await?;
    let served = serve(gateway.clone(), connection);
    let ended = end(running, heard.stderr);
    let (exit, last_words) = tokio::select! {
        ended = ended => ended,
        never = served => match never {},
    };
    let how = match exit {
        Ok(Exit { status: ExitStatus::Code(0), .. }) => return Ok(()),
        _ if gateway.has_failed() => return Ok(()),
        Ok(Exit { status: ExitStatus::Code(code), .. }) => format!("failed: exit code: {code}"),
        Ok(Exit { status: ExitStatus::Signal(signal), .. }) => {
            format!("was killed by signal {signal}")
        }
        Err(error) => format!("cannot be run: {error}"),
    };
    Err(frontend.failed(how, last_words).into())
}

/// Serves the gateway to the frontend alone, for as long as this is polled.
async fn serve(gateway: Arc<GatewayBuild>, connection: UnixStream) -> std::convert::Infallible {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<LlbBridgeServer<GatewayService>>().await;
    let service = LlbBridgeServer::new(GatewayService::OfBuild(gateway))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let connections = stream::iter([Ok::<_, std::io::Error>(connection)]).chain(stream::pending());
    let served = Server::builder()
        .add_service(health_service)
        .add_service(service)
        .serve_with_incoming(connections)
        .await;
    // The frontend's end says what is wrong with its connection.
    tracing::debug!(?served, "the gateway of a frontend has ended");
    std::future::pending().await
}

/// Waits for the end of the process, and for the end of what it says on standard error.
async fn end(
    mut running: Running,
    stderr: Option<pipe::Receiver>,
) -> (Result<Exit, kiln_executor::ExecutorError>, String) {
    let (exit, last_words) = tokio::join!(running.wait(), last_words(stderr));
    (exit, last_words)
}

async fn last_words(output: Option<pipe::Receiver>) -> String {
    let mut kept = Vec::new();
    let Some(mut output) = output else { return String::new() };
    let mut buffer = vec![0; LAST_WORDS];
    while let Ok(count) = output.read(&mut buffer).await
        && count > 0
    {
        kept.extend_from_slice(&buffer[..count]);
        let excess = kept.len().saturating_sub(LAST_WORDS);
        kept.drain(..excess);
    }
    let text = String::from_utf8_lossy(&kept).trim().to_owned();
    if text.is_empty() { text } else { format!("\n{text}") }
}
