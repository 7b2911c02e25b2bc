//! A build's log: the stream of its progress in one blob.
//!
//! The format is BuildKit's `application/vnd.buildkit.status.v0`: messages of the `Status` stream,
//! each after its length as four bytes, the least significant first.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};

use kiln_proto::control::{StatusResponse, Vertex};
use kiln_proto::session::MAX_MESSAGE;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::solver::{Watcher, to_response};

/// The blob's media type.
pub(super) const MEDIA_TYPE: &str = "application/vnd.buildkit.status.v0";

/// Messages that are read before somebody wants them.
const AHEAD: usize = 4;

/// The messages of a log.
pub(crate) type LogStream = ReceiverStream<Result<StatusResponse, Status>>;

/// What is kept of a build's progress.
#[derive(Default)]
pub(super) struct Log {
    pub(super) bytes: Vec<u8>,
    /// Each vertex as it was in the end.
    pub(super) vertices: BTreeMap<String, Vertex>,
    pub(super) warnings: usize,
}

impl Log {
    /// Follows the progress of a build to its end.
    pub(super) async fn of(mut progress: Watcher) -> Self {
        let mut log = Self::default();
        while let Some(events) = progress.next().await {
            log.add(&to_response(events));
        }
        log
    }

    fn add(&mut self, message: &StatusResponse) {
        self.warnings += message.warnings.len();
        for vertex in &message.vertexes {
            self.vertices.insert(vertex.digest.clone(), vertex.clone());
        }
        let length = u32::try_from(message.encoded_len()).unwrap_or(u32::MAX);
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend(message.encode_to_vec());
    }

    /// How many vertices are as `is_so` says.
    pub(super) fn count(&self, is_so: impl Fn(&Vertex) -> bool) -> i32 {
        let count = self.vertices.values().filter(|vertex| is_so(vertex)).count();
        i32::try_from(count).unwrap_or(i32::MAX)
    }
}

/// No messages.
pub(super) fn empty() -> LogStream {
    ReceiverStream::new(mpsc::channel(1).1)
}

/// Reads a log; its file is closed when all is read or nobody listens.
pub(super) fn read(file: File) -> LogStream {
    let (messages, stream) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut file = BufReader::new(file);
        while let Some(message) = next(&mut file).transpose() {
            let message = message.map_err(|error| Status::data_loss(error.to_string()));
            let is_last = message.is_err();
            if messages.blocking_send(message).is_err() || is_last {
                return;
            }
        }
    });
    ReceiverStream::new(stream)
}

fn next(log: &mut impl Read) -> io::Result<Option<StatusResponse>> {
    let mut length = [0; 4];
    match log.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_MESSAGE {
        return Err(io::Error::other("the log of the build is damaged"));
    }
    let mut message = vec![0; length];
    log.read_exact(&mut message)?;
    StatusResponse::decode(&*message).map(Some).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solver::Progress;

    #[tokio::test]
    async fn a_log_is_read_as_it_was_written() {
        let progress = Progress::new();
        let vertex = progress.internal("a", "a");
        vertex.cached();
        vertex.log(1, b"hello".as_slice().into());
        progress.internal("b", "b").start();
        progress.close();
        let log = Log::of(progress.watch()).await;
        assert_eq!(log.count(|_| true), 2);
        assert_eq!(log.count(|vertex| vertex.cached), 1);
        let mut bytes = &*log.bytes;
        let mut logs = Vec::new();
        while let Some(message) = next(&mut bytes).unwrap() {
            logs.extend(message.logs);
        }
        assert_eq!(logs[0].msg, "hello");
    }

    #[test]
    fn a_damaged_log_is_an_error() {
        for log in [&[1, 0, 0, 0][..], &[255; 8], &[2, 0, 0, 0, 0xff, 0xff]] {
            assert!(next(&mut &*log).is_err(), "{log:?}");
        }
        assert!(next(&mut &[][..]).unwrap().is_none());
    }
}
