//! The networks of steps: namespaces that are made before they are needed, and used again.
//!
//! Making a network namespace and connecting it takes longer than everything else around a step,
//! and so does taking one away. So steps borrow them. What a confined step leaves behind in one is
//! nothing that another could find: its processes are gone and their sockets with them, and it has
//! no rights over interfaces and routes. A namespace that may be otherwise is thrown away.

mod bridge;
mod cni;
mod firewall;
mod namespace;
mod netlink;
mod route;
mod subnet;
mod uplink;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::io::Errno;
use tokio::sync::oneshot;

use crate::sys::net;
use bridge::Bridge;
use cni::{Attachment, Cni};
use namespace::Namespace;
use uplink::{Uplink, Uplinks};

pub use bridge::BridgeConfig;
pub use cni::CniConfig;
pub(crate) use namespace::{Owner, enter};
pub use subnet::{InvalidSubnet, Subnet};

/// Where the network of steps that want the usual one comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkConfig {
    /// A bridge that is made here.
    Bridge(BridgeConfig),
    /// Plugins of the Container Network Interface.
    Cni(CniConfig),
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self::Bridge(BridgeConfig::default())
    }
}

/// Why a step has no network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The kernel, or the rights of this process, do not allow it.
    #[error("cannot {0}")]
    Setup(String, #[source] std::io::Error),
    /// The configured range is in use.
    #[error("the configured range {0} overlaps with the host's route to {1}")]
    InUse(Subnet, Subnet),
    /// The configured range is too small.
    #[error("the configured range {0} is too small: it takes 16 addresses at least")]
    TooSmall(Subnet),
    /// All of the ranges that are used by default are in use.
    #[error("the host has routes to all of 10.89.0.0/16: configure another range")]
    NoSubnet,
    /// There are more steps than addresses.
    #[error("all addresses of the steps' range are in use")]
    NoAddress,
    /// A plugin, or its configuration, is not as it should be.
    #[error("CNI: {0}")]
    Cni(#[from] cni::CniError),
    /// An ordinary user's steps are connected by a program, and there is none.
    #[error(
        "neither pasta (Debian and Fedora: package passt) nor slirp4netns is installed, one of which \
         connects the steps of an ordinary user's daemon"
    )]
    NoUplink,
    /// The program that connects steps has ended.
    #[error("the program that connects steps: {0}")]
    Uplink(String),
    /// The thread that makes networks is gone.
    #[error("the thread that makes networks has ended")]
    Gone,
}

/// Says what was being done when a system call failed.
trait At<T> {
    fn at(self, what: &str) -> Result<T, NetworkError>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, what: &str) -> Result<T, NetworkError> {
        self.map_err(|source| NetworkError::Setup(what.to_owned(), source.into()))
    }
}

/// What a namespace leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Itself.
    Loopback,
    /// The outside.
    Outside,
}

/// The namespaces of an executor's steps, and the thread that makes them.
#[derive(Debug)]
pub(crate) struct Networks {
    ready: Arc<Ready>,
    sender: Sender<Job>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Job {
    Make(Reach, oneshot::Sender<Result<Network, NetworkError>>),
    Prepare(Reach),
    Remove(Network),
    FindGateway(oneshot::Sender<Result<Gateway, NetworkError>>),
    Listen(SocketAddr, oneshot::Sender<std::io::Result<(UdpSocket, TcpListener)>>),
    End,
}

/// Where the way outside begins for steps, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Gateway {
    /// Its address.
    pub(crate) address: Option<Ipv4Addr>,
    /// An address at which what the host runs can be reached.
    pub(crate) host: Option<Ipv4Addr>,
}

/// Namespaces that no step is in.
#[derive(Debug)]
struct Ready {
    kept: usize,
    networks: Mutex<Vec<Network>>,
}

/// A namespace, and what it takes to disconnect it.
#[derive(Debug)]
struct Network {
    namespace: Namespace,
    connection: Connection,
}

#[derive(Debug)]
enum Connection {
    None,
    Bridge { place: u32 },
    Cni(Attachment),
}

impl Connection {
    fn reach(&self) -> Reach {
        match self {
            Self::None => Reach::Loopback,
            Self::Bridge { .. } | Self::Cni(_) => Reach::Outside,
        }
    }
}

/// A namespace that a step is in. It is thrown away when this is dropped.
#[derive(Debug)]
pub(crate) struct Borrowed {
    network: Option<Network>,
    ready: Arc<Ready>,
    sender: Sender<Job>,
}

