//! Layers for tests, made and described with ordinary calls.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::dir::Dir;
use crate::{Entry, FileKind, LayerDir, LayerId, Overlay, Snapshotter, View};

/// A few layers in a directory of their own.
pub(crate) struct Stack {
    scratch: tempfile::TempDir,
    snapshots: Overlay,
    pub(crate) layers: Vec<LayerDir>,
}

impl Stack {
    /// Layers with the given entries: `dir/`, `file=content`, `link->target`, `-hidden`, `dir/!`
    /// (opaque). Parents are made.
    pub(crate) fn new(layers: &[&[&str]]) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let snapshots = Overlay::open(scratch.path()).unwrap();
        let mut stack = Self { scratch, snapshots, layers: Vec::new() };
        for entries in layers {
            let layer = stack.empty_layer();
            entries.iter().for_each(|entry| make(&layer, entry));
            stack.layers.push(layer);
        }
        stack
    }

    /// One more layer, which does not become part of the stack.
    pub(crate) fn empty_layer(&self) -> LayerDir {
        let id = self.snapshots.list().unwrap().last().map_or(0, |last| last.0 + 1);
        self.snapshots.create(LayerId(id)).unwrap()
    }

    pub(crate) fn remove(&self, layer: &LayerDir) {
        self.snapshots.remove(layer.id()).unwrap();
    }

    pub(crate) fn view(&self) -> View {
        View::of_layers(&self.layers).unwrap()
    }

    /// The stack with a further layer.
    pub(crate) fn view_with(&self, layer: &LayerDir) -> View {
        self.view().with_layer(layer).unwrap()
    }

    /// A place beside the layers, which nothing of a layer may reach.
    pub(crate) fn outside(&self) -> &Path {
        self.scratch.path()
    }
}

fn make(layer: &LayerDir, entry: &str) {
    let at = |path: &str| {
        let path = layer.fs().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    if *entry == *"!" {
        layer.open().unwrap().set_opaque(layer.marks()).unwrap();
    } else if let Some(path) = entry.strip_suffix("/!") {
        fs::create_dir_all(at(path)).unwrap();
        Dir::open(&at(path)).unwrap().set_opaque(layer.marks()).unwrap();
    } else if let Some((path, target)) = entry.split_once("->") {
        symlink(target, at(path)).unwrap();
    } else if let Some(path) = entry.strip_suffix('/') {
        fs::create_dir_all(at(path)).unwrap();
    } else if let Some((path, content)) = entry.split_once('=') {
        fs::write(at(path), content).unwrap();
    } else if let Some(path) = entry.strip_prefix('-') {
        let path = at(path);
        let parent = Dir::open(path.parent().unwrap()).unwrap();
        parent.create_whiteout(path.file_name().unwrap()).unwrap();
    } else {
        panic!("{entry}");
    }
}

/// The entries of a tree in the notation of [`Stack::new`], `dir/` also where it is a parent.
pub(crate) fn list(view: &View) -> Vec<String> {
    view.walk("").unwrap().map(|entry| notation(&entry.unwrap())).collect()
}

/// The files of one layer as they are, marks included: `-hidden`, `dir/!`.
pub(crate) fn list_layer(layer: &LayerDir) -> Vec<String> {
    let plain = View::of_directory(&layer.fs()).unwrap();
    let entries = plain.walk("").unwrap().map(Result::unwrap);
    entries
        .map(|entry| match entry.metadata().kind {
            FileKind::CharDevice => format!("-{}", entry.path().display()),
            FileKind::Directory => {
                let dir = entry.dir.dir(&entry.name).unwrap();
                let mark = if dir.is_opaque(layer.marks()).unwrap() { "!" } else { "" };
                notation(&entry) + mark
            }
            _ => notation(&entry),
        })
        .collect()
}

fn notation(entry: &Entry) -> String {
    let path = entry.path().to_str().unwrap().to_owned();
    match entry.metadata().kind {
        FileKind::Directory => path + "/",
        FileKind::File => {
            let mut content = Vec::new();
            entry.open().unwrap().read_to_end(&mut content).unwrap();
            path + "=" + &String::from_utf8_lossy(&content)
        }
        FileKind::Symlink => path + "->" + entry.read_link().unwrap().to_str().unwrap(),
        other => format!("{path} {other:?}"),
    }
}

/// Everything about every entry of a tree, for comparing trees. Hardlinks are told by the first
/// name of their inode.
pub(crate) fn describe(view: &View) -> BTreeMap<String, String> {
    let mut first: BTreeMap<(usize, u64), String> = BTreeMap::new();
    let mut described = BTreeMap::new();
    for entry in view.walk("").unwrap() {
        let entry = entry.unwrap();
        let path = entry.path().to_str().unwrap().to_owned();
        let metadata = entry.metadata();
        let mut text = format!(
            "{:?} {:o} {}:{} {:?} {:?}",
            metadata.kind, metadata.mode, metadata.uid, metadata.gid, metadata.rdev, metadata.mtime,
        );
        match metadata.kind {
            FileKind::File => {
                let mut content = Vec::new();
                entry.open().unwrap().read_to_end(&mut content).unwrap();
                write!(text, " {content:?}").unwrap();
            }
            FileKind::Symlink => write!(text, " {:?}", entry.read_link().unwrap()).unwrap(),
            _ => {}
        }
        write!(text, " {:?}", entry.xattrs().unwrap()).unwrap();
        if !metadata.is_dir() {
            let name = first.entry((entry.layer(), metadata.ino)).or_insert_with(|| path.clone());
            write!(text, " ={name}").unwrap();
        }
        described.insert(path, text);
    }
    described
}
