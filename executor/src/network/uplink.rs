//! The way outside for an ordinary user's steps: a program (pasta or slirp4netns) that hands on what
//! they send through sockets of its own, as any program of that user could.
//!
//! ```text
//!  bridge ── router ── uplink ═══ kiln0 ── tap ═══ program ── host
//! ```
//!
//! The program runs in the host's network namespace, to which no thread returns that has left it for
//! one of this user namespace. So the thread that starts it is made first, and stays.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::{CapabilitySet, CapabilitySets, gettid, set_capabilities};

use super::subnet::Subnet;
use super::{NetworkError, bridge};
use crate::sys::process::end_with_thread;

/// The interface that the program makes.
const INTERFACE: &str = "tap";

/// Where the program's end is. Link-local, for what the host has routes to is not known.
const NETWORK: &str = "169.254.77.0";
const GATEWAY: &str = "169.254.77.1";
const ADDRESS: &str = "169.254.77.2";
const LENGTH: &str = "24";

/// What both programs can take at once; nothing of it is sent in one piece.
pub(super) const MTU: u32 = 65_520;

/// How long the program may take until the way is there.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked for.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// The thread in the host's network namespace.
#[derive(Debug)]
pub(super) struct Uplinks {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

/// The program is to connect a network namespace.
#[derive(Debug)]
struct Order {
    door: Door,
    reply: Sender<Result<Uplink, NetworkError>>,
}

/// A running program.
#[derive(Debug)]
pub(super) struct Uplink {
    pidfd: OwnedFd,
    host: Host,
    /// What the program has said, when it has ended.
    last_words: Receiver<String>,
    _door: Door,
}

/// What there is to know of the host's network, at the time when the program was started.
#[derive(Debug)]
pub(super) struct Host {
    /// All of its own addresses but the loopback ones.
    pub(super) addresses: Vec<Ipv4Addr>,
    /// The one by which it is known outside, and at which programs that it runs can be reached.
    pub(super) main_address: Option<Ipv4Addr>,
    /// The ranges that it has routes to, but for the one to everywhere.
    pub(super) routes: Vec<Subnet>,
}

impl Host {
    /// That whose network namespace the calling thread is in.
    fn of_this_thread() -> Self {
        let addresses = host_addresses();
        // Nothing is sent: the kernel only says where from it would be, to an example's address.
        let elsewhere = (Ipv4Addr::new(198, 51, 100, 1), 9);
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
        let connected = socket.and_then(|socket| {
            socket.connect(elsewhere)?;
            socket.local_addr()
        });
        let outbound = connected.ok().and_then(|address| match address.ip() {
            IpAddr::V4(address) if !address.is_loopback() => Some(address),
            _ => None,
        });
        let main_address = outbound.or(addresses.first().copied());
        Self { addresses, main_address, routes: bridge::host_routes() }
    }
}

/// A thread in a network namespace, by whose entry in /proc a program may go there.
///
/// Who looks up namespaces of others must have all rights that these have. pasta gives most of its
/// own up before that, so the thread has none. Debian 12's AppArmor profile for pasta lets it look at
/// no other process, however, only into one directory of its user; so where there is such a one, the
/// namespace is mounted there.
#[derive(Debug)]
struct Door {
    namespace: PathBuf,
    /// Whether it is a mount.
    is_mounted: bool,
    stay: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Door {
    /// Opens one to the calling thread's network namespace.
    fn open() -> Result<Self, NetworkError> {
        let (tell, told) = mpsc::channel();
        let (stay, leave) = mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("kiln-door".into()).spawn(move || {
            let empty = CapabilitySet::empty();
            let none = CapabilitySets { effective: empty, permitted: empty, inheritable: empty };
            let given_up = set_capabilities(None, none).map(|()| gettid());
            // Whoever is not told leaves, too.
            if tell.send(given_up).is_ok() {
                let _ = leave.recv();
            }
        });
        let what = "give access to a network namespace";
        let thread = thread.map_err(|error| failed(what, error))?;
        let id =
            told.recv().map_err(|_| NetworkError::Gone)?.map_err(|error| failed(what, error))?;
        let id = id.as_raw_nonzero();
        let entry = PathBuf::from(format!("/proc/{id}/ns/net"));
        let mounted = runtime_directory()
            .and_then(|directory| mount_namespace(&directory.join("netns"), id.get()).ok());
        let is_mounted = mounted.is_some();
        let namespace = mounted.unwrap_or(entry);
        Ok(Self { namespace, is_mounted, stay: Some(stay), thread: Some(thread) })
    }
}

/// What systemd makes for the user that this daemon belongs to.
fn runtime_directory() -> Option<PathBuf> {
    std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute())
}

/// What places for namespaces begin with; the number of the thread in them follows.
const PLACE: &str = "kiln-";

/// Mounts the calling thread's network namespace in `directory`, in this daemon's mount namespace, for
/// the thread with this number.
fn mount_namespace(directory: &Path, thread: i32) -> std::io::Result<PathBuf> {
    fs::create_dir_all(directory)?;
    remove_abandoned(directory)?;
    let place = directory.join(format!("{PLACE}{thread}"));
    fs::File::create(&place)?;
    if let Err(error) = mount_bind("/proc/thread-self/ns/net", &place) {
        let _ = fs::remove_file(&place);
        return Err(error.into());
    }
    Ok(place)
}

/// Removes what daemons have left that were killed. The places of others may be in use.
fn remove_abandoned(directory: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let thread = name.to_str().and_then(|name| name.strip_prefix(PLACE)?.parse::<u32>().ok());
        if thread.is_some_and(|thread| !Path::new(&format!("/proc/{thread}")).exists()) {
            // Another thread may have been faster.
            let _ = fs::remove_file(directory.join(name));
        }
    }
    Ok(())
}

