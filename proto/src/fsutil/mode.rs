//! File modes as Go counts them.

const DIRECTORY: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const NAMED_PIPE: u32 = 1 << 25;
const SOCKET: u32 = 1 << 24;
const SETUID: u32 = 1 << 23;
const SETGID: u32 = 1 << 22;
const CHAR_DEVICE: u32 = 1 << 21;
const STICKY: u32 = 1 << 20;
const IRREGULAR: u32 = 1 << 19;
const PERMISSIONS: u32 = 0o777;
const KIND: u32 = DIRECTORY | SYMLINK | DEVICE | NAMED_PIPE | SOCKET | CHAR_DEVICE | IRREGULAR;

const ST_KIND: u32 = 0o170_000;
const ST_SOCKET: u32 = 0o140_000;
const ST_SYMLINK: u32 = 0o120_000;
const ST_REGULAR: u32 = 0o100_000;
const ST_BLOCK: u32 = 0o060_000;
const ST_DIRECTORY: u32 = 0o040_000;
const ST_CHAR: u32 = 0o020_000;
const ST_FIFO: u32 = 0o010_000;

/// Kind and permissions of a file in the bits of Go's `os.FileMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GoMode(pub u32);

impl GoMode {
    /// Converts `st_mode`.
    pub fn from_st_mode(st_mode: u32) -> Self {
        let kind = match st_mode & ST_KIND {
            ST_DIRECTORY => DIRECTORY,
            ST_SYMLINK => SYMLINK,
            ST_BLOCK => DEVICE,
            ST_CHAR => DEVICE | CHAR_DEVICE,
            ST_FIFO => NAMED_PIPE,
            ST_SOCKET => SOCKET,
            ST_REGULAR => 0,
            _ => IRREGULAR,
        };
        let special = [(0o4000, SETUID), (0o2000, SETGID), (0o1000, STICKY)];
        let bits = special
            .into_iter()
            .filter(|(st, _)| st_mode & st != 0)
            .fold(kind | st_mode & PERMISSIONS, |mode, (_, go)| mode | go);
        Self(bits)
    }

    /// Converts to `st_mode`, if the kind is one that Unix knows.
    pub fn to_st_mode(self) -> Option<u32> {
        let kind = match self.0 & KIND {
            DIRECTORY => ST_DIRECTORY,
            SYMLINK => ST_SYMLINK,
            DEVICE => ST_BLOCK,
            kind if kind == DEVICE | CHAR_DEVICE => ST_CHAR,
            NAMED_PIPE => ST_FIFO,
            SOCKET => ST_SOCKET,
            0 => ST_REGULAR,
            _ => return None,
        };
        Some(kind | self.permissions())
    }

    /// Permissions with set-uid, set-gid and sticky, as `chmod` takes them.
    pub fn permissions(self) -> u32 {
        let special = [(0o4000, SETUID), (0o2000, SETGID), (0o1000, STICKY)];
        special
            .into_iter()
            .filter(|(_, go)| self.0 & go != 0)
            .fold(self.0 & PERMISSIONS, |mode, (st, _)| mode | st)
    }

    /// Whether it is a directory.
    pub fn is_dir(self) -> bool {
        self.0 & DIRECTORY != 0
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(self) -> bool {
        self.0 & SYMLINK != 0
    }

    /// Whether it is a file with content.
    pub fn is_regular(self) -> bool {
        self.0 & KIND == 0
    }

    /// The same, but a socket becomes an (empty) file, since no archive can hold one.
    pub(super) fn without_socket(self) -> Self {
        Self(self.0 & !SOCKET)
    }
}

#[cfg(test)]
mod tests {
    use super::GoMode;

    #[test]
    fn modes_convert_both_ways() {
        for (st_mode, go) in [
            (0o100_644, 0o644),
            (0o040_755, 1 << 31 | 0o755),
            (0o041_777, 1 << 31 | 1 << 20 | 0o777),
            (0o120_777, 1 << 27 | 0o777),
            (0o060_660, 1 << 26 | 0o660),
            (0o020_666, 1 << 26 | 1 << 21 | 0o666),
            (0o010_600, 1 << 25 | 0o600),
            (0o140_755, 1 << 24 | 0o755),
            (0o104_755, 1 << 23 | 0o755),
            (0o102_755, 1 << 22 | 0o755),
        ] {
            assert_eq!(GoMode::from_st_mode(st_mode), GoMode(go), "{st_mode:o}");
            assert_eq!(GoMode(go).to_st_mode(), Some(st_mode), "{st_mode:o}");
        }
    }

    #[test]
    fn a_file_of_two_kinds_has_no_mode() {
        assert_eq!(GoMode(1 << 31 | 1 << 27).to_st_mode(), None);
        assert_eq!(GoMode(1 << 21).to_st_mode(), None);
        assert_eq!(GoMode(1 << 19).to_st_mode(), None);
    }
}
