//! Entries of a tree as files of this machine.
//!
//! The entries come from the daemon. They are checked to be in order and below the root, but what
//! stands in the directory already may be anything: every path is resolved below the root and
//! without symlinks, and what is in the way of an entry is replaced.

use super::receive::Error;
use kiln_proto::fsutil::Stat;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Writes a tree.
#[derive(Debug)]
pub(crate) struct TreeWriter {
    root: OwnedFd,
    /// The directory of the last entry.
    parent: Option<(String, OwnedFd)>,
    /// Files whose content has not come to its end.
    open: HashMap<u32, (File, Stat)>,
    /// Directories get their times when nothing is written into them any more.
    directories: Vec<Stat>,
    paths: BTreeSet<String>,
}

impl TreeWriter {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let root = fs::open(path, DIRECTORY, Mode::empty())?;
        Ok(Self {
            root,
            parent: None,
            open: HashMap::new(),
            directories: Vec::new(),
            paths: BTreeSet::new(),
        })
    }

    pub(crate) fn entry(&mut self, id: u32, stat: &Stat) -> Result<(), Error> {
        self.make(id, stat).map_err(|errno| failed(&stat.path, errno.into()))?;
        self.paths.insert(stat.path.clone());
        Ok(())
    }

    pub(crate) fn data(&mut self, id: u32, data: &[u8]) -> Result<(), Error> {
        // Content is only asked for of entries that were opened.
        let Some((file, stat)) = self.open.get_mut(&id) else { return Ok(()) };
        file.write_all(data).map_err(|error| failed(&stat.path, error))
    }

    pub(crate) fn end(&mut self, id: u32) -> Result<(), Error> {
        let Some((file, stat)) = self.open.remove(&id) else { return Ok(()) };
        // Set last: writing clears the set-user-id bits.
        fs::fchmod(&file, mode(&stat))
            .and_then(|()| fs::futimens(&file, &times(&stat)))
            .map_err(|errno| failed(&stat.path, errno.into()))
    }

    /// Sets the times of directories; `mirror` removes what is not part of the tree first.
    pub(crate) fn finish(mut self, mirror: bool) -> Result<(), Error> {
        if mirror {
            let root = self.root.try_clone().map_err(|error| failed("", error))?;
            remove_others(&root, "", &self.paths)?;
        }
        for stat in std::mem::take(&mut self.directories).into_iter().rev() {
            let set = |writer: &mut Self| {
                let directory = writer.resolve(&stat.path)?;
                fs::fchmod(&directory, mode(&stat))?;
                fs::futimens(&directory, &times(&stat))
            };
            set(&mut self).map_err(|errno| failed(&stat.path, errno.into()))?;
        }
        Ok(())
    }

    fn make(&mut self, id: u32, stat: &Stat) -> rustix::io::Result<()> {
        let (directory, name) = stat.path.rsplit_once('/').unwrap_or(("", &stat.path));
        if self.parent.as_ref().is_none_or(|(path, _)| path != directory) {
            let opened = self.resolve(directory)?;
            self.parent = Some((directory.to_owned(), opened));
        }
        let Some((_, parent)) = &self.parent else { return Err(Errno::NOENT) };
        let go_mode = stat.go_mode();
        if go_mode.is_dir() {
            make_directory(parent, name)?;
            self.directories.push(stat.clone());
            return Ok(());
        }
        remove(parent, name)?;
        if go_mode.is_symlink() {
            fs::symlinkat(&stat.linkname, parent, name)?;
            return fs::utimensat(parent, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW);
        }
        if stat.is_hardlink() {
            let (directory, source) =
                stat.linkname.rsplit_once('/').unwrap_or(("", &stat.linkname));
            let directory = self.resolve(directory)?;
            return fs::linkat(&directory, source, parent, name, AtFlags::empty());
        }
        if go_mode.is_regular() {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let file = fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?;
            self.open.insert(id, (file.into(), stat.clone()));
            return Ok(());
        }
        let raw = go_mode.to_st_mode().ok_or(Errno::INVAL)?;
        let number = |number: i64| u32::try_from(number).unwrap_or(0);
        let device = fs::makedev(number(stat.devmajor), number(stat.devminor));
        fs::mknodat(parent, name, FileType::from_raw_mode(raw), mode(stat), device)
    }

    /// Opens a directory of the tree.
    fn resolve(&self, path: &str) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { "." } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match fs::openat2(&self.root, path, DIRECTORY, Mode::empty(), resolve) {
            // Some sandboxes know no openat2: one component after the other, then.
            Err(Errno::NOSYS | Errno::PERM) => {
                let mut directory = fs::openat(&self.root, ".", DIRECTORY, Mode::empty())?;
                for component in path.split('/') {
                    let flags = DIRECTORY | OFlags::NOFOLLOW;
                    directory = fs::openat(&directory, component, flags, Mode::empty())?;
                }
                Ok(directory)
            }
            opened => opened,
        }
    }
}

