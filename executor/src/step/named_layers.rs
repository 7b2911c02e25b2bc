//! Joining layers by mount(2), whose options have to fit on one page.
//!
//! Before Linux 6.7, overlayfs takes its lower directories as one string, and by the newer calls one of
//! no more than 255 bytes. So each directory gets a short name, a symbolic link in a directory in
//! memory that is the working directory meanwhile.

use std::ffi::{CStr, CString};
use std::fmt::Write;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, open, openat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountFlags, UnmountFlags, unmount};
use rustix::process::fchdir;

use super::attach::{LABEL, copy, new_file_system};
use super::overlay::{off, subject};
use crate::sys::mount::{new_namespace, receive_only};
use crate::user_namespace::in_user_namespace;
use crate::zygote::protocol::{At, Failure, Overlay, Stage};

/// Where the mount is while it is in a place. Nothing else is looked up from there meanwhile.
const PLACE: &CStr = c"/";

/// What is mounted over it: from the root directory, the way up leads there.
const COVERING: &CStr = c"/..";

/// Makes a detached mount of the joined layers, and moves this process into a copy of its mount
/// namespace for that: such a mount is always made in a place, and layers have to be in the same
/// namespace.
pub(super) fn mount(
    overlay: &Overlay,
    no_device_nodes: bool,
    label: Option<&CStr>,
) -> Result<OwnedFd, Failure> {
    let names = name(overlay)?;
    let flags = if no_device_nodes { MountFlags::NODEV } else { MountFlags::empty() };
    let options = CString::new(options(overlay, label)).map_err(|_| Errno::INVAL);
    let mount = |options: CString| {
        new_namespace()?;
        receive_only()?;
        fchdir(&names)?;
        rustix::mount::mount(c"overlay", PLACE, c"overlay", flags, options.as_c_str())?;
        rustix::process::chdir(c"/")?;
        let mounted = openat(CWD, COVERING, DIRECTORY, Mode::empty())?;
        let mounted = copy(mounted.as_fd(), c"", false)?;
        unmount(COVERING, UnmountFlags::DETACH).map(|()| mounted)
    };
    options.and_then(mount).at(Stage::Overlay, subject(overlay))
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Makes the directory with the names.
fn name(overlay: &Overlay) -> Result<OwnedFd, Failure> {
    let names = new_file_system(c"tmpfs", &[], MountAttrFlags::empty())
        .at(Stage::Overlay, "names of layers")?;
    let name = |path: &CString, name: &str| {
        // The mount would not say which one it has not found.
        open(path, DIRECTORY, Mode::empty())
            .and_then(|_| symlinkat(path, &names, name))
            .at(Stage::Overlay, path.as_bytes())
    };
    for (number, lower) in overlay.lower.iter().enumerate() {
        name(lower, &number.to_string())?;
    }
    if let Some((upper, work)) = &overlay.upper {
        name(upper, UPPER)?;
        name(work, WORK)?;
    }
    Ok(names)
}

const UPPER: &str = "upper";
const WORK: &str = "work";

/// The options of the mount, by these names.
fn options(overlay: &Overlay, label: Option<&CStr>) -> String {
    let lower: Vec<_> = (0..overlay.lower.len()).map(|number| number.to_string()).collect();
    let mut options = format!("lowerdir={}", lower.join(":"));
    let mut add = |option: std::fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _ = write!(options, ",{option}");
    };
    if overlay.upper.is_some() {
        add(format_args!("upperdir={UPPER},workdir={WORK},volatile"));
    }
    if in_user_namespace() {
        add(format_args!("userxattr"));
    }
    for key in off() {
        add(format_args!("{}=off", key.to_string_lossy()));
    }
    if let Some(label) = label {
        // Quoted, for there are commas in some.
        add(format_args!("{}=\"{}\"", LABEL.to_string_lossy(), label.to_string_lossy()));
    }
    options
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStringExt;
    use std::path::PathBuf;

    use super::*;
    use crate::request::MAX_LAYERS;

    #[test]
    fn layers_are_joined_as_by_the_newer_calls() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| {
            let path = folder.path().join(name);
            fs::create_dir(&path).unwrap();
            CString::new(path.into_os_string().into_vec()).unwrap()
        };
        let lower = vec![path("top"), path("bottom")];
        let overlay = Overlay { lower, upper: Some((path("upper"), path("work"))) };
        for (file, content) in [("top/a", "top"), ("bottom/a", "bottom"), ("bottom/b", "below")] {
            fs::write(folder.path().join(file), content).unwrap();
        }
        // It is to be a process of its own, of which the mount namespace is all that matters here.
        let joined =
            std::thread::spawn(move || mount(&overlay, true, None)).join().unwrap().unwrap();
        let joined = PathBuf::from(format!("/proc/self/fd/{}", joined.as_raw_fd()));
        assert_eq!(fs::read_to_string(joined.join("a")).unwrap(), "top");
        assert_eq!(fs::read_to_string(joined.join("b")).unwrap(), "below");
        fs::write(joined.join("b"), "changed").unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("upper/b")).unwrap(), "changed");
        assert_eq!(fs::read_to_string(folder.path().join("bottom/b")).unwrap(), "below");
    }

    /// What mount(2) takes of options: a page with the NUL byte at its end.
    const PAGE: usize = 4096;

    #[test]
    fn as_many_layers_as_overlayfs_joins_fit_on_a_page() {
        let path = || CString::new("/layer".repeat(100)).unwrap();
        let lower = std::iter::repeat_with(path).take(MAX_LAYERS).collect();
        let overlay = Overlay { lower, upper: Some((path(), path())) };
        let label = CString::new("label".repeat(50)).unwrap();
        assert!(options(&overlay, Some(&label)).len() < PAGE);
    }

    #[test]
    fn layers_are_joined_by_their_names_with_the_top_first() {
        let lower = ["/top", "/bottom"].map(|path| CString::new(path).unwrap()).into();
        let read_only = Overlay { lower, upper: None };
        let given = options(&read_only, None);
        assert!(given.starts_with("lowerdir=0:1,"), "{given}");
        let writable = Overlay { upper: Some((c"/up".into(), c"/work".into())), ..read_only };
        let expected = "lowerdir=0:1,upperdir=upper,workdir=work,volatile,";
        let given = options(&writable, Some(c"u:r:t:s0:c1,c2"));
        assert!(given.starts_with(expected), "{given}");
        assert!(given.ends_with(",context=\"u:r:t:s0:c1,c2\""), "{given}");
    }
}
