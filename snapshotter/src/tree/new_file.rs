//! A file that is being received.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use crate::dir;
use crate::error::{At, FsError};
use crate::sys::xattr;
use crate::tree::{TreeMetadata, settable, tolerate};

/// A file that is being received; nobody but its owner can read it until it is finished.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    path: PathBuf,
}

impl NewFile {
    pub(super) fn new(file: File, path: PathBuf) -> Self {
        Self { file, path }
    }

    /// Gives the file its metadata, when all its content is written.
    pub fn finish(self, metadata: &TreeMetadata) -> Result<(), FsError> {
        let Self { file, path } = self;
        dir::set_owner(&file, metadata.owner).at("set the owner", &path)?;
        for (key, value) in settable(&metadata.xattrs) {
            tolerate(xattr::set_of(file.as_fd(), key, value), key, &path);
        }
        dir::set_mode(&file, metadata.mode).at("set the mode", &path)?;
        dir::set_mtime(&file, metadata.mtime).at("set the modification time", &path)
    }
}

impl Write for NewFile {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.file.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
