//! Joining layers by overlayfs, through the mount API that takes any number of them; on a kernel
//! before Linux 6.7, which does not, by [short names](super::named_layers).

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};
use rustix::system::uname;

use super::attach::LABEL;
use super::named_layers;
use crate::user_namespace::in_user_namespace;
use crate::zygote::protocol::{At, Failure, Overlay, Stage};

/// Longest string that fsconfig takes.
const MAX_VALUE: usize = 255;

/// Makes a detached mount of the joined layers, in the mount namespace in which their paths mean
/// something, or a copy of it, in which this process then is.
///
/// `volatile`: an overlay that is not syncs its whole upper file system when it is unmounted.
/// Without index, metacopy and redirects the upper directory is a plain layer that any tool can
/// read. All files have SELinux's `label`, if there is one.
pub(super) fn mount(
    overlay: &Overlay,
    no_device_nodes: bool,
    label: Option<&CStr>,
) -> Result<OwnedFd, Failure> {
    if !takes_single_layers() {
        return named_layers::mount(overlay, no_device_nodes, label);
    }
    let fs = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC).at(Stage::Overlay, "overlay")?;
    configure(&fs, overlay, label).map_err(|failure| with_kernel_log(&fs, failure))?;
    let attributes =
        if no_device_nodes { MountAttrFlags::MOUNT_ATTR_NODEV } else { MountAttrFlags::empty() };
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).at(Stage::Overlay, "overlay")
}

/// Whether overlayfs has the option by which [`configure`] gives it a layer.
///
/// By the kernel's version: overlayfs itself can only be asked with something that is wrong, of which
/// it writes to the kernel's log.
fn takes_single_layers() -> bool {
    let release = uname();
    release.release().to_str().ok().and_then(version).is_none_or(|version| version >= (6, 7))
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn configure(fs: &OwnedFd, overlay: &Overlay, label: Option<&CStr>) -> Result<(), Failure> {
    let mut opened = Vec::new();
    let mut set = |key: &CStr, path: &CString| {
        let value = value(path, &mut opened).at(Stage::Overlay, path.as_bytes())?;
        fsconfig_set_string(fs, key, value.as_c_str()).at(Stage::Overlay, path.as_bytes())
    };
    set(c"source", &CString::from(c"overlay"))?;
    for lower in &overlay.lower {
        set(c"lowerdir+", lower)?;
    }
    if let Some((upper, work)) = &overlay.upper {
        set(c"upperdir", upper)?;
        set(c"workdir", work)?;
        fsconfig_set_flag(fs, c"volatile").at(Stage::Overlay, "volatile")?;
    }
    if in_user_namespace() {
        fsconfig_set_flag(fs, c"userxattr").at(Stage::Overlay, "userxattr")?;
    }
    for key in off() {
        fsconfig_set_string(fs, *key, c"off").at(Stage::Overlay, key.to_bytes())?;
    }
    if let Some(label) = label {
        fsconfig_set_string(fs, LABEL, label).at(Stage::Overlay, label.to_bytes())?;
    }
    fsconfig_create(fs).at(Stage::Overlay, subject(overlay))
}

/// The features that layers are written without. `userxattr` implies that there are no redirects, and
/// goes with nothing that is said of them.
pub(super) fn off() -> &'static [&'static CStr] {
    let all = &[c"index", c"metacopy", c"redirect_dir"];
    if in_user_namespace() { &all[..2] } else { all }
}

/// The path itself, or a short name of it if fsconfig would not take it (or, for backslashes, not
/// literally).
fn value(path: &CString, opened: &mut Vec<OwnedFd>) -> Result<CString, Errno> {
    if path.as_bytes().len() <= MAX_VALUE && !path.as_bytes().contains(&b'\\') {
        return Ok(path.clone());
    }
    let fd = open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
    opened.push(fd);
    CString::new(name).map_err(|_| Errno::INVAL)
}

/// What to call it in an error.
pub(super) fn subject(overlay: &Overlay) -> &[u8] {
    match (&overlay.upper, overlay.lower.first()) {
        (Some((upper, _)), _) => upper.as_bytes(),
        (None, Some(top)) => top.as_bytes(),
        (None, None) => b"nothing",
    }
}

/// Adds the explanation that overlayfs leaves in the descriptor.
fn with_kernel_log(fs: &OwnedFd, mut failure: Failure) -> Failure {
    let mut message = [0_u8; 512];
    while let Ok(length @ 1..) = rustix::io::read(fs, &mut message) {
        let text = message[..length].strip_prefix(b"e ").unwrap_or(&message[..length]);
        failure.subject.extend_from_slice(b" (");
        failure.subject.extend_from_slice(text.trim_ascii_end());
        failure.subject.push(b')');
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernels_version_is_read_from_all_kinds_of_releases() {
        let known = [
            ("6.1.0-50-amd64", (6, 1)),
            ("6.18.5", (6, 18)),
            ("7.0-rc1", (7, 0)),
            ("5.14.0-570.el9.x86_64", (5, 14)),
        ];
        for (release, expected) in known {
            assert_eq!(version(release), Some(expected), "{release}");
        }
        assert_eq!(version("unknown"), None);
    }
}
