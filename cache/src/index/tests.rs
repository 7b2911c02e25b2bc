//! What the index promises, seen from outside.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::SystemTime,
};

use super::*;
use crate::{
    content::{Blob, ContentStore},
    descriptor::Descriptor,
    digest::Digest,
    gc::{DiskStat, Policy, UsageId},
    key::{CacheKey, Link, content_key, key_of},
    layer::{ChainId, LayerId},
    record_type::RecordType,
};

const DISK: DiskStat = DiskStat { total: 1 << 40, free: 1 << 39 };

struct Fixture {
    root: tempfile::TempDir,
    index: Index,
    store: ContentStore,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let index = Index::open(root.path().join("index")).unwrap();
        let store = ContentStore::open(root.path()).unwrap();
        index.reconcile(&OnDisk::default(), "boot-1").unwrap();
        Self { root, index, store }
    }

    /// What a new process finds.
    fn reopen(self) -> Self {
        let Self { root, index, store } = self;
        drop(index);
        let index = Index::open(root.path().join("index")).unwrap();
        Self { root, index, store }
    }

    fn blob(&self, content: &str) -> Hit<Blob> {
        let mut ingest = self.store.ingest().unwrap();
        ingest.write_all(content.as_bytes()).unwrap();
        self.index.commit_blob(ingest, None).unwrap()
    }

    /// Saves a step on top of `below`; returns its layer.
    fn step(&self, name: &str, below: &[LayerId]) -> LayerId {
        let layer = self.index.alloc_layer().unwrap();
        let row = LayerRow::new(layer, below.last().copied().into_iter().collect());
        let result = [below, &[layer]].concat();
        drop(self.index.save(record(name, result), &[], &[], &[row]).unwrap());
        layer
    }

    fn hit(&self, key: &CacheKey) -> Option<Record> {
        self.index.lookup(&[*key]).unwrap().map(|hit| hit.row)
    }

    fn prune_all(&self) -> Removed {
        let everything = Policy { all: true, ..Policy::default() };
        self.index.prune(&[everything], DISK).unwrap()
    }

    fn reconcile(&self, layers: &[LayerId], boot_id: &str) -> Reconciled {
        let blobs = self.store.list().unwrap();
        let on_disk = OnDisk { layers: layers.to_vec(), dirs: Vec::new(), blobs };
        self.index.reconcile(&on_disk, boot_id).unwrap()
    }

    fn make_durable(&self) {
        let group = self.index.begin_durable().unwrap();
        self.index.mark_durable(group).unwrap();
    }
}

fn op(name: &str) -> Digest {
    Digest::of(name)
}

fn key(name: &str) -> CacheKey {
    key_of(&op(name), 0, &[])
}

fn record(name: &str, result: Vec<LayerId>) -> Record {
    Record {
        key: key(name),
        op: op(name),
        output: 0,
        inputs: Vec::new(),
        result,
        description: name.to_owned(),
        record_type: RecordType::Regular,
        created_at: SystemTime::now(),
        duration: None,
    }
}

fn image(target: &Blob, blobs: &[&Blob], layers: &[LayerId]) -> ImageRow {
    ImageRow {
        target: Descriptor::new("manifest", target.digest, target.size),
        blobs: blobs.iter().map(|blob| blob.digest).collect(),
        layers: layers.to_vec(),
        updated_at: SystemTime::now(),
    }
}

#[test]
fn a_record_is_found_under_each_of_its_keys_also_by_the_next_process() {
    let fixture = Fixture::new();
    let layer = fixture.index.alloc_layer().unwrap();
    let content = content_key(&op("files"));
    let parts =
        [KeyPart { name: "instruction".to_owned(), value: PartValue::Text("RUN x".to_owned()) }];
    let saved = record("a", vec![layer]);
    drop(
        fixture
            .index
            .save(saved.clone(), &parts, &[content], &[LayerRow::new(layer, vec![])])
            .unwrap(),
    );
    fixture.index.link(key("other"), &key("a"), &[]).unwrap();

    let fixture = fixture.reopen();
    for key in [key("a"), content, key("other")] {
        assert_eq!(fixture.hit(&key), Some(saved.clone()));
    }
    assert_eq!(fixture.hit(&key("b")), None);
    assert_eq!(fixture.index.parts(&key("a")).unwrap(), parts);
    let hit = fixture.index.lookup(&[key("b"), content, key("a")]).unwrap().unwrap();
    assert_eq!(hit.row.key, key("a"));
}

