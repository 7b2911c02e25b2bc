//! Processes in a frontend's containers, all on one stream of messages.
//!
//! Of each process the frontend hears in this order: that it has started, what it says, how it
//! exited, that nothing more comes. Of the outputs it asked for it hears the end, too, and of others
//! nothing: BuildKit's client stops to listen to a process that writes where it has no writer.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use kiln_executor::{ExecutorError, Exit, ExitStatus, Running, StepHandle};
use kiln_proto::gateway::exec_message::Input;
use kiln_proto::gateway::{
    DoneMessage, ExecMessage, ExitMessage, FdMessage, InitMessage, StartedMessage,
};
use kiln_proto::{pb, rpc};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::{Code, Status, Streaming};

use super::GatewayBuild;
use crate::ops::exec::{Container, ContainerProcess, Streams, streams};

/// How many pieces of input wait for a process that does not read; then the frontend waits too.
const WAITING: usize = 16;
/// The exit code of a process that could not be run.
const NOT_RUN: u32 = 255;

type Sender = mpsc::Sender<Result<ExecMessage, Status>>;

/// What can be done to a process.
struct Process {
    stdin: Option<mpsc::Sender<Bytes>>,
    /// None of one that could not be run, of which the frontend may not know yet.
    handle: Option<StepHandle>,
}

/// A process that was just started.
struct Started {
    running: Running,
    streams: Streams,
    /// Which of its streams the frontend asked for.
    fds: [bool; 3],
    container: Arc<Container>,
}

/// Runs what the messages ask for, until all of it has ended. Dropping this kills it.
pub(super) async fn serve(
    gateway: Arc<GatewayBuild>,
    mut incoming: Streaming<ExecMessage>,
    outgoing: Sender,
) {
    let mut processes = HashMap::new();
    let mut tasks = JoinSet::new();
    let outcome = async {
        while let Some(message) = incoming.message().await? {
            let id = message.process_id;
            if id.is_empty() {
                return Err(Status::invalid_argument("a message for no process"));
            }
            let Some(Input::Init(init)) = message.input else {
                let process = processes.get_mut(&id);
                let process = process
                    .ok_or_else(|| Status::not_found(format!("there is no process {id:?}")))?;
                command(process, message.input).await?;
                continue;
            };
            if processes.contains_key(&id) {
                return Err(Status::already_exists(format!("process {id} already exists")));
            }
            let voice = Voice { id: id.clone(), outgoing: outgoing.clone() };
            let started = match start(&gateway, init).await {
                Ok(started) => started,
                Err(status) => {
                    voice.not_run(&status).await;
                    processes.insert(id, Process { stdin: None, handle: None });
                    continue;
                }
            };
            let (stdin, input) = mpsc::channel(WAITING);
            let stdin = started.streams.stdin.is_some().then_some(stdin);
            let handle = Some(started.running.handle().clone());
            processes.insert(id, Process { stdin, handle });
            tasks.spawn(attend(voice, started, input));
        }
        Ok(())
    };
    match outcome.await {
        // The frontend has no more to say, and may still listen.
        Ok(()) => while tasks.join_next().await.is_some() {},
        Err(status) => {
            let _ = outgoing.send(Err(status)).await;
        }
    }
}

async fn start(gateway: &GatewayBuild, init: InitMessage) -> Result<Started, Status> {
    let container = gateway.containers.get(&init.container_id)?;
    let mut fds = [false; 3];
    for fd in &init.fds {
        let wanted = usize::try_from(*fd).ok().and_then(|fd| fds.get_mut(fd));
        *wanted.ok_or_else(|| {
            Status::invalid_argument(format!("descriptor {fd}: a process has 0, 1 and 2"))
        })? = true;
    }
    let security = pb::SecurityMode::try_from(init.security).map_err(|_| {
        Status::invalid_argument(format!("invalid security mode {}", init.security))
    })?;
    let process = ContainerProcess {
        meta: init.meta.unwrap_or_default(),
        secret_env: init.secretenv,
        security,
        tty: init.tty,
    };
    let started = async {
        let (io, streams) = streams(fds, init.tty)?;
        anyhow::Ok((container.start(process, io).await?, streams))
    };
    let (running, streams) =
        started.await.map_err(|error| Status::unknown(format!("{error:#}")))?;
    Ok(Started { running, streams, fds, container })
}