impl Networks {
    /// Starts the thread, which makes nothing before it is asked to. `kept` is how many namespaces
    /// that no step is in are kept.
    ///
    /// `owner` is who those of steps belong to.
    pub(crate) fn start(config: NetworkConfig, kept: usize, owner: Owner) -> std::io::Result<Self> {
        let ready = Arc::new(Ready { kept: kept.max(1), networks: Mutex::default() });
        let (sender, receiver) = mpsc::channel();
        let shared = Arc::clone(&ready);
        let uplinks = (!net::is_own()?).then(Uplinks::start).transpose()?;
        let owner = Arc::new(owner);
        let maker = Maker { config, owner, ready: shared, provider: None, uplink: None, uplinks };
        let thread = std::thread::Builder::new()
            .name("kiln-network".into())
            .spawn(move || maker.run(&receiver))?;
        Ok(Self { ready, sender, thread: Some(thread) })
    }

    /// A namespace for a step, made if none is ready.
    pub(crate) async fn borrow(&self, reach: Reach) -> Result<Borrowed, NetworkError> {
        let sender = self.sender.clone();
        let network = if let Some(network) = self.ready.take(reach) {
            network
        } else {
            let (reply, made) = oneshot::channel();
            sender.send(Job::Make(reach, reply)).map_err(|_| NetworkError::Gone)?;
            made.await.map_err(|_| NetworkError::Gone)??
        };
        // For the step that starts meanwhile.
        let _ = sender.send(Job::Prepare(reach));
        Ok(Borrowed { network: Some(network), ready: Arc::clone(&self.ready), sender })
    }

    /// Where the way outside begins for steps.
    pub(crate) async fn gateway(&self) -> Result<Gateway, NetworkError> {
        let (reply, found) = oneshot::channel();
        self.sender.send(Job::FindGateway(reply)).map_err(|_| NetworkError::Gone)?;
        found.await.map_err(|_| NetworkError::Gone)?
    }

    /// Sockets on an address that the gateway has.
    pub(crate) async fn listen(
        &self,
        address: SocketAddr,
    ) -> std::io::Result<(UdpSocket, TcpListener)> {
        let gone = || std::io::Error::other(NetworkError::Gone);
        let (reply, bound) = oneshot::channel();
        self.sender.send(Job::Listen(address, reply)).map_err(|_| gone())?;
        bound.await.map_err(|_| gone())?
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        let _ = self.sender.send(Job::End);
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by its thread.
            let _ = thread.join();
        }
    }
}

impl Borrowed {
    /// Lets other steps have it. The step that was in it was confined, and nothing of it is left.
    pub(crate) fn give_back(mut self) {
        if let Some(network) = self.network.take()
            && let Err(superfluous) = self.ready.keep(network)
        {
            let _ = self.sender.send(Job::Remove(superfluous));
        }
    }
}

impl AsFd for Borrowed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // Only `give_back` and `drop` take it.
        self.network.as_ref().expect("a network until it is given back").namespace.as_fd()
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(network) = self.network.take() {
            let _ = self.sender.send(Job::Remove(network));
        }
    }
}

impl Ready {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Network>> {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, reach: Reach) -> Option<Network> {
        let mut networks = self.lock();
        let position = networks.iter().rposition(|n| n.connection.reach() == reach)?;
        Some(networks.remove(position))
    }

    fn has(&self, reach: Reach) -> bool {
        self.lock().iter().any(|network| network.connection.reach() == reach)
    }

    fn keep(&self, network: Network) -> Result<(), Network> {
        let mut networks = self.lock();
        let reach = network.connection.reach();
        if networks.iter().filter(|n| n.connection.reach() == reach).count() >= self.kept {
            return Err(network);
        }
        networks.push(network);
        Ok(())
    }
}

/// What the thread has.
struct Maker {
    config: NetworkConfig,
    owner: Arc<Owner>,
    ready: Arc<Ready>,
    provider: Option<Provider>,
    /// What connects the network that this thread is in, if that is not the host's; before the thread
    /// that has started it, which is waited for.
    uplink: Option<Uplink>,
    uplinks: Option<Uplinks>,
}

enum Provider {
    Bridge(Box<Bridge>),
    Cni(Cni),
}

