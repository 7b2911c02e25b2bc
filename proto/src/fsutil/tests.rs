use super::*;
use bytes::Bytes;
use futures::StreamExt;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// A tree in memory.
#[derive(Default)]
struct Memory(Vec<(Stat, Vec<u8>)>);

impl Memory {
    fn file(path: &str, content: &[u8]) -> (Stat, Vec<u8>) {
        let stat = Stat {
            path: path.to_owned(),
            mode: 0o644,
            size: content.len() as i64,
            ..Stat::default()
        };
        (stat, content.to_vec())
    }
}

impl Tree for Memory {
    type Error = Infallible;
    type File = io::Cursor<Vec<u8>>;

    fn entries(&self) -> impl Iterator<Item = Result<Stat, Infallible>> {
        self.0.iter().map(|(stat, _)| Ok(stat.clone()))
    }

    fn open(&self, path: &str) -> io::Result<Self::File> {
        match self.0.iter().find(|(stat, _)| stat.path == path) {
            Some((_, content)) if content == b"unreadable" => {
                Err(io::ErrorKind::PermissionDenied.into())
            }
            Some((_, content)) if content == b"vanished" => Err(io::ErrorKind::NotFound.into()),
            Some((_, content)) => Ok(io::Cursor::new(content.clone())),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// Keeps all that it gets.
#[derive(Default)]
struct Kept {
    entries: Vec<Stat>,
    contents: BTreeMap<u32, Vec<u8>>,
    ended: Vec<u32>,
    is_finished: bool,
    refuse: Option<&'static str>,
}

#[derive(Debug, thiserror::Error)]
#[error("the disk is full")]
struct DiskFull;

impl Sink for Kept {
    type Error = DiskFull;

    async fn entry(&mut self, id: u32, stat: Stat) -> Result<bool, DiskFull> {
        assert_eq!(id as usize, self.entries.len());
        let wanted = !stat.path.starts_with("known-") && !stat.is_hardlink();
        self.entries.push(stat);
        Ok(wanted)
    }

    async fn data(&mut self, id: u32, data: Bytes) -> Result<(), DiskFull> {
        if self.refuse == Some(self.entries[id as usize].path.as_str()) {
            return Err(DiskFull);
        }
        self.contents.entry(id).or_default().extend_from_slice(&data);
        Ok(())
    }

    async fn end(&mut self, id: u32) -> Result<(), DiskFull> {
        self.ended.push(id);
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), DiskFull> {
        self.is_finished = true;
        Ok(())
    }
}

type Copied = (Result<(), SendError>, Result<(), ReceiveError<DiskFull>>, Kept);

/// Copies a tree over channels of the given size.
async fn copy<T: Tree>(tree: T, mut sink: Kept, capacity: usize) -> Copied {
    let (to_receiver, from_sender) = mpsc::channel(capacity);
    let (to_sender, from_receiver) = mpsc::channel(capacity);
    let sending = async move {
        let mut incoming = ReceiverStream::new(from_receiver).map(Ok);
        send(Arc::new(tree), &mut incoming, to_receiver, |_| ()).await
    };
    let receiving = async move {
        let mut incoming = ReceiverStream::new(from_sender).map(Ok);
        let result = receive(&mut incoming, to_sender, &mut sink).await;
        (result, sink)
    };
    let (sent, (received, sink)) = tokio::join!(sending, receiving);
    (sent, received, sink)
}

#[tokio::test]
async fn contents_of_all_sizes_arrive_whole() {
    let sizes = [0, 1, 10_000, DATA_SIZE - 1, DATA_SIZE, DATA_SIZE + 1, 3 * DATA_SIZE];
    let files: Vec<_> = sizes
        .iter()
        .enumerate()
        .map(|(index, &size)| {
            let content: Vec<u8> = (0..size).map(|byte| (byte * 7 + index) as u8).collect();
            Memory::file(&format!("file{index}"), &content)
        })
        .collect();
    let (sent, received, sink) = copy(Memory(files.clone()), Kept::default(), 4).await;
    sent.unwrap();
    received.unwrap();
    assert!(sink.is_finished);
    assert_eq!(sink.ended.len(), sizes.len());
    for (id, (_, content)) in files.iter().enumerate() {
        let received = sink.contents.get(&(id as u32));
        assert_eq!(received.map_or(0, Vec::len), content.len());
        assert!(received.is_none_or(|received| received == content));
    }
}

#[tokio::test]
async fn many_files_pass_through_the_narrowest_channels() {
    let files: Vec<_> =
        (0..2000).map(|index| Memory::file(&format!("{index:05}"), &[index as u8; 100])).collect();
    let (sent, received, sink) = copy(Memory(files), Kept::default(), 1).await;
    sent.unwrap();
    received.unwrap();
    assert_eq!(sink.contents.len(), 2000);
}

#[tokio::test]
async fn only_what_is_wanted_is_sent() {
    let files = vec![
        Memory::file("a", b"new"),
        Memory::file("known-b", b"old"),
        Memory::file("z", b"new too"),
    ];
    let (sent, received, sink) = copy(Memory(files), Kept::default(), 4).await;
    sent.unwrap();
    received.unwrap();
    assert_eq!(sink.entries.len(), 3);
    assert_eq!(sink.contents.keys().collect::<Vec<_>>(), [&0, &2]);
}

#[tokio::test]
async fn an_empty_tree_is_a_tree() {
    let (sent, received, sink) = copy(Memory::default(), Kept::default(), 1).await;
    sent.unwrap();
    received.unwrap();
    assert!(sink.is_finished && sink.entries.is_empty());
}

#[tokio::test]
async fn a_file_that_vanished_is_empty_and_one_that_cannot_be_read_ends_the_copy() {
    let files = vec![Memory::file("a", b"vanished")];
    let (sent, received, sink) = copy(Memory(files), Kept::default(), 4).await;
    sent.unwrap();
    received.unwrap();
    assert_eq!(sink.ended, [0]);

    let files = vec![Memory::file("a", b"unreadable")];
    let (sent, received, sink) = copy(Memory(files), Kept::default(), 4).await;
    assert!(matches!(sent, Err(SendError::Read { path, .. }) if path == "a"));
    let told = received.unwrap_err().to_string();
    assert!(told.contains("\"a\"") && told.contains("permission denied"), "{told}");
    assert!(!sink.is_finished);
}

#[tokio::test]
async fn a_failing_sink_tells_the_sender_why() {
    let files = vec![Memory::file("a", b"x"), Memory::file("b", b"y")];
    let sink = Kept { refuse: Some("b"), ..Kept::default() };
    let (sent, received, _) = copy(Memory(files), sink, 4).await;
    assert!(matches!(received, Err(ReceiveError::Sink(DiskFull))));
    assert_eq!(sent.unwrap_err().to_string(), "the receiver gave up: the disk is full");
}

/// Feeds a receiver with packets, and gives its answer.
async fn receive_all(packets: Vec<Packet>) -> Result<(), ReceiveError<DiskFull>> {
    let mut incoming = futures::stream::iter(packets.into_iter().map(Ok::<_, Status>));
    let (outgoing, _answers) = mpsc::channel(64);
    receive(&mut incoming, outgoing, &mut Kept::default()).await
}

fn stat(path: &str) -> Packet {
    Packet::stat(Some(Memory::file(path, b"").0))
}

#[tokio::test]
async fn a_hostile_sender_is_refused() {
    type Check = fn(&ReceiveError<DiskFull>) -> bool;
    let x = || Bytes::from_static(b"x");
    let cases: [(&str, Vec<Packet>, Check); 10] = [
        ("a path that climbs", vec![stat("../a")], |error| {
            matches!(error, ReceiveError::Entry(BadEntry::Path { .. }))
        }),
        ("out of order", vec![stat("b"), stat("a")], |error| {
            matches!(error, ReceiveError::Entry(BadEntry::Order { .. }))
        }),
        ("below a file", vec![stat("a"), stat("a/b")], |error| {
            matches!(error, ReceiveError::Entry(BadEntry::Parent { .. }))
        }),
        ("content of nothing", vec![Packet::data(0, x())], |error| {
            matches!(error, ReceiveError::UnexpectedData(0))
        }),
        ("content of what is known", vec![stat("known-a"), Packet::data(0, x())], |error| {
            matches!(error, ReceiveError::UnexpectedData(0))
        }),
        (
            "content after its end",
            vec![stat("a"), stat("b"), Packet::data(0, Bytes::new()), Packet::data(0, x())],
            |error| matches!(error, ReceiveError::UnexpectedData(0)),
        ),
        ("an entry after the last", vec![stat("a"), Packet::stat(None), stat("b")], |error| {
            matches!(error, ReceiveError::TooMany)
        }),
        ("a request", vec![Packet::request(0)], |error| {
            matches!(error, ReceiveError::UnexpectedPacket(1))
        }),
        ("an early end", vec![stat("a"), Packet::fin()], |error| {
            matches!(error, ReceiveError::UnexpectedPacket(3))
        }),
        ("silence", vec![Packet::stat(None)], |error| matches!(error, ReceiveError::Closed)),
    ];
    for (name, packets, is_expected) in cases {
        let error = receive_all(packets).await.unwrap_err();
        assert!(is_expected(&error), "{name}: {error:?}");
    }
}

#[tokio::test]
async fn a_hostile_receiver_is_refused() {
    for (packets, expected) in [
        (vec![Packet::request(7)], "the receiver asked for entry 7, which it cannot have"),
        (
            vec![Packet::request(0), Packet::request(0)],
            "the receiver asked for entry 0, which it cannot have",
        ),
        (vec![stat("x")], "the receiver sent a packet of type 0"),
        (vec![], "the receiver went away"),
        (vec![Packet::error(&"no space")], "the receiver gave up: no space"),
    ] {
        let (outgoing, mut sent) = mpsc::channel(64);
        let tree = Arc::new(Memory(vec![Memory::file("a", b"content")]));
        let (to_sender, from_receiver) = mpsc::channel(8);
        let sending = tokio::spawn(async move {
            let mut incoming = ReceiverStream::new(from_receiver).map(Ok);
            send(tree, &mut incoming, outgoing, |_| ()).await
        });
        // The walk is over when its end has come.
        while sent.recv().await.unwrap().stat.is_some() {}
        for packet in packets {
            to_sender.send(packet).await.unwrap();
        }
        drop(to_sender);
        let error = sending.await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[tokio::test]
async fn a_directory_of_this_machine_can_be_sent() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("src/deep")).unwrap();
    fs::write(root.path().join("src/deep/main.rs"), "fn main() {}").unwrap();
    fs::write(root.path().join("src/main.o"), "object").unwrap();
    let selection =
        Selection { exclude_patterns: vec!["**/*.o".to_owned()], ..Selection::default() };
    let tree = local(root.path(), &selection);
    let (sent, received, sink) = copy(tree, Kept::default(), 16).await;
    sent.unwrap();
    received.unwrap();
    let paths: Vec<_> = sink.entries.iter().map(|stat| stat.path.as_str()).collect();
    assert_eq!(paths, ["src", "src/deep", "src/deep/main.rs"]);
    assert_eq!(sink.contents[&2], b"fn main() {}");
}

fn local(path: &Path, selection: &Selection) -> LocalTree {
    LocalTree::new(path, selection, Owner::Set { uid: 0, gid: 0 }).unwrap()
}

#[test]
fn an_opened_file_is_read_from_its_start() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("a"), "content").unwrap();
    let mut content = String::new();
    local(root.path(), &Selection::default())
        .open("a")
        .unwrap()
        .read_to_string(&mut content)
        .unwrap();
    assert_eq!(content, "content");
}