/// Does to a process what a message says.
async fn command(process: &mut Process, message: Option<Input>) -> Result<(), Status> {
    match message {
        Some(Input::File(FdMessage { fd: 0, eof, data })) => {
            if let Some(stdin) = &process.stdin
                && !data.is_empty()
            {
                // A process that has ended reads nothing any more.
                let _ = stdin.send(data).await;
            }
            if eof {
                process.stdin = None;
            }
            Ok(())
        }
        Some(Input::Resize(size)) => {
            let cells = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
            if let Some(handle) = &process.handle {
                handle.resize(cells(size.rows), cells(size.cols));
            }
            Ok(())
        }
        Some(Input::Signal(signal)) => {
            // `TERM` from BuildKit's clients; signal(7) has it as `SIGTERM`.
            let name = format!("SIG{}", signal.name.trim_start_matches("SIG"));
            let known = name.parse::<Signal>();
            let known = known.map_err(|_| {
                Status::invalid_argument(format!("unknown signal {:?}", signal.name))
            })?;
            if let Some(handle) = &process.handle {
                handle.signal(known as i32);
            }
            Ok(())
        }
        _ => Err(Status::invalid_argument("a message that a process cannot be sent")),
    }
}

/// Says what happens to one process.
#[derive(Clone)]
struct Voice {
    id: String,
    outgoing: Sender,
}

impl Voice {
    async fn say(&self, input: Input) {
        let message = ExecMessage { process_id: self.id.clone(), input: Some(input) };
        // Whoever does not listen any more drops the stream, and this with it.
        let _ = self.outgoing.send(Ok(message)).await;
    }

    /// Says all there is to say of a process that could not be run. BuildKit's client hears only what
    /// is said of a process, and that only of one that has started; it does not hear how the stream
    /// of all ends.
    async fn not_run(&self, error: &Status) {
        self.say(Input::Started(StartedMessage {})).await;
        let exit = failed(NOT_RUN, error.code(), error.message().to_owned());
        self.say(Input::Exit(exit)).await;
        self.say(Input::Done(DoneMessage {})).await;
    }

    /// Passes on what a process writes, if that `is_wanted`, until the last writer is gone.
    async fn forward(&self, fd: u32, output: Option<pipe::Receiver>, is_wanted: bool) {
        if let Some(mut output) = output {
            let mut buffer = vec![0; 32 << 10];
            while let Ok(count) = output.read(&mut buffer).await
                && count > 0
            {
                if is_wanted {
                    let data = Bytes::copy_from_slice(&buffer[..count]);
                    self.say(Input::File(FdMessage { fd, eof: false, data })).await;
                }
            }
        }
        if is_wanted {
            self.say(Input::File(FdMessage { fd, eof: true, data: Bytes::new() })).await;
        }
    }
}

/// Attends to a process from its start to its end.
async fn attend(voice: Voice, started: Started, mut input: mpsc::Receiver<Bytes>) {
    let Started { mut running, streams, fds: [_, out, err], container } = started;
    let Streams { stdin, stdout, stderr } = streams;
    let handle = running.handle().clone();
    voice.say(Input::Started(StartedMessage {})).await;
    let feed = async move {
        let Some(mut stdin) = stdin else { return };
        while let Some(data) = input.recv().await {
            if stdin.write_all(&data).await.is_err() {
                break;
            }
        }
    };
    let exited = async {
        let ended = running.wait().await;
        voice.say(Input::Exit(exit_message(ended, container.is_ended()))).await;
    };
    let ended = async {
        tokio::join!(voice.forward(1, stdout, out), voice.forward(2, stderr, err), exited);
    };
    let killed = async {
        container.ended().await;
        handle.kill();
    };
    // The process may end before its input does, and the other way round.
    let aside = async { tokio::join!(feed, killed) };
    {
        tokio::pin!(ended, aside);
        tokio::select! {
            () = &mut ended => {}
            _ = &mut aside => ended.await,
        }
    }
    // The frontend may rely on its being gone, if this was its last process and it was released.
    drop(container);
    voice.say(Input::Done(DoneMessage {})).await;
}

/// How a process ended, which was killed if its container was released meanwhile.
fn exit_message(ended: Result<Exit, ExecutorError>, is_released: bool) -> ExitMessage {
    match ended.map(|exit| exit.status) {
        Ok(ExitStatus::Code(0)) => ExitMessage::default(),
        Ok(ExitStatus::Code(code)) => {
            let message = format!("exit code: {code}");
            failed(u32::try_from(code).unwrap_or(NOT_RUN), Code::Unknown, message)
        }
        Ok(ExitStatus::Signal(signal)) => {
            let code = 128 + signal.unsigned_abs();
            if is_released {
                let message = "context canceled: the container was released";
                return failed(code, Code::Cancelled, message.to_owned());
            }
            let message = format!("exit code: {code} (killed by signal {signal})");
            failed(code, Code::Unknown, message)
        }
        Err(error) => failed(NOT_RUN, Code::Unknown, error.to_string()),
    }
}

fn failed(code: u32, kind: Code, message: String) -> ExitMessage {
    let error = Some(rpc::Status { code: kind.into(), message, details: Vec::new() });
    ExitMessage { code, error }
}