impl Maker {
    /// Works until it is to end, and then takes away what is ready.
    fn run(mut self, jobs: &mpsc::Receiver<Job>) {
        let home = match self.settle() {
            Ok(home) => home,
            Err(error) => return tracing::error!(%error, "steps can have no networks"),
        };
        for job in jobs {
            match job {
                Job::Make(reach, reply) => {
                    // Who no longer wants it leaves it to others.
                    if let Err(Ok(network)) = reply.send(self.make(reach, &home)) {
                        self.store(network);
                    }
                }
                Job::Prepare(reach) if self.ready.has(reach) && self.is_connected() => {}
                // What cannot be made is left to the step that needs it, which can report why.
                Job::Prepare(reach) => drop(self.make(reach, &home).map(|n| self.store(n))),
                Job::Remove(network) => self.remove(network),
                Job::End => break,
                Job::FindGateway(reply) => {
                    drop(reply.send(self.find_gateway(&home)));
                }
                Job::Listen(address, reply) => {
                    let bind = || Ok((UdpSocket::bind(address)?, TcpListener::bind(address)?));
                    drop(reply.send(bind()));
                }
            }
        }
        let ready = std::mem::take(&mut *self.ready.lock());
        ready.into_iter().for_each(|network| self.remove(network));
    }

    /// Where namespaces are made from: the host's network, or, in a user namespace, one that stands for
    /// it, as the host's own is nothing that root of a user namespace can change or return to.
    fn settle(&self) -> Result<Namespace, Errno> {
        if self.uplinks.is_some() {
            net::new_namespace()?;
            net::bring_up_loopback()?;
        }
        Namespace::current()
    }

    /// Whether nothing that steps need to reach the outside has ended.
    fn is_connected(&self) -> bool {
        self.uplink.as_ref().is_none_or(|uplink| !uplink.is_gone())
    }

    /// Sees to it that this thread's network has a way outside.
    fn connect(&mut self) -> Result<(), NetworkError> {
        let Some(uplinks) = &self.uplinks else { return Ok(()) };
        if self.uplink.is_none() || !self.is_connected() {
            if self.uplink.take().is_some() {
                tracing::warn!("the program that connects steps has ended, and is started again");
            }
            self.uplink = Some(uplinks.connect()?);
        }
        Ok(())
    }

    fn store(&mut self, network: Network) {
        if let Err(superfluous) = self.ready.keep(network) {
            self.remove(superfluous);
        }
    }

    fn make(&mut self, reach: Reach, home: &Namespace) -> Result<Network, NetworkError> {
        let owner = Arc::clone(&self.owner);
        let unconnected = || {
            let made = home.visit_new(&owner, || Ok(())).at("make a network namespace");
            made.map(|(namespace, ())| namespace)
        };
        if reach == Reach::Loopback {
            let namespace = unconnected()?;
            return Ok(Network { namespace, connection: Connection::None });
        }
        match self.provider(home)? {
            Provider::Bridge(bridge) => {
                let (namespace, place) = bridge.connect(home, &owner)?;
                Ok(Network { namespace, connection: Connection::Bridge { place } })
            }
            Provider::Cni(cni) => {
                let namespace = unconnected()?;
                let attachment = cni.attach(&namespace)?;
                Ok(Network { namespace, connection: Connection::Cni(attachment) })
            }
        }
    }

    fn provider(&mut self, home: &Namespace) -> Result<&mut Provider, NetworkError> {
        self.connect()?;
        if self.provider.is_none() {
            self.provider = Some(match &self.config {
                NetworkConfig::Bridge(config) => {
                    let uplink = self.uplink.as_ref();
                    Provider::Bridge(Box::new(Bridge::new(config, home, uplink)?))
                }
                NetworkConfig::Cni(config) => Provider::Cni(Cni::read(config)?),
            });
        }
        self.provider.as_mut().ok_or(NetworkError::Gone)
    }

    fn find_gateway(&mut self, home: &Namespace) -> Result<Gateway, NetworkError> {
        let address = match self.provider(home)? {
            Provider::Bridge(bridge) => bridge.gateway(),
            Provider::Cni(_) => return Ok(Gateway::default()),
        };
        let host = match &self.uplink {
            Some(uplink) => uplink.host().main_address,
            None => Some(address),
        };
        Ok(Gateway { address: Some(address), host })
    }

    fn remove(&mut self, Network { namespace, connection }: Network) {
        match (connection, &mut self.provider) {
            (Connection::Bridge { place }, Some(Provider::Bridge(bridge))) => {
                bridge.disconnect(place);
            }
            (Connection::Cni(attachment), Some(Provider::Cni(cni))) => {
                cni.detach(&attachment, &namespace);
            }
            _ => {}
        }
    }
}
