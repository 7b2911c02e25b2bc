use super::*;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use tempfile::TempDir;

/// A tree of `dir/`, `file` and `link -> target` lines.
fn tree(lines: &[&str]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for line in lines {
        if let Some((link, target)) = line.split_once(" -> ") {
            symlink(target, root.path().join(link)).unwrap();
        } else if line.ends_with('/') {
            fs::create_dir_all(root.path().join(line)).unwrap();
        } else {
            let path = root.path().join(line);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, line).unwrap();
        }
    }
    root
}

fn strings(values: &[&str]) -> Vec<String> {
    values.iter().map(|&value| value.to_owned()).collect()
}

fn walk(root: &TempDir, selection: &Selection) -> Vec<String> {
    let tree = LocalTree::new(root.path(), selection, Owner::Kept).unwrap();
    tree.walk().map(|stat| stat.unwrap().path).collect()
}

fn excluding(root: &TempDir, patterns: &[&str]) -> Vec<String> {
    walk(root, &Selection { exclude_patterns: strings(patterns), ..Selection::default() })
}

fn including(root: &TempDir, patterns: &[&str]) -> Vec<String> {
    walk(root, &Selection { include_patterns: strings(patterns), ..Selection::default() })
}

fn following(root: &TempDir, paths: &[&str]) -> Vec<String> {
    walk(root, &Selection { follow_paths: strings(paths), ..Selection::default() })
}

#[test]
fn entries_come_in_the_order_of_their_components() {
    let root = tree(&["a/b/c", "a-b", "a.b/x", "a/b.c", "z/", "é"]);
    assert_eq!(
        walk(&root, &Selection::default()),
        ["a", "a/b", "a/b/c", "a/b.c", "a-b", "a.b", "a.b/x", "z", "é"]
    );
    let mut validator = super::super::Validator::default();
    let tree = LocalTree::new(root.path(), &Selection::default(), Owner::Kept).unwrap();
    for stat in tree.walk() {
        validator.check(&stat.unwrap()).unwrap();
    }
}

#[test]
fn excluded_entries_are_left_out_with_what_is_below_them() {
    let root = tree(&["a/x", "a/y.o", "b/z.o", "keep/a.o", "keep/b"]);
    for (patterns, expected) in [
        (&["a"][..], &["b", "b/z.o", "keep", "keep/a.o", "keep/b"][..]),
        (&["a/*"], &["a", "b", "b/z.o", "keep", "keep/a.o", "keep/b"]),
        (&["**/*.o"], &["a", "a/x", "b", "keep", "keep/b"]),
        (&["*"], &[]),
        (&["*", "!keep"], &["keep", "keep/a.o", "keep/b"]),
        (&["*", "!keep/b"], &["keep", "keep/b"]),
        (&["*", "!**/*.o"], &["a", "a/y.o", "b", "b/z.o", "keep", "keep/a.o"]),
        (&["keep", "!keep/*"], &["a", "a/x", "a/y.o", "b", "b/z.o", "keep", "keep/a.o", "keep/b"]),
        (&["**/*.o", "!keep/**"], &["a", "a/x", "b", "keep", "keep/a.o", "keep/b"]),
    ] {
        assert_eq!(excluding(&root, patterns), expected, "{patterns:?}");
    }
}

#[test]
fn included_entries_bring_their_directories() {
    let root = tree(&["a/b/x", "a/b/y", "a/c/x", "d/x", "e"]);
    for (patterns, expected) in [
        (&["a/b/x"][..], &["a", "a/b", "a/b/x"][..]),
        (&["a/b"], &["a", "a/b", "a/b/x", "a/b/y"]),
        (&["**/y"], &["a", "a/b", "a/b/y"]),
        (&["d", "e"], &["d", "d/x", "e"]),
        (&["a/*/x"], &["a", "a/b", "a/b/x", "a/c", "a/c/x"]),
        (&["a", "!a/b"], &["a", "a/c", "a/c/x"]),
        (&["nothing"], &[]),
        (&[""], &[]),
    ] {
        assert_eq!(including(&root, patterns), expected, "{patterns:?}");
    }
}

#[test]
fn excludes_apply_to_what_is_included() {
    let root = tree(&["a/b/x", "a/b/y", "a/c/x"]);
    let selection = Selection {
        include_patterns: strings(&["a/b"]),
        exclude_patterns: strings(&["**/x"]),
        follow_paths: Vec::new(),
    };
    assert_eq!(walk(&root, &selection), ["a", "a/b", "a/b/y"]);
}

#[test]
fn followed_paths_bring_what_their_symlinks_lead_to() {
    let root = tree(&[
        "dir/file",
        "dir/other",
        "dir/up -> ../top",
        "link -> dir/file",
        "absolute -> /dir/other",
        "chain -> link",
        "dirlink -> dir",
        "loop -> loop2",
        "loop2 -> loop",
        "outside -> ../../../top",
        "broken -> nowhere",
        "top",
    ]);
    for (paths, expected) in [
        (&["link"][..], &["dir", "dir/file", "link"][..]),
        (&["absolute"], &["absolute", "dir", "dir/other"]),
        (&["chain"], &["chain", "dir", "dir/file", "link"]),
        (&["dirlink/file"], &["dir", "dir/file", "dirlink"]),
        (&["dir/up"], &["dir", "dir/up", "top"]),
        (&["loop"], &["loop", "loop2"]),
        (&["outside"], &["outside", "top"]),
        (&["broken"], &["broken"]),
        (&["top", "missing"], &["top"]),
        (&["li*"], &["dir", "dir/file", "link"]),
        (&["dir/../link"], &["dir", "dir/file", "link"]),
        (&["../../etc"], &[]),
    ] {
        assert_eq!(following(&root, paths), expected, "{paths:?}");
    }
    assert_eq!(following(&root, &["."]), walk(&root, &Selection::default()));
}