impl Drop for Door {
    fn drop(&mut self) {
        if self.is_mounted {
            // What cannot be taken away ends with this daemon's mount namespace.
            let _ = unmount(&self.namespace, UnmountFlags::DETACH);
            let _ = fs::remove_file(&self.namespace);
        }
        drop(self.stay.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Uplinks {
    /// Starts the thread, in the host's network namespace.
    pub(super) fn start() -> std::io::Result<Self> {
        let (orders, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("kiln-uplink".into())
            .spawn(move || receiver.into_iter().for_each(carry_out))?;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }

    /// Connects the network namespace of the calling thread, and returns once packets find their way.
    pub(super) fn connect(&self) -> Result<Uplink, NetworkError> {
        let (reply, started) = mpsc::channel();
        let order = Order { door: Door::open()?, reply };
        let sent = self.orders.as_ref().and_then(|orders| orders.send(order).ok());
        sent.ok_or(NetworkError::Gone)?;
        let uplink = started.recv().map_err(|_| NetworkError::Gone)??;
        let deadline = Instant::now() + PATIENCE;
        while !has_default_route() {
            if uplink.ends_within(&PAUSE) {
                let said = uplink.last_words.recv().unwrap_or_default();
                return Err(NetworkError::Uplink(said));
            }
            if Instant::now() > deadline {
                return Err(NetworkError::Uplink("it makes no way outside".into()));
            }
        }
        Ok(uplink)
    }
}

impl Drop for Uplinks {
    fn drop(&mut self) {
        // The thread waits for orders, and for a program, which its owner has ended before.
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Uplink {
    /// Whether the program has ended.
    pub(super) fn is_gone(&self) -> bool {
        self.ends_within(&Timespec::default())
    }

    /// The host that the program runs on.
    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    fn ends_within(&self, limit: &Timespec) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN)];
        poll(&mut fds, Some(limit)).is_ok_and(|ready| ready > 0)
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        // The only failure is that it has ended.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

fn carry_out(Order { door, reply }: Order) {
    let started = spawn(&door.namespace).and_then(|child| {
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        let pidfd =
            pidfd.map_err(|error| failed("watch the program that connects steps", error))?;
        Ok((child, pidfd))
    });
    let (mut child, pidfd) = match started {
        Ok(started) => started,
        Err(error) => return drop(reply.send(Err(error))),
    };
    let (say, last_words) = mpsc::channel();
    let uplink = Uplink { pidfd, host: Host::of_this_thread(), last_words, _door: door };
    // Who does not wait any more drops it, and so ends the program.
    drop(reply.send(Ok(uplink)));
    drop(say.send(listen(&mut child)));
    // It is the last thing that is read of it, so nothing is left to learn.
    let _ = child.wait();
}

fn spawn(namespace: &Path) -> Result<Child, NetworkError> {
    for mut command in [pasta(namespace), slirp4netns(namespace)] {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        end_with_thread(&mut command);
        match command.spawn() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            spawned => {
                let what = format!("start {}", command.get_program().display());
                return spawned.map_err(|error| NetworkError::Setup(what, error));
            }
        }
    }
    Err(NetworkError::NoUplink)
}

fn failed(what: &str, error: impl Into<std::io::Error>) -> NetworkError {
    NetworkError::Setup(what.to_owned(), error.into())
}

/// Without the ways in that it makes by default: neither does the host's loopback lead to steps nor
/// is anything of it, such as the address of the gateway, theirs.
fn pasta(namespace: &Path) -> Command {
    let mut command = Command::new("pasta");
    command.args(["--quiet", "--foreground", "--ipv4-only", "--config-net", "--no-map-gw"]);
    command.args(["--no-dhcp", "--no-dhcpv6", "--no-ndp", "--no-ra", "--dns", "none"]);
    command.args(["--tcp-ports", "none", "--udp-ports", "none"]);
    command.args(["--tcp-ns", "none", "--udp-ns", "none"]);
    command.args(["--mtu", &MTU.to_string(), "--ns-ifname", INTERFACE]);
    command.args(["--address", ADDRESS, "--netmask", LENGTH, "--gateway", GATEWAY]);
    command.args(["--netns-only", "--netns"]).arg(namespace);
    command
}

fn slirp4netns(namespace: &Path) -> Command {
    let mut command = Command::new("slirp4netns");
    command.args(["--configure", "--disable-host-loopback", "--enable-sandbox"]);
    command.args([&format!("--mtu={MTU}"), &format!("--cidr={NETWORK}/{LENGTH}")]);
    command.arg("--netns-type=path").arg(namespace).arg(INTERFACE);
    command
}

/// Reads what the program says until it ends; the last line of it is an error's reason.
fn listen(child: &mut Child) -> String {
    let lines = child.stderr.take().map(|stderr| BufReader::new(stderr).lines());
    // A host may have no system log, of which pasta complains after each line.
    let is_said = |line: &String| !line.trim().is_empty() && !line.contains("to syslog");
    lines.into_iter().flatten().map_while(Result::ok).filter(is_said).last().unwrap_or_default()
}

/// Whether the calling thread's network has a way to everywhere.
fn has_default_route() -> bool {
    let table = fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default();
    table
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(1))
        .any(|to| to == "00000000")
}

/// The addresses of the calling thread's network but for the loopback ones.
fn host_addresses() -> Vec<Ipv4Addr> {
    parse_addresses(&fs::read_to_string("/proc/thread-self/net/fib_trie").unwrap_or_default())
}

/// In the kernel's tree of routes, each leaf is a line `|-- ADDRESS`, and what it is follows.
fn parse_addresses(tree: &str) -> Vec<Ipv4Addr> {
    let (mut leaf, mut found) = (None, Vec::new());
    for line in tree.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = leaf.filter(|address| !address.is_loopback())
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_the_host_are_read_from_its_routes() {
        let tree = "\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     |-- 192.0.2.0
        /24 link UNICAST
Local:
  +-- 0.0.0.0/0 2 0 2
     |-- 127.0.0.1
        /32 host LOCAL
     |-- 192.0.2.1
        /32 host LOCAL
     |-- 192.0.2.255
        /32 link BROADCAST
     |-- 192.0.2.1
        /32 host LOCAL
";
        assert_eq!(parse_addresses(tree), [Ipv4Addr::new(192, 0, 2, 1)]);
    }
}
