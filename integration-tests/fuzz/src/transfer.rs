//! The stream by which clients send files.

use std::collections::HashSet;
use std::convert::Infallible;
use std::path::{Component, Path};

use bytes::Bytes;
use kiln_proto::fsutil::{Packet, Sink, Stat, receive};
use prost::Message as _;
use tokio::sync::mpsc;

/// Packets, each behind a byte with its length.
pub fn file_transfer(data: &[u8]) {
    let mut packets = Vec::new();
    let mut rest = data;
    while let Some((&length, tail)) = rest.split_first() {
        let (packet, tail) = tail.split_at(tail.len().min(length.into()));
        if let Ok(packet) = Packet::decode(packet) {
            packets.push(Ok(packet));
        }
        rest = tail;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let (outgoing, mut answers) = mpsc::channel(1 << 16);
        let answers = tokio::spawn(async move { while answers.recv().await.is_some() {} });
        let mut incoming = futures::stream::iter(packets);
        let _ = receive(&mut incoming, outgoing, &mut Checked::default()).await;
        drop(answers);
    });
}

/// Takes every other file, and checks that only those come.
#[derive(Default)]
struct Checked {
    wanted: HashSet<u32>,
    seen: HashSet<String>,
}

impl Sink for Checked {
    type Error = Infallible;

    async fn entry(&mut self, id: u32, stat: Stat) -> Result<bool, Infallible> {
        let path = Path::new(&stat.path);
        assert!(
            path.components().all(|part| matches!(part, Component::Normal(_))),
            "{}",
            path.display()
        );
        assert!(self.seen.insert(stat.path.clone()), "{} comes twice", path.display());
        if stat.is_hardlink() {
            assert!(
                self.seen.contains(&stat.linkname),
                "{} links to what has not come",
                path.display()
            );
        }
        let is_wanted = stat.go_mode().is_regular() && !stat.is_hardlink() && id.is_multiple_of(2);
        if is_wanted {
            self.wanted.insert(id);
        }
        Ok(is_wanted)
    }

    async fn data(&mut self, id: u32, data: Bytes) -> Result<(), Infallible> {
        assert!(self.wanted.contains(&id) && !data.is_empty());
        Ok(())
    }

    async fn end(&mut self, id: u32) -> Result<(), Infallible> {
        assert!(self.wanted.remove(&id));
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), Infallible> {
        assert!(self.wanted.is_empty());
        Ok(())
    }
}