#[test]
fn a_record_whose_layer_is_unknown_is_not_saved() {
    let fixture = Fixture::new();
    let error = fixture.index.save(record("a", vec![LayerId(7)]), &[], &[], &[]).unwrap_err();
    assert!(matches!(error, IndexError::NoLayer(LayerId(7))), "{error}");
    assert_eq!(fixture.hit(&key("a")), None);
    let orphan = LayerRow::new(LayerId(8), vec![LayerId(7)]);
    assert!(matches!(fixture.index.save_layers(&[orphan]), Err(IndexError::NoLayer(LayerId(7)))));
    let circle = LayerRow::new(LayerId(8), vec![LayerId(8)]);
    assert!(matches!(fixture.index.save_layers(&[circle]), Err(IndexError::NewerParent { .. })));
}

#[test]
fn a_step_that_ran_again_replaces_its_record_and_takes_over_its_keys() {
    let fixture = Fixture::new();
    let old = fixture.step("a", &[]);
    fixture.index.link(key("alias"), &key("a"), &[]).unwrap();
    let new = fixture.step("a", &[]);
    assert_eq!(fixture.hit(&key("alias")).unwrap().result, [new]);

    // The old layer is nobody's; removing it leaves the new record alone.
    let pin = fixture.index.pin_layers(&[new]);
    assert_eq!(fixture.prune_all().layers, [old]);
    drop(pin);
    assert_eq!(fixture.hit(&key("a")).unwrap().result, [new]);
}

#[test]
fn an_alias_that_moved_to_another_record_outlives_the_first() {
    let fixture = Fixture::new();
    let first = fixture.step("first", &[]);
    let second = fixture.step("second", &[]);
    fixture.index.link(key("alias"), &key("first"), &[]).unwrap();
    fixture.index.link(key("alias"), &key("second"), &[]).unwrap();
    let pin = fixture.index.pin_layers(&[second]);
    assert_eq!(fixture.prune_all().layers, [first]);
    drop(pin);
    assert_eq!(fixture.hit(&key("alias")).unwrap().key, key("second"));
}

#[test]
fn the_newer_of_two_records_has_a_key_that_both_claim() {
    let fixture = Fixture::new();
    fixture.step("a", &[]);
    let layer = fixture.step("b", &[]);
    let again = record("b", vec![layer]);
    drop(fixture.index.save(again, &[], &[key("a")], &[]).unwrap());
    assert_eq!(fixture.hit(&key("a")).unwrap().key, key("b"));
    fixture.step("a", &[]);
    assert_eq!(fixture.hit(&key("a")).unwrap().key, key("a"));
}

#[test]
fn links_are_remembered_after_those_of_the_primary_key() {
    let fixture = Fixture::new();
    let layer = fixture.index.alloc_layer().unwrap();
    let [a, b] = ["a", "b"].map(|name| Link::whole(key(name)));
    let mut step = record("step", vec![layer]);
    step.inputs = vec![vec![a.clone()]];
    let row = LayerRow::new(layer, vec![]);
    drop(fixture.index.save(step, &[], &[], &[row]).unwrap());
    let other = key_of(&op("step"), 0, std::slice::from_ref(&b));
    for _ in 0..2 {
        fixture.index.link(other, &key("step"), std::slice::from_ref(&b)).unwrap();
    }
    assert_eq!(fixture.hit(&other).unwrap().inputs, [vec![a, b]]);
    let error = fixture.index.link(other, &key("none"), &[]).unwrap_err();
    assert!(matches!(error, IndexError::NoRecord(_)));
}

#[test]
fn a_record_does_not_gather_keys_without_end() {
    let fixture = Fixture::new();
    fixture.step("a", &[]);
    for number in 0..100 {
        fixture.index.link(key(&number.to_string()), &key("a"), &[]).unwrap();
    }
    assert!(fixture.hit(&key("99")).is_some());
    assert!(fixture.hit(&key("0")).is_none());
}

