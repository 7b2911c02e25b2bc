//! The daemon's side: sends specifications to the zygote and hands out running steps.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rustix::net::SendFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::apparmor;
use crate::cgroup::{CgroupError, Cgroups, GroupSpec, Keeper};
use crate::error::ExecutorError;
use crate::network::{Borrowed, NetworkConfig, NetworkError, Networks, Owner, Reach};
use crate::request;
use crate::running::{Running, Upper};
use crate::selinux::SelinuxLabels;
use crate::spec::{Device, Mount, Network, ProcessIo, ProcessSpec, Resources, Security};
use crate::supervised::{HeldGroup, Launch, Supervised};
use crate::sys::async_fd;
use crate::user_namespace::{SubordinateIds, in_user_namespace};
use crate::zygote::channel::Encoded;
use crate::zygote::protocol::Request;
use crate::zygote::{Zygote, ask};

/// What holds for every step of an executor.
#[derive(Debug, Clone)]
pub struct ExecutorConfig {
    /// The cgroup, from the root of the hierarchy, below which each step's own is made. No other
    /// executor on this host may use it: what is found there at the start is removed.
    pub cgroup_parent: String,
    /// Processes and threads at a time of a step that says nothing of it itself, where the host has
    /// the controller for it; `None` for any number.
    pub pids: Option<u64>,
    /// The AppArmor profile of confined steps; `None` leaves them under the daemon's own.
    pub apparmor_profile: Option<String>,
    /// The labels of confined steps; `None` leaves them with the daemon's own.
    pub selinux: Option<SelinuxLabels>,
    /// How readily the kernel kills the commands when memory runs out, -1000 to 1000.
    pub oom_score_adj: i32,
    /// Where the network of [`Network::Sandbox`] comes from. It is made for the first step that
    /// wants it.
    pub network: NetworkConfig,
    /// How many network namespaces that no step is in are kept for the next ones.
    pub kept_networks: usize,
    /// The user namespace of confined steps; `None` leaves them in the daemon's.
    pub user_namespace: Option<UserNamespaceConfig>,
}

/// How the ids of confined steps are others on the host than those that they see.
#[derive(Debug, Clone)]
pub struct UserNamespaceConfig {
    /// The host's ids for those of steps.
    pub ids: SubordinateIds,
    /// The directory in which all layers and caches are, whose file system must know idmapped mounts.
    /// Other sources of mounts show the host's ids.
    pub directory: PathBuf,
    /// A directory in it, made if it is not there, for things that last as long as a call.
    pub scratch: PathBuf,
}

/// More than builds have, and fewer than it takes to bring down a host.
const DEFAULT_PIDS: u64 = 8192;

impl Default for ExecutorConfig {
    fn default() -> Self {
        Self {
            cgroup_parent: "kiln".into(),
            pids: Some(DEFAULT_PIDS),
            apparmor_profile: None,
            selinux: None,
            oom_score_adj: 0,
            network: NetworkConfig::default(),
            kept_networks: 8,
            user_namespace: None,
        }
    }
}

/// Runs steps. The zygote ends when this and every [`Running`] step are dropped.
#[derive(Debug)]
pub struct Executor {
    shared: Arc<Shared>,
}

/// What an executor and its running steps have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    control: AsyncFd<OwnedFd>,
    cgroups: Arc<Cgroups>,
    pub(crate) keeper: Keeper,
    networks: Networks,
    pub(crate) config: ExecutorConfig,
    /// The limits of a step that has none of its own.
    usual: Resources,
}

