//! What is done to a layer, told by the merged tree and by the layer's own files.

use std::os::unix::fs::MetadataExt;

use crate::fixture::{Stack, list, list_layer};
use crate::{Follow, FsError, LayerWriter, NewEntry, Owner, Timestamp};

const DIR: NewEntry = NewEntry::mode(0o755);
const FILE: NewEntry = NewEntry::mode(0o644);

#[derive(Clone, Copy)]
enum Do {
    Mkdir(&'static str),
    MkdirAll(&'static str),
    Write(&'static str, &'static str),
    Link(&'static str, &'static str),
    Remove(&'static str),
}

fn run(writer: &mut LayerWriter, action: Do) -> Result<(), FsError> {
    match action {
        Do::Mkdir(path) => writer.mkdir(path, &DIR),
        Do::MkdirAll(path) => writer.mkdir_all(path, &DIR).map(drop),
        Do::Write(path, data) => writer.write_file(path, data.as_bytes(), &FILE),
        Do::Link(path, target) => writer.symlink(target, path, &FILE),
        Do::Remove(path) => writer.remove(path),
    }
}

#[test]
fn a_layer_says_what_changed_and_the_merged_tree_shows_it() {
    use Do::{Link, Mkdir, MkdirAll, Remove, Write};
    struct Row {
        rule: &'static str,
        base: &'static [&'static [&'static str]],
        actions: &'static [Do],
        layer: &'static [&'static str],
        merged: &'static [&'static str],
    }
    let rows = [
        Row {
            rule: "a new file copies up the directories above it",
            base: &[&["a/b/old=1", "c=2"]],
            actions: &[Write("/a/b/new", "2")],
            layer: &["a/", "a/b/", "a/b/new=2"],
            merged: &["a/", "a/b/", "a/b/new=2", "a/b/old=1", "c=2"],
        },
        Row {
            rule: "links on the way are followed in the merged tree",
            base: &[&["usr/lib/", "lib->usr/lib"]],
            actions: &[Write("/lib/x", "1"), MkdirAll("lib/d/e"), Link("lib/l", "x")],
            layer: &[
                "usr/",
                "usr/lib/",
                "usr/lib/d/",
                "usr/lib/d/e/",
                "usr/lib/l->x",
                "usr/lib/x=1",
            ],
            merged: &[
                "lib->usr/lib",
                "usr/",
                "usr/lib/",
                "usr/lib/d/",
                "usr/lib/d/e/",
                "usr/lib/l->x",
                "usr/lib/x=1",
            ],
        },
        Row {
            rule: "a dangling link to a new file is followed",
            base: &[&["l->/d/f", "d/"]],
            actions: &[Write("l", "x")],
            layer: &["d/", "d/f=x"],
            merged: &["d/", "d/f=x", "l->/d/f"],
        },
        Row {
            rule: "removing leaves a whiteout",
            base: &[&["a/f=1", "a/g=2"]],
            actions: &[Remove("a/f")],
            layer: &["a/", "-a/f"],
            merged: &["a/", "a/g=2"],
        },
        Row {
            rule: "removing what only the layer has leaves nothing",
            base: &[&["a/"]],
            actions: &[Write("a/f", "1"), Remove("a/f")],
            layer: &["a/"],
            merged: &["a/"],
        },
        Row {
            rule: "a removed directory made again is opaque",
            base: &[&["d/old=1"]],
            actions: &[Remove("d"), Mkdir("d"), Write("d/new", "2")],
            layer: &["d/!", "d/new=2"],
            merged: &["d/", "d/new=2"],
        },
        Row {
            rule: "a removed directory with changes is hidden whole",
            base: &[&["d/old=1"]],
            actions: &[Write("d/new", "2"), Remove("d")],
            layer: &["-d"],
            merged: &[],
        },
        Row {
            rule: "a file over a whiteout is just a file",
            base: &[&["f=1"]],
            actions: &[Remove("f"), Write("f", "2")],
            layer: &["f=2"],
            merged: &["f=2"],
        },
        Row {
            rule: "removing a link leaves its target",
            base: &[&["f=1", "l->f"]],
            actions: &[Remove("l")],
            layer: &["-l"],
            merged: &["f=1"],
        },
        Row {
            rule: "making a directory that is there changes nothing",
            base: &[&["a/b/"]],
            actions: &[MkdirAll("a/b"), Mkdir("a/b")],
            layer: &[],
            merged: &["a/", "a/b/"],
        },
        Row {
            rule: "paths do not leave the tree",
            base: &[&["up->../../.."]],
            actions: &[Write("/../x", "1"), Write("up/y", "2")],
            layer: &["x=1", "y=2"],
            merged: &["up->../../..", "x=1", "y=2"],
        },
    ];
    for Row { rule, base, actions, layer: expected, merged } in rows {
        let stack = Stack::new(base);
        let layer = stack.empty_layer();
        let mut writer = LayerWriter::new(&layer, &stack.view()).unwrap();
        for action in actions {
            run(&mut writer, *action).unwrap_or_else(|error| panic!("{rule}: {error}"));
        }
        writer.finish().unwrap();
        assert_eq!(list_layer(&layer), expected, "{rule}");
        assert_eq!(list(&stack.view_with(&layer)), merged, "{rule}");
    }
}

type Expected = fn(&FsError) -> bool;

#[test]
fn impossible_changes_are_refused() {
    let stack = Stack::new(&[&["d/f=1", "f=1", "l->l"]]);
    let layer = stack.empty_layer();
    let mut writer = LayerWriter::new(&layer, &stack.view()).unwrap();
    let rows: [(Do, Expected); 9] = [
        (Do::Write("d", ""), |e| matches!(e, FsError::IsADirectory(_))),
        (Do::Write("missing/f", ""), |e| matches!(e, FsError::NotFound(_))),
        (Do::Write("f/g", ""), |e| matches!(e, FsError::NotADirectory(_))),
        (Do::Write("l", ""), |e| matches!(e, FsError::SymlinkLoop(_))),
        (Do::MkdirAll("f/g"), |e| matches!(e, FsError::NotADirectory(_))),
        (Do::Mkdir("missing/d"), |e| matches!(e, FsError::NotFound(_))),
        (Do::Link("f", "x"), |e| matches!(e, FsError::Exists(_))),
        (Do::Remove("missing"), |e| matches!(e, FsError::NotFound(_))),
        (Do::Remove("/"), |e| matches!(e, FsError::InvalidPath(_))),
    ];
    for (action, expected) in rows {
        let error = run(&mut writer, action).unwrap_err();
        assert!(expected(&error), "{error}");
    }
    writer.finish().unwrap();
    assert!(list_layer(&layer).is_empty());
}

#[test]
fn copied_up_directories_keep_their_metadata() {
    let stack = Stack::new(&[&["a/b/c/f=1"]]);
    let base = stack.layers[0].open().unwrap();
    for path in ["a", "a/b", "a/b/c"] {
        let dir = base.strict_dir(path.as_ref()).unwrap();
        dir.set_own_owner(Owner { uid: 7, gid: 8 }).unwrap();
        dir.set_own_mode(0o1750).unwrap();
        dir.set_own_xattr(b"user.note", b"kept").unwrap();
        dir.set_own_mtime(Timestamp { secs: 1000, nanos: 5 }).unwrap();
    }
    let layer = stack.empty_layer();
    let mut writer = LayerWriter::new(&layer, &stack.view()).unwrap();
    writer.write_file("a/b/c/new", b"", &FILE).unwrap();
    writer.finish().unwrap();
    let view = stack.view_with(&layer);
    for path in ["a", "a/b", "a/b/c"] {
        let entry = view.lookup(path, Follow::NoLast).unwrap().unwrap();
        let metadata = entry.metadata();
        assert_eq!(entry.layer(), 1);
        assert_eq!((metadata.uid, metadata.gid, metadata.mode), (7, 8, 0o1750), "{path}");
        assert_eq!(entry.xattrs().unwrap(), [(b"user.note".to_vec(), b"kept".to_vec())]);
        // Only where an entry was made is the directory modified.
        let kept = metadata.mtime == Timestamp { secs: 1000, nanos: 5 };
        assert_eq!(kept, path != "a/b/c", "{path}");
    }
}

#[test]
fn new_entries_get_the_metadata_asked_for() {
    let stack = Stack::new(&[&["old=1"]]);
    let layer = stack.empty_layer();
    let mut writer = LayerWriter::new(&layer, &stack.view()).unwrap();
    let owner = Some(Owner { uid: 5, gid: 6 });
    let mtime = Some(Timestamp { secs: -5, nanos: 7 });
    let new = NewEntry { mode: 0o4711, owner, mtime };
    assert_eq!(writer.mkdir_all("d/e", &new).unwrap().len(), 2);
    writer.write_file("d/e/f", b"x", &new).unwrap();
    writer.symlink("f", "d/e/l", &new).unwrap();
    writer.mkdir_all("d/e/g", &new).unwrap();
    writer.write_file("old", b"2", &NewEntry::mode(0o777)).unwrap();
    writer.finish().unwrap();
    let view = stack.view_with(&layer);
    for path in ["d", "d/e/f", "d/e/l", "d/e/g"] {
        let metadata = *view.lookup(path, Follow::NoLast).unwrap().unwrap().metadata();
        assert_eq!((metadata.uid, metadata.gid), (5, 6), "{path}");
        assert!(metadata.is_symlink() || metadata.mode == 0o4711, "{path}");
    }
    for path in ["d/e/f", "d/e/l", "d/e/g"] {
        let metadata = *view.lookup(path, Follow::NoLast).unwrap().unwrap().metadata();
        assert_eq!(metadata.mtime, Timestamp { secs: -5, nanos: 7 }, "{path}");
    }
    let old = std::fs::metadata(layer.fs().join("old")).unwrap();
    assert_eq!(old.mode() & 0o7777, 0o644, "a file that is replaced keeps its mode");
}

#[test]
fn a_layer_can_be_continued() {
    let stack = Stack::new(&[&["a/f=1"]]);
    let layer = stack.empty_layer();
    for name in ["a/x", "a/y"] {
        let mut writer = LayerWriter::new(&layer, &stack.view()).unwrap();
        writer.write_file(name, b"", &FILE).unwrap();
        writer.finish().unwrap();
    }
    assert_eq!(list_layer(&layer), ["a/", "a/x=", "a/y="]);
}
