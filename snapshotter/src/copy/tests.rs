//! Copies told by the tree that results.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::dir::Dir;
use crate::fixture::{Stack, list, list_layer};
use crate::{FileKind, Follow, FsError, LayerDir, LayerWriter, Owner, Timestamp, View};

use super::*;

struct Row {
    rule: &'static str,
    src: &'static [&'static str],
    base: &'static [&'static str],
    from: &'static str,
    to: &'static str,
    set: fn(&mut CopyOptions<'_>),
    /// The new layer, or part of the error.
    expected: Result<&'static [&'static str], &'static str>,
}

fn copied(
    stack: &Stack,
    src: &View,
    base: &View,
    from: &str,
    to: &str,
    options: &mut CopyOptions<'_>,
) -> Result<(LayerDir, Copied), CopyError> {
    let layer = stack.empty_layer();
    let mut writer = LayerWriter::new(&layer, base).unwrap();
    let copied = copy(src, from, &mut writer, to, options)?;
    writer.finish().unwrap();
    Ok((layer, copied))
}

const CONTENTS: fn(&mut CopyOptions<'_>) = |options| options.dir_copy_contents = true;
const REPLACE: fn(&mut CopyOptions<'_>) = |options| {
    options.dir_copy_contents = true;
    options.always_replace = true;
};
const PLAIN: fn(&mut CopyOptions<'_>) = |_| {};

#[test]
fn sources_go_where_buildkit_puts_them() {
    let rows = [
        Row {
            rule: "a file to a new name",
            src: &["f=1"],
            base: &[],
            from: "/f",
            to: "/a/b",
            set: PLAIN,
            expected: Ok(&["a/", "a/b=1"]),
        },
        Row {
            rule: "a file below a destination written as a directory",
            src: &["f=1"],
            base: &[],
            from: "/f",
            to: "/a/b/",
            set: PLAIN,
            expected: Ok(&["a/", "a/b/", "a/b/f=1"]),
        },
        Row {
            rule: "a file below a destination that is a directory",
            src: &["d/f=1"],
            base: &["a/"],
            from: "d/f",
            to: "a",
            set: PLAIN,
            expected: Ok(&["a/", "a/f=1"]),
        },
        Row {
            rule: "a file below a link to a directory",
            src: &["f=1"],
            base: &["usr/bin/", "bin->usr/bin"],
            from: "f",
            to: "/bin",
            set: PLAIN,
            expected: Ok(&["usr/", "usr/bin/", "usr/bin/f=1"]),
        },
        Row {
            rule: "a file over a file",
            src: &["f=1"],
            base: &["a=old"],
            from: "f",
            to: "a",
            set: PLAIN,
            expected: Ok(&["a=1"]),
        },
        Row {
            rule: "a destination link is followed, and its target replaced",
            src: &["f=1"],
            base: &["l->a", "a=old"],
            from: "f",
            to: "l",
            set: PLAIN,
            expected: Ok(&["a=1"]),
        },
        Row {
            rule: "a link below a destination directory is replaced",
            src: &["f=1"],
            base: &["d/f->../a", "a=old"],
            from: "f",
            to: "d/",
            set: PLAIN,
            expected: Ok(&["d/", "d/f=1"]),
        },
        Row {
            rule: "a directory to a new name",
            src: &["d/f=1", "d/e/g=2"],
            base: &[],
            from: "d",
            to: "x",
            set: PLAIN,
            expected: Ok(&["x/", "x/e/", "x/e/g=2", "x/f=1"]),
        },
        Row {
            rule: "a directory below an existing one",
            src: &["d/f=1"],
            base: &["x/"],
            from: "d",
            to: "x",
            set: PLAIN,
            expected: Ok(&["x/", "x/d/", "x/d/f=1"]),
        },
        Row {
            rule: "a directory's content into an existing one",
            src: &["d/f=1", "d/e/g=2"],
            base: &["x/f=old", "x/e/h=3"],
            from: "d",
            to: "x",
            set: CONTENTS,
            expected: Ok(&["x/", "x/e/", "x/e/g=2", "x/f=1"]),
        },
        Row {
            rule: "the whole source into the root",
            src: &["f=1", "d/g=2"],
            base: &["d/h=3"],
            from: "/",
            to: "/",
            set: CONTENTS,
            expected: Ok(&["d/", "d/g=2", "f=1"]),
        },
        Row {
            rule: "dir/. stands for its content",
            src: &["d/f=1"],
            base: &["x/"],
            from: "d/.",
            to: "x",
            set: PLAIN,
            expected: Ok(&["x/", "x/f=1"]),
        },
        Row {
            rule: "a link is copied as one",
            src: &["l->f", "f=1"],
            base: &[],
            from: "l",
            to: "x",
            set: PLAIN,
            expected: Ok(&["x->f"]),
        },
        Row {
            rule: "a link is followed where that is asked for",
            src: &["l->f", "f=1"],
            base: &[],
            from: "l",
            to: "x",
            set: |options| options.follow_symlink = true,
            expected: Ok(&["x=1"]),
        },
        Row {
            rule: "links above the source are always followed",
            src: &["l->/d", "d/f=1"],
            base: &[],
            from: "l/f",
            to: "x",
            set: PLAIN,
            expected: Ok(&["x=1"]),
        },
        Row {
            rule: "a followed link gives its own name",
            src: &["l->f", "f=1"],
            base: &[],
            from: "l",
            to: "x/",
            set: |options| options.follow_symlink = true,
            expected: Ok(&["x/", "x/l=1"]),
        },
        Row {
            rule: "a directory is no substitute for a file",
            src: &["d/f=1"],
            base: &["x/d=file"],
            from: "d",
            to: "x",
            set: PLAIN,
            expected: Err("/x/d: not a directory"),
        },
        Row {
            rule: "nor for a link to a directory",
            src: &["d/f=1"],
            base: &["x/d->../y", "y/"],
            from: "d",
            to: "x",
            set: PLAIN,
            expected: Err("/x/d: not a directory"),
        },
        Row {
            rule: "a file is no substitute for a directory",
            src: &["d/f=1"],
            base: &["x/f/g="],
            from: "d",
            to: "x",
            set: CONTENTS,
            expected: Err("/x/f: is a directory"),
        },
        Row {
            rule: "replacing: a file takes a directory's place",
            src: &["d/f=1"],
            base: &["x/f/g="],
            from: "d",
            to: "x",
            set: REPLACE,
            expected: Ok(&["x/", "x/f=1"]),
        },
        Row {
            rule: "replacing: a directory takes a link's place",
            src: &["s/d/f=1"],
            base: &["x/d->../y", "y/"],
            from: "s",
            to: "x",
            set: REPLACE,
            expected: Ok(&["x/", "x/d/", "x/d/f=1"]),
        },
        Row {
            rule: "a missing source",
            src: &["f=1"],
            base: &[],
            from: "g",
            to: "x",
            set: PLAIN,
            expected: Err("/g: no such file or directory"),
        },
        Row {
            rule: "a missing parent, where none is to be made",
            src: &["f=1"],
            base: &[],
            from: "f",
            to: "a/b",
            set: |options| options.create_dest_path = false,
            expected: Err("/a: no such file or directory"),
        },
        Row {
            rule: "neither end leaves its tree",
            src: &["l->../../../f", "f=1"],
            base: &["up->../../.."],
            from: "../../l",
            to: "up/../x",
            set: |options| options.follow_symlink = true,
            expected: Ok(&["x=1"]),
        },
    ];
    for Row { rule, src, base, from, to, set, expected } in rows {
        let stack = Stack::new(&[src, base]);
        let source = View::of_layers(&stack.layers[..1]).unwrap();
        let below = View::of_layers(&stack.layers[1..]).unwrap();
        let mut options = CopyOptions { create_dest_path: true, ..CopyOptions::default() };
        set(&mut options);
        match (copied(&stack, &source, &below, from, to, &mut options), expected) {
            (Ok((layer, _)), Ok(expected)) => assert_eq!(list_layer(&layer), expected, "{rule}"),
            (Err(error), Err(expected)) => assert_eq!(error.to_string(), expected, "{rule}"),
            (result, _) => panic!("{rule}: {result:?}"),
        }
    }
}

#[test]
fn a_filter_leaves_out_and_makes_directories_only_when_needed() {
    let stack =
        Stack::new(&[&["d/a/x.c=1", "d/a/y.o=2", "d/b/y.o=3", "d/c/deep/x.c=4", "d/e/x.c="]]);
    let mut only_c = |path: &Path, is_dir: bool| {
        if path == Path::new("e") {
            Decision::Skip
        } else if is_dir {
            Decision::Descend
        } else if path.extension().is_some_and(|extension| extension == "c") {
            Decision::Include
        } else {
            Decision::Skip
        }
    };
    let mut options =
        CopyOptions { create_dest_path: true, filter: Some(&mut only_c), ..CopyOptions::default() };
    let (layer, _) = copied(&stack, &stack.view(), &View::empty(), "d", "x", &mut options).unwrap();
    let expected = ["x/", "x/a/", "x/a/x.c=1", "x/c/", "x/c/deep/", "x/c/deep/x.c=4"];
    assert_eq!(list_layer(&layer), expected);
}

fn metadata(layer: &LayerDir, path: &str) -> std::fs::Metadata {
    std::fs::symlink_metadata(layer.fs().join(path)).unwrap()
}

fn set_times(stack: &Stack, secs: i64) {
    let view = View::of_directory(&stack.layers[0].fs()).unwrap();
    for entry in view.walk("").unwrap().map(Result::unwrap) {
        let at = Timestamp { secs, nanos: 123 };
        entry.dir.set_mtime(&entry.name, at).unwrap();
    }
}

#[test]
fn unchanged_files_share_their_inode_and_changed_ones_do_not() {
    let stack = Stack::new(&[&["d/f=1", "d/g=2"]]);
    set_times(&stack, 1000);
    let source = metadata(&stack.layers[0], "d/f");
    let mut options = CopyOptions { create_dest_path: true, ..CopyOptions::default() };
    let (layer, done) =
        copied(&stack, &stack.view(), &View::empty(), "d", "x", &mut options).unwrap();
    assert_eq!(metadata(&layer, "x/f").ino(), source.ino());
    assert_eq!((done.entries, done.linked), (3, 2));
    assert_eq!(metadata(&layer, "x").mtime(), 1000);

    let changes: [fn(&mut CopyOptions<'_>); 4] = [
        |options| options.own_files = true,
        |options| options.owner = Some(Owner { uid: 1, gid: 0 }),
        |options| options.mode = Some(ModeChange::Set(0o600)),
        |options| options.timestamp = Some(Timestamp::from_secs(5)),
    ];
    for set in changes {
        let mut options = CopyOptions { create_dest_path: true, ..CopyOptions::default() };
        set(&mut options);
        let (layer, done) =
            copied(&stack, &stack.view(), &View::empty(), "d", "x", &mut options).unwrap();
        assert_ne!(metadata(&layer, "x/f").ino(), source.ino());
        assert_eq!(done.linked, 0);
        assert_eq!(list_layer(&layer), ["x/", "x/f=1", "x/g=2"]);
    }
    let after = metadata(&stack.layers[0], "d/f");
    assert_eq!((after.uid(), after.mode(), after.mtime()), (0, source.mode(), 1000));
}

#[test]
fn overrides_apply_to_everything_copied_and_to_new_parents() {
    let stack = Stack::new(&[&["d/f=1", "d/l->f"]]);
    set_times(&stack, 1000);
    let mut options = CopyOptions {
        create_dest_path: true,
        owner: Some(Owner { uid: 3, gid: 4 }),
        mode: Some(ModeChange::Set(0o2750)),
        timestamp: Some(Timestamp::from_secs(77)),
        ..CopyOptions::default()
    };
    let (layer, _) =
        copied(&stack, &stack.view(), &View::empty(), "d", "p/x", &mut options).unwrap();
    for (path, mode) in [("p", 0o750), ("p/x", 0o2750), ("p/x/f", 0o2750), ("p/x/l", 0o777)] {
        let found = metadata(&layer, path);
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (3, 4, mode), "{path}");
        if path != "p" {
            assert_eq!(found.mtime(), 77, "{path}");
        }
    }
    let only_dirs = |mode: u32, is_dir: bool| if is_dir { mode | 0o111 } else { mode & !0o111 };
    let mut options = CopyOptions {
        create_dest_path: true,
        mode: Some(ModeChange::Map(&only_dirs)),
        ..CopyOptions::default()
    };
    let (layer, _) = copied(&stack, &stack.view(), &View::empty(), "d", "x", &mut options).unwrap();
    assert_eq!(metadata(&layer, "x").mode() & 0o7777, 0o755);
    assert_eq!(metadata(&layer, "x/f").mode() & 0o7777, 0o644);
}

#[test]
fn an_existing_destination_keeps_its_metadata_and_merged_directories_take_the_sources() {
    let stack = Stack::new(&[&["d/e/f=1"], &["x/e/"]]);
    for (layer, path, mode, uid) in
        [(0, "d", 0o700, 1), (0, "d/e", 0o711, 1), (1, "x", 0o755, 2), (1, "x/e", 0o755, 2)]
    {
        let dir = Dir::open(&stack.layers[layer].fs().join(path)).unwrap();
        dir.set_own_owner(Owner { uid, gid: uid }).unwrap();
        dir.set_own_mode(mode).unwrap();
    }
    let source = View::of_layers(&stack.layers[..1]).unwrap();
    let base = View::of_layers(&stack.layers[1..]).unwrap();
    let mut options = CopyOptions { dir_copy_contents: true, ..CopyOptions::default() };
    let (layer, _) = copied(&stack, &source, &base, "d", "x", &mut options).unwrap();
    let found = |path| (metadata(&layer, path).uid(), metadata(&layer, path).mode() & 0o7777);
    assert_eq!((found("x"), found("x/e")), ((2, 0o755), (1, 0o711)));
}

#[test]
fn hardlinks_among_copied_files_stay_hardlinks() {
    let stack = Stack::new(&[&["d/a=1", "d/c=2"]]);
    let fs = stack.layers[0].fs();
    std::fs::hard_link(fs.join("d/a"), fs.join("d/b")).unwrap();
    for owner in [None, Some(Owner { uid: 9, gid: 9 })] {
        let mut options = CopyOptions { create_dest_path: true, owner, ..CopyOptions::default() };
        let (layer, _) =
            copied(&stack, &stack.view(), &View::empty(), "d", "x", &mut options).unwrap();
        assert_eq!(metadata(&layer, "x/a").ino(), metadata(&layer, "x/b").ino());
        assert_ne!(metadata(&layer, "x/a").ino(), metadata(&layer, "x/c").ino());
    }
}

#[test]
fn no_two_names_of_a_stack_share_an_inode_unless_they_did_in_the_source() {
    let stack = Stack::new(&[&["f=1"]]);
    let source = View::of_directory(&stack.layers[0].fs()).unwrap();
    let mut options = CopyOptions { create_dest_path: true, ..CopyOptions::default() };

    let first = stack.empty_layer();
    let mut writer = LayerWriter::new(&first, &View::empty()).unwrap();
    copy(&source, "f", &mut writer, "a", &mut options).unwrap();
    copy(&source, "f", &mut writer, "b", &mut options).unwrap();
    writer.finish().unwrap();
    assert_ne!(metadata(&first, "a").ino(), metadata(&first, "b").ino());

    let base = View::of_layers(std::slice::from_ref(&first)).unwrap();
    let (second, _) = copied(&stack, &source, &base, "f", "c", &mut options).unwrap();
    let inodes = [metadata(&first, "a").ino(), metadata(&first, "b").ino()];
    assert!(!inodes.contains(&metadata(&second, "c").ino()));

    let (third, _) = copied(&stack, &base, &base, "a", "d", &mut options).unwrap();
    assert!(!inodes.contains(&metadata(&third, "d").ino()));
    assert_eq!(list(&base.with_layer(&third).unwrap()), ["a=1", "b=1", "d=1"]);
}

#[test]
fn special_files_and_attributes_are_copied() {
    let stack = Stack::new(&[&["d/f=1"]]);
    let dir = Dir::open(&stack.layers[0].fs().join("d")).unwrap();
    let device = crate::Device { major: 1, minor: 3 };
    dir.create_node("null".as_ref(), FileKind::CharDevice, device).unwrap();
    dir.create_node("loop".as_ref(), FileKind::BlockDevice, device).unwrap();
    dir.create_node("fifo".as_ref(), FileKind::Fifo, crate::Device::default()).unwrap();
    dir.create_node("socket".as_ref(), FileKind::Socket, crate::Device::default()).unwrap();
    dir.set_xattr("f".as_ref(), b"user.note", b"file").unwrap();
    dir.set_own_xattr(b"user.note", b"dir").unwrap();
    let label: &[u8] = b"system_u:object_r:shadow_t:s0\0";
    dir.set_xattr("f".as_ref(), b"security.selinux", label).unwrap();
    dir.set_own_xattr(b"security.selinux", label).unwrap();
    let owner = Some(Owner { uid: 1, gid: 1 });
    let mut options = CopyOptions { create_dest_path: true, owner, ..CopyOptions::default() };
    let (layer, _) = copied(&stack, &stack.view(), &View::empty(), "d", "x", &mut options).unwrap();
    let view = View::of_layers(&[layer]).unwrap();
    let found = |path: &str| view.lookup(path, Follow::NoLast).unwrap().unwrap();
    assert_eq!(found("x/null").metadata().kind, FileKind::CharDevice);
    assert_eq!(found("x/null").metadata().rdev, device);
    assert_eq!(found("x/loop").metadata().kind, FileKind::BlockDevice);
    assert_eq!(found("x/fifo").metadata().kind, FileKind::Fifo);
    assert_eq!(
        (found("x/socket").metadata().kind, found("x/socket").metadata().size),
        (FileKind::File, 0)
    );
    for (path, note) in [("x/f", b"file".as_slice()), ("x", b"dir")] {
        let entry = found(path);
        assert_eq!(entry.xattrs().unwrap(), [(b"user.note".to_vec(), note.to_vec())]);
        let raw = entry.dir.xattrs(&entry.name).unwrap();
        assert!(!raw.iter().any(|(_, value)| value == label), "{path} has the source's label");
    }
}

#[test]
fn a_plain_trees_device_0_0_does_not_become_a_whiteout() {
    let stack = Stack::new(&[&["d/x="], &["d/y=", "-d/w"]]);
    let source = View::of_directory(&stack.layers[1].fs()).unwrap();
    let mut options = CopyOptions { create_dest_path: true, ..CopyOptions::default() };
    let error = copied(&stack, &source, &View::empty(), "d", "x", &mut options).unwrap_err();
    assert!(matches!(error, CopyError::Destination(FsError::ReservedDevice(_))), "{error}");
}

#[test]
fn a_tree_far_deeper_than_the_descriptor_limit_is_copied() {
    let stack = Stack::new(&[&["top/"]]);
    let mut dir = Dir::open(&stack.layers[0].fs().join("top")).unwrap();
    for _ in 0..1200 {
        dir = dir.create_dir("d".as_ref()).unwrap();
        dir.create_file("z".as_ref()).unwrap();
    }
    let mut options = CopyOptions { create_dest_path: true, ..CopyOptions::default() };
    let (_, done) =
        copied(&stack, &stack.view(), &View::empty(), "top", "x", &mut options).unwrap();
    assert_eq!(done.entries, 1 + 2 * 1200);
}

#[test]
fn a_file_that_a_stack_has_at_the_very_name_is_linked_again() {
    let stack = Stack::new(&[&["f=1"]]);
    let source = View::of_directory(&stack.layers[0].fs()).unwrap();
    let mut options = CopyOptions { create_dest_path: true, ..CopyOptions::default() };
    let (first, _) = copied(&stack, &source, &View::empty(), "f", "a", &mut options).unwrap();
    let base = View::of_layers(&[first]).unwrap();
    let (_, again) = copied(&stack, &source, &base, "f", "a", &mut options).unwrap();
    assert_eq!(again.linked, 1);
}

#[test]
fn a_cancelled_copy_stops() {
    let stack = Stack::new(&[&["d/f=1"]]);
    let mut options =
        CopyOptions { create_dest_path: true, cancelled: Some(&|| true), ..CopyOptions::default() };
    let result = copied(&stack, &stack.view(), &View::empty(), "d", "x", &mut options);
    assert!(matches!(result, Err(CopyError::Cancelled)));
}

#[test]
fn an_empty_tree_can_be_copied() {
    let stack = Stack::new(&[&["a/"]]);
    let mut options = CopyOptions { create_dest_path: true, ..CopyOptions::default() };
    let (layer, _) = copied(&stack, &View::empty(), &stack.view(), "/", "x", &mut options).unwrap();
    assert_eq!(list_layer(&layer), ["x/"]);
}
