//! Archives added to trees.

use super::*;
use crate::apply::tests::archive;
use crate::fixture::{Stack, list, list_layer};
use crate::{Follow, LayerDir};

fn add(stack: &Stack, entries: &[&str], to: &str) -> Result<LayerDir, UnpackError> {
    let layer = stack.empty_layer();
    let mut writer = LayerWriter::new(&layer, &stack.view()).unwrap();
    unpack(archive(entries).as_slice(), &mut writer, to, &UnpackOptions::default())?;
    writer.finish().unwrap();
    Ok(layer)
}

#[test]
fn archives_are_merged_into_the_destination() {
    type Names<'a> = &'a [&'a str];
    let rows: &[(&str, Names<'_>, Names<'_>, &str, Names<'_>)] = &[
        (
            "into a new directory",
            &[],
            &["d/", "d/f=1", "g=2"],
            "/a/b/",
            &["a/", "a/b/", "a/b/d/", "a/b/d/f=1", "a/b/g=2"],
        ),
        (
            "into an existing one",
            &["a/d/old=1", "a/x=1"],
            &["d/f=1", "x=2"],
            "a",
            &["a/", "a/d/", "a/d/f=1", "a/d/old=1", "a/x=2"],
        ),
        (
            "into a linked one",
            &["real/", "a->real"],
            &["f=1"],
            "a",
            &["a->real", "real/", "real/f=1"],
        ),
        ("a file takes a directory's place", &["d/old=1"], &["d=1"], "/", &["d=1"]),
        ("a directory takes a file's place", &["d=1"], &["d/", "d/f=1"], "/", &["d/", "d/f=1"]),
        (
            "a directory takes a link's place",
            &["d->x", "x/"],
            &["d/", "d/f=1"],
            "/",
            &["d/", "d/f=1", "x/"],
        ),
        (
            "links in the destination are followed",
            &["lib->usr", "usr/"],
            &["lib/f=1"],
            "/",
            &["lib->usr", "usr/", "usr/f=1"],
        ),
        (
            "in the destination as the root",
            &["usr/", "a/l->/usr"],
            &["l/f=1"],
            "a",
            &["a/", "a/l->/usr", "a/usr/", "a/usr/f=1", "usr/"],
        ),
        (
            "upwards only to the destination",
            &["a/l->../../usr", "usr/"],
            &["l/f=1"],
            "a",
            &["a/", "a/l->../../usr", "a/usr/", "a/usr/f=1", "usr/"],
        ),
        (
            "hardlinks",
            &["a/f=1"],
            &["g=2", "h==g", "i==f"],
            "a",
            &["a/", "a/f=1", "a/g=2", "a/h=2", "a/i=1"],
        ),
        (
            "what looks like a mark is a name",
            &["f=1"],
            &[".wh.f=", "d/.wh..wh..opq="],
            "/",
            &[".wh.f=", "d/", "d/.wh..wh..opq=", "f=1"],
        ),
        (
            "a link made by the archive",
            &["d/"],
            &["d/", "d/x=1", "d->e", "d/f=1"],
            "/",
            &["d->e", "e/", "e/f=1"],
        ),
    ];
    for (rule, base, entries, to, merged) in rows {
        let stack = Stack::new(&[base]);
        let layer = add(&stack, entries, to).unwrap_or_else(|error| panic!("{rule}: {error}"));
        assert_eq!(list(&stack.view_with(&layer)), *merged, "{rule}");
    }
}

#[test]
fn hostile_archives_are_refused() {
    for entries in [
        &["../f=1"][..],
        &["l==../f"],
        &["l==gone"],
        &["l==l"],
        &["d/", "l==d"],
        &["w:c0,0"],
        &["a->b", "b->a", "a/f=1"],
        &["f=1", "f/g=1"],
    ] {
        let stack = Stack::new(&[&["f=0", "a/"]]);
        assert!(add(&stack, entries, "a").is_err(), "{entries:?}");
    }
}

#[test]
fn an_owner_applies_to_everything() {
    let stack = Stack::new(&[]);
    let layer = stack.empty_layer();
    let mut writer = LayerWriter::new(&layer, &stack.view()).unwrap();
    let options = UnpackOptions {
        owner: Some(Owner { uid: 3, gid: 4 }),
        timestamp: Some(Timestamp::from_secs(50)),
    };
    let stream = archive(&["d/", "d/f=123", "l->d"]);
    let unpacked = unpack(stream.as_slice(), &mut writer, "new", &options).unwrap();
    assert_eq!(unpacked, Unpacked { entries: 3, content: 3 });
    writer.finish().unwrap();
    assert_eq!(list_layer(&layer), ["new/", "new/d/", "new/d/f=123", "new/l->d"]);
    let view = stack.view_with(&layer);
    for path in ["new", "new/d", "new/d/f", "new/l"] {
        let metadata = *view.lookup(path, Follow::NoLast).unwrap().unwrap().metadata();
        assert_eq!((metadata.uid, metadata.gid), (3, 4), "{path}");
        assert!(path == "new" || metadata.mtime.secs == 1000, "{path}");
    }
}

#[test]
fn archives_are_told_from_other_files() {
    assert!(is_archive(&archive(&["f=1"])));
    for other in [&b""[..], b"text", &[0; 1024], &[b'x'; 1024]] {
        assert!(!is_archive(other));
    }
}
