//! What the next process finds, after a clean end and after others.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use super::*;

#[test]
fn a_start_drops_rows_without_data_and_names_data_without_rows() {
    let fixture = Fixture::new();
    let blob = fixture.blob("kept").row;
    let lost = fixture.blob("lost").row;
    fixture.index.put_image("whole", &image(&blob, &[], &[])).unwrap();
    fixture.index.put_image("broken", &image(&lost, &[], &[])).unwrap();
    for (reference, blob) in [("whole", &blob), ("broken", &lost)] {
        let entry = HistoryEntry { data: Vec::new(), blobs: vec![blob.digest] };
        fixture.index.put_history(reference, &entry).unwrap();
    }
    fixture.store.remove(&lost.digest).unwrap();
    let garbage = fixture.store.put(b"garbage").unwrap();
    let base = fixture.step("base", &[]);
    let gone = fixture.step("gone", &[base]);
    let above = fixture.step("above", &[base, gone]);

    let fixture = fixture.reopen();
    let reconciled = fixture.reconcile(&[base, above, LayerId(999_999)], "boot-1");
    let mut layers = reconciled.layers.clone();
    layers.sort_unstable();
    assert_eq!(layers, [above, LayerId(999_999)]);
    assert_eq!(reconciled.blobs, [garbage.digest]);
    let dropped = Dropped { layers: 2, records: 2, dirs: 0, blobs: 1, images: 1, history: 1 };
    assert_eq!(reconciled.dropped, dropped);
    assert!(fixture.hit(&key("base")).is_some());
    assert!(fixture.hit(&key("gone")).is_none());
    assert!(fixture.hit(&key("above")).is_none());
    let names: Vec<_> = fixture.index.images().unwrap().into_iter().map(|row| row.0).collect();
    assert_eq!(names, ["whole"]);
    let references: Vec<_> = fixture.index.history_all().map(|row| row.unwrap().0).collect();
    assert_eq!(references, ["whole"]);
    assert_eq!(fixture.reconcile(&[base], "boot-1").dropped, Dropped::default());
}

#[test]
fn after_another_boot_only_what_was_durable_is_used() {
    let fixture = Fixture::new();
    let safe_blob = fixture.blob("safe").row;
    let safe = fixture.step("safe", &[]);
    let dir = fixture.dir(DirKind::CacheMount, "id", "");
    assert!(!fixture.index.is_layer_durable(safe).unwrap());
    assert!(fixture.index.begin_durable().unwrap().layers().eq([safe]));
    fixture.make_durable();
    assert!(fixture.index.is_layer_durable(safe).unwrap());
    let late_blob = fixture.blob("late").row;
    let late = fixture.step("late", &[safe]);

    let fixture = fixture.reopen();
    let same_boot = fixture.reconcile(&[safe, late], "boot-1");
    assert_eq!(same_boot.dropped, Dropped { dirs: 1, ..Dropped::default() });
    let other_boot = fixture.reconcile(&[safe, late], "boot-2");
    assert_eq!(other_boot.layers, [late]);
    assert_eq!(other_boot.blobs, [late_blob.digest]);
    let dropped = Dropped { layers: 1, records: 1, blobs: 1, ..Dropped::default() };
    assert_eq!(other_boot.dropped, dropped);
    assert!(fixture.hit(&key("safe")).is_some());
    assert!(fixture.index.blob(&safe_blob.digest).unwrap().is_some());
    assert_eq!(fixture.reconcile(&[safe], "boot-3").dropped, Dropped::default());
    drop(dir);
}

#[test]
fn a_directory_that_is_written_again_is_volatile_again() {
    let fixture = Fixture::new();
    let dir = fixture.dir(DirKind::CacheMount, "id", "");
    let id = dir.row.id;
    assert!(fixture.index.begin_durable().unwrap().is_empty(), "it is in use");
    drop(dir);
    let group = fixture.index.begin_durable().unwrap();
    assert_eq!(group.len(), 1);
    // Opened after the sync began: the pass must not cover it.
    let again = fixture.index.dirs(DirKind::CacheMount, "id").unwrap().remove(0);
    fixture.index.open_dir_for_writing(id, &again.pin).unwrap();
    fixture.index.mark_durable(group).unwrap();
    let on_disk = OnDisk { dirs: vec![id], ..OnDisk::default() };
    assert_eq!(fixture.index.reconcile(&on_disk, "boot-2").unwrap().dirs, [id]);
}

