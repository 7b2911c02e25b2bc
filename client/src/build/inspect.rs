//! Builds for which somebody waits at a terminal: if a step fails, a program runs in its place, on
//! the files that it left, before the build ends.
//!
//! This program is the build's frontend, and lets the daemon's own do the work: so the build stays
//! open when a step has failed, and with it what the step left.

use super::failed_step::FailedStep;
use super::gateway::Bridge;
use super::solve::Response;
use crate::daemon::Daemon;
use crate::terminal::{self, RawMode};
use anyhow::{Context, Result, bail};
use futures::future::try_join_all;
use futures::stream;
use kiln_proto::control::SolveRequest;
use kiln_proto::gateway::exec_message::Input;
use kiln_proto::gateway::{
    self, EvaluateRequest, ExecMessage, FdMessage, InitMessage, Ref, ReleaseContainerRequest,
    ResizeMessage, StatFileRequest,
};
use kiln_proto::{fsutil, pb};
use std::io::{self, Write};
use std::pin::pin;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tonic::{Status, Streaming};

/// The shell of a step that has none of its own.
const SHELL: &str = "/bin/sh";
/// The only process of a container has this name.
const PROCESS: &str = "shell";
/// Messages to the process that wait to be sent.
const MESSAGES: usize = 16;
/// How many links there may be between a program's name and the program.
const MOST_LINKS: usize = 40;

/// A build with a failed step. It goes on to its end when it is told to `proceed`, after the user has
/// read why the step failed.
#[derive(Debug)]
pub(super) struct Halt {
    pub(super) status: Status,
    pub(super) proceed: oneshot::Sender<()>,
}

