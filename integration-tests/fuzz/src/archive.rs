//! Archives: layers of images, and what ADD unpacks.

use std::fs;
use std::path::Path;

use kiln_snapshotter::apply::apply;
use kiln_snapshotter::unpack::{UnpackOptions, unpack};
use kiln_snapshotter::{LayerId, LayerWriter, Overlay, Snapshotter as _, View};

/// A layer's archive, uncompressed.
pub fn layer_archive(data: &[u8]) {
    guarded(|snapshots| {
        let layer = snapshots.create(LayerId(1)).expect("a new layer");
        let _ = apply(data, &layer, Some(&View::empty()));
    });
}

/// An archive that ADD unpacks below a directory, uncompressed.
pub fn add_archive(data: &[u8]) {
    guarded(|snapshots| {
        let layer = snapshots.create(LayerId(1)).expect("a new layer");
        let mut writer = LayerWriter::new(&layer, &View::empty()).expect("a writer");
        let _ = unpack(data, &mut writer, "/below", &UnpackOptions::default());
        let _ = writer.finish();
    });
}

/// Does something with a snapshotter, after which nothing beside its directory may have changed.
fn guarded(work: impl FnOnce(&Overlay)) {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let (root, guard) = (scratch.path().join("snapshots"), scratch.path().join("guard"));
    fs::create_dir(&root).expect("a folder");
    fs::write(&guard, "untouched").expect("a file");
    work(&Overlay::open(&root).expect("a snapshotter"));
    assert_eq!(fs::read(&guard).ok().as_deref(), Some(&b"untouched"[..]));
    assert_eq!(names(scratch.path()), ["guard", "snapshots"]);
    assert_eq!(names(&root), ["1"]);
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
