//! Which blobs were known to be sound a moment ago.

use std::{
    collections::HashMap,
    fs::Metadata,
    os::unix::fs::MetadataExt,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::digest::Digest;

/// For how long what was read is taken to be what is on the disk. A build that makes a blob and
/// sends it away does so within this time, mostly.
const TRUSTED: Duration = Duration::from_mins(1);

/// What changes with a file's content, unless it is the disk that changes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp([i64; 6]);

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self([
            file.ino() as i64,
            file.size() as i64,
            file.mtime(),
            file.mtime_nsec(),
            file.ctime(),
            file.ctime_nsec(),
        ])
    }
}

/// The blobs that this process has just written, or read to the end and found sound.
#[derive(Clone, Default, Debug)]
pub(super) struct Seen(Arc<Mutex<HashMap<Digest, (Stamp, Instant)>>>);

impl Seen {
    pub(super) fn note(&self, digest: Digest, file: &Metadata) {
        let mut seen = self.0.lock();
        // Not each time: of ten thousand that are made at once, each would look at all others.
        if seen.len() == seen.capacity() {
            seen.retain(|_, (_, at)| at.elapsed() < TRUSTED);
            let enough = 2 * seen.len();
            seen.shrink_to(enough);
        }
        seen.insert(digest, (Stamp::of(file), Instant::now()));
    }

    /// Whether the file is as it was when it was last seen to be sound, a moment ago.
    pub(super) fn is_sound(&self, digest: &Digest, file: &Metadata) -> bool {
        let known = self.0.lock().get(digest).copied();
        known.is_some_and(|(stamp, at)| at.elapsed() < TRUSTED && stamp == Stamp::of(file))
    }
}