#[test]
fn removing_a_layer_removes_the_records_that_need_it() {
    let fixture = Fixture::new();
    let base = fixture.step("base", &[]);
    let top = fixture.step("top", &[base]);
    fixture.index.put_layer_data(top, "content", b"tree").unwrap();
    assert_eq!(fixture.index.layer_data(top, "content").unwrap().unwrap(), b"tree");

    let removed = fixture.prune_all();
    assert_eq!(removed.layers, [top, base]);
    assert_eq!(removed.rows.len(), 2);
    assert_eq!(fixture.hit(&key("base")), None);
    assert_eq!(fixture.hit(&key("top")), None);
    assert_eq!(fixture.index.layer(top).unwrap(), None);
    assert_eq!(fixture.index.layer_data(top, "content").unwrap(), None);
    assert!(matches!(
        fixture.index.put_layer_data(top, "content", b"tree"),
        Err(IndexError::NoLayer(_))
    ));
}

#[test]
fn a_merged_result_goes_with_either_of_its_tops() {
    for nth in [0, 1] {
        let fixture = Fixture::new();
        let tops = [fixture.step("a", &[]), fixture.step("b", &[])];
        drop(fixture.index.save(record("merged", tops.to_vec()), &[], &[], &[]).unwrap());
        let pin = fixture.index.pin_layers(&[tops[1 - nth]]);
        assert_eq!(fixture.prune_all().layers, [tops[nth]]);
        drop(pin);
        assert_eq!(fixture.hit(&key("merged")), None);
    }
}

#[test]
fn what_was_found_stays_until_its_pin_is_dropped() {
    let fixture = Fixture::new();
    let base = fixture.step("base", &[]);
    let top = fixture.step("top", &[base]);
    let unused = fixture.step("unused", &[base]);
    let hit = fixture.index.lookup(&[key("top")]).unwrap().unwrap();
    assert_eq!(fixture.prune_all().layers, [unused]);
    assert!(fixture.hit(&key("base")).is_some());
    drop(hit);
    assert_eq!(fixture.prune_all().layers, [top, base]);
}

#[test]
fn a_layer_is_found_by_its_chain_while_it_is_there() {
    let fixture = Fixture::new();
    let chain = ChainId::new(op("chain"));
    let layer = fixture.index.alloc_layer().unwrap();
    let mut row = LayerRow::new(layer, vec![]);
    row.chain = Some(chain);
    drop(fixture.index.save_layers(&[row]).unwrap());
    assert_eq!(fixture.index.layer_by_chain(&chain).unwrap().unwrap().row.id, layer);

    let moved = ChainId::new(op("moved"));
    fixture.index.update_layer(layer, |row| row.chain = Some(moved)).unwrap();
    assert!(fixture.index.layer_by_chain(&chain).unwrap().is_none());
    assert_eq!(fixture.index.layer_by_chain(&moved).unwrap().unwrap().row.id, layer);
    fixture.prune_all();
    assert!(fixture.index.layer_by_chain(&moved).unwrap().is_none());
}

#[test]
fn numbers_are_never_given_out_twice() {
    let mut fixture = Fixture::new();
    let mut last = fixture.index.alloc_layer().unwrap();
    for _ in 0..3 {
        for _ in 0..2000 {
            let next = fixture.index.alloc_layer().unwrap();
            assert!(next > last);
            last = next;
        }
        fixture = fixture.reopen();
    }
}

