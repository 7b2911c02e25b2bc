//! Views over hand-made layers: `fs` directories written with ordinary calls.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::FsError;
use crate::dir::Dir;
use crate::fixture::Stack;

use super::*;

fn read(view: &View, path: &str) -> Option<String> {
    let mut file = match view.open(path) {
        Ok(file) => file,
        Err(error) if error.is_not_found() => return None,
        Err(error) => panic!("{error}"),
    };
    let mut content = String::new();
    file.read_to_string(&mut content).unwrap();
    Some(content)
}

fn walk(view: &View) -> Vec<String> {
    let entries = view.walk("/").unwrap();
    entries.map(|entry| entry.unwrap().path().to_str().unwrap().to_owned()).collect()
}

#[test]
fn upper_layers_hide_replace_and_merge_what_is_below() {
    type Names<'a> = &'a [&'a str];
    let rows: &[(&str, &[Names<'_>], Names<'_>)] = &[
        ("directories merge", &[&["d/a=1"], &["d/b=2"]], &["d", "d/a", "d/b"]),
        ("a file replaces a file", &[&["a=1"], &["a=2"]], &["a"]),
        ("a file hides a directory", &[&["d/a=1"], &["d=file"]], &["d"]),
        ("a directory hides a file", &[&["d=file"], &["d/a=1"]], &["d", "d/a"]),
        (
            "what lies below a hiding file stays hidden",
            &[&["d/a=1"], &["d=x"], &["d/b=2"]],
            &["d", "d/b"],
        ),
        ("a whiteout hides a file", &[&["a=1", "b=1"], &["-a"]], &["b"]),
        ("a whiteout hides a directory", &[&["d/a=1"], &["-d"]], &[]),
        ("a whiteout of nothing is nothing", &[&["-a", "b=1"]], &["b"]),
        ("a name returns above its whiteout", &[&["d/a=1"], &["-d"], &["d/b=1"]], &["d", "d/b"]),
        ("an opaque directory hides all below", &[&["d/a=1"], &["d/!", "d/b=2"]], &["d", "d/b"]),
        ("opaqueness reaches deeper layers", &[&["d/a=1"], &["d/b=1"], &["d/!"]], &["d"]),
        ("a layer above an opaque one merges", &[&["d/a=1"], &["d/!"], &["d/c=1"]], &["d", "d/c"]),
        (
            "siblings are sorted by byte",
            &[&["b=", "a.b=", "a/x="], &["B="]],
            &["B", "a", "a/x", "a.b", "b"],
        ),
    ];
    for (rule, layers, expected) in rows {
        let stack = Stack::new(layers);
        assert_eq!(walk(&stack.view()), *expected, "{rule}");
        for path in *expected {
            assert!(stack.view().lookup(path, Follow::NoLast).unwrap().is_some(), "{rule}: {path}");
        }
    }
}

#[test]
fn the_topmost_layer_tells_content_and_origin() {
    let stack = Stack::new(&[&["d/a=old", "d/b=old"], &["d/a=new"]]);
    let view = stack.view();
    assert_eq!(read(&view, "d/a").as_deref(), Some("new"));
    assert_eq!(read(&view, "/d/b").as_deref(), Some("old"));
    let layer = |path| view.lookup(path, Follow::Last).unwrap().unwrap().layer();
    assert_eq!((layer("d/a"), layer("d/b"), layer("d"), layer("/")), (1, 0, 1, 1));
}

#[test]
fn links_resolve_in_the_merged_tree_and_never_leave_it() {
    let stack = Stack::new(&[
        &["usr/lib/x=lib", "lib->usr/lib", "abs->/usr/lib", "up->../../../usr", "etc/passwd=in"],
        &["usr/share->/lib", "dangling->/no/where", "self->self", "etc/shadow->/../etc/passwd"],
        &["a->b", "b->a", "chain->c1", "c1->c2", "c2->usr/lib/x", "slash->/"],
    ]);
    let view = stack.view();
    let found = |path: &str| {
        view.lookup(path, Follow::Last).unwrap().map(|entry| entry.path().to_path_buf())
    };
    let rows = [
        ("lib/x", Some("usr/lib/x")),
        ("abs/x", Some("usr/lib/x")),
        ("up/lib/x", Some("usr/lib/x")),
        ("usr/share/x", Some("usr/lib/x")),
        ("/../../etc/passwd", Some("etc/passwd")),
        ("etc/shadow", Some("etc/passwd")),
        ("lib/../share/x", Some("usr/lib/x")),
        ("lib/..", Some("usr")),
        ("slash", Some("")),
        ("slash/etc/./passwd", Some("etc/passwd")),
        ("chain", Some("usr/lib/x")),
        ("dangling", None),
        ("etc/passwd/x", None),
        ("missing/x", None),
    ];
    for (path, expected) in rows {
        assert_eq!(found(path), expected.map(PathBuf::from), "{path}");
    }
    for path in ["self", "a", "b/x"] {
        let error = view.lookup(path, Follow::Last).unwrap_err();
        assert!(matches!(error, FsError::SymlinkLoop(_)), "{path}: {error}");
    }
    let link = view.lookup("chain", Follow::NoLast).unwrap().unwrap();
    assert!(link.metadata().is_symlink());
    assert_eq!(view.read_link("up").unwrap(), "../../../usr");
}

#[test]
fn the_real_path_of_what_does_not_exist_is_resolved_as_far_as_it_exists() {
    let stack = Stack::new(&[&["usr/lib/", "lib->usr/lib", "file=", "broken->/usr/none"]]);
    let view = stack.view();
    for (path, expected) in [
        ("/lib/new/deep", "usr/lib/new/deep"),
        ("/lib/new/../other", "usr/lib/other"),
        ("/lib/new/../../x", "usr/x"),
        ("broken/x", "usr/none/x"),
    ] {
        assert_eq!(view.real_path(path, Follow::Last).unwrap(), Path::new(expected), "{path}");
    }
    assert_eq!(view.real_path("broken", Follow::NoLast).unwrap(), Path::new("broken"));
    assert!(matches!(view.real_path("file/x", Follow::Last), Err(FsError::NotADirectory(_))));
}

#[test]
fn a_plain_tree_has_no_marks() {
    let stack = Stack::new(&[&["-device", "d/!", "d/a="]]);
    let plain = View::of_directory(&stack.layers[0].fs()).unwrap();
    assert_eq!(walk(&plain), ["d", "d/a", "device"]);
}

#[test]
fn only_regular_files_are_opened() {
    let stack = Stack::new(&[&["dir/"]]);
    let fifo = Dir::open(&stack.layers[0].fs()).unwrap();
    let none = crate::Device::default();
    fifo.create_node("fifo".as_ref(), crate::FileKind::Fifo, none).unwrap();
    for path in ["fifo", "dir", "/"] {
        assert!(matches!(stack.view().open(path), Err(FsError::NotAFile(_))), "{path}");
    }
}

#[test]
fn a_walk_can_leave_out_directories() {
    let stack = Stack::new(&[&["a/x=", "b/y=", "c="]]);
    let view = stack.view();
    let mut walk = view.walk("").unwrap();
    let mut seen = Vec::new();
    while let Some(entry) = walk.next() {
        let entry = entry.unwrap();
        if entry.path() == Path::new("a") {
            walk.skip_dir();
        }
        seen.push(entry.into_path());
    }
    assert_eq!(seen, ["a", "b", "b/y", "c"].map(PathBuf::from));
}

#[test]
fn a_tree_far_deeper_than_the_descriptor_limit_is_walked() {
    let stack = Stack::new(&[&["top="]]);
    let mut dir = Dir::open(&stack.layers[0].fs()).unwrap();
    for _ in 0..1500 {
        dir = dir.create_dir("d".as_ref()).unwrap();
        dir.create_file("z".as_ref()).unwrap();
    }
    assert_eq!(walk(&stack.view()).len(), 1 + 2 * 1500);
}