#[test]
fn a_directory_that_cannot_be_read_matters_only_where_it_is_wanted() {
    let root = tree(&["secret/", "x"]);
    let secret = root.path().join("secret");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(excluding(&root, &["secret"]), ["x"]);
    if fs::read_dir(&secret).is_ok() {
        // Root may read it after all.
        return;
    }
    let tree = LocalTree::new(root.path(), &Selection::default(), Owner::Kept).unwrap();
    assert!(tree.walk().any(|stat| stat.is_err()));
    assert_eq!(excluding(&root, &["secret", "!**/y"]), ["x"]);
}

#[test]
fn an_entry_says_what_the_file_is() {
    let root = tree(&["d/", "link -> some/target", "plain"]);
    let plain = root.path().join("plain");
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o4750)).unwrap();
    fs::hard_link(&plain, root.path().join("same")).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_600_000_000, 123_456_789);
    fs::File::open(&plain).unwrap().set_modified(time).unwrap();
    let pipe = root.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.path().join("socket")).unwrap();

    let owner = Owner::Set { uid: 7, gid: 8 };
    let tree = LocalTree::new(root.path(), &Selection::default(), owner).unwrap();
    let stats: BTreeMap<String, Stat> =
        tree.walk().map(|stat| stat.map(|stat| (stat.path.clone(), stat)).unwrap()).collect();

    let kinds: Vec<_> = stats
        .values()
        .map(|stat| (stat.path.as_str(), stat.go_mode().to_st_mode().unwrap() & 0o170_000))
        .collect();
    assert_eq!(
        kinds,
        [
            ("d", 0o040_000),
            ("link", 0o120_000),
            ("pipe", 0o010_000),
            ("plain", 0o100_000),
            ("same", 0o100_000),
            ("socket", 0o100_000),
        ]
    );
    assert!(stats.values().all(|stat| (stat.uid, stat.gid) == (7, 8)));
    let plain = &stats["plain"];
    assert_eq!(plain.go_mode().permissions(), 0o4750);
    assert_eq!(plain.size, 5);
    assert_eq!(plain.mod_time, 1_600_000_000_123_456_789);
    assert_eq!(plain.linkname, "");
    assert_eq!(stats["same"].linkname, "plain");
    assert!(stats["same"].is_hardlink());
    assert_eq!(stats["link"].linkname, "some/target");
    assert!(!stats["link"].is_hardlink());
    assert_eq!(stats["d"].size, 0);
}

#[test]
fn a_hardlink_whose_first_name_is_left_out_is_a_file() {
    let root = tree(&["a"]);
    fs::hard_link(root.path().join("a"), root.path().join("b")).unwrap();
    fs::hard_link(root.path().join("a"), root.path().join("c")).unwrap();
    let selection = Selection { exclude_patterns: strings(&["a"]), ..Selection::default() };
    let tree = LocalTree::new(root.path(), &selection, Owner::Kept).unwrap();
    let links: Vec<_> =
        tree.walk().map(|stat| stat.map(|stat| (stat.path, stat.linkname)).unwrap()).collect();
    assert_eq!(links, [("b".to_owned(), String::new()), ("c".to_owned(), "b".to_owned())]);
}

#[test]
fn a_name_that_is_not_text_is_an_error_unless_it_is_left_out() {
    let root = tree(&["x"]);
    let name = std::ffi::OsStr::from_bytes(b"bad\xff");
    fs::write(root.path().join(name), "").unwrap();
    let tree = LocalTree::new(root.path(), &Selection::default(), Owner::Kept).unwrap();
    let results: Vec<_> = tree.walk().collect();
    assert!(matches!(results[0], Err(WalkError::NotUtf8 { .. })));
    assert_eq!(excluding(&root, &["bad*"]), ["x"]);
}

#[test]
fn files_are_opened_inside_the_tree_only() {
    let root = tree(&["d/file", "link -> /etc/passwd", "dirlink -> d"]);
    let tree = LocalTree::new(root.path(), &Selection::default(), Owner::Kept).unwrap();
    assert!(tree.open("d/file").is_ok());
    for path in ["link", "../x", "/etc/passwd", "d/../../x", "dirlink/file"] {
        assert!(tree.open(path).is_err(), "{path}");
    }
}

#[test]
fn a_missing_or_unsuitable_root_is_named() {
    let root = tree(&["file"]);
    for name in ["none", "file"] {
        let path = root.path().join(name);
        let error = LocalTree::new(&path, &Selection::default(), Owner::Kept).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    let selection = Selection { exclude_patterns: strings(&["["]), ..Selection::default() };
    assert!(LocalTree::new(root.path(), &selection, Owner::Kept).is_err());
}