#[test]
fn a_blob_goes_when_neither_layer_nor_image_nor_history_nor_build_needs_it() {
    let fixture = Fixture::new();
    let [of_layer, of_image, of_history, of_build, target] =
        ["layer", "image", "history", "build", "target"].map(|content| fixture.blob(content));
    let layer = fixture.step("a", &[]);
    let descriptor = Descriptor::new("layer", of_layer.row.digest, of_layer.row.size);
    fixture.index.set_blob(layer, descriptor).unwrap();
    let row = image(&target.row, &[&of_image.row], &[]);
    fixture.index.put_image("name", &row).unwrap();
    let entry = HistoryEntry { data: b"{}".to_vec(), blobs: vec![of_history.row.digest] };
    fixture.index.put_history("ref", &entry).unwrap();
    let [of_layer, of_image, of_history, target] =
        [of_layer, of_image, of_history, target].map(|hit| hit.row.digest);

    let collected = |fixture: &Fixture| {
        let blobs = fixture.index.collect_blobs(&fixture.store).unwrap();
        blobs.into_iter().map(|blob| blob.digest).collect::<Vec<_>>()
    };
    assert_eq!(collected(&fixture), []);
    fixture.index.remove_history("ref").unwrap();
    assert_eq!(collected(&fixture), [of_history]);
    assert!(fixture.index.remove_image("name").unwrap());
    let mut image_blobs = [of_image, target];
    image_blobs.sort_unstable();
    assert_eq!(collected(&fixture), image_blobs);
    fixture.prune_all();
    assert_eq!(collected(&fixture), [of_layer]);
    let last = of_build.row.digest;
    assert_eq!(fixture.store.list().unwrap().len(), 1);
    drop(of_build);
    assert_eq!(collected(&fixture), [last]);
    assert_eq!(fixture.store.list().unwrap(), []);
    assert!(fixture.index.blob(&last).unwrap().is_none());
}

#[test]
fn an_image_without_its_blobs_is_refused() {
    let fixture = Fixture::new();
    let blob = Blob { digest: op("none"), size: 1 };
    let error = fixture.index.put_image("name", &image(&blob, &[], &[])).unwrap_err();
    assert!(matches!(error, IndexError::NoBlob(_)));
    assert!(!fixture.index.remove_image("name").unwrap());
}

#[test]
fn mutable_directories_are_found_by_kind_and_name() {
    let fixture = Fixture::new();
    let mount = fixture.index.create_dir(DirKind::CacheMount, "id", "cache mount id").unwrap();
    let second = fixture.index.create_dir(DirKind::CacheMount, "id", "cache mount id").unwrap();
    let source = fixture.index.create_dir(DirKind::LocalSource, "id", "context").unwrap();
    let ids = |kind| -> Vec<_> {
        let found = fixture.index.dirs(kind, "id").unwrap();
        found.into_iter().map(|hit| hit.row.id).collect()
    };
    assert_eq!(ids(DirKind::CacheMount), [mount.row.id, second.row.id]);
    assert_eq!(ids(DirKind::LocalSource), [source.row.id]);

    fixture.index.set_dir_size(mount.row.id, 5).unwrap();
    fixture.index.open_dir_for_writing(mount.row.id, &mount.pin).unwrap();
    let id = second.row.id;
    drop(second);
    assert_eq!(fixture.prune_all().dirs, [id]);
    assert_eq!(ids(DirKind::CacheMount), [mount.row.id]);
    assert_eq!(fixture.index.dir(mount.row.id).unwrap().unwrap().size, 5);
}

#[test]
fn sizes_add_up_and_nothing_is_counted_twice() {
    let fixture = Fixture::new();
    let [shared, kept] = ["shared blob", "kept"].map(|content| fixture.blob(content));
    let base = fixture.step("base", &[]);
    let top = fixture.step("top", &[base]);
    for layer in [base, top] {
        fixture.index.update_layer(layer, |row| row.size = 100).unwrap();
        let descriptor = Descriptor::new("layer", shared.row.digest, shared.row.size);
        fixture.index.set_blob(layer, descriptor).unwrap();
    }
    fixture.index.put_image("name", &image(&kept.row, &[&kept.row], &[top])).unwrap();

    let rows = fixture.index.usage().unwrap();
    let row = |id| rows.iter().find(|row| row.id == id).unwrap();
    assert_eq!(row(UsageId::Layer(base)).size, 111);
    assert_eq!(row(UsageId::Layer(top)).size, 100);
    assert_eq!(row(UsageId::Layer(top)).parents, [UsageId::Layer(base)]);
    assert!(row(UsageId::Layer(base)).shared, "an image needs all below its layers");
    assert_eq!(row(UsageId::Content).size, 4);
    assert!(row(UsageId::Index).size > 0);
    assert_eq!(rows.len(), 4);
}

