//! What is known about one file.

use rustix::fs::{FileType, Stat};

/// The type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
}

impl FileKind {
    /// `None` for a type that Linux does not have.
    pub(crate) fn from_raw(file_type: FileType) -> Option<Self> {
        Some(match file_type {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::CharacterDevice => Self::CharDevice,
            FileType::BlockDevice => Self::BlockDevice,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::Unknown => return None,
        })
    }
}

/// A device number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Device {
    /// The driver.
    pub major: u32,
    /// The driver's instance.
    pub minor: u32,
}

/// A user and a group, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// A point in time, as file systems keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z; negative before.
    pub secs: i64,
    /// Nanoseconds after `secs`, below 1,000,000,000.
    pub nanos: u32,
}

impl Timestamp {
    /// A time on a whole second.
    pub const fn from_secs(secs: i64) -> Self {
        Self { secs, nanos: 0 }
    }

    /// From nanoseconds since the epoch, LLB's form.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self {
            secs: nanos.div_euclid(1_000_000_000),
            nanos: nanos.rem_euclid(1_000_000_000) as u32,
        }
    }
}

/// Extended attributes: name and value, sorted by name.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// The attribute that holds SELinux's label, which ends with a NUL byte.
pub(crate) const LABEL: &[u8] = b"security.selinux";

/// Whether an attribute says nothing of the file but how this host keeps it: overlayfs's own, in either
/// name space, and SELinux's label. It is never copied, packed or unpacked.
pub(crate) fn is_hosts(xattr: &[u8]) -> bool {
    xattr == LABEL || xattr.starts_with(b"trusted.overlay.") || xattr.starts_with(b"user.overlay.")
}

/// What `stat` tells about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// Its type.
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky: at most `0o7777`.
    pub mode: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Size in bytes; a symbolic link's is its target's length.
    pub size: u64,
    /// When the content last changed.
    pub mtime: Timestamp,
    /// The device that a device node stands for; 0/0 for other types.
    pub rdev: Device,
    /// How many names the inode has, over all layers that share it.
    pub nlink: u64,
    /// The inode's number on its file system.
    pub ino: u64,
    /// The file system's device number.
    pub dev: u64,
    /// Allocated space in units of 512 bytes.
    pub blocks: u64,
}

impl Metadata {
    /// `None` for a file type that Linux does not have.
    pub(crate) fn from_stat(stat: &Stat) -> Option<Self> {
        let kind = FileKind::from_raw(FileType::from_raw_mode(stat.st_mode))?;
        let rdev = match kind {
            FileKind::CharDevice | FileKind::BlockDevice => Device {
                major: rustix::fs::major(stat.st_rdev),
                minor: rustix::fs::minor(stat.st_rdev),
            },
            _ => Device::default(),
        };
        Some(Self {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: Timestamp { secs: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 },
            rdev,
            // Its width differs between architectures.
            #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
            nlink: stat.st_nlink as u64,
            ino: stat.st_ino,
            dev: stat.st_dev,
            blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
        })
    }

    /// Type and permissions in one number, as `stat` has them in `st_mode` (inode(7)).
    pub fn st_mode(&self) -> u32 {
        let kind = match self.kind {
            FileKind::File => FileType::RegularFile,
            FileKind::Directory => FileType::Directory,
            FileKind::Symlink => FileType::Symlink,
            FileKind::CharDevice => FileType::CharacterDevice,
            FileKind::BlockDevice => FileType::BlockDevice,
            FileKind::Fifo => FileType::Fifo,
            FileKind::Socket => FileType::Socket,
        };
        kind.as_raw_mode() | self.mode
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == FileKind::File
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.kind == FileKind::Symlink
    }

    /// Its user and group.
    pub fn owner(&self) -> Owner {
        Owner { uid: self.uid, gid: self.gid }
    }

    /// Whether, in a layer, it hides the name below it.
    pub(crate) fn is_whiteout(&self) -> bool {
        self.kind == FileKind::CharDevice && self.rdev == Device::default()
    }
}
