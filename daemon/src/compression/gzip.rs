//! Gzip on several threads, as one stream that is the same whatever their number.
//!
//! The input is cut into blocks of a fixed size. Each is deflated by itself and ended by a sync
//! flush, so that the concatenation is one deflate stream (RFC 1951, section 3.2.4; it is what
//! pigz does, but for the dictionary that it carries from block to block). One member, one header,
//! one checksum (RFC 1952).

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// Large enough that starting without a dictionary costs next to nothing.
const BLOCK: usize = 1 << 20;
const WORKERS: usize = 2;
/// Blocks on their way; when they are too many, whoever writes waits for the first.
const QUEUE: usize = 4;

/// Magic, deflate, no flags, no time, no hints, and no operating system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

struct Job {
    data: Vec<u8>,
    is_last: bool,
    done: SyncSender<io::Result<Vec<u8>>>,
}

/// Compresses what is written.
pub(super) struct GzipWriter<W: Write> {
    output: W,
    block: Vec<u8>,
    crc: Crc,
    jobs: Option<SyncSender<Job>>,
    pending: VecDeque<Receiver<io::Result<Vec<u8>>>>,
    workers: Vec<JoinHandle<()>>,
}

impl<W: Write> GzipWriter<W> {
    pub(super) fn new(mut output: W, level: u32) -> io::Result<Self> {
        output.write_all(&HEADER)?;
        let (jobs, queue) = sync_channel::<Job>(QUEUE);
        let queue = std::sync::Arc::new(parking_lot::Mutex::new(queue));
        let workers = (0..WORKERS).map(|_| {
            let queue = queue.clone();
            std::thread::Builder::new().name("gzip".into()).spawn(move || {
                loop {
                    // The lock is held while waiting: somebody has to.
                    let job = queue.lock().recv();
                    let Ok(Job { data, is_last, done }) = job else { break };
                    // Nobody waits any more if the writer was dropped.
                    let _ = done.send(deflate(&data, level, is_last));
                }
            })
        });
        let workers = workers.collect::<io::Result<_>>()?;
        let block = Vec::with_capacity(BLOCK);
        let pending = VecDeque::new();
        Ok(Self { output, block, crc: Crc::new(), jobs: Some(jobs), pending, workers })
    }

    fn submit(&mut self, is_last: bool) -> io::Result<()> {
        while self.pending.len() >= QUEUE {
            self.drain_one()?;
        }
        let data = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        self.crc.update(&data);
        let (done, wait) = sync_channel(1);
        let jobs = self.jobs.as_ref().ok_or_else(ended)?;
        jobs.send(Job { data, is_last, done }).map_err(|_| ended())?;
        self.pending.push_back(wait);
        Ok(())
    }

    fn drain_one(&mut self) -> io::Result<()> {
        let Some(wait) = self.pending.pop_front() else { return Ok(()) };
        let compressed = wait.recv().map_err(|_| ended())??;
        self.output.write_all(&compressed)
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.submit(true)?;
        while !self.pending.is_empty() {
            self.drain_one()?;
        }
        self.output.write_all(&self.crc.sum().to_le_bytes())?;
        self.output.write_all(&self.crc.amount().to_le_bytes())?;
        self.jobs = None;
        for worker in self.workers {
            worker.join().map_err(|_| ended())?;
        }
        Ok(self.output)
    }
}

fn ended() -> io::Error {
    io::Error::other("a compression thread has ended")
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.block.len() == BLOCK {
            self.submit(false)?;
        }
        let count = data.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&data[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One block as a part of a deflate stream.
fn deflate(data: &[u8], level: u32, is_last: bool) -> io::Result<Vec<u8>> {
    let mut deflate = Compress::new(Compression::new(level), false);
    let mut output = Vec::with_capacity(data.len() / 2 + 1024);
    let flush = if is_last { FlushCompress::Finish } else { FlushCompress::Sync };
    loop {
        let consumed = usize::try_from(deflate.total_in()).map_err(io::Error::other)?;
        let status = deflate
            .compress_vec(&data[consumed..], &mut output, flush)
            .map_err(io::Error::other)?;
        let all_read = usize::try_from(deflate.total_in()).map_err(io::Error::other)? == data.len();
        let has_room = output.len() < output.capacity();
        match status {
            Status::StreamEnd => return Ok(output),
            // A sync flush is complete when it leaves room in the output.
            Status::Ok | Status::BufError if !is_last && all_read && has_room => return Ok(output),
            Status::Ok | Status::BufError => output.reserve(64 << 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn one_member_holds_all_blocks() {
        for size in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5] {
            let plain: Vec<u8> = (0..size).map(|i| (i * i / 3) as u8).collect();
            let mut writer = GzipWriter::new(Vec::new(), 6).unwrap();
            writer.write_all(&plain).unwrap();
            let gzip = writer.finish().unwrap();
            // A decoder of a single member: it would stop at the first.
            let mut read = Vec::new();
            flate2::read::GzDecoder::new(gzip.as_slice()).read_to_end(&mut read).unwrap();
            assert!(read == plain, "{size} bytes");
        }
    }

    #[test]
    fn the_stream_is_the_same_however_it_is_written() {
        let plain: Vec<u8> = (0..2_500_000u32).map(|i| (i % 251) as u8).collect();
        let write = |piece: usize| {
            let mut writer = GzipWriter::new(Vec::new(), 6).unwrap();
            plain.chunks(piece).for_each(|piece| writer.write_all(piece).unwrap());
            writer.finish().unwrap()
        };
        assert!(write(1000) == write(1 << 20));
    }
}