impl Executor {
    /// Takes over the zygote, inside a tokio runtime, and removes what an earlier daemon that used
    /// the same cgroup has left behind. Does little file I/O and may block shortly.
    ///
    /// # Errors
    /// [`ExecutorError::NotRoot`] for other users, who need a user namespace
    /// ([`enter_user_namespace`](crate::enter_user_namespace)). [`ExecutorError::AppArmor`] if this
    /// host does not have the configured profile, [`ExecutorError::UserNamespace`] if steps cannot
    /// have the configured user namespace.
    pub fn new(zygote: Zygote, config: ExecutorConfig) -> Result<Self, ExecutorError> {
        let uid = rustix::process::geteuid();
        if !uid.is_root() {
            return Err(ExecutorError::NotRoot { uid: uid.as_raw() });
        }
        if let Some(profile) = &config.apparmor_profile {
            apparmor::check(profile)
                .map_err(|source| ExecutorError::AppArmor { profile: profile.clone(), source })?;
        }
        let owner = match &config.user_namespace {
            Some(users) => own_users(&zygote, users)?,
            None => Owner::Daemon,
        };
        let control = async_fd::register(zygote.socket, Interest::WRITABLE)
            .map_err(ExecutorError::StartZygote)?;
        let cgroups = Arc::new(Cgroups::detect());
        cgroups.remove_stale(&config.cgroup_parent);
        let usual = Resources { pids: config.pids, ..Resources::default() };
        let usual = if config.pids.is_none() || cgroups.offers("pids") {
            usual
        } else {
            if in_user_namespace() {
                tracing::info!(
                    "no cgroup controller \"pids\": the limit of processes holds for all steps together"
                );
            } else {
                tracing::warn!(
                    "no cgroup controller \"pids\": steps may start any number of processes"
                );
            }
            Resources::default()
        };
        let parent = config.cgroup_parent.clone();
        let keeper = Keeper::start(Arc::clone(&cgroups), parent, usual.clone())
            .map_err(ExecutorError::StartZygote)?;
        let networks = Networks::start(config.network.clone(), config.kept_networks, owner)
            .map_err(ExecutorError::StartZygote)?;
        Ok(Self { shared: Arc::new(Shared { control, cgroups, keeper, networks, config, usual }) })
    }

    /// Starts a step.
    ///
    /// Returns when its file systems are mounted and the command is about to be executed. What goes
    /// wrong with that, a missing command for instance, is reported by [`Running::wait`].
    /// Cancelling this call leaves nothing behind.
    ///
    /// # Errors
    /// If the specification is wrong, something in it cannot be mounted, a limit cannot be kept, or
    /// the zygote is gone.
    pub async fn run(
        &self,
        mut spec: ProcessSpec,
        io: ProcessIo,
    ) -> Result<Running, ExecutorError> {
        let started = Instant::now();
        request::check(&spec)?;
        spec.hooks.sort_by_key(|hook| hook.kind);
        let network = self.borrow_network(&spec).await?;
        let held = self.make_cgroup(&spec).await?;
        let (id, upper, security) = (spec.id.clone(), spec.rootfs.upper.clone(), spec.security);
        let hooks = spec.hooks.clone();
        let step = request::step(spec, &held.group, io.stdin.is_some(), &self.shared.config)?;
        let request = Request::Run(Box::new(step));
        let launch = Launch {
            id: &id,
            security,
            request,
            hooks: &hooks,
            place: network.as_ref().map(AsFd::as_fd),
            io,
        };
        let (supervised, created) = Supervised::launch(Arc::new(held), launch).await?;
        let upper = Some(Upper { path: upper, created });
        Ok(Running::new(supervised, upper, network, started))
    }

    /// The labels of confined steps, if they have any.
    pub fn selinux(&self) -> Option<&SelinuxLabels> {
        self.shared.config.selinux.as_ref()
    }

    /// The host's address as steps with [`Network::Sandbox`] see it, if it has one there.
    ///
    /// # Errors
    /// If the network cannot be made.
    pub async fn host_address(&self) -> Result<Option<Ipv4Addr>, NetworkError> {
        Ok(self.shared.networks.gateway().await?.host)
    }

    /// The address at which the way outside begins for steps with [`Network::Sandbox`], if it is
    /// known.
    ///
    /// # Errors
    /// If the network cannot be made.
    pub async fn gateway(&self) -> Result<Option<Ipv4Addr>, NetworkError> {
        Ok(self.shared.networks.gateway().await?.address)
    }

    /// Sockets at the gateway, through which steps can be served.
    ///
    /// # Errors
    /// If something listens there already, or the gateway does not have the address.
    pub async fn listen_at_gateway(
        &self,
        address: SocketAddr,
    ) -> std::io::Result<(UdpSocket, TcpListener)> {
        self.shared.networks.listen(address).await
    }

