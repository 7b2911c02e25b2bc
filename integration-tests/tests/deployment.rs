//! How `kilnd` is started and configured where it is installed.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use kiln_integration_tests::{Context, Process, ReadySocket, USER_NAMESPACES, kiln, kilnd};
use rustix::io::{FdFlags, fcntl_setfd};

const LIMIT: Duration = Duration::from_mins(1);

/// `kilnd` with its state and its socket in `folder`.
fn daemon(folder: &Context) -> Command {
    let mut command = Command::new(kilnd());
    command
        .arg("--root")
        .arg(folder.at("root"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit());
    command
}

fn address(folder: &Context) -> String {
    format!("unix://{}", folder.at("kilnd.sock").display())
}

/// Starts `command` and waits until it serves.
#[track_caller]
fn starts(folder: &Context, command: &mut Command) -> Process {
    let ready = ReadySocket::bind(folder.path());
    let process = Process::spawn(command.env("NOTIFY_SOCKET", ready.path()));
    assert!(ready.wait(&process, LIMIT), "the daemon does not get ready");
    process
}

/// What the daemon says when it refuses to start with `args`.
#[track_caller]
fn refuses(folder: &Context, args: &[&str]) -> String {
    let log = File::create(folder.at("log")).expect("log");
    let mut process = Process::spawn(
        daemon(folder).args(["--addr", &address(folder)]).args(args).stderr(Stdio::from(log)),
    );
    let status = process.wait_within(LIMIT);
    assert!(status.is_some_and(|status| !status.success()), "the daemon started");
    folder.read("log")
}

#[test]
fn the_example_configuration_is_one_that_the_daemon_takes() {
    let folder = Context::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kilnd.toml");
    let command = &mut daemon(&folder);
    starts(&folder, command.arg("--config").arg(example).args(["--addr", &address(&folder)]));
}

#[test]
fn the_rights_of_the_service_are_enough_to_give_steps_a_user_namespace() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kilnd.service");
    let unit = fs::read_to_string(unit).expect("unit");
    let sets = unit.lines().filter_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = sets.flat_map(|set| set.split(' ')).filter_map(|name| name.strip_prefix("CAP_"));
    let rights: Vec<_> = names.map(|name| format!("+{}", name.to_lowercase())).collect();
    let folder = Context::new().file("kilnd.toml", format!("[worker.oci]\n{USER_NAMESPACES}\n"));
    let mut command = Command::new("setpriv");
    command.arg(format!("--bounding-set=-all,{}", rights.join(","))).arg(kilnd());
    command.arg("--config").arg(folder.at("kilnd.toml")).arg("--root").arg(folder.at("root"));
    starts(&folder, command.args(["--addr", &address(&folder)]));
}

#[test]
fn the_command_line_of_buildkitd_works_unchanged() {
    let folder = Context::new().file("config.toml", "[worker.oci]\n  gc = false\n");
    let command = &mut daemon(&folder);
    command
        .args(["--addr", &address(&folder), "--config"])
        .arg(folder.at("config.toml"))
        .args(["--debug", "--oci-worker=true", "--containerd-worker=false"])
        .args(["--oci-worker-gc=false", "--oci-worker-labels=team=ci"])
        .args(["--oci-worker-snapshotter=overlayfs"]);
    starts(&folder, command);
}

#[test]
fn a_key_and_a_flag_without_a_meaning_are_refused_by_name() {
    let folder = Context::new().file("config.toml", "[worker.oci]\n  no-such-key = 1\n");
    let config = folder.at("config.toml");
    let said = refuses(&folder, &["--config", &config.display().to_string()]);
    assert!(said.contains("no-such-key"), "{said}");
    let said = refuses(&folder, &["--no-such-flag"]);
    assert!(said.contains("--no-such-flag"), "{said}");
}

#[test]
fn a_profile_of_apparmor_that_this_host_does_not_have_is_refused() {
    let folder = Context::new();
    let said = refuses(&folder, &["--oci-worker-apparmor-profile=no-such-profile"]);
    assert!(said.contains("AppArmor profile \"no-such-profile\": "), "{said}");
}

#[test]
fn a_socket_that_systemd_hands_over_is_served() {
    let folder = Context::new();
    let socket = UnixListener::bind(folder.at("kilnd.sock")).expect("socket");
    fcntl_setfd(&socket, FdFlags::empty()).expect("a socket that children inherit");
    // As systemd does it: the first socket is number 3, and LISTEN_PID is who shall have it.
    let script =
        format!("exec 3<&{}; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"", socket.as_raw_fd());
    let mut command = Command::new("bash");
    command
        .args(["-c", &script])
        .arg(kilnd())
        .args(["--addr", "fd://", "--root"])
        .arg(folder.at("root"))
        .stdin(Stdio::null());
    let _daemon = starts(&folder, &mut command);
    let info = Command::new(kiln())
        .arg("info")
        .env("KILN_HOST", address(&folder))
        .output()
        .expect("kiln info");
    assert!(info.status.success(), "{}", String::from_utf8_lossy(&info.stderr));
}

#[test]
fn a_client_that_finds_no_daemon_starts_one_for_itself_and_the_next() {
    let folder = Context::new()
        .file("context/Dockerfile", "FROM scratch\nCOPY . /\n")
        .dir("bin")
        .symlink("bin/kilnd", kilnd().to_str().expect("a path in UTF-8"));
    // The default address and root are the machine's; here they are empty, and what was started
    // ends with the process namespace.
    let script = "
        set -e
        mount -t tmpfs tmpfs /run
        mount -t tmpfs tmpfs /var/lib
        $0 build --progress=plain $1
        $0 build --progress=plain $1
        test -S /run/kiln/kilnd.sock
    ";
    let output = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script])
        .arg(kiln())
        .arg(folder.at("context"))
        .env("PATH", format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", folder.at("bin").display()))
        .env("HOME", folder.path())
        .env_remove("KILN_HOST")
        .env_remove("BUILDKIT_HOST")
        .stdin(Stdio::null())
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches(" CACHED\n").count(), 1, "{said}");
}

#[test]
fn a_daemon_that_nobody_uses_ends_after_its_idle_time() {
    let folder = Context::new();
    let mut command = daemon(&folder);
    command.args(["--addr", &address(&folder), "--idle-timeout", "1"]);
    let mut process = starts(&folder, &mut command);
    let status = process.wait_within(LIMIT);
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
}
