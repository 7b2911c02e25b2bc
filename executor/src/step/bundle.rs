//! What hooks are told of a step: its state, and the bundle that this names, a directory with
//! `config.json` and the root file system (OCI runtime specification, "State" and "Filesystem Bundle").

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::{Errno, write};
use rustix::mount::MountAttrFlags;
use serde::Serialize;

use super::attach::{FsOption, new_file_system, onto};
use crate::zygote::protocol::{Hooks, Step};

/// The version of the specification that this follows.
const OCI_VERSION: &str = "1.0.2";

const ROOT: &CStr = c"rootfs";

const FLAGS: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Mounts the bundle in this mount namespace, with `root`, a detached mount, in it; returns the bundle.
pub(super) fn mount(hooks: &Hooks, step: &Step, root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let bundle = new_file_system(c"tmpfs", &[FsOption::Value(c"mode", "700")], FLAGS)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    onto(bundle.as_fd(), openat(CWD, hooks.bundle.as_str(), flags, Mode::empty())?.as_fd())?;
    write_config(
        &bundle,
        &serde_json::to_vec(&Config::of(hooks, step)).map_err(|_| Errno::INVAL)?,
    )?;
    mkdirat(&bundle, ROOT, Mode::from_raw_mode(0o755))?;
    onto(root, openat(&bundle, ROOT, flags, Mode::empty())?.as_fd())?;
    Ok(bundle)
}

fn write_config(bundle: &OwnedFd, config: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(bundle, c"config.json", flags, Mode::from_raw_mode(0o600))?;
    let mut rest = config;
    while !rest.is_empty() {
        rest = &rest[write(&file, rest)?..];
    }
    Ok(())
}

/// The state of a step that is being set up, as JSON. Its process 1 is `pid` where the hook runs.
pub(super) fn state(hooks: &Hooks, pid: i32) -> Result<Vec<u8>, Errno> {
    let state = State {
        oci_version: OCI_VERSION,
        id: &hooks.id,
        status: "creating",
        pid,
        bundle: &hooks.bundle,
    };
    serde_json::to_vec(&state).map_err(|_| Errno::INVAL)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct State<'a> {
    oci_version: &'static str,
    id: &'a str,
    status: &'static str,
    pid: i32,
    bundle: &'a str,
}

/// What of a step has a place in a configuration and does not depend on how it is done. Mounts and limits
/// are there already.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Config<'a> {
    oci_version: &'static str,
    root: Root,
    process: Process<'a>,
    hostname: String,
}

#[derive(Serialize)]
struct Root {
    path: String,
    readonly: bool,
}

#[derive(Serialize)]
struct Process<'a> {
    terminal: bool,
    user: User<'a>,
    args: Vec<String>,
    env: Vec<String>,
    cwd: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct User<'a> {
    uid: u32,
    gid: u32,
    additional_gids: &'a [u32],
}

impl<'a> Config<'a> {
    fn of(hooks: &Hooks, step: &'a Step) -> Self {
        let process = &step.process;
        Self {
            oci_version: OCI_VERSION,
            root: Root { path: format!("{}/rootfs", hooks.bundle), readonly: step.read_only_root },
            process: Process {
                terminal: process.tty,
                user: User { uid: process.uid, gid: process.gid, additional_gids: &process.groups },
                args: process.args.iter().map(text).collect(),
                env: process.env.iter().map(text).collect(),
                cwd: text(&process.cwd),
            },
            hostname: String::from_utf8_lossy(&step.hostname).into_owned(),
        }
    }
}

/// JSON has no bytes.
fn text(string: &CString) -> String {
    string.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_as_the_specification_has_it() {
        let hooks = Hooks { id: "step-1".into(), bundle: "/state/work".into(), list: Vec::new() };
        let state = String::from_utf8(state(&hooks, 7).unwrap()).unwrap();
        assert_eq!(
            state,
            r#"{"ociVersion":"1.0.2","id":"step-1","status":"creating","pid":7,"bundle":"/state/work"}"#
        );
    }
}