#[test]
fn a_lost_layer_that_can_be_fetched_again_only_becomes_lazy() {
    let fixture = Fixture::new();
    let layer = fixture.index.alloc_layer().unwrap();
    let mut row = LayerRow::new(layer, vec![]);
    row.presence.remotes =
        vec![Remote { origin: "docker.io/library/alpine".to_owned(), blob: Digest::of("blob") }];
    row.blobs = vec![Descriptor::new("layer", op("blob"), 3)];
    drop(fixture.index.save(record("a", vec![layer]), &KeyParts::default(), &[], &[row]).unwrap());
    assert_eq!(fixture.reconcile(&[layer], "boot-2").layers, [layer]);
    assert!(!fixture.index.layer(layer).unwrap().unwrap().presence.is_local);
    assert!(fixture.hit(&key("a")).is_some());

    // It was fetched, and is as volatile as anything new.
    fixture.index.update_layer(layer, |row| row.presence.is_local = true).unwrap();
    assert!(!fixture.index.is_layer_durable(layer).unwrap());
}

#[test]
fn a_process_that_is_killed_loses_nothing_that_was_saved() {
    let fixture = Fixture::new();
    let layer = fixture.step("a", &[]);
    let blob = fixture.blob("b").row;
    // The files as a killed process leaves them: nothing flushed, nothing closed.
    let copy = tempfile::tempdir().unwrap();
    let from = fixture.root.path().join("index");
    for file in std::fs::read_dir(&from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let index = Index::open(copy.path()).unwrap();
    let on_disk = OnDisk { layers: vec![layer], dirs: vec![], blobs: vec![blob] };
    assert_eq!(index.reconcile(&on_disk, "boot-1").unwrap(), Reconciled::default());
    assert_eq!(index.lookup(&[key("a")]).unwrap().unwrap().row.result, [layer]);
}

/// Where [`saves_until_it_is_killed`] saves; it does nothing if this is not set.
const VICTIM_ROOT: &str = "KILN_CACHE_TEST_ROOT";

/// The other process of the test below.
#[test]
fn saves_until_it_is_killed() {
    let Some(root) = std::env::var_os(VICTIM_ROOT) else { return };
    let index = Index::open(Path::new(&root).join("index")).unwrap();
    index.reconcile(&OnDisk::default(), "boot-1").unwrap();
    let mut below = Vec::new();
    for number in 0.. {
        let layer = index.alloc_layer().unwrap();
        let row = LayerRow::new(layer, below.last().copied().into_iter().collect());
        below = vec![layer];
        let aliases = [key(&format!("alias {number}"))];
        let saved = record(&format!("step {number}"), vec![layer]);
        drop(index.save(saved, &KeyParts::default(), &aliases, &[row]).unwrap());
        println!("\nsaved {number} {layer}");
    }
}

#[test]
fn a_sigkill_loses_nothing_that_was_saved_and_leaves_no_half_of_anything() {
    for saves in [1, 50, 400] {
        let root = tempfile::tempdir().unwrap();
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "index::tests::start::saves_until_it_is_killed", "--nocapture"])
            .env(VICTIM_ROOT, root.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        let mut layers = Vec::new();
        for line in lines {
            let line = line.unwrap();
            let Some(saved) = line.strip_prefix("saved ") else { continue };
            let (_, layer) = saved.split_once(' ').unwrap();
            layers.push(LayerId(layer.parse().unwrap()));
            if layers.len() == saves {
                victim.kill().unwrap();
            }
        }
        victim.wait().unwrap();
        assert!(layers.len() >= saves);

        let index = Index::open(root.path().join("index")).unwrap();
        // The victim may have come one step further than it could say.
        let one_more = LayerId(layers.last().unwrap().0 + 2);
        let on_disk = [layers.as_slice(), &[one_more]].concat();
        let on_disk = OnDisk { layers: on_disk, ..OnDisk::default() };
        index.reconcile(&on_disk, "boot-1").unwrap();
        for (number, layer) in layers.iter().enumerate() {
            for name in [format!("step {number}"), format!("alias {number}")] {
                let hit = index.lookup(&[key(&name)]).unwrap().unwrap();
                assert_eq!(hit.row.result, [*layer]);
            }
        }
        assert!(index.alloc_layer().unwrap() > one_more);
    }
}

#[test]
fn a_damaged_row_costs_what_it_described_and_nothing_else() {
    let fixture = Fixture::new();
    let base = fixture.step("base", &[]);
    let top = fixture.step("top", &[base]);
    let other = fixture.step("other", &[]);
    let mut batch = db::Batch::new(&fixture.index.db);
    batch.put_raw(schema::Family::Layers, &base.0.to_be_bytes(), b"\x01nonsense");
    batch.put_raw(schema::Family::Records, key("other").digest().as_bytes(), b"");
    batch.write().unwrap();
    assert_eq!(fixture.hit(&key("other")), None);
    let reconciled = fixture.reconcile(&[base, top, other], "boot-1");
    assert_eq!(reconciled.dropped.layers, 2);
    assert!(fixture.hit(&key("base")).is_none());
    assert!(fixture.hit(&key("top")).is_none());
    assert!(fixture.index.layer(other).unwrap().is_some());
}
