//! Archives, most of them hostile, told by the layer that results.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::fixture::{Stack, list, list_layer};
use crate::tar::{Record, RecordKind, Writer};
use crate::{Device, FileKind, Follow, FsError, Timestamp, Xattrs};

fn record(name: &str, kind: RecordKind) -> Record {
    let name = name.as_bytes().to_vec();
    Record { name, kind, mode: 0o644, uid: 0, gid: 0, mtime: 1000, xattrs: Xattrs::new() }
}

/// An archive in a notation like the fixture's: `dir/`, `file=content`, `link->target`,
/// `name==target` (hardlink), `node:c1,3`, `fifo|`.
pub(crate) fn archive(entries: &[&str]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for entry in entries {
        let (record, content) = parse(entry);
        writer.record(&record).unwrap();
        writer.content(content.as_bytes()).unwrap();
    }
    writer.finish().unwrap()
}

fn parse(entry: &str) -> (Record, &str) {
    let text = |text: &str| text.as_bytes().to_vec();
    if let Some((name, target)) = entry.split_once("->") {
        (record(name, RecordKind::Symlink(text(target))), "")
    } else if let Some((name, target)) = entry.split_once("==") {
        (record(name, RecordKind::Hardlink(text(target))), "")
    } else if let Some((name, content)) = entry.split_once('=') {
        (record(name, RecordKind::File(content.len() as u64)), content)
    } else if let Some((name, numbers)) = entry.split_once(":c") {
        let (major, minor) = numbers.split_once(',').unwrap();
        let device = Device { major: major.parse().unwrap(), minor: minor.parse().unwrap() };
        (record(name, RecordKind::CharDevice(device)), "")
    } else if let Some(name) = entry.strip_suffix('|') {
        (record(name, RecordKind::Fifo), "")
    } else {
        (Record { mode: 0o755, ..record(entry, RecordKind::Directory) }, "")
    }
}

fn unpack(stack: &Stack, entries: &[&str]) -> Result<LayerDir, ApplyError> {
    let layer = stack.empty_layer();
    apply(archive(entries).as_slice(), &layer, Some(&stack.view())).map(|_| layer)
}

#[test]
fn archives_become_layers() {
    let rows: &[(&str, &[&str], &[&str])] = &[
        ("entries in order", &["d/", "d/f=1", "l->d/f"], &["d/", "d/f=1", "l->d/f"]),
        ("parents are implied", &["a/b/f=1"], &["a/", "a/b/", "a/b/f=1"]),
        (
            "dots and slashes are normalised",
            &["./", "./d/", "/d//./f=1", "d/../g="],
            &["d/", "d/f=1", "g="],
        ),
        ("a whiteout hides", &["d/.wh.f="], &["d/", "-d/f"]),
        ("an opaque mark hides", &["d/", "d/f=1", "d/.wh..wh..opq="], &["d/!", "d/f=1"]),
        ("in any order", &["d/.wh..wh..opq=", "d/f=1", "d/"], &["d/!", "d/f=1"]),
        ("a file beside its whiteout stays", &["f=1", ".wh.f=", ".wh.g=", "g=2"], &["f=1", "g=2"]),
        ("a directory after its whiteout is new", &[".wh.d=", "d/", "d/f=1"], &["d/!", "d/f=1"]),
        ("an implied one too", &[".wh.d=", "d/f=1"], &["d/!", "d/f=1"]),
        ("a directory before its whiteout is new", &["d/", "d/f=1", ".wh.d="], &["d/!", "d/f=1"]),
        ("aufs bookkeeping is nothing", &[".wh..wh.plnk/", ".wh..wh.aufs="], &[]),
        ("the later file counts", &["f=1", "f=2"], &["f=2"]),
        ("a file replaces a directory", &["d/", "d/f=1", "d=2"], &["d=2"]),
        ("a directory replaces a file", &["d=1", "d/", "d/f=2"], &["d/", "d/f=2"]),
        (
            "a link replaces a directory",
            &["d/", "d/f=1", "e/", "d->e", "d/g=2"],
            &["d->e", "e/", "e/g=2"],
        ),
        ("a directory entry keeps what is there", &["d/f=1", "d/"], &["d/", "d/f=1"]),
        (
            "links of the layer are followed",
            &["usr/lib/", "lib->usr/lib", "lib/f=1"],
            &["lib->usr/lib", "usr/", "usr/lib/", "usr/lib/f=1"],
        ),
        (
            "also before their target is there",
            &["lib->usr/lib", "lib/f=1"],
            &["lib->usr/lib", "usr/", "usr/lib/", "usr/lib/f=1"],
        ),
        (
            "hardlinks within the layer",
            &["d/f=1", "g==d/f", "h==/g"],
            &["d/", "d/f=1", "g=1", "h=1"],
        ),
        ("special files", &["null:c1,3", "pipe|"], &["-null", "pipe Fifo"]),
        ("nothing", &[], &[]),
    ];
    for (rule, entries, expected) in rows {
        let stack = Stack::new(&[]);
        let layer = unpack(&stack, entries).unwrap_or_else(|e| panic!("{rule}: {e}"));
        assert_eq!(list_layer(&layer), *expected, "{rule}");
    }
}

