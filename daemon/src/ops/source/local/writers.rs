//! Threads that write received files and hash them on the way.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use kiln_cache::{Digest, Hasher};
use kiln_proto::fsutil::Stat;
use kiln_snapshotter::FsError;
use kiln_snapshotter::tree::{NewFile, TreeWriter};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::receiver::metadata;
use crate::layers::FileHeader;

/// Two write while one receives; more only wait for the same disk.
const THREADS: usize = 2;
/// Pieces that wait for a thread; when they are too many, the sender waits.
const QUEUE: usize = 64;

/// A received file was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error("cannot write {path}")]
    Io { path: String, source: std::io::Error },
    #[error("the writer of received files has ended")]
    Ended,
}

enum Job {
    Data {
        id: u32,
        stat: Arc<Stat>,
        data: Bytes,
    },
    End {
        id: u32,
        stat: Arc<Stat>,
    },
    /// Answered when all before it is done.
    Drain(oneshot::Sender<()>),
}

type Digests = Vec<(String, Digest)>;
/// What a thread wrote as announced, and how it ended.
type Written = (Digests, Result<(), WriteError>);

/// The threads. The files of one number go to one of them, in order.
pub(super) struct Writers {
    threads: Vec<(mpsc::Sender<Job>, JoinHandle<Written>)>,
}

impl Writers {
    pub(super) fn start(tree: &Arc<TreeWriter>) -> Self {
        let start = |_| {
            let (sender, jobs) = mpsc::channel(QUEUE);
            let tree = tree.clone();
            (sender, tokio::task::spawn_blocking(move || Thread::run(&tree, jobs)))
        };
        Self { threads: (0..THREADS).map(start).collect() }
    }

    async fn send(&self, id: u32, job: Job) -> Result<(), WriteError> {
        let (sender, _) = &self.threads[id as usize % THREADS];
        sender.send(job).await.map_err(|_| WriteError::Ended)
    }

    pub(super) async fn data(
        &self,
        id: u32,
        stat: &Arc<Stat>,
        data: Bytes,
    ) -> Result<(), WriteError> {
        self.send(id, Job::Data { id, stat: stat.clone(), data }).await
    }

    pub(super) async fn end(&self, id: u32, stat: Arc<Stat>) -> Result<(), WriteError> {
        self.send(id, Job::End { id, stat }).await
    }

    /// Returns when everything sent so far is written.
    pub(super) async fn drain(&self) -> Result<(), WriteError> {
        for (sender, _) in &self.threads {
            let (done, wait) = oneshot::channel();
            sender.send(Job::Drain(done)).await.map_err(|_| WriteError::Ended)?;
            wait.await.map_err(|_| WriteError::Ended)?;
        }
        Ok(())
    }

    /// Ends the threads; what they wrote, and the first failure.
    pub(super) async fn finish(self) -> Written {
        let (mut all, mut outcome) = (Vec::new(), Ok(()));
        for (sender, thread) in self.threads {
            drop(sender);
            let (digests, result) =
                thread.await.unwrap_or_else(|_| (Vec::new(), Err(WriteError::Ended)));
            all.extend(digests);
            outcome = outcome.and(result);
        }
        (all, outcome)
    }
}

struct Thread<'a> {
    tree: &'a TreeWriter,
    open: HashMap<u32, Open>,
    digests: Digests,
}

struct Open {
    file: NewFile,
    hasher: Hasher,
    size: u64,
}

impl Thread<'_> {
    fn run(tree: &TreeWriter, mut jobs: mpsc::Receiver<Job>) -> Written {
        let mut thread = Thread { tree, open: HashMap::new(), digests: Vec::new() };
        while let Some(job) = jobs.blocking_recv() {
            if let Err(error) = thread.job(job) {
                return (thread.digests, Err(error));
            }
        }
        (thread.digests, Ok(()))
    }

    fn job(&mut self, job: Job) -> Result<(), WriteError> {
        match job {
            Job::Data { id, stat, data } => {
                let open = self.open(id, &stat)?;
                open.hasher.update(&data);
                open.size += data.len() as u64;
                let written = open.file.write_all(&data);
                written.map_err(|source| WriteError::Io { path: stat.path.clone(), source })
            }
            Job::End { id, stat } => {
                self.open(id, &stat)?;
                let Some(open) = self.open.remove(&id) else { return Err(WriteError::Ended) };
                open.file.finish(&metadata(&stat))?;
                // A file that changed on its way is taken as it came. Without a digest it is asked
                // for again next time, whatever is announced then.
                if u64::try_from(stat.size) == Ok(open.size) {
                    self.digests.push((stat.path.clone(), open.hasher.finish()));
                }
                Ok(())
            }
            Job::Drain(done) => {
                // Nobody waits any more if the transfer was cancelled.
                let _ = done.send(());
                Ok(())
            }
        }
    }

    fn open(&mut self, id: u32, stat: &Stat) -> Result<&mut Open, WriteError> {
        use std::collections::hash_map::Entry;
        match self.open.entry(id) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(vacant) => {
                let file = self.tree.file(&stat.path)?;
                let hasher = FileHeader::of_announced(stat).hasher();
                Ok(vacant.insert(Open { file, hasher, size: 0 }))
            }
        }
    }
}
