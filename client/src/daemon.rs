//! The daemon: its address, the connection to it, and its start when there is none.

use crate::paths;
use hyper_util::rt::TokioIo;
use kiln_proto::content::content_client::ContentClient;
use kiln_proto::control::control_client::ControlClient;
use kiln_proto::session::{CONNECTION_WINDOW, MAX_MESSAGE, MAX_METADATA, STREAM_WINDOW};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fmt};
use thiserror::Error;
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// The daemon's program.
const PROGRAM: &str = "kilnd";
/// A daemon that was started for a user ends when it had nothing to do for so many seconds.
const IDLE_TIMEOUT: &str = "600";
/// How long a daemon may take to start: a large cache is checked after a crash.
const START_LIMIT: Duration = Duration::from_mins(1);
/// How long to look for the socket of another daemon when the one that was started gave up.
const RIVAL_LIMIT: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Where a daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A socket of this machine.
    Unix(PathBuf),
    /// HOST:PORT.
    Tcp(String),
}

/// Why there is no daemon to talk to.
#[derive(Debug, Error)]
pub(crate) enum DaemonError {
    /// The address is not one.
    #[error("{address:?} is not the address of a daemon (unix://PATH or tcp://HOST:PORT)")]
    BadAddress {
        /// What was given.
        address: String,
    },
    /// Nobody answers.
    #[error("no daemon answers at {address}: {source}")]
    Unreachable {
        /// Where.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// What answers is no daemon.
    #[error("what answers at {address} is not a daemon")]
    NoDaemon {
        /// Where.
        address: Address,
        /// Why.
        source: tonic::transport::Error,
    },
    /// There is none, and its program is not there.
    #[error(
        "no daemon runs at {address}, and {PROGRAM} is neither beside this program nor on PATH \
         (--host names another daemon)"
    )]
    NoProgram {
        /// Where it would listen.
        address: Address,
    },
    /// The program could not be run.
    #[error("starting {}: {source}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It was started, but does not answer.
    #[error("{PROGRAM} was started but does not answer at {address}{}; its log is {}",
        last_words.as_ref().map_or_else(String::new, |words| format!(": {words}")), log.display())]
    NotReady {
        /// Where it should listen.
        address: Address,
        /// Its log.
        log: PathBuf,
        /// The last line of it.
        last_words: Option<String>,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix://{}", path.display()),
            Self::Tcp(address) => write!(formatter, "tcp://{address}"),
        }
    }
}

impl Address {
    fn parse(text: &str) -> Result<Self, DaemonError> {
        let bad = || DaemonError::BadAddress { address: text.to_owned() };
        match text.split_once("://") {
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("tcp", address)) if !address.is_empty() => Ok(Self::Tcp(address.to_owned())),
            _ => Err(bad()),
        }
    }
}

/// A stream to the daemon.
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// Connects to the daemon that was asked for, or to this user's, which is started if need be.
pub(crate) async fn connect(host: Option<&str>) -> Result<Daemon, DaemonError> {
    let variable = paths::env("BUILDKIT_HOST").filter(|host| !host.is_empty());
    let named = host.filter(|host| !host.is_empty()).or(variable.as_deref());
    let address = match named {
        Some(named) => Address::parse(named)?,
        None => Address::Unix(paths::default_socket()),
    };
    let stream = match open(&address).await {
        Ok(stream) => stream,
        Err(error) if named.is_none() && is_absent(&error) => start(&address).await?,
        Err(source) => return Err(DaemonError::Unreachable { address, source }),
    };
    let channel = channel(&address, stream).await?;
    Ok(Daemon { address, channel })
}

/// A daemon that answers.
#[derive(Debug, Clone)]
pub(crate) struct Daemon {
    /// Where it listens.
    pub(crate) address: Address,
    /// The connection.
    pub(crate) channel: Channel,
}

impl Daemon {
    /// Its API.
    pub(crate) fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    /// What the daemon keeps of finished builds.
    pub(crate) fn content(&self) -> ContentClient<Channel> {
        ContentClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }
}

async fn open(address: &Address) -> io::Result<Stream> {
    match address {
        Address::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
        Address::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Stream::Tcp(stream))
        }
    }
}

/// Makes a connection of the stream that is open. When it breaks the build is over, so that it is
/// never made anew.
async fn channel(address: &Address, stream: Stream) -> Result<Channel, DaemonError> {
    let endpoint = Endpoint::from_static("http://localhost")
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(MAX_METADATA);
    let gone = || io::Error::from(io::ErrorKind::NotConnected);
    let connected = match stream {
        Stream::Unix(stream) => {
            let stream = Mutex::new(Some(stream));
            let take = move |_: Uri| {
                let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
                std::future::ready(stream.map(TokioIo::new).ok_or_else(gone))
            };
            endpoint.connect_with_connector(service_fn(take)).await
        }
        Stream::Tcp(stream) => {
            let stream = Mutex::new(Some(stream));
            let take = move |_: Uri| {
                let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
                std::future::ready(stream.map(TokioIo::new).ok_or_else(gone))
            };
            endpoint.connect_with_connector(service_fn(take)).await
        }
    };
    connected.map_err(|source| DaemonError::NoDaemon { address: address.clone(), source })
}

/// Whether an error means that nobody listens.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Starts a daemon, and connects to it as soon as it listens. If several clients do so at once,
/// the daemons sort it out, and all clients find the one that is left.
async fn start(address: &Address) -> Result<Stream, DaemonError> {
    let program =
        find_program().ok_or_else(|| DaemonError::NoProgram { address: address.clone() })?;
    let log = paths::state().join("kilnd.log");
    let mut child = spawn(&program, address, &log)
        .map_err(|source| DaemonError::Start { program: program.clone(), source })?;
    let mut deadline = Instant::now() + START_LIMIT;
    let mut pause = FIRST_PAUSE;
    let mut has_ended = false;
    loop {
        if let Ok(stream) = open(address).await {
            return Ok(stream);
        }
        if !has_ended && !matches!(child.try_wait(), Ok(None)) {
            has_ended = true;
            deadline = deadline.min(Instant::now() + RIVAL_LIMIT);
        }
        if Instant::now() >= deadline {
            let last_words = last_line(&log);
            return Err(DaemonError::NotReady { address: address.clone(), log, last_words });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The daemon beside this program, or on `PATH`.
fn find_program() -> Option<PathBuf> {
    let beside = env::current_exe().ok().and_then(|path| Some(path.parent()?.join(PROGRAM)));
    let path = env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(env::split_paths(&path).map(|directory| directory.join(PROGRAM)))
        .find(|path| path.is_file())
}

/// Starts the daemon in a process group of its own, so that an interrupt of the client does not
/// reach it.
fn spawn(program: &Path, address: &Address, log: &Path) -> io::Result<Child> {
    if let Some(directory) = log.parent() {
        fs::create_dir_all(directory)?;
    }
    let log: File = OpenOptions::new().create(true).append(true).open(log)?;
    Command::new(program)
        .args(["--addr", &address.to_string(), "--idle-timeout", IDLE_TIMEOUT])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
}

fn last_line(path: &Path) -> Option<String> {
    let text = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_socket_or_a_port() {
        for text in ["unix:///run/kiln/kilnd.sock", "tcp://builder:1234"] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "unix://", "/run/kilnd.sock", "ssh://builder", "tcp://"] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }
}