#[test]
fn hostile_archives_touch_nothing_outside() {
    let rows: &[(&str, &[&str])] = &[
        ("a name upwards", &["../escaped=1"]),
        ("a name upwards inside", &["d/../../escaped=1"]),
        ("a whiteout upwards", &["../.wh.precious="]),
        ("a hardlink to the outside", &["l==../../precious"]),
        ("a hardlink to the outside by link", &["up->../..", "l==up/precious"]),
        ("a hardlink to an absolute path", &["l==/etc/hostname"]),
        ("a hardlink to itself", &["l==l"]),
        ("a hardlink to a directory", &["d/", "l==d"]),
        ("a hardlink to what is hidden", &[".wh.f=", "l==f"]),
        ("a device that is a whiteout", &["w:c0,0"]),
        ("a whiteout of nothing", &[".wh.="]),
        ("a whiteout of the parent", &["d/.wh..="]),
        ("a whiteout of the parent's parent", &["d/.wh...="]),
        ("a loop of links", &["a->b", "b->a", "a/f=1"]),
        ("a file as a directory", &["f=1", "f/g=2"]),
    ];
    for (rule, entries) in rows {
        let stack = Stack::new(&[]);
        std::fs::write(stack.outside().join("precious"), "kept").unwrap();
        assert!(unpack(&stack, entries).is_err(), "{rule}");
        assert_untouched(&stack, rule);
    }
    let harmless: &[(&str, &[&str])] = &[
        ("a link upwards is followed to the root", &["up->../../..", "up/f=1"]),
        ("an absolute link is followed in the layer", &["abs->/", "abs/f=1"]),
        ("a link in the place of a file is replaced", &["l->../../precious", "l=1"]),
        ("a directory's metadata are not a link's target's", &["l->../..", "l/"]),
        ("a link that replaces a directory takes no times", &["d/", "d->../.."]),
    ];
    for (rule, entries) in harmless {
        let stack = Stack::new(&[]);
        std::fs::write(stack.outside().join("precious"), "kept").unwrap();
        let before = std::fs::metadata(stack.outside()).unwrap().mode();
        unpack(&stack, entries).unwrap_or_else(|error| panic!("{rule}: {error}"));
        assert_untouched(&stack, rule);
        assert_eq!(std::fs::metadata(stack.outside()).unwrap().mode(), before, "{rule}");
    }
}

