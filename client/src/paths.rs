//! Where this program keeps things, and finds things of others.

use rustix::rand::{GetRandomFlags, getrandom};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Reads a variable of the environment; one that is empty or not UTF-8 is none.
pub(crate) fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn directory(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The directory of logs and of what is remembered from one run to the next.
pub(crate) fn state() -> PathBuf {
    directory("XDG_STATE_HOME")
        .or_else(|| Some(directory("HOME")?.join(".local/state")))
        .unwrap_or_else(|| PathBuf::from("/var/lib"))
        .join("kiln")
}

/// Docker's configuration directory.
pub(crate) fn docker_config() -> Option<PathBuf> {
    directory("DOCKER_CONFIG").or_else(|| Some(directory("HOME")?.join(".docker")))
}

/// The socket of this user's daemon.
pub(crate) fn default_socket() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/run/kiln/kilnd.sock");
    }
    let uid = rustix::process::geteuid().as_raw();
    // As in the daemon, for users whose login makes no such directory, too.
    let login = PathBuf::from(format!("/run/user/{uid}"));
    let runtime = directory("XDG_RUNTIME_DIR").or_else(|| login.is_dir().then_some(login));
    let home = || directory("HOME").unwrap_or_else(|| "/".into()).join(".cache");
    runtime.unwrap_or_else(home).join("kiln/kilnd.sock")
}

/// A name of this machine and user that stays the same, made on first use. Where none can be
/// kept, there is none: only transfers are slower then.
pub(crate) fn node_id() -> String {
    let path = state().join("node-id");
    match fs::read_to_string(&path) {
        Ok(id) if !id.is_empty() => id,
        _ => make_node_id(&path).unwrap_or_default(),
    }
}

fn make_node_id(path: &Path) -> Option<String> {
    let directory = path.parent()?;
    fs::create_dir_all(directory).ok()?;
    let id = random_id(8);
    let mut file = tempfile::NamedTempFile::new_in(directory).ok()?;
    file.write_all(id.as_bytes()).ok()?;
    // Another run may have been faster: its name stands.
    match file.persist_noclobber(path) {
        Ok(_) => Some(id),
        Err(_) => fs::read_to_string(path).ok(),
    }
}

/// A name that nothing else has, of so many random bytes.
pub(crate) fn random_id(bytes: usize) -> String {
    let mut buffer = vec![0; bytes];
    if getrandom(&mut buffer[..], GetRandomFlags::empty()).is_err() {
        // Only a kernel older than any that runs containers has no random numbers.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let nanos = now.unwrap_or_default().as_nanos().to_le_bytes();
        buffer.iter_mut().zip(nanos.iter().cycle()).for_each(|(byte, &nano)| *byte = nano);
    }
    hex::encode(buffer)
}