fn failed(path: &str, source: io::Error) -> Error {
    Error::Write { path: path.to_owned(), source }
}

/// Makes a directory, or keeps one that is there.
fn make_directory(parent: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    let kind = |()| {
        let stat = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileType::from_raw_mode(stat.st_mode))
    };
    match fs::mkdirat(parent, name, Mode::RWXU) {
        Err(Errno::EXIST) if kind(())? == FileType::Directory => Ok(()),
        Err(Errno::EXIST) => {
            remove(parent, name)?;
            fs::mkdirat(parent, name, Mode::RWXU)
        }
        made => made,
    }
}

/// Removes whatever has this name, if anything has.
fn remove(parent: impl AsFd, name: &str) -> rustix::io::Result<()> {
    match fs::unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    let directory = fs::openat(&parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    for name in names(&directory)? {
        remove(&directory, &name)?;
    }
    fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)
}

/// Removes what is not part of the tree.
fn remove_others(directory: &OwnedFd, path: &str, paths: &BTreeSet<String>) -> Result<(), Error> {
    for name in names(directory).map_err(|errno| failed(path, errno.into()))? {
        let entry = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        let failed = |errno: Errno| failed(&entry, errno.into());
        if !paths.contains(&entry) {
            remove(directory, &name).map_err(failed)?;
            continue;
        }
        match fs::openat(directory, &name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(child) => remove_others(&child, &entry, paths)?,
            // It is a file, or a link, that is part of the tree.
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(())
}

/// The names in a directory; one that is not UTF-8 was not sent and is left alone.
fn names(directory: &OwnedFd) -> rustix::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(directory)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().to_str()
            && name != "."
            && name != ".."
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn mode(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.go_mode().permissions())
}

fn times(stat: &Stat) -> Timestamps {
    let time = Timespec {
        tv_sec: stat.mod_time.div_euclid(1_000_000_000),
        tv_nsec: stat.mod_time.rem_euclid(1_000_000_000),
    };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    const FILE: u32 = 0o644;
    const DIR: u32 = 1 << 31 | 0o755;
    const LINK: u32 = 1 << 27 | 0o777;

    fn stat(path: &str, mode: u32, linkname: &str) -> Stat {
        let mod_time = 1_500_000_000_000_000_007;
        Stat { path: path.into(), mode, linkname: linkname.into(), mod_time, ..Stat::default() }
    }

    fn write(root: &Path, entries: &[(Stat, &str)], mirror: bool) {
        let mut writer = TreeWriter::create(root).unwrap();
        for (id, (stat, content)) in entries.iter().enumerate() {
            writer.entry(id as u32, stat).unwrap();
            writer.data(id as u32, content.as_bytes()).unwrap();
            writer.end(id as u32).unwrap();
        }
        writer.finish(mirror).unwrap();
    }

    #[test]
    fn a_tree_is_written_with_its_modes_and_times() {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            &[
                (stat("d", DIR, ""), ""),
                (stat("d/f", 1 << 23 | 0o751, ""), "content"),
                (stat("hard", FILE, "d/f"), ""),
                (stat("link", LINK, "../outside"), ""),
            ],
            false,
        );
        let file = root.path().join("d/f");
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o4751);
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_500_000_000, 7));
        assert_eq!(metadata.ino(), root.path().join("hard").metadata().unwrap().ino());
        assert_eq!(root.path().join("d").metadata().unwrap().mtime(), 1_500_000_000);
        assert_eq!(std::fs::read_link(root.path().join("link")).unwrap(), Path::new("../outside"));
    }

    #[test]
    fn links_that_are_in_the_way_are_replaced_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("f"), "theirs").unwrap();
        let root = tempfile::tempdir().unwrap();
        symlink(outside.path(), root.path().join("d")).unwrap();
        symlink(outside.path().join("f"), root.path().join("g")).unwrap();
        write(
            root.path(),
            &[
                (stat("d", DIR, ""), ""),
                (stat("d/f", FILE, ""), "ours"),
                (stat("g", FILE, ""), "ours"),
            ],
            false,
        );
        assert_eq!(std::fs::read(outside.path().join("f")).unwrap(), b"theirs");
        assert_eq!(std::fs::read(root.path().join("d/f")).unwrap(), b"ours");
        assert_eq!(std::fs::read(root.path().join("g")).unwrap(), b"ours");
    }

    #[test]
    fn other_files_stay_unless_the_tree_is_mirrored() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("d/old")).unwrap();
        std::fs::write(root.path().join("d/old/f"), "").unwrap();
        let entries = [(stat("d", DIR, ""), ""), (stat("d/f", FILE, ""), "x")];
        write(root.path(), &entries, false);
        assert!(root.path().join("d/old/f").exists());
        write(root.path(), &entries, true);
        assert!(!root.path().join("d/old").exists());
        assert_eq!(std::fs::read(root.path().join("d/f")).unwrap(), b"x");
    }
}