#[test]
fn uses_are_counted_and_count_for_all_below() {
    let fixture = Fixture::new();
    let base = fixture.step("base", &[]);
    let top = fixture.step("top", &[base]);
    for _ in 0..2 {
        assert!(fixture.hit(&key("top")).is_some());
        fixture.index.flush_touches().unwrap();
    }
    assert!(fixture.hit(&key("top")).is_some());
    let usage = |fixture: &Fixture, layer| {
        let rows = fixture.index.usage().unwrap();
        rows.into_iter().find(|row| row.id == UsageId::Layer(layer)).unwrap()
    };
    assert_eq!(usage(&fixture, top).usage_count, 3);
    assert!(usage(&fixture, top).last_used_at.is_some());
    assert_eq!(usage(&fixture, base).last_used_at, usage(&fixture, top).last_used_at);
    assert_eq!(usage(&fixture, base).usage_count, 0);
    let fixture = fixture.reopen();
    assert_eq!(usage(&fixture, top).usage_count, 2, "the last use was not written");
}

#[test]
fn a_start_drops_rows_without_data_and_names_data_without_rows() {
    let fixture = Fixture::new();
    let blob = fixture.blob("kept").row;
    let lost = fixture.blob("lost").row;
    fixture.index.put_image("whole", &image(&blob, &[], &[])).unwrap();
    fixture.index.put_image("broken", &image(&lost, &[], &[])).unwrap();
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
    let dropped = Dropped { layers: 2, records: 2, dirs: 0, blobs: 1, images: 1 };
    assert_eq!(reconciled.dropped, dropped);
    assert!(fixture.hit(&key("base")).is_some());
    assert!(fixture.hit(&key("gone")).is_none());
    assert!(fixture.hit(&key("above")).is_none());
    let names: Vec<_> = fixture.index.images().unwrap().into_iter().map(|row| row.0).collect();
    assert_eq!(names, ["whole"]);
    assert_eq!(fixture.reconcile(&[base], "boot-1").dropped, Dropped::default());
}

#[test]
fn after_another_boot_only_what_was_durable_is_used() {
    let fixture = Fixture::new();
    let safe_blob = fixture.blob("safe").row;
    let safe = fixture.step("safe", &[]);
    let dir = fixture.index.create_dir(DirKind::CacheMount, "id", "").unwrap();
    assert!(!fixture.index.is_layer_durable(safe).unwrap());
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
    let dir = fixture.index.create_dir(DirKind::CacheMount, "id", "").unwrap();
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
    row.presence.remotes = vec!["docker.io/library/alpine".to_owned()];
    row.blobs = vec![Descriptor::new("layer", op("blob"), 3)];
    drop(fixture.index.save(record("a", vec![layer]), &[], &[], &[row]).unwrap());
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
        drop(index.save(saved, &[], &aliases, &[row]).unwrap());
        println!("\nsaved {number} {layer}");
    }
}

#[test]
fn a_sigkill_loses_nothing_that_was_saved_and_leaves_no_half_of_anything() {
    for saves in [1, 50, 400] {
        let root = tempfile::tempdir().unwrap();
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "index::tests::saves_until_it_is_killed", "--nocapture"])
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

#[test]
fn builds_and_a_collection_at_the_same_time_never_lose_what_was_found() {
    let fixture = Fixture::new();
    let index = &fixture.index;
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let fixture = &fixture;
            scope.spawn(move || {
                for round in 0..60 {
                    let name = format!("step {}", round % 7);
                    if let Some(hit) = index.lookup(&[key(&name)]).unwrap() {
                        for layer in &hit.row.result {
                            assert!(index.layer(*layer).unwrap().is_some());
                        }
                    } else {
                        fixture.step(&name, &[]);
                    }
                    let blob = fixture.blob(&format!("blob {}", (round + thread) % 5));
                    assert!(fixture.store.stat(&blob.row.digest).unwrap().is_some());
                    assert!(index.blob(&blob.row.digest).unwrap().is_some());
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..40 {
                fixture.prune_all();
                index.collect_blobs(&fixture.store).unwrap();
            }
        });
    });
}
