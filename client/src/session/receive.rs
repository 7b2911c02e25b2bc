//! A tree of files that the daemon sends, written below a directory.

use super::tree::TreeWriter;
use bytes::Bytes;
use kiln_proto::fsutil::{Sink, Stat};
use std::io;
use std::path::Path;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::Status;

/// How many writes may wait for the disk.
const WAITING: usize = 16;

/// Why a tree could not be written.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// An entry could not be written.
    #[error("writing {path:?}: {source}")]
    Write {
        /// The entry, relative to the tree.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The thread that writes is gone.
    #[error("the client's writer failed")]
    Gone,
}

/// Writes entries on a thread of its own, so that the connection is read while the disk is slow.
#[derive(Debug)]
pub(crate) struct DirectorySink {
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<Result<(), Error>>>,
}

#[derive(Debug)]
enum Job {
    Entry(u32, Stat),
    Data(u32, Bytes),
    End(u32),
    /// All has come. Without it the copy broke off, and what is not part of it must stay.
    Finish,
}

impl DirectorySink {
    /// Makes the directory if it is not there.
    pub(crate) fn create(path: &Path, mirror: bool) -> Result<Self, Status> {
        let mut tree = TreeWriter::create(path)
            .map_err(|error| Status::unknown(format!("creating {}: {error}", path.display())))?;
        let (jobs, mut queue) = mpsc::channel(WAITING);
        let writer = tokio::task::spawn_blocking(move || {
            while let Some(job) = queue.blocking_recv() {
                match job {
                    Job::Entry(id, stat) => tree.entry(id, &stat)?,
                    Job::Data(id, data) => tree.data(id, &data)?,
                    Job::End(id) => tree.end(id)?,
                    Job::Finish => return tree.finish(mirror),
                }
            }
            Ok(())
        });
        Ok(Self { jobs: Some(jobs), writer: Some(writer) })
    }

    async fn send(&mut self, job: Job) -> Result<(), Error> {
        let sent = match &self.jobs {
            Some(jobs) => jobs.send(job).await.is_ok(),
            None => false,
        };
        if sent { Ok(()) } else { self.outcome().await.and(Err(Error::Gone)) }
    }

    /// How the writer ended.
    async fn outcome(&mut self) -> Result<(), Error> {
        self.jobs = None;
        match self.writer.take() {
            Some(writer) => writer.await.map_err(|_| Error::Gone)?,
            None => Err(Error::Gone),
        }
    }
}

impl Sink for DirectorySink {
    type Error = Error;

    async fn entry(&mut self, id: u32, stat: Stat) -> Result<bool, Error> {
        let has_content = stat.go_mode().is_regular() && !stat.is_hardlink();
        self.send(Job::Entry(id, stat)).await?;
        Ok(has_content)
    }

    async fn data(&mut self, id: u32, data: Bytes) -> Result<(), Error> {
        self.send(Job::Data(id, data)).await
    }

    async fn end(&mut self, id: u32) -> Result<(), Error> {
        self.send(Job::End(id)).await
    }

    async fn finish(&mut self) -> Result<(), Error> {
        self.send(Job::Finish).await?;
        self.outcome().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_complete_copy_removes_what_is_not_part_of_it() {
        let root = tempfile::tempdir().unwrap();
        let old = root.path().join("old");
        std::fs::write(&old, "").unwrap();
        let directory = Stat { path: "new".into(), mode: 1 << 31 | 0o755, ..Stat::default() };
        for is_complete in [false, true] {
            let mut sink = DirectorySink::create(root.path(), true).unwrap();
            sink.entry(0, directory.clone()).await.unwrap();
            if is_complete {
                sink.finish().await.unwrap();
            } else {
                let writer = sink.writer.take().unwrap();
                drop(sink);
                writer.await.unwrap().unwrap();
            }
            assert_eq!(old.exists(), !is_complete);
        }
    }
}
