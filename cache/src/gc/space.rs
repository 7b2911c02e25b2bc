//! Amounts of disk space as users write them.

use std::{io, path::Path, str::FromStr};

/// The file system that holds the cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskStat {
    /// All of it, in bytes.
    pub total: u64,
    /// What is free, in bytes.
    pub free: u64,
}

impl DiskStat {
    /// The file system at `path`. Free is what `df` calls available.
    pub fn of(path: &Path) -> io::Result<Self> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Self {
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }
}

/// An amount of disk space, absolute or relative to the disk. Nothing is "not limited".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of the disk.
    Percent(u64),
}

/// A text that is no amount of space.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an amount of disk space, such as 512MB, 10GiB or 20%")]
pub struct InvalidSpace(String);

impl Default for Space {
    fn default() -> Self {
        Self::Bytes(0)
    }
}

impl Space {
    /// The bytes that it is of `disk`.
    pub fn bytes(self, disk: DiskStat) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => {
                let bytes = u128::from(disk.total) * u128::from(percent) / 100;
                u64::try_from(bytes).unwrap_or(u64::MAX)
            }
        }
    }

    /// Whether it is no limit.
    pub fn is_zero(self) -> bool {
        matches!(self, Self::Bytes(0) | Self::Percent(0))
    }
}

impl FromStr for Space {
    type Err = InvalidSpace;

    /// Reads `1024`, `512MB`, `1.5g`, `10 GiB` or `20%`. As with BuildKit's settings, a unit is a
    /// power of 1024 with and without its `i`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidSpace(text.to_owned());
        let trimmed = text.trim();
        if let Some(percent) = trimmed.strip_suffix('%') {
            return percent.trim().parse().map(Self::Percent).map_err(|_| invalid());
        }
        let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(end);
        let exponent = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 1,
            "m" | "mb" | "mib" => 2,
            "g" | "gb" | "gib" => 3,
            "t" | "tb" | "tib" => 4,
            "p" | "pb" | "pib" => 5,
            _ => return Err(invalid()),
        };
        let unit = 1024_u64.pow(exponent);
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(unit).map(Self::Bytes).ok_or_else(invalid);
        }
        let bytes = number.parse::<f64>().map_err(|_| invalid())? * unit as f64;
        if bytes.is_finite() && bytes < u64::MAX as f64 {
            Ok(Self::Bytes(bytes as u64))
        } else {
            Err(invalid())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_buildkit_reads_them() {
        let table = [
            ("0", Space::Bytes(0)),
            ("1024", Space::Bytes(1024)),
            ("5b", Space::Bytes(5)),
            ("512MB", Space::Bytes(512 << 20)),
            ("1.5g", Space::Bytes(3 << 29)),
            (" 10 GiB ", Space::Bytes(10 << 30)),
            ("2TB", Space::Bytes(2 << 40)),
            ("20%", Space::Percent(20)),
        ];
        for (text, space) in table {
            assert_eq!(text.parse(), Ok(space), "{text}");
        }
        for text in
            ["", "x", "-1", "1.2.3", "10XB", "%", "-5%", "99999999999999999999", "99999999P", "1e3"]
        {
            assert!(text.parse::<Space>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_system_has_no_more_free_than_it_has() {
        let disk = DiskStat::of(Path::new("/")).unwrap();
        assert!(disk.free <= disk.total && disk.total > 0);
    }

    #[test]
    fn a_percentage_is_of_the_whole_disk() {
        let disk = DiskStat { total: 1000, free: 10 };
        assert_eq!(Space::Percent(20).bytes(disk), 200);
        assert_eq!(Space::Bytes(7).bytes(disk), 7);
        let huge = DiskStat { total: u64::MAX, free: 0 };
        assert_eq!(Space::Percent(u64::MAX).bytes(huge), u64::MAX);
    }
}