    async fn borrow_network(&self, spec: &ProcessSpec) -> Result<Option<Borrowed>, ExecutorError> {
        let reach = match spec.network {
            Network::Host => return Ok(None),
            Network::Sandbox => Reach::Outside,
            Network::None => Reach::Loopback,
        };
        let borrowed = self.shared.networks.borrow(reach).await;
        borrowed.map(Some).map_err(|source| ExecutorError::Network { id: spec.id.clone(), source })
    }

    async fn make_cgroup(&self, spec: &ProcessSpec) -> Result<HeldGroup, ExecutorError> {
        let shared = Arc::clone(&self.shared);
        let devices: Vec<Device> = spec.mounts.iter().filter_map(device).collect();
        let is_usual = spec.cgroup_parent.is_none()
            && spec.security == Security::Sandbox
            && devices.is_empty()
            && spec.limits == Resources::default();
        if is_usual && let Some(group) = shared.keeper.take() {
            return Ok(HeldGroup { shared, group });
        }
        let (id, security, own_limits) = (spec.id.clone(), spec.security, spec.limits.clone());
        let pids = own_limits.pids.or(shared.usual.pids);
        let limits = Resources { pids, ..own_limits.clone() };
        let own = &self.shared.config.cgroup_parent;
        let parent = match &spec.cgroup_parent {
            Some(parent) => format!("{parent}/{own}"),
            None => own.clone(),
        };
        // Making directories in a hierarchy may wait for a lock of the whole kernel.
        let made = tokio::task::spawn_blocking(move || {
            let (limits, devices) = (&limits, &devices);
            let spec = GroupSpec { id: &id, parent: &parent, security, limits, devices };
            let made = match shared.cgroups.create(&spec) {
                // A parent that does not hand the controller on; what the step asks for itself is
                // another matter.
                Err(CgroupError::Missing { .. }) if *limits != own_limits => {
                    shared.cgroups.create(&GroupSpec { limits: &own_limits, ..spec })
                }
                made => made,
            };
            match made {
                Ok(group) => Ok(HeldGroup { shared, group }),
                Err(error) => Err(cgroup_error(&id, error)),
            }
        });
        made.await.map_err(|error| ExecutorError::Cgroup {
            path: spec.id.clone(),
            source: std::io::Error::other(error),
        })?
    }
}

/// Has the zygote make the user namespace of confined steps, who are also to own their networks.
fn own_users(zygote: &Zygote, config: &UserNamespaceConfig) -> Result<Owner, ExecutorError> {
    let io_error = |source| ExecutorError::UserNamespace {
        what: config.scratch.display().to_string(),
        source,
    };
    if in_user_namespace() {
        return Err(ExecutorError::NestedUserNamespace);
    }
    let trial = config.scratch.join("users");
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| trial.join(name));
    for dir in [&lower, &upper, &work] {
        std::fs::create_dir_all(dir).map_err(io_error)?;
    }
    let made = request::users(config, lower, upper, work)
        .and_then(|request| ask(zygote.socket.as_fd(), &request));
    // The daemon empties its scratch directory, too.
    let _ = std::fs::remove_dir_all(&trial);
    made.map_err(|failure| ExecutorError::from_users(&failure, &config.directory))?;
    zygote.socket.try_clone().map(Owner::Steps).map_err(ExecutorError::StartZygote)
}

fn device(mount: &Mount) -> Option<Device> {
    if let Mount::Device { device, .. } = mount { Some(*device) } else { None }
}

fn cgroup_error(id: &str, error: CgroupError) -> ExecutorError {
    match error {
        CgroupError::Missing { limit, controller } => {
            ExecutorError::MissingController { id: id.into(), limit, controller }
        }
        CgroupError::Io { path, source } => {
            ExecutorError::Cgroup { path: path.display().to_string(), source }
        }
    }
}

impl Shared {
    /// Sends a request to the zygote.
    pub(crate) async fn send(
        &self,
        request: &Encoded,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), ExecutorError> {
        let sent = self.control.async_io(Interest::WRITABLE, |control| {
            Ok(request.send(control, fds, SendFlags::DONTWAIT)?)
        });
        sent.await.map_err(ExecutorError::ZygoteGone)
    }
}
