//! Transfers as the daemon sees them, one after the other into the same tree.

use std::sync::Arc;

use bytes::Bytes;
use kiln_cache::Index;
use kiln_proto::fsutil::{Sink as _, Stat};

use super::receiver::{Origin, Receiver};
use crate::layers::{LocalTree, LocalTrees};
use crate::solver::Progress;

struct Fixture {
    trees: LocalTrees,
    _root: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let index = Arc::new(Index::open(root.path().join("index")).unwrap());
        Self { trees: LocalTrees::open(root.path(), index).unwrap(), _root: root }
    }

    async fn transfer(&self) -> Receiver {
        self.transfer_of(Origin::Same).await
    }

    async fn transfer_of(&self, origin: Origin) -> Receiver {
        let status = Progress::new().internal("context", "context").status("transferring");
        let lease = self.trees.lease("context", "context").unwrap();
        Receiver::open(lease, origin, status).await.unwrap()
    }
}

fn file(path: &str, size: i64) -> Stat {
    Stat { path: path.into(), mode: 0o644, size, ..Stat::default() }
}

fn link(path: &str, target: &str) -> Stat {
    Stat { linkname: target.into(), ..file(path, 0) }
}

fn directory(path: &str) -> Stat {
    Stat { path: path.into(), mode: 1 << 31 | 0o755, ..Stat::default() }
}

/// Announces all, and sends the content of what is wanted; returns that.
async fn send(receiver: &mut Receiver, entries: &[(Stat, &'static str)]) -> Vec<String> {
    let mut wanted = Vec::new();
    for (id, (stat, content)) in (0..).zip(entries) {
        if receiver.entry(id, stat.clone()).await.unwrap() {
            if !content.is_empty() {
                receiver.data(id, Bytes::from_static(content.as_bytes())).await.unwrap();
            }
            receiver.end(id).await.unwrap();
            wanted.push(stat.path.clone());
        }
    }
    wanted
}

async fn complete(mut receiver: Receiver) -> LocalTree {
    receiver.finish().await.unwrap();
    receiver.close(false).await.unwrap()
}

fn names(tree: &LocalTree) -> Vec<String> {
    let entries = std::fs::read_dir(tree.path()).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_an_interrupted_transfer_left_goes_when_the_client_has_it_no_more() {
    let fixture = Fixture::new();
    let mut first = fixture.transfer().await;
    send(&mut first, &[(file("a", 1), "a"), (file("b", 1), "b"), (link("l", "a"), "")]).await;
    assert_eq!(names(&complete(first).await), ["a", "b", "l"]);

    let mut interrupted = fixture.transfer().await;
    for (id, stat) in
        [file("a", 2), file("b", 2), link("l", "a"), file("new", 2)].iter().enumerate()
    {
        interrupted.entry(id as u32, stat.clone()).await.unwrap();
    }
    interrupted.data(3, Bytes::from_static(b"n")).await.unwrap();
    drop(interrupted.close(false).await.unwrap());

    let mut last = fixture.transfer().await;
    assert_eq!(send(&mut last, &[(file("b", 2), "bb")]).await, ["b"]);
    let tree = complete(last).await;
    assert_eq!(names(&tree), ["b"]);
    assert_eq!(std::fs::read(tree.path().join("b")).unwrap(), b"bb");
}

#[tokio::test]
async fn a_directory_that_is_back_after_an_interrupted_transfer_is_sent_again() {
    let fixture = Fixture::new();
    let entries = [(directory("d"), ""), (file("d/f", 1), "f")];
    let mut first = fixture.transfer().await;
    send(&mut first, &entries).await;
    drop(complete(first).await);

    let mut interrupted = fixture.transfer().await;
    send(&mut interrupted, &[(file("d", 1), "d")]).await;
    drop(interrupted.close(false).await.unwrap());

    let mut last = fixture.transfer().await;
    assert_eq!(send(&mut last, &entries).await, ["d/f"]);
    assert_eq!(std::fs::read(complete(last).await.path().join("d/f")).unwrap(), b"f");
}

#[tokio::test]
async fn a_file_that_changes_on_its_way_is_taken_as_it_comes_and_not_relied_on() {
    let fixture = Fixture::new();
    let entries = [(file("grown", 1), "more"), (file("kept", 1), "k"), (file("vanished", 7), "")];
    for wanted in [vec!["grown", "kept", "vanished"], vec!["grown", "vanished"]] {
        let mut receiver = fixture.transfer().await;
        assert_eq!(send(&mut receiver, &entries).await, wanted);
        let tree = complete(receiver).await;
        assert_eq!(std::fs::read(tree.path().join("grown")).unwrap(), b"more");
        assert_eq!(std::fs::read(tree.path().join("vanished")).unwrap(), b"");
    }
}

#[tokio::test]
async fn of_an_unknown_directory_only_files_with_precise_times_are_taken_for_the_old_ones() {
    let fixture = Fixture::new();
    let at = |path: &str, mod_time: i64| Stat { mod_time, ..file(path, 1) };
    let precise = 5_000_000_001;
    let mut first = fixture.transfer_of(Origin::Unknown).await;
    let entries = [(at("precise", precise), "a"), (at("round", 5_000_000_000), "a")];
    assert_eq!(send(&mut first, &entries).await, ["precise", "round"]);
    complete(first).await;

    let mut second = fixture.transfer_of(Origin::Unknown).await;
    let entries = [(at("precise", precise), "a"), (at("round", 5_000_000_000), "b")];
    assert_eq!(send(&mut second, &entries).await, ["round"]);
    let tree = complete(second).await;
    assert_eq!(std::fs::read_to_string(tree.path().join("round")).unwrap(), "b");
}
