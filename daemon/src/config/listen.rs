//! The sockets that the daemon listens on.

use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::{Context as _, bail};
use futures::stream::{BoxStream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::server::Connected;

use super::Config;

/// A socket that is listened on.
pub(crate) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    /// Opens all configured addresses.
    pub(crate) fn open_all(config: &Config) -> anyhow::Result<Vec<Self>> {
        let mut listeners = Vec::new();
        for address in &config.addresses {
            let opened = Self::open(address, config);
            listeners.extend(opened.with_context(|| format!("cannot listen on {address}"))?);
        }
        if listeners.is_empty() {
            bail!("no address to listen on");
        }
        Ok(listeners)
    }

    fn open(address: &str, config: &Config) -> anyhow::Result<Vec<Self>> {
        match address.split_once("://") {
            Some(("unix", path)) => Ok(vec![Self::Unix(unix(Path::new(path), config)?)]),
            Some(("tcp", host)) => {
                if !is_loopback(host) {
                    tracing::warn!(
                        address,
                        "anybody who reaches this address can build, for TLS is not configured"
                    );
                }
                Ok(vec![Self::Tcp(TcpListener::bind(host)?)])
            }
            Some(("fd", _)) => inherited(),
            _ => bail!("expected unix://PATH, tcp://HOST:PORT or fd://"),
        }
    }

    /// The TCP port that it is, if it is one.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp(listener) => listener.local_addr().ok().map(|address| address.port()),
        }
    }

    /// The connections that come in.
    pub(crate) fn connections(self) -> BoxStream<'static, std::io::Result<Connection>> {
        match self {
            Self::Unix(listener) => match nonblocking_unix(listener) {
                Ok(stream) => stream.map(|stream| Ok(Connection::new(stream?))).boxed(),
                Err(error) => futures::stream::once(async { Err(error) }).boxed(),
            },
            Self::Tcp(listener) => match nonblocking_tcp(listener) {
                Ok(stream) => stream
                    .map(|stream| {
                        let stream = stream?;
                        stream.set_nodelay(true)?;
                        Ok(Connection::new(stream))
                    })
                    .boxed(),
                Err(error) => futures::stream::once(async { Err(error) }).boxed(),
            },
        }
    }
}

fn nonblocking_unix(listener: UnixListener) -> std::io::Result<UnixListenerStream> {
    listener.set_nonblocking(true)?;
    Ok(UnixListenerStream::new(tokio::net::UnixListener::from_std(listener)?))
}

fn nonblocking_tcp(listener: TcpListener) -> std::io::Result<TcpListenerStream> {
    listener.set_nonblocking(true)?;
    Ok(TcpListenerStream::new(tokio::net::TcpListener::from_std(listener)?))
}

fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A unix socket that only its owner and group can use. A socket file that nobody listens on any
/// more is replaced.
fn unix(path: &Path, config: &Config) -> anyhow::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    if std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        if UnixStream::connect(path).is_ok() {
            bail!("another daemon listens there");
        }
        std::fs::remove_file(path)?;
    }
    // Made under another name: it appears with its final permissions.
    let draft = PathBuf::from(format!("{}.{}", path.display(), std::process::id()));
    let listener = UnixListener::bind(&draft)?;
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o660))?;
    let (uid, gid) = config.socket_owner;
    chown(&draft, uid, gid)?;
    std::fs::rename(&draft, path)?;
    Ok(listener)
}

/// Sockets that systemd opened (`sd_listen_fds`).
fn inherited() -> anyhow::Result<Vec<Listener>> {
    let mut inherited = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..inherited.len() {
        if let Ok(Some(listener)) = inherited.take_unix_listener(index) {
            listeners.push(Listener::Unix(listener));
        } else if let Some(listener) = inherited.take_tcp_listener(index)? {
            listeners.push(Listener::Tcp(listener));
        }
    }
    if listeners.is_empty() {
        bail!("fd:// needs sockets passed by the service manager");
    }
    Ok(listeners)
}

/// One client's connection.
pub(crate) struct Connection(Box<dyn Duplex>);

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl Connection {
    fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(Box::new(stream))
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