/// Beside the precious file there is only the layer.
fn assert_untouched(stack: &Stack, rule: &str) {
    let mut names: Vec<_> = std::fs::read_dir(stack.outside())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["0", "precious"], "{rule}");
    assert_eq!(std::fs::read_to_string(stack.outside().join("precious")).unwrap(), "kept");
    assert_eq!(std::fs::metadata(stack.outside().join("precious")).unwrap().nlink(), 1, "{rule}");
}

#[test]
fn errors_say_what_is_wrong() {
    let stack = Stack::new(&[]);
    let error = |entries: &[&str]| unpack(&stack, entries).unwrap_err();
    assert!(matches!(error(&["../x="]), ApplyError::Escapes { .. }));
    assert!(matches!(error(&["l==gone"]), ApplyError::LinkTarget { .. }));
    assert!(matches!(error(&[".wh.="]), ApplyError::Whiteout(_)));
    assert!(matches!(error(&["w:c0,0"]), ApplyError::Write(FsError::ReservedDevice(_))));
    assert!(matches!(error(&["f=", "f/g="]), ApplyError::Write(FsError::NotADirectory(_))));
}

const LABEL: &[u8] = b"system_u:object_r:shadow_t:s0\0";

#[test]
fn metadata_are_those_of_the_archive() {
    let stack = Stack::new(&[]);
    let mut writer = Writer::new(Vec::new());
    let xattrs: Xattrs = [
        ("security.capability", &b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"[..]),
        ("security.selinux", LABEL),
        ("trusted.overlay.opaque", b"y"),
        ("trusted.other", b"x"),
        ("user.note", b"a\nb=c"),
        ("user.overlay.opaque", b"y"),
    ]
    .map(|(key, value)| (key.as_bytes().to_vec(), value.to_vec()))
    .into();
    let long = format!("{}/{}", "d".repeat(200), "ü".repeat(100));
    for (name, kind, mode) in [
        ("d/", RecordKind::Directory, 0o2711),
        ("d/f", RecordKind::File(0), 0o4755),
        ("d/l", RecordKind::Symlink(b"f".to_vec()), 0o777),
        ("d/p", RecordKind::Fifo, 0o620),
        (long.as_str(), RecordKind::File(0), 0o600),
    ] {
        let mut record = record(name, kind);
        (record.mode, record.uid, record.gid) = (mode, 3_000_000_000, 5);
        record.mtime = -77;
        if name != "d/l" {
            record.xattrs.clone_from(&xattrs);
        }
        writer.record(&record).unwrap();
    }
    let layer = stack.empty_layer();
    let _ = apply(writer.finish().unwrap().as_slice(), &layer, None).unwrap();
    let view = View::of_layers(&[layer]).unwrap();
    for (path, mode) in
        [("d", 0o2711), ("d/f", 0o4755), ("d/l", 0o777), ("d/p", 0o620), (&long, 0o600)]
    {
        let entry = view.lookup(path, Follow::NoLast).unwrap().unwrap();
        let found = entry.metadata();
        assert_eq!((found.mode, found.uid, found.gid), (mode, 3_000_000_000, 5), "{path}");
        assert_eq!(found.mtime, Timestamp::from_secs(-77), "{path}");
        let raw = entry.dir.xattrs(&entry.name).unwrap();
        // A host with SELinux has given it another label.
        let raw = raw.iter().filter(|(key, value)| key != b"security.selinux" || value == LABEL);
        let keys: Vec<_> = raw.map(|(key, _)| key.escape_ascii().to_string()).collect();
        let expected: &[&str] = match found.kind {
            FileKind::Symlink => &[],
            FileKind::File | FileKind::Directory => &["security.capability", "user.note"],
            _ => &["security.capability"],
        };
        assert_eq!(keys, expected, "{path}");
    }
}

#[test]
fn implied_directories_take_the_metadata_of_the_stack() {
    let stack = Stack::new(&[&["a/b/f=1"]]);
    let dir = stack.layers[0].open().unwrap().strict_dir("a/b".as_ref()).unwrap();
    dir.set_own_mode(0o1733).unwrap();
    dir.set_own_mtime(Timestamp::from_secs(5)).unwrap();
    let layer = unpack(&stack, &["a/b/g=2", "new/h=3"]).unwrap();
    let view = stack.view_with(&layer);
    let found = |path| *view.lookup(path, Follow::NoLast).unwrap().unwrap().metadata();
    assert_eq!((found("a/b").mode, found("a/b").mtime), (0o1733, Timestamp::from_secs(5)));
    assert_eq!(found("new").mode, 0o755);
}

#[test]
fn hardlinks_reach_into_the_stack_now_or_later() {
    let stack = Stack::new(&[&["a/f=1", "d/"]]);
    let layer = unpack(&stack, &["x==a/f", "y==x", "a/z==a/f"]).unwrap();
    let merged = ["a/", "a/f=1", "a/z=1", "d/", "x=1", "y=1"];
    assert_eq!(list(&stack.view_with(&layer)), merged);

    let later = stack.empty_layer();
    let stream = archive(&["d/", "d/x==a/f"]);
    let applied = apply(stream.as_slice(), &later, None).unwrap();
    assert!(!applied.deferred.is_empty());
    applied.deferred.settle(&later, &stack.view()).unwrap();
    assert_eq!(list_layer(&later), ["d/", "d/x=1"]);
    assert_eq!(std::fs::metadata(later.fs().join("d")).unwrap().mtime(), 1000);
}

#[test]
fn layers_of_an_image_stack_up() {
    let mut stack = Stack::new(&[]);
    for entries in [
        &["etc/", "etc/a=1", "etc/b=1", "opt/x/", "opt/x/old="][..],
        &["etc/", "etc/.wh.a=", "etc/b=2", "opt/x/.wh..wh..opq=", "opt/x/new="],
        &["etc/a=3", ".wh.opt="],
        &["opt/", "opt/y="],
    ] {
        let layer = unpack(&stack, entries).unwrap();
        stack.layers.push(layer);
    }
    assert_eq!(list(&stack.view()), ["etc/", "etc/a=3", "etc/b=2", "opt/", "opt/y="]);
}

#[test]
fn the_longest_path_needs_no_more_than_a_threads_stack() {
    let stack = Stack::new(&[]);
    let path = "a/".repeat(2046) + "f=1";
    let layer = unpack(&stack, &[&path]).unwrap();
    assert_eq!(list(&stack.view_with(&layer)).len(), 2047);
}

#[test]
fn the_stream_is_read_to_its_end() {
    let stack = Stack::new(&[]);
    let mut stream = archive(&["f=1"]);
    stream.extend(vec![7; 100_000]);
    let mut rest = stream.as_slice();
    apply(&mut rest, &stack.empty_layer(), Some(&View::empty())).unwrap();
    assert!(rest.is_empty());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig {
        cases: 256,
        failure_persistence: None,
        ..proptest::prelude::ProptestConfig::default()
    })]

    /// Damage that a checksum would catch is made to pass it.
    #[test]
    fn no_damage_to_an_archive_reaches_beyond_the_layer(
        damage in proptest::collection::vec((0_usize..8 * 512, proptest::prelude::any::<u8>()), 1..12),
        cut in 0_usize..20_000,
    ) {
        let mut stream =
            archive(&["d/", "d/f=1", "l->../..", "l/x=2", "h==d/f", "n:c1,3", ".wh.g=", "ü=x"]);
        for (at, byte) in damage {
            stream[at] = byte;
        }
        for header in stream.as_chunks_mut::<512>().0 {
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
            header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
        stream.truncate(cut);
        let stack = Stack::new(&[]);
        std::fs::write(stack.outside().join("precious"), "kept").unwrap();
        let layer = stack.empty_layer();
        let _ = apply(stream.as_slice(), &layer, Some(&View::empty()));
        assert_untouched(&stack, "damaged");
    }
}
