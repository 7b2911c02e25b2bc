//! One layer: its id, its directory, and how it marks what it hides.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::io::Errno;

use crate::dir::Dir;

pub(crate) const FILES: &str = "fs";
pub(crate) const WORK: &str = "work";

/// Names a layer; displayed, it is the name of the layer's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerId(pub u64);

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A text is not the name of a layer's directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a layer id: expected a decimal number")]
pub struct ParseLayerIdError(String);

impl FromStr for LayerId {
    type Err = ParseLayerIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Only the displayed form: "+1" and "01" would be other directories.
        text.parse()
            .ok()
            .map(Self)
            .filter(|id| id.to_string() == text)
            .ok_or_else(|| ParseLayerIdError(text.to_owned()))
    }
}

/// The attribute by which overlayfs marks opaque directories.
///
/// `trusted.*` needs CAP_SYS_ADMIN in the initial user namespace; without it overlayfs is mounted
/// with `userxattr` and reads `user.*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OverlayMarks {
    /// `trusted.overlay.opaque`
    Trusted,
    /// `user.overlay.opaque`
    User,
}

impl OverlayMarks {
    /// The opaque attribute's full name.
    pub(crate) fn opaque(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.opaque",
            Self::User => "user.overlay.opaque",
        }
    }

    /// Finds by trying which of the two this process can set on a file of `dir`.
    pub(crate) fn probe(dir: &Dir) -> io::Result<Self> {
        const NAME: &str = "trusted.kiln.probe";
        match dir.set_own_xattr(NAME.as_bytes(), b"y") {
            Ok(()) => {
                dir.remove_own_xattr(NAME)?;
                Ok(Self::Trusted)
            }
            Err(error) if Errno::from_io_error(&error) == Some(Errno::PERM) => Ok(Self::User),
            Err(error) => Err(error),
        }
    }
}

/// Where a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerDir {
    id: LayerId,
    path: PathBuf,
    marks: OverlayMarks,
}

impl LayerDir {
    pub(crate) fn new(id: LayerId, path: PathBuf, marks: OverlayMarks) -> Self {
        Self { id, path, marks }
    }

    /// Its id.
    pub fn id(&self) -> LayerId {
        self.id
    }

    /// The directory that holds everything of the layer.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The layer's files, in overlayfs's upper-directory format.
    pub fn fs(&self) -> PathBuf {
        self.path.join(FILES)
    }

    /// The work directory that overlayfs wants beside a layer that is written to.
    pub fn work(&self) -> PathBuf {
        self.path.join(WORK)
    }

    /// Numbers of the inodes that the layer shares with other layers or trees, and whose they were.
    pub(crate) fn links(&self) -> PathBuf {
        self.path.join("shared")
    }

    /// How its opaque directories are marked.
    pub fn marks(&self) -> OverlayMarks {
        self.marks
    }

    pub(crate) fn open(&self) -> io::Result<Dir> {
        Dir::open(&self.fs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_id_parses_only_from_its_displayed_form() {
        assert_eq!("17".parse(), Ok(LayerId(17)));
        assert_eq!(LayerId(17).to_string(), "17");
        for text in ["", "+1", "01", "-1", "1 ", "x", "18446744073709551616"] {
            assert!(text.parse::<LayerId>().is_err(), "{text:?}");
        }
    }
}
