//! Passes on what steps ask to name servers that only the host can reach, such as
//! systemd-resolved's at 127.0.0.53. Questions and answers are not looked at.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use kiln_executor::Executor;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use super::dns;

/// How long a server has to answer before the next is asked.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long it takes before a connection is accepted again, where one could not be.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a connection lasts; one is made for a question or a few.
const LONGEST_CONNECTION: Duration = Duration::from_secs(30);

/// Questions under way at a time. A step that asks faster loses some, as on any network.
const AT_ONCE: usize = 512;

/// As long as a datagram can be.
const LONGEST: usize = 65_535;

/// A server for steps, until this is dropped.
#[derive(Debug)]
pub(super) struct Relay(JoinHandle<()>);

impl Relay {
    /// Listens on `address`, the gateway's, and asks `servers` in turn; `None` where somebody answers
    /// there already.
    pub(super) async fn start(
        executor: &Executor,
        address: IpAddr,
        servers: Vec<IpAddr>,
    ) -> io::Result<Option<Self>> {
        let (datagrams, connections) = match executor.listen_at_gateway(dns(address)).await {
            Ok(bound) => bound,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                // One that listens on all addresses of the host, and so answers here, too.
                tracing::debug!(%address, "the host has a name server that steps can reach");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        datagrams.set_nonblocking(true)?;
        connections.set_nonblocking(true)?;
        let datagrams = UdpSocket::from_std(datagrams)?;
        let connections = TcpListener::from_std(connections)?;
        Ok(Some(Self(tokio::spawn(serve(datagrams, connections, servers)))))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn serve(datagrams: UdpSocket, connections: TcpListener, servers: Vec<IpAddr>) {
    let (datagrams, servers): (_, Arc<[_]>) = (Arc::new(datagrams), servers.into());
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; LONGEST];
    loop {
        tokio::select! {
            received = datagrams.recv_from(&mut buffer) => {
                // The error is about an earlier answer that nobody waited for.
                let Ok((length, peer)) = received else { continue };
                let Ok(turn) = turns.clone().try_acquire_owned() else { continue };
                let (datagrams, servers) = (datagrams.clone(), servers.clone());
                let question = buffer[..length].to_vec();
                tasks.spawn(async move {
                    if let Some(answer) = ask(&question, &servers).await {
                        let _ = datagrams.send_to(&answer, peer).await;
                    }
                    drop(turn);
                });
            }
            accepted = connections.accept() => {
                let Ok((mut near, _)) = accepted else {
                    // Such as for too many open files, which does not pass at once.
                    tokio::time::sleep(PAUSE).await;
                    continue;
                };
                let Ok(turn) = turns.clone().try_acquire_owned() else { continue };
                let servers = servers.clone();
                tasks.spawn(async move {
                    if let Some(mut far) = connect(&servers).await {
                        // Whichever side ends it; a step must not keep others from asking.
                        let both = copy_bidirectional(&mut near, &mut far);
                        let _ = tokio::time::timeout(LONGEST_CONNECTION, both).await;
                    }
                    drop(turn);
                });
            }
            Some(_) = tasks.join_next() => {}
        }
    }
}

async fn ask(question: &[u8], servers: &[IpAddr]) -> Option<Vec<u8>> {
    for server in servers {
        if let Ok(Ok(answer)) = tokio::time::timeout(PATIENCE, ask_one(question, *server)).await {
            return Some(answer);
        }
    }
    None
}

async fn ask_one(question: &[u8], server: IpAddr) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    // A port of its own for each question, which is what keeps answers from being forged.
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(dns(server)).await?;
    socket.send(question).await?;
    let mut answer = vec![0; LONGEST];
    let length = socket.recv(&mut answer).await?;
    answer.truncate(length);
    Ok(answer)
}

async fn connect(servers: &[IpAddr]) -> Option<TcpStream> {
    for server in servers {
        let connected = tokio::time::timeout(PATIENCE, TcpStream::connect(dns(*server))).await;
        if let Ok(Ok(stream)) = connected {
            return Some(stream);
        }
    }
    None
}
