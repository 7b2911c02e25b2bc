//! A host of a test's own, with a network that ends in the test.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;

use nix::sched::{CloneFlags, unshare};
use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_change,
    move_mount, open_tree,
};

/// A network namespace with loopback and a way to another one, which stands for the rest of the
/// world, and a /sys in which it is the host's. Programs that the test starts are in it as well.
pub struct Host {
    _world: File,
}

impl Host {
    /// The host's address in the world's network.
    pub const ADDRESS: &str = "192.0.2.1";
    /// A web server, which answers everybody with the address that they have there.
    pub const WORLD: &str = "192.0.2.2";
    /// A name of [`Host::WORLD`] that the name server on the host's loopback address knows, and no
    /// other name.
    pub const NAME: &str = "world.example";

    /// Moves this thread, and with it all that it will start, to a new one.
    pub fn enter() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        renew_sys();
        ip("link set lo up");
        let names = UdpSocket::bind("127.0.0.1:53").expect("name server");
        std::thread::spawn(move || answer(&names));
        let (sender, receiver) = mpsc::channel();
        let (connect, connected) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            let namespace = File::open("/proc/thread-self/ns/net").expect("a network namespace");
            sender.send(Some(namespace)).expect("the test");
            connected.recv().expect("the test");
            ip(&format!("addr add {}/24 dev out", Self::WORLD));
            ip("link set out up");
            let listener = TcpListener::bind((Self::WORLD, 80)).expect("web server");
            sender.send(None).expect("the test");
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let peer = stream.peer_addr().expect("an address").ip();
                // One that is not read to its end would break the connection.
                let request = BufReader::new(&stream);
                request.lines().map_while(Result::ok).take_while(|line| !line.is_empty()).count();
                // Who has left again does not want to know.
                let _ = stream.write_all(format!("HTTP/1.0 200 OK\r\n\r\n{peer}\n").as_bytes());
            }
        });
        let world = receiver.recv().ok().flatten().expect("the world");
        let path = format!("/proc/{}/fd/{}", std::process::id(), world.as_raw_fd());
        ip(&format!("link add wan type veth peer name out netns {path}"));
        ip(&format!("addr add {}/24 dev wan", Self::ADDRESS));
        ip("link set wan up");
        ip(&format!("route add default via {}", Self::WORLD));
        connect.send(()).expect("the world");
        receiver.recv().expect("the world");
        Self { _world: world }
    }

    /// The names of its interfaces.
    pub fn interfaces(&self) -> Vec<String> {
        let listed = std::fs::read_to_string("/proc/thread-self/net/dev").expect("interfaces");
        let names = listed.lines().filter_map(|line| Some(line.split_once(':')?.0.trim()));
        names.map(str::to_owned).collect()
    }
}

/// Mounts /sys anew, for this thread and what it starts: it shows the interfaces of the network in
/// which it was mounted. Control groups, and whatever else is mounted below, are there as before.
fn renew_sys() {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    let own = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", own).expect("mounts of a test's own");
    let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").expect("mounts");
    let mut points: Vec<&Path> =
        mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new).collect();
    points.retain(|point| point.starts_with("/sys") && *point != Path::new("/sys"));
    points.sort_unstable();
    // A mount brings along those within it.
    points.dedup_by(|point, before| point.starts_with(before));
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let copy = |point| open_tree(CWD, point, flags).expect("a mount");
    let copies: Vec<OwnedFd> = points.iter().copied().map(copy).collect();
    mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None).expect("/sys");
    for (copy, point) in copies.iter().zip(points) {
        let from_fd = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(copy, "", CWD, point, from_fd).expect("a mount below /sys");
    }
}

fn ip(args: &str) {
    let output = Command::new("ip").args(args.split(' ')).output().expect("ip: run `make deps`");
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Answers questions for [`Host::NAME`] (RFC 1035, section 4).
fn answer(names: &UdpSocket) {
    let (header, type_and_class) = (12, 4);
    let mut question = [0; 512];
    let mut known: Vec<u8> = Vec::new();
    for label in Host::NAME.split('.') {
        known.push(label.len() as u8);
        known.extend(label.as_bytes());
    }
    known.push(0);
    while let Ok((_, peer)) = names.recv_from(&mut question) {
        let end = header + question[header..].iter().position(|byte| *byte == 0).unwrap_or(0) + 1;
        let is_known = question[header..end].eq_ignore_ascii_case(&known);
        let is_address = question[end..end + 2] == [0, 1];
        let mut message = question[..end + type_and_class].to_vec();
        message[2..4].copy_from_slice(&[0x81, if is_known { 0x80 } else { 0x83 }]);
        message[6..12].fill(0);
        if is_known && is_address {
            message[7] = 1;
            message.extend([0xc0, header as u8, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            message.extend(Host::WORLD.split('.').filter_map(|part| part.parse::<u8>().ok()));
        }
        let _ = names.send_to(&message, peer);
    }
}