/// Runs a build. If a step fails, `halts` hears of it, and then the user gets to `program`, or to a
/// shell, in its place.
pub(super) async fn solve(
    daemon: &Daemon,
    mut request: SolveRequest,
    program: Option<&str>,
    halts: mpsc::Sender<Halt>,
) -> Result<Response, Status> {
    let wish = gateway::SolveRequest {
        frontend: std::mem::take(&mut request.frontend),
        frontend_opt: request.frontend_attrs.clone(),
        allow_result_return: true,
        allow_result_array_ref: true,
        ..gateway::SolveRequest::default()
    };
    let bridge = Bridge::new(daemon, &request.r#ref);
    let mut control = daemon.control();
    let mut solved = pin!(control.solve(request));
    let mut asked = pin!(ask(bridge, wish, program, halts));
    let solved = tokio::select! {
        solved = &mut solved => solved,
        asked = &mut asked => {
            asked?;
            solved.await
        }
    };
    Ok(solved?.into_inner().exporter_response)
}

/// Acts as the build's frontend.
async fn ask(
    mut bridge: Bridge,
    wish: gateway::SolveRequest,
    program: Option<&str>,
    halts: mpsc::Sender<Halt>,
) -> Result<(), Status> {
    bridge.wait().await?;
    let (answer, definitions) = match bridge.solve(wish).await {
        Ok(result) => {
            let refs = refs(&result);
            let definitions = refs.iter().filter_map(|one| one.def.clone()).collect();
            let made = refs.iter().filter(|one| !one.id.is_empty());
            let made = made.map(|one| evaluate(bridge.clone(), &one.id));
            (try_join_all(made).await.map(|_| result), definitions)
        }
        Err(status) => (Err(status), Vec::new()),
    };
    if let Err(status) = &answer
        && let Some(step) = FailedStep::of(status, &definitions)
    {
        let (proceed, told) = oneshot::channel();
        let halted = halts.send(Halt { status: status.clone(), proceed }).await;
        // Whoever does not tell has lost interest.
        if halted.is_ok() && told.await.is_ok() {
            let mut inspected = Inspection { bridge: bridge.clone(), step };
            if let Err(error) = inspected.run(program).await {
                // It is about the build's failure that the user has to hear in the end.
                let _ = writeln!(io::stderr(), "WARNING: --on-error: {error:#}");
            }
        }
    }
    bridge.finish(answer.as_ref().cloned()).await
}

/// The file systems of a result.
fn refs(result: &gateway::Result) -> Vec<&Ref> {
    match &result.result {
        Some(gateway::result::Result::Ref(one)) => vec![one],
        Some(gateway::result::Result::Refs(map)) => map.refs.values().collect(),
        // Forms that are not sent to who can read the others.
        Some(
            gateway::result::Result::RefDeprecated(_) | gateway::result::Result::RefsDeprecated(_),
        )
        | None => Vec::new(),
    }
}

async fn evaluate(mut bridge: Bridge, id: &str) -> Result<(), Status> {
    let request = bridge.request(EvaluateRequest { r#ref: id.to_owned() })?;
    bridge.client.evaluate(request).await.map(drop)
}

/// A look into a failed step.
struct Inspection {
    bridge: Bridge,
    step: FailedStep,
}

impl Inspection {
    async fn run(&mut self, program: Option<&str>) -> Result<()> {
        let container = self.open().await.context("cannot open the failed step")?;
        let ended = self.attend(&container, program).await;
        let release = ReleaseContainerRequest { container_id: container };
        let release = self.bridge.request(release)?;
        // It ends with the build at the latest.
        let _ = self.bridge.client.release_container(release).await;
        ended
    }

    /// Makes the container.
    async fn open(&mut self) -> Result<String> {
        for (position, definition) in std::mem::take(&mut self.step.missing) {
            let wish = gateway::SolveRequest {
                definition: Some(definition),
                allow_result_return: true,
                allow_result_array_ref: true,
                ..gateway::SolveRequest::default()
            };
            let made = self.bridge.solve(wish).await?;
            let id = refs(&made).first().map(|one| one.id.clone()).unwrap_or_default();
            self.step.container.mounts[position].result_id = id;
        }
        let root = self.step.root().map(|root| &self.step.container.mounts[root]);
        if root.is_none_or(|root| root.result_id.is_empty()) {
            bail!("it starts from scratch, where there is no shell");
        }
        let container_id = crate::paths::random_id(13);
        let mut wish = self.step.container.clone();
        wish.container_id.clone_from(&container_id);
        let request = self.bridge.request(wish)?;
        self.bridge.client.new_container(request).await?;
        Ok(container_id)
    }

    /// Runs the program at the terminal until it ends.
    async fn attend(&mut self, container: &str, program: Option<&str>) -> Result<()> {
        let program = self.choose(container, program).await?;
        let source = self.step.source.map(|at| format!(" The files to copy from are at {at}."));
        writeln!(
            io::stderr(),
            "\nThis is {program} where the step failed. When it ends, so does the build.{}",
            source.unwrap_or_default(),
        )?;
        let mut init =
            InitMessage { container_id: container.to_owned(), ..self.step.process.clone() };
        let meta = init.meta.get_or_insert_default();
        meta.args = vec![program];
        if let Some(term) = crate::paths::env("TERM").filter(|term| !term.is_empty())
            && !meta.env.iter().any(|variable| variable.starts_with("TERM="))
        {
            meta.env.push(format!("TERM={term}"));
        }
        (init.fds, init.tty) = (vec![0, 1], true);
        let (orders, mut messages) = mpsc::channel(MESSAGES);
        orders.send(message(Input::Init(init))).await?;
        let request = self.bridge.request(stream::poll_fn(move |cx| messages.poll_recv(cx)))?;
        let said = self.bridge.client.exec_process(request).await?.into_inner();
        converse(orders, said).await
    }

    /// The program to run: the one that the user wants, the step's own shell, or any.
    async fn choose(&mut self, container: &str, wanted: Option<&str>) -> Result<String> {
        if let Some(program) = wanted {
            if !self.has(container, program).await {
                bail!("the step has no {program}");
            }
            return Ok(program.to_owned());
        }
        let own = self.step.shell.clone();
        for shell in own.iter().map(String::as_str).chain([SHELL]) {
            if self.has(container, shell).await {
                return Ok(shell.to_owned());
            }
        }
        match own.filter(|own| own != SHELL) {
            Some(own) => bail!("the step has no shell, neither {own} nor {SHELL}"),
            None => bail!("the step has no shell {SHELL}"),
        }
    }

    /// Whether there is such a program. What cannot be told without running it is taken for granted:
    /// a name that is looked for, or what is on another mount than the root.
    async fn has(&mut self, container: &str, program: &str) -> bool {
        let Some(root) = self.step.root() else { return false };
        let is_elsewhere = |mount: &pb::Mount| {
            mount.dest != "/" && std::path::Path::new(program).starts_with(&mount.dest)
        };
        if !program.starts_with('/') || self.step.container.mounts.iter().any(is_elsewhere) {
            return true;
        }
        let mut path = std::path::PathBuf::from(program);
        for _ in 0..MOST_LINKS {
            let question = StatFileRequest {
                r#ref: container.to_owned(),
                path: path.to_string_lossy().into_owned(),
                mount_index: i32::try_from(root).unwrap_or_default(),
            };
            let Ok(question) = self.bridge.request(question) else { return false };
            let Ok(stat) = self.bridge.client.stat_file_container(question).await else {
                return false;
            };
            let stat = stat.into_inner().stat.unwrap_or_default();
            if stat.linkname.is_empty() {
                return fsutil::GoMode(stat.mode).is_regular();
            }
            // A path that is absolute takes the place of the other.
            path = path.parent().unwrap_or(&path).join(stat.linkname);
        }
        false
    }
}

fn message(input: Input) -> ExecMessage {
    ExecMessage { process_id: PROCESS.to_owned(), input: Some(input) }
}

/// Lets the user talk with the process until it ends. What is typed is the process's own, so that
/// ctrl-c interrupts what runs in it, and not this program.
async fn converse(
    orders: mpsc::Sender<ExecMessage>,
    mut said: Streaming<ExecMessage>,
) -> Result<()> {
    while !matches!(next(&mut said).await?, Input::Started(_)) {}
    let _raw = RawMode::enter().context("the terminal")?;
    let mut resized = signal(SignalKind::window_change())?;
    let type_in = async {
        // It may be left waiting for a key at the end, like all reads of standard input.
        let mut keys = tokio::io::stdin();
        let mut buffer = [0; 4096];
        loop {
            let count = keys.read(&mut buffer).await.unwrap_or(0);
            let data = bytes::Bytes::copy_from_slice(&buffer[..count]);
            let typed = FdMessage { fd: 0, eof: count == 0, data };
            if orders.send(message(Input::File(typed))).await.is_err() || count == 0 {
                return;
            }
        }
    };
    let resize = async {
        loop {
            if let Some((rows, cols)) = terminal::size() {
                let size = Input::Resize(ResizeMessage { rows, cols });
                if orders.send(message(size)).await.is_err() {
                    return;
                }
            }
            if resized.recv().await.is_none() {
                return;
            }
        }
    };
    let listen = async {
        let mut screen = tokio::io::stdout();
        let mut failure = None;
        let mut is_silent = true;
        loop {
            match next(&mut said).await? {
                Input::File(FdMessage { fd: 1 | 2, data, .. }) if !data.is_empty() => {
                    is_silent = false;
                    screen.write_all(&data).await?;
                    screen.flush().await?;
                }
                Input::Exit(exit) => {
                    failure = exit.error;
                    // BuildKit waits for it before it says that the process is done.
                    let end = FdMessage { fd: 0, eof: true, ..FdMessage::default() };
                    let _ = orders.send(message(Input::File(end))).await;
                }
                Input::Done(_) => break,
                _ => {}
            }
        }
        // A shell ends as its last command did, which is nobody's business but its user's.
        match failure {
            Some(error) if is_silent => bail!("{}", error.message),
            _ => Ok(()),
        }
    };
    let aside = async { tokio::join!(type_in, resize) };
    tokio::select! {
        ended = listen => ended,
        _ = aside => bail!("the connection to the daemon broke"),
    }
}

async fn next(said: &mut Streaming<ExecMessage>) -> Result<Input> {
    let message = said.message().await?.context("the daemon says no more")?;
    Ok(message.input.unwrap_or(Input::Started(gateway::StartedMessage {})))
}
