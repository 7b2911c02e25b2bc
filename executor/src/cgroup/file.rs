//! Reading and writing the small files that controllers are made of.

use std::fs;
use std::io;
use std::path::Path;

use super::CgroupError;

/// Writes a value; the path is named in the error.
pub(super) fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    fs::write(path, value).map_err(|source| CgroupError::Io { path: path.into(), source })
}

/// Makes a directory that may be there already.
pub(super) fn make_dir(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(|source| CgroupError::Io { path: path.into(), source }),
    }
}

/// The content of a file, or nothing if the kernel does not have it.
pub(super) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The one number in a file.
pub(super) fn read_number(path: &Path) -> u64 {
    read(path).trim().parse().unwrap_or(0)
}

/// The number after `key` in lines of `key number`.
pub(super) fn keyed(content: &str, key: &str) -> u64 {
    content
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

/// Removes a group. One that is gone already is as good as removed.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes the groups below `dir`, deepest first, as far as they have no processes.
pub(super) fn remove_below(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
            if let Err(error) = remove(&entry.path()) {
                tracing::debug!(path = %entry.path().display(), %error, "stale control group stays");
            }
        }
    }
}
