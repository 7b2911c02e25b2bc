//! Extended attributes of a name inside an open directory.
//!
//! The kernel has `*xattrat` calls only since 6.13. Until those can be taken for granted, the name
//! is reached through the descriptor's entry in `/proc`, whose magic link is the directory itself
//! wherever that is now; the `l*` calls do not follow the last component.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::metadata::Xattrs;

/// The kernel's own bound for one value and for a list of names.
const MAX: usize = 64 * 1024;

/// A path to `name` in `dir`, for calls that do not follow a last symbolic link.
pub(crate) fn proc_path(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<CString> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.as_bytes());
    Ok(CString::new(path)?)
}

/// A path to an open file itself.
pub(crate) fn proc_fd(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// All attributes of a name, sorted; none where the file system has no attributes.
pub(crate) fn read_all(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Xattrs> {
    let path = proc_path(dir, name)?;
    collect(
        |buffer| rustix::fs::llistxattr(&path, buffer),
        |key, buffer| rustix::fs::lgetxattr(&path, key, buffer),
    )
}

/// All attributes of an open file or directory, sorted.
pub(crate) fn read_all_of(fd: BorrowedFd<'_>) -> io::Result<Xattrs> {
    collect(
        |buffer| rustix::fs::flistxattr(fd, buffer),
        |key, buffer| rustix::fs::fgetxattr(fd, key, buffer),
    )
}

/// One attribute of an open file or directory.
pub(crate) fn get(fd: BorrowedFd<'_>, key: &str) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = [0; 64];
    match rustix::fs::fgetxattr(fd, key, &mut buffer) {
        Ok(length) => Ok(Some(buffer[..length].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(Errno::RANGE) => value(|buffer| rustix::fs::fgetxattr(fd, key, buffer)),
        Err(error) => Err(error.into()),
    }
}

/// Sets an attribute of a name.
pub(crate) fn set(dir: BorrowedFd<'_>, name: &OsStr, key: &[u8], value: &[u8]) -> io::Result<()> {
    let path = proc_path(dir, name)?;
    Ok(rustix::fs::lsetxattr(&path, OsStr::from_bytes(key), value, XattrFlags::empty())?)
}

/// Sets an attribute of an open file or directory.
pub(crate) fn set_of(fd: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(fd, OsStr::from_bytes(key), value, XattrFlags::empty())?)
}

fn collect(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&OsStr, &mut [u8]) -> Result<usize, Errno>,
) -> io::Result<Xattrs> {
    let mut small = [0; 512];
    let large;
    let names = match list(&mut small) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Xattrs::new()),
        Ok(length) => &small[..length],
        Err(Errno::RANGE) => {
            let mut buffer = vec![0; MAX];
            let length = list(&mut buffer)?;
            buffer.truncate(length);
            large = buffer;
            &large[..]
        }
        Err(error) => return Err(error.into()),
    };
    let mut xattrs = Xattrs::new();
    for key in names.split(|&byte| byte == 0).filter(|key| !key.is_empty()) {
        // Gone in between, or a name space that this process may list but not read.
        if let Some(value) = value(|buffer| get(OsStr::from_bytes(key), buffer))? {
            xattrs.push((key.to_vec(), value));
        }
    }
    xattrs.sort_unstable();
    Ok(xattrs)
}

fn value(get: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; 256];
    loop {
        match get(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(Some(buffer));
            }
            Err(Errno::RANGE) if buffer.len() < MAX => buffer.resize(MAX, 0),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}
