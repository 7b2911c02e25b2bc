//! Received trees, told by ordinary calls.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};

use super::*;
use crate::View;
use crate::fixture::list;

fn at(mtime: i64) -> TreeMetadata {
    TreeMetadata { mode: 0o640, mtime: Timestamp::from_secs(mtime), ..TreeMetadata::default() }
}

fn put(tree: &TreeWriter, path: &str, content: &str) -> Result<(), FsError> {
    let mut file = tree.file(path)?;
    file.write_all(content.as_bytes()).unwrap();
    file.finish(&at(5))
}

#[test]
fn a_tree_is_received_with_its_metadata() {
    let scratch = tempfile::tempdir().unwrap();
    let tree = TreeWriter::open(scratch.path()).unwrap();
    let xattrs = vec![
        (b"trusted.overlay.opaque".to_vec(), b"y".to_vec()),
        (b"user.note".to_vec(), b"1".to_vec()),
        (b"user.overlay.opaque".to_vec(), b"y".to_vec()),
    ];
    tree.directory("d", &TreeMetadata { mode: 0o2750, xattrs, ..at(7) }).unwrap();
    put(&tree, "d/f", "1").unwrap();
    tree.symlink("d/l", "../..", &at(6)).unwrap();
    tree.hardlink("g", "d/f").unwrap();
    let device = Device { major: 1, minor: 3 };
    tree.node("null", FileKind::CharDevice, device, &at(8)).unwrap();
    tree.finish().unwrap();

    let view = View::of_directory(scratch.path()).unwrap();
    assert_eq!(list(&view), ["d/", "d/f=1", "d/l->../..", "g=1", "null CharDevice"]);
    let found = |path: &str| fs::symlink_metadata(scratch.path().join(path)).unwrap();
    assert_eq!((found("d").mode() & 0o7777, found("d").mtime()), (0o2750, 7));
    assert_eq!((found("d/f").mode() & 0o7777, found("d/f").mtime()), (0o640, 5));
    assert_eq!((found("d/l").mtime(), found("null").mtime()), (6, 8));
    assert_eq!(found("g").ino(), found("d/f").ino());
    assert_eq!(view.xattrs("d").unwrap(), [(b"user.note".to_vec(), b"1".to_vec())]);
}

#[test]
fn nothing_is_changed_in_place() {
    let scratch = tempfile::tempdir().unwrap();
    let (kept, tree) = (scratch.path().join("kept"), scratch.path().join("tree"));
    fs::create_dir(&tree).unwrap();
    fs::write(&kept, "old").unwrap();
    fs::hard_link(&kept, tree.join("f")).unwrap();
    let writer = TreeWriter::open(&tree).unwrap();
    put(&writer, "f", "new").unwrap();
    writer.finish().unwrap();
    assert_eq!(fs::read_to_string(&kept).unwrap(), "old");
    assert_eq!(fs::read_to_string(tree.join("f")).unwrap(), "new");
}

#[test]
fn links_in_the_tree_lead_nowhere() {
    let scratch = tempfile::tempdir().unwrap();
    let (outside, tree) = (scratch.path().join("outside"), scratch.path().join("tree"));
    fs::create_dir(&tree).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "kept").unwrap();
    symlink("../outside", tree.join("out")).unwrap();
    symlink("../outside/precious", tree.join("file")).unwrap();
    let writer = TreeWriter::open(&tree).unwrap();

    assert!(matches!(put(&writer, "out/x", "1"), Err(FsError::NotADirectory(_))));
    assert!(matches!(put(&writer, "../x", "1"), Err(FsError::InvalidPath(_))));
    assert!(matches!(put(&writer, "", "1"), Err(FsError::InvalidPath(_))));
    assert!(matches!(put(&writer, "missing/x", "1"), Err(FsError::NotFound(_))));
    assert!(matches!(writer.hardlink("h", "out/precious"), Err(FsError::NotADirectory(_))));
    let none = Device::default();
    let node = writer.node("w", FileKind::CharDevice, none, &at(0));
    assert!(matches!(node, Err(FsError::ReservedDevice(_))));
    writer.remove("out/precious").unwrap();
    put(&writer, "file", "new").unwrap();
    writer.directory("out", &at(9)).unwrap();
    put(&writer, "out/precious", "new").unwrap();
    writer.finish().unwrap();

    assert_eq!(fs::read_to_string(outside.join("precious")).unwrap(), "kept");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 2);
    let view = View::of_directory(&tree).unwrap();
    assert_eq!(list(&view), ["file=new", "out/", "out/precious=new"]);
}

#[test]
fn an_entry_takes_the_place_of_any_other() {
    let scratch = tempfile::tempdir().unwrap();
    let tree = TreeWriter::open(scratch.path()).unwrap();
    tree.directory("d", &at(1)).unwrap();
    put(&tree, "d/f", "1").unwrap();
    put(&tree, "d", "file").unwrap();
    tree.directory("d", &at(2)).unwrap();
    put(&tree, "d/g", "2").unwrap();
    tree.directory("d", &at(3)).unwrap();
    tree.remove("gone").unwrap();
    tree.finish().unwrap();
    assert_eq!(list(&View::of_directory(scratch.path()).unwrap()), ["d/", "d/g=2"]);
    assert_eq!(fs::metadata(scratch.path().join("d")).unwrap().mtime(), 3);
}

#[test]
fn directories_keep_their_time_when_only_their_entries_are_sent_again() {
    let scratch = tempfile::tempdir().unwrap();
    let tree = TreeWriter::open(scratch.path()).unwrap();
    tree.directory("d", &at(1000)).unwrap();
    tree.finish().unwrap();
    let tree = TreeWriter::open(scratch.path()).unwrap();
    put(&tree, "d/f", "1").unwrap();
    tree.remove("d/f").unwrap();
    tree.finish().unwrap();
    assert_eq!(fs::metadata(scratch.path().join("d")).unwrap().mtime(), 1000);
}
