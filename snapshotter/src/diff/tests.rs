//! Packed layers, told by their entries, and by the layers they unpack to.

use proptest::prelude::*;

use super::*;
use crate::apply::apply;
use crate::fixture::{Stack, describe, list, list_layer};
use crate::tar::{EntryKind, Reader};
use crate::{Follow, LayerWriter, NewEntry, Owner};

fn pack(layer: &LayerDir, lower: Option<&View>) -> Vec<u8> {
    let mut out = Vec::new();
    diff(layer, lower, &mut out, &DiffOptions::default()).unwrap();
    out
}

/// Names with what they are, as in `tar -t`.
fn names(stream: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(stream);
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut name = String::from_utf8(entry.name).unwrap();
        if entry.kind == EntryKind::Hardlink {
            name = name + "==" + std::str::from_utf8(&entry.link).unwrap();
        }
        names.push(name);
    }
    names
}

#[test]
fn a_layer_has_what_differs_from_the_stack_below() {
    type Names<'a> = &'a [&'a str];
    let rows: &[(&str, Names<'_>, Names<'_>, Names<'_>)] = &[
        ("what is new", &[], &["d/f=1", "e/"], &["d/", "d/f", "e/"]),
        ("parents come along", &["d/e/f=1"], &["d/e/g=1"], &["d/", "d/e/", "d/e/g"]),
        ("copied-up directories alone do not", &["d/e/f=1"], &["d/e/"], &[]),
        ("whiteouts", &["d/f=1", "d/g/x=1"], &["-d/f", "-d/g"], &["d/", "d/.wh.f", "d/.wh.g"]),
        ("whiteouts of nothing are nothing", &["d/f=1"], &["-d/x", "-y"], &[]),
        ("opaque directories", &["d/f=1"], &["d/!", "d/f=2"], &["d/", "d/.wh..wh..opq", "d/f"]),
        ("opaque over nothing is not", &[], &["d/!", "d/f=2"], &["d/", "d/f"]),
        (
            "a whiteout in an opaque directory is nothing",
            &["d/f=1"],
            &["d/!", "-d/f"],
            &["d/", "d/.wh..wh..opq"],
        ),
        ("a new type", &["f=1", "d/g="], &["f/", "d=2"], &["d", "f/"]),
        ("sorted depth first", &[], &["b=", "a/c=", "a.b="], &["a/", "a/c", "a.b", "b"]),
    ];
    for (rule, base, upper, expected) in rows {
        let stack = Stack::new(&[base, upper]);
        let lower = View::of_layers(&stack.layers[..1]).unwrap();
        assert_eq!(names(&pack(&stack.layers[1], Some(&lower))), *expected, "{rule}");
    }
}

#[test]
fn without_a_stack_below_everything_is_packed() {
    let stack = Stack::new(&[&["d/!", "-x", "d/f=1"]]);
    assert_eq!(names(&pack(&stack.layers[0], None)), ["d/", "d/.wh..wh..opq", "d/f", ".wh.x"]);
}

#[test]
fn files_that_equal_those_below_are_left_out() {
    let touch = |layer: &LayerDir, path: &str, secs, nanos| {
        let at = Timestamp { secs, nanos };
        layer.open().unwrap().set_mtime(path.as_ref(), at).unwrap();
    };
    let entries: &[&str] = &["same=1", "time=1", "text=1", "fine=1", "mode=1", "link->a"];
    let stack =
        Stack::new(&[entries, &["same=1", "time=1", "text=2", "fine=2", "mode=1", "link->a"]]);
    for (index, layer) in stack.layers.iter().enumerate() {
        for path in ["same", "time", "text", "mode", "link"] {
            touch(layer, path, 1000, 0);
        }
        touch(layer, "fine", 1000, 7);
        touch(layer, "time", 1000 + index as i64, 0);
    }
    stack.layers[1].open().unwrap().set_mode("mode".as_ref(), 0o600).unwrap();
    let lower = View::of_layers(&stack.layers[..1]).unwrap();
    assert_eq!(names(&pack(&stack.layers[1], Some(&lower))), ["fine", "mode", "text", "time"]);
}

#[test]
fn hardlinks_point_to_the_first_name() {
    let stack = Stack::new(&[&["d/b=1", "z="]]);
    let fs = stack.layers[0].fs();
    std::fs::hard_link(fs.join("d/b"), fs.join("d/a")).unwrap();
    std::fs::hard_link(fs.join("d/b"), fs.join("c")).unwrap();
    // A name elsewhere makes no link here.
    std::fs::hard_link(fs.join("z"), stack.outside().join("z")).unwrap();
    assert_eq!(names(&pack(&stack.layers[0], None)), ["c", "d/", "d/a==c", "d/b==c", "z"]);
}

#[test]
fn times_are_whole_seconds_and_at_most_the_epoch_asked_for() {
    let stack = Stack::new(&[&["a=1", "b=2"]]);
    let root = stack.layers[0].open().unwrap();
    root.set_mtime("a".as_ref(), Timestamp { secs: 500, nanos: 999_999_999 }).unwrap();
    let mut out = Vec::new();
    let options = DiffOptions { max_mtime: Some(Timestamp::from_secs(1000)) };
    let diffed = diff(&stack.layers[0], None, &mut out, &options).unwrap();
    assert_eq!((diffed.entries, diffed.content), (2, 2));
    let mut reader = Reader::new(out.as_slice());
    let mut times = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        times.push(entry.mtime);
    }
    assert_eq!(times, [500, 1000].map(Timestamp::from_secs));
}

#[test]
fn what_a_layer_cannot_say_is_refused() {
    let stack = Stack::new(&[&["d/.wh.x="], &["d/"]]);
    let result = diff(&stack.layers[0], None, Vec::new(), &DiffOptions::default());
    assert!(matches!(result, Err(DiffError::ReservedName(_))));
    let dir = stack.layers[1].open().unwrap().dir("d".as_ref()).unwrap();
    dir.set_own_xattr(b"trusted.overlay.redirect", b"/x").unwrap();
    let result = diff(&stack.layers[1], None, Vec::new(), &DiffOptions::default());
    assert!(matches!(result, Err(DiffError::Redirected(_))));
}

#[test]
fn a_reduced_layer_says_what_it_changes_and_nothing_else() {
    type Names<'a> = &'a [&'a str];
    let rows: &[(&str, Names<'_>, Names<'_>, Names<'_>)] = &[
        ("what is new stays", &["d/f=1"], &["d/g=2", "e/h=3"], &["d/", "d/g=2", "e/", "e/h=3"]),
        (
            "what has not changed goes",
            &["d/e/f=1", "d/g=2"],
            &["d/e/f=1", "d/g=3"],
            &["d/", "d/g=3"],
        ),
        ("whiteouts stay", &["d/f=1"], &["-d/f"], &["d/", "-d/f"]),
        ("whiteouts of nothing go", &["d/f=1"], &["-d/g", "-h", "e/i=", "-e/j"], &["e/", "e/i="]),
        (
            "a directory made anew has whiteouts of what it had",
            &["d/f=1", "d/g=2", "d/e/h=3"],
            &["d/!", "d/g=4", "d/i=5"],
            &["d/", "-d/e", "-d/f", "d/g=4", "d/i=5"],
        ),
        (
            "with directories in it, too",
            &["d/e/f=1", "d/e/g=2", "d/h/i=3"],
            &["d/!", "d/e/f=4", "d/h/!"],
            &["d/", "d/e/", "d/e/f=4", "-d/e/g", "d/h/", "-d/h/i"],
        ),
        (
            "and nothing else if it has it all again",
            &["d/f=1", "d/e/"],
            &["d/!", "d/f=1", "d/e/"],
            &[],
        ),
        (
            "a new directory hides nothing",
            &["a="],
            &["d/!", "d/e/!", "d/e/f=1"],
            &["d/", "d/e/", "d/e/f=1"],
        ),
        ("nor does one in a file's place", &["d=1"], &["d/!", "d/f=2"], &["d/", "d/f=2"]),
        ("a new type", &["f=1", "d/g="], &["f/", "d=2", "l->f"], &["d=2", "f/", "l->f"]),
        ("the root", &["f=1", "d/g=2"], &["!", "d/g=3"], &["d/", "d/g=3", "-f"]),
    ];
    for (rule, base, upper, expected) in rows {
        let stack = Stack::new(&[base, upper]);
        for layer in &stack.layers {
            settle_times(layer);
        }
        let (before, layer) = (describe(&stack.view()), &stack.layers[1]);
        reduce(layer, &View::of_layers(&stack.layers[..1]).unwrap()).unwrap();
        assert_eq!(list_layer(layer), *expected, "{rule}");
        assert_eq!(describe(&stack.view()), before, "{rule}");
    }
}

#[test]
fn a_file_that_can_be_told_from_the_one_below_stays_in_a_reduced_layer() {
    let entries: &[&str] = &["content=1", "mode=1", "names=1", "note=1", "same=1", "time=1"];
    let stack = Stack::new(&[entries, entries]);
    stack.layers.iter().for_each(settle_times);
    let upper = stack.layers[1].open().unwrap();
    std::fs::write(stack.layers[1].fs().join("content"), "2").unwrap();
    upper.set_mode("mode".as_ref(), 0o600).unwrap();
    upper.link("other name".as_ref(), &upper, "names".as_ref()).unwrap();
    upper.set_xattr("note".as_ref(), b"user.note", b"new").unwrap();
    upper.set_mtime("content".as_ref(), Timestamp::from_secs(2000)).unwrap();
    upper.set_mtime("time".as_ref(), Timestamp { secs: 2000, nanos: 1 }).unwrap();
    reduce(&stack.layers[1], &View::of_layers(&stack.layers[..1]).unwrap()).unwrap();
    assert_eq!(
        list_layer(&stack.layers[1]),
        ["content=2", "mode=1", "names=1", "note=1", "other name=1", "time=1"]
    );
}

#[test]
fn a_layer_too_deep_to_be_looked_through_is_reduced_as_far_as_it_is() {
    let deep = format!("d/{}", "e/".repeat(150));
    let (old, new) = (format!("{deep}old=1"), format!("{deep}new=2"));
    let stack = Stack::new(&[&[old.as_str(), "d/f="], &["d/!", new.as_str()]]);
    stack.layers.iter().for_each(settle_times);
    let before = describe(&stack.view());
    reduce(&stack.layers[1], &View::of_layers(&stack.layers[..1]).unwrap()).unwrap();
    assert_eq!(describe(&stack.view()), before);
    let left = list_layer(&stack.layers[1]);
    assert!(left.contains(&"-d/f".to_owned()) && !left.contains(&"d/!".to_owned()), "{left:?}");
}

/// Of trees of a layer each, a new one that makes the first look like the second.
fn mirrored(trees: &Stack) -> (LayerDir, [View; 2]) {
    trees.layers.iter().for_each(settle_times);
    let [lower, upper] = [0, 1].map(|tree| View::of_layers(&trees.layers[tree..=tree]).unwrap());
    let layer = mirror_of(trees, &upper, &lower);
    let merged = lower.with_layer(&layer).unwrap();
    (layer, [merged, upper])
}

/// A layer that makes one tree look like another.
fn mirror_of(stack: &Stack, upper: &View, lower: &View) -> LayerDir {
    let layer = stack.empty_layer();
    let mut writer = LayerWriter::new(&layer, lower).unwrap();
    mirror(upper, &mut writer, &|| false).unwrap();
    writer.finish().unwrap();
    layer
}

#[test]
fn a_tree_is_mirrored_by_what_it_has_otherwise() {
    type Names<'a> = &'a [&'a str];
    let rows: &[(&str, Names<'_>, Names<'_>, Names<'_>)] = &[
        ("nothing", &["d/f=1"], &["d/f=1"], &[]),
        ("to nothing", &["d/f=1", "g=2"], &[], &["-d", "-g"]),
        ("from nothing", &[], &["d/f=1", "g=2"], &["d/", "d/f=1", "g=2"]),
        ("names", &["d/f=1", "d/g=2"], &["d/g=2", "d/h=3"], &["d/", "-d/f", "d/h=3"]),
        ("content", &["d/e/f=1", "g=1"], &["d/e/f=2", "g=1"], &["d/", "d/e/", "d/e/f=2"]),
        (
            "types",
            &["a/f=1", "b=2", "c->a"],
            &["a=1", "b/g=2", "c/"],
            &["a=1", "b/", "b/g=2", "c/"],
        ),
        ("links", &["l->a"], &["l->b"], &["l->b"]),
        ("no link is followed", &["d/f=1", "e/"], &["d->e", "e/"], &["d->e"]),
    ];
    for (rule, lower, upper, expected) in rows {
        let trees = Stack::new(&[lower, upper]);
        let (layer, [merged, upper]) = mirrored(&trees);
        assert_eq!(list_layer(&layer), *expected, "{rule}");
        assert_eq!(describe(&merged), describe(&upper), "{rule}");
    }
}

#[test]
fn files_with_several_names_are_mirrored_as_such() {
    let trees = Stack::new(&[&["d/c="], &["d/a=1", "d/c="]]);
    let files = trees.layers[1].fs();
    std::fs::hard_link(files.join("d/a"), files.join("d/b")).unwrap();
    let (_, [merged, upper]) = mirrored(&trees);
    assert_eq!(describe(&merged), describe(&upper));
}

/// One change to a tree.
#[derive(Debug, Clone)]
enum Change {
    Dir(String, u32),
    File(String, Vec<u8>, u32, u32),
    Link(String, String),
    Remove(String),
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned),
        1 => Just("ü".repeat(60)),
        1 => "[ -.0-~]{1,8}".prop_filter("a name", |name| !name.starts_with('.')),
    ]
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(name(), 1..4).prop_map(|names| names.join("/"))
}

fn change() -> impl Strategy<Value = Change> {
    let mode = 0_u32..0o10000;
    prop_oneof![
        2 => (path(), mode.clone()).prop_map(|(path, mode)| Change::Dir(path, mode)),
        4 => (path(), prop::collection::vec(any::<u8>(), 0..2000), mode, any::<u32>())
            .prop_map(|(path, data, mode, id)| Change::File(path, data, mode, id % 4_000_000_000)),
        1 => (path(), path()).prop_map(|(path, target)| Change::Link(path, target)),
        3 => path().prop_map(Change::Remove),
    ]
}

/// Does what can be done; the rest is refused, which other tests are about.
fn write(writer: &mut LayerWriter, change: &Change) {
    let mtime = Some(Timestamp::from_secs(1000));
    let _ = match change {
        Change::Dir(path, mode) => {
            writer.mkdir_all(path, &NewEntry { mode: *mode, owner: None, mtime }).map(drop)
        }
        Change::File(path, data, mode, id) => {
            let owner = Some(Owner { uid: *id, gid: *id / 2 });
            writer.write_file(path, data, &NewEntry { mode: *mode, owner, mtime })
        }
        Change::Link(path, target) => {
            writer.symlink(target, path, &NewEntry { mode: 0, owner: None, mtime })
        }
        Change::Remove(path) => writer.remove(path),
    };
}

/// Directories in which something changed have the time of that moment, fractions included.
fn settle_times(layer: &LayerDir) {
    let view = View::of_directory(&layer.fs()).unwrap();
    for entry in view.walk("").unwrap().map(Result::unwrap) {
        entry.dir.set_mtime(&entry.name, Timestamp::from_secs(2000)).unwrap();
    }
}

/// A layer over a stack, with what can be done of some changes.
fn written(stack: &Stack, changes: &[Change]) -> LayerDir {
    let layer = stack.empty_layer();
    let mut writer = LayerWriter::new(&layer, &stack.view()).unwrap();
    for change in changes {
        write(&mut writer, change);
    }
    writer.finish().unwrap();
    settle_times(&layer);
    layer
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn unpacking_a_packed_layer_gives_the_layer(
        layers in prop::collection::vec(prop::collection::vec(change(), 0..12), 1..4)
    ) {
        let mut stack = Stack::new(&[]);
        let mut copies = Stack::new(&[]);
        for changes in &layers {
            let layer = written(&stack, changes);

            // Alone, the layer's own files come back as they are.
            let alone = copies.empty_layer();
            let stream = pack(&layer, None);
            let _ = apply(stream.as_slice(), &alone, None).unwrap();
            prop_assert_eq!(list_layer(&alone), list_layer(&layer));
            let plain = |layer: &LayerDir| View::of_directory(&layer.fs()).unwrap();
            prop_assert_eq!(describe_unmarked(&plain(&alone)), describe_unmarked(&plain(&layer)));
            prop_assert_eq!(&pack(&alone, None), &stream);
            copies.remove(&alone);

            // On its stack, the merged trees are the same.
            let copy = copies.empty_layer();
            let stream = pack(&layer, Some(&stack.view()));
            apply(stream.as_slice(), &copy, Some(&copies.view())).unwrap();
            stack.layers.push(layer);
            copies.layers.push(copy);
            prop_assert_eq!(list(&copies.view()), list(&stack.view()));
            prop_assert_eq!(describe(&copies.view()), describe(&stack.view()));
        }
    }

    #[test]
    fn a_layer_can_be_reduced_and_a_tree_mirrored_without_a_difference_to_see(
        layers in prop::collection::vec(prop::collection::vec(change(), 0..12), 1..4),
        others in prop::collection::vec(prop::collection::vec(change(), 0..12), 1..3)
    ) {
        let mut stack = Stack::new(&[]);
        let mut views = Vec::new();
        for changes in layers.iter().chain(&others) {
            if views.len() == layers.len() {
                // The others are a second tree, which begins with the first one's lowest layer.
                stack.layers.truncate(1);
            }
            let layer = written(&stack, changes);
            let before = describe(&stack.view_with(&layer));
            reduce(&layer, &stack.view()).unwrap();
            prop_assert!(!is_marked(&layer));
            prop_assert_eq!(describe(&stack.view_with(&layer)), before);
            stack.layers.push(layer);
            views.push(stack.view());
        }
        let (first, second) = (&views[layers.len() - 1], views.last().unwrap());
        for (lower, upper) in [(first, second), (second, first), (second, &View::empty())] {
            let layer = mirror_of(&stack, upper, lower);
            reduce(&layer, lower).unwrap();
            prop_assert!(!is_marked(&layer));
            prop_assert_eq!(describe(&lower.with_layer(&layer).unwrap()), describe(upper));
            stack.layers.push(layer);
        }
    }
}

/// Whether a directory of a layer is marked as opaque.
fn is_marked(layer: &LayerDir) -> bool {
    let is_mark = |entry: &String| entry.ends_with("/!") && !entry.contains("->");
    list_layer(layer).iter().any(is_mark)
}

/// Without whiteouts, whose owner and time mean nothing.
fn describe_unmarked(view: &View) -> std::collections::BTreeMap<String, String> {
    let mut described = describe(view);
    described.retain(|path, _| {
        !view.lookup(path, Follow::NoLast).unwrap().unwrap().metadata().is_whiteout()
    });
    described
}
