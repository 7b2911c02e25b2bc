//! What a collection takes, and what it must leave.

use std::time::Duration;

use super::*;
use crate::{
    gc::{Limits, Space},
    layer::ChainId,
};

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
        drop(
            fixture
                .index
                .save(record("merged", tops.to_vec()), &KeyParts::default(), &[], &[])
                .unwrap(),
        );
        let pin = fixture.index.pin_layers(&[tops[1 - nth]]);
        assert_eq!(fixture.prune_all().layers, [tops[nth]]);
        drop(pin);
        assert_eq!(fixture.hit(&key("merged")), None);
    }
}

#[test]
fn a_record_with_an_empty_result_goes_when_it_is_old() {
    let fixture = Fixture::new();
    let weeks_ago = SystemTime::now() - Duration::from_hours(15 * 24);
    for (name, created_at) in [("young", SystemTime::now()), ("old", weeks_ago)] {
        let record = Record { created_at, ..record(name, vec![]) };
        drop(
            fixture
                .index
                .save(record, &KeyParts::default(), &[key(&format!("alias of {name}"))], &[])
                .unwrap(),
        );
    }
    let hit = fixture.index.lookup(&[key("old")]).unwrap();
    fixture.prune_all();
    assert!(fixture.hit(&key("old")).is_some(), "it is in use");
    drop(hit);
    fixture.prune_all();
    for (name, is_there) in [("young", true), ("old", false)] {
        assert_eq!(fixture.hit(&key(name)).is_some(), is_there, "{name}");
        assert_eq!(fixture.hit(&key(&format!("alias of {name}"))).is_some(), is_there, "{name}");
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
fn an_image_without_layers_goes_when_everything_does() {
    let fixture = Fixture::new();
    let blob = fixture.blob("target").row;
    let layer = fixture.step("a", &[]);
    fixture.index.put_image("without", &image(&blob, &[], &[])).unwrap();
    fixture.index.put_image("with", &image(&blob, &[], &[layer])).unwrap();
    let left = |policy: Policy| {
        fixture.index.prune(&[policy], DISK).unwrap();
        fixture.index.images().unwrap().into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    let everything = Policy { all: true, ..Policy::default() };
    let hour = Duration::from_secs(3600);
    let roomy = Limits { max_used_space: Space::Percent(50), ..Limits::default() };
    for some in [
        Policy::default(),
        Policy { keep_duration: hour, ..everything.clone() },
        Policy { limits: roomy, ..everything.clone() },
        Policy { filters: vec!["private".parse().unwrap()], ..everything.clone() },
    ] {
        assert_eq!(left(some.clone()), ["with", "without"], "{some:?}");
    }
    assert_eq!(left(everything), [""; 0]);
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
    let mount = fixture.dir(DirKind::CacheMount, "id", "cache mount id");
    let second = fixture.dir(DirKind::CacheMount, "id", "cache mount id");
    let source = fixture.dir(DirKind::LocalSource, "id", "context");
    let ids = |kind| -> Vec<_> {
        let found = fixture.index.dirs(kind, "id").unwrap();
        found.into_iter().map(|hit| hit.row.id).collect()
    };
    assert_eq!(ids(DirKind::CacheMount), [mount.row.id, second.row.id]);
    assert_eq!(ids(DirKind::LocalSource), [source.row.id]);

    fixture.index.set_dir_size(mount.row.id, 5, &[]).unwrap();
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
    assert_eq!(row(UsageId::Layer(base)).size, 100 + 4096);
    assert_eq!(row(UsageId::Layer(top)).size, 100);
    assert_eq!(row(UsageId::Layer(top)).parents, [UsageId::Layer(base)]);
    assert!(row(UsageId::Layer(base)).shared, "an image needs all below its layers");
    assert_eq!(row(UsageId::Content).size, 4096);
    assert!(row(UsageId::Index).size > 0);
    assert_eq!(rows.len(), 4);
}

#[test]
fn a_file_that_several_have_is_counted_once_whoever_goes_first() {
    let fixture = Fixture::new();
    let index = &fixture.index;
    let [owner, old, young] = ["owner", "old", "young"].map(|name| fixture.step(name, &[]));
    let dir = fixture.dir(DirKind::LocalSource, "context", "").row.id;
    let from_layer = SharedFile { ino: 1, bytes: 1000, origin: Some(owner) };
    let from_dir = SharedFile { ino: 2, bytes: 20, origin: None };
    for layer in [old, young] {
        index.set_shared_files(layer, &[from_layer, from_dir]).unwrap();
    }
    index.update_layer(owner, |row| row.size = 1000).unwrap();
    let of_dir = SharedFile { ino: 3, bytes: 3, origin: None };
    index.set_dir_size(dir, 0, &[from_dir, of_dir]).unwrap();

    let sizes = || {
        let rows = index.usage().unwrap().into_iter();
        let rows = rows.filter(|row| row.record_type != RecordType::Internal && row.size > 0);
        rows.map(|row| (row.id, row.size)).collect::<Vec<_>>()
    };
    let [owner_id, old_id, young_id] = [owner, old, young].map(UsageId::Layer);
    let dir_id = UsageId::Dir(dir);
    assert_eq!(sizes(), [(owner_id, 1000), (dir_id, 23)], "the directory is the youngest");
    let remove = |id: UsageId| {
        let filter = format!("id=={id}").parse().unwrap();
        let policy = Policy { all: true, filters: vec![filter], ..Policy::default() };
        assert_eq!(index.prune(&[policy], DISK).unwrap().rows.len(), 1);
    };
    remove(owner_id);
    assert_eq!(sizes(), [(young_id, 1000), (dir_id, 23)]);
    remove(dir_id);
    assert_eq!(sizes(), [(young_id, 1020)]);
    remove(young_id);
    assert_eq!(sizes(), [(old_id, 1020)]);
    remove(old_id);
    assert_eq!(sizes(), []);
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
fn what_comes_to_be_needed_while_a_collection_goes_on_stays_with_all_below() {
    type Need = fn(&Fixture, LayerId);
    let needs: [(&str, Need); 8] = [
        ("a step made on it", |fixture, top| {
            fixture.step("new", &[top]);
        }),
        ("a lookup", |fixture, _| drop(fixture.index.lookup(&[key("top")]).unwrap())),
        ("data", |fixture, top| fixture.index.put_layer_data(top, "kind", b"data").unwrap()),
        ("a change of its row", |fixture, top| {
            fixture.index.update_layer(top, |row| row.size = 5).unwrap();
        }),
        ("an image", |fixture, top| {
            let blob = fixture.blob("manifest").row;
            fixture.index.put_image("name", &image(&blob, &[], &[top])).unwrap();
        }),
        ("a record with the same result", |fixture, top| {
            let same = record("same", vec![top]);
            drop(fixture.index.save(same, &KeyParts::default(), &[], &[]).unwrap());
        }),
        ("one more key of its record", |fixture, _| {
            fixture.index.link(key("more"), &key("top"), &[]).unwrap();
        }),
        ("a key of its record that leads to another from now on", |fixture, _| {
            fixture.step("taker", &[]);
            fixture.index.link(key("alias"), &key("taker"), &[]).unwrap();
        }),
    ];
    for (name, need) in needs {
        let fixture = Fixture::new();
        let base = fixture.step("base", &[]);
        let top = fixture.step("top", &[base]);
        fixture.index.link(key("alias"), &key("top"), &[]).unwrap();
        let other = fixture.step("other", &[base]);
        let removed = fixture.remove_after(&[top, other, base], || need(&fixture, top));
        assert_eq!(removed, [other], "{name}");
        assert!(fixture.hit(&key("top")).is_some(), "{name}");
        assert!(fixture.index.layer(base).unwrap().is_some(), "{name}");
    }
}

#[test]
fn a_chain_that_comes_to_lead_to_another_layer_while_a_collection_goes_on_still_does() {
    let fixture = Fixture::new();
    let chain = ChainId::new(op("chain"));
    let save = || {
        let row = LayerRow {
            chain: Some(chain),
            ..LayerRow::new(fixture.index.alloc_layer().unwrap(), Vec::new())
        };
        drop(fixture.index.save_layers(std::slice::from_ref(&row)).unwrap());
        row.id
    };
    let leads_to = || fixture.index.layer_by_chain(&chain).unwrap().map(|hit| hit.row.id);
    let first = save();
    let mut second = None;
    let removed = fixture.remove_after(&[first], || second = Some(save()));
    assert_eq!(removed, [first]);
    assert_eq!(leads_to(), second);
    let third = save();
    let pin = fixture.index.pin_layers(&[third]);
    assert_eq!(fixture.prune_all().layers, second.as_slice());
    assert_eq!(leads_to(), Some(third));
    drop(pin);
    assert_eq!(fixture.prune_all().layers, [third]);
    assert_eq!(leads_to(), None);
}

#[test]
fn the_link_of_a_chain_goes_with_its_layer_even_if_another_was_about_to_have_it() {
    let fixture = Fixture::new();
    let chain = ChainId::new(op("chain"));
    let new_row = || LayerRow {
        chain: Some(chain),
        ..LayerRow::new(fixture.index.alloc_layer().unwrap(), Vec::new())
    };
    let first = new_row();
    drop(fixture.index.save_layers(std::slice::from_ref(&first)).unwrap());
    let removed = fixture.remove_after(&[first.id], || {
        let nowhere = LayerRow::new(LayerId(u64::MAX), vec![LayerId(u64::MAX - 1)]);
        fixture.index.save_layers(&[new_row(), nowhere]).unwrap_err();
    });
    assert_eq!(removed, [first.id]);
    let link = fixture.index.db.get_raw(schema::Family::Links, &links::chain(&chain));
    assert_eq!(link.unwrap(), None);
}

#[test]
fn a_name_that_comes_to_be_another_images_while_a_collection_goes_on_stays() {
    let fixture = Fixture::new();
    let index = &fixture.index;
    let blob = fixture.blob("manifest").row;
    let [old, new] = ["old", "new"].map(|name| fixture.step(name, &[]));
    for name in ["moved", "left"] {
        index.put_image(name, &image(&blob, &[], &[old])).unwrap();
    }
    let removed = fixture.remove_after(&[old], || {
        index.put_image("moved", &image(&blob, &[], &[new])).unwrap();
    });
    assert_eq!(removed, [old]);
    assert_eq!(index.image("moved").unwrap().map(|image| image.layers), Some(vec![new]));
    assert_eq!(index.image("left").unwrap(), None);
}

#[test]
fn a_merged_result_that_is_made_anew_when_one_of_its_tops_is_gone_stays() {
    let fixture = Fixture::new();
    let index = &fixture.index;
    let tops = [fixture.step("a", &[]), fixture.step("b", &[])];
    let save = |result| index.save(record("merged", result), &KeyParts::default(), &[], &[]);
    drop(save(tops.to_vec()).unwrap());
    let mut owned = index.owned(&tops.map(UsageId::Layer)).unwrap();
    let mut remove = |layer| {
        let pins = index.pins.lock();
        let mut batch = db::Batch::new(&index.db);
        let rows = owned.take(layer).unwrap();
        owned.delete(index, &pins, &mut batch, layer, &rows).unwrap();
        batch.write().unwrap();
    };
    remove(tops[0]);
    assert_eq!(fixture.hit(&key("merged")), None);
    let anew = fixture.step("c", &[]);
    drop(save(vec![anew]).unwrap());
    remove(tops[1]);
    assert_eq!(fixture.hit(&key("merged")).unwrap().result, [anew]);
    assert_eq!(fixture.check(&[anew]), <[String; 0]>::default());
}

#[test]
fn a_merged_result_that_is_made_anew_when_one_of_its_tops_was_disowned_stays() {
    let fixture = Fixture::new();
    let index = &fixture.index;
    let tops = [fixture.step("a", &[]), fixture.step("b", &[])];
    let save = |result| index.save(record("merged", result), &KeyParts::default(), &[], &[]);
    drop(save(tops.to_vec()).unwrap());
    let anew = fixture.step("c", &[]);
    let removed = fixture.remove_after(&tops[1..], || {
        index.disown_layer(tops[0]).unwrap();
        drop(save(vec![anew]).unwrap());
    });
    assert!(removed.is_empty(), "what it is on top of may have changed");
    assert_eq!(fixture.hit(&key("merged")).unwrap().result, [anew]);
}

#[test]
fn all_that_goes_with_layers_is_found_wherever_it_lies() {
    let fixture = Fixture::new();
    let layers: Vec<_> = (0..90)
        .map(|number| {
            let layer = fixture.index.alloc_layer().unwrap();
            let mut row = LayerRow::new(layer, Vec::new());
            row.chain = Some(ChainId::new(op(&format!("chain {number}"))));
            let step = StepId::of(&[&format!("step {}", number / 2)]);
            let parts = KeyParts::new(vec![step, StepId::of(&["all"])], Vec::new(), Vec::new());
            let record = record(&number.to_string(), vec![layer]);
            let aliases = [key(&format!("alias {number}"))];
            drop(fixture.index.save(record, &parts, &aliases, &[row]).unwrap());
            for kind in ["kind", "other kind"] {
                fixture.index.put_layer_data(layer, kind, b"data").unwrap();
            }
            layer
        })
        .collect();
    // Next to one another, a few apart, and further apart than a walk goes step by step.
    let is_kept = |at: usize| !matches!(at, 0..=9 | 14 | 16 | 20 | 50 | 51 | 89);
    let kept: Vec<_> = (0..layers.len()).filter(|&at| is_kept(at)).map(|at| layers[at]).collect();
    let pin = fixture.index.pin_layers(&kept);
    assert_eq!(fixture.prune_all().layers.len(), layers.len() - kept.len());
    assert_eq!(fixture.check(&kept), <[String; 0]>::default());
    for (number, layer) in layers.iter().enumerate() {
        let chain = ChainId::new(op(&format!("chain {number}")));
        let found = fixture.index.layer_by_chain(&chain).unwrap();
        assert_eq!(found.map(|hit| hit.row.id), is_kept(number).then_some(*layer));
        assert_eq!(fixture.hit(&key(&number.to_string())).is_some(), is_kept(number));
        let data = fixture.index.layer_data(*layer, "other kind").unwrap();
        assert_eq!(data.is_some(), is_kept(number));
    }
    drop(pin);
    fixture.prune_all();
    for family in schema::Family::ALL {
        let is_left = fixture.index.db.scan_raw(family, &[]).next().is_some();
        let may_be = matches!(family, schema::Family::Meta | schema::Family::Volatile);
        assert!(may_be || !is_left, "{family:?}");
    }
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

#[test]
fn a_directory_is_to_be_measured_after_it_was_open_for_writing_or_the_index_was_closed() {
    let fixture = Fixture::new();
    let dir = fixture.dir(DirKind::CacheMount, "id", "cache mount id");
    let id = dir.row.id;
    let unmeasured = |fixture: &Fixture| -> Vec<_> {
        fixture.index.unmeasured_dirs().unwrap().into_iter().map(|dir| dir.id).collect()
    };
    assert_eq!(unmeasured(&fixture), [id]);
    assert_eq!(unmeasured(&fixture), [id], "it is still in use");
    drop(dir);
    assert_eq!(unmeasured(&fixture), [id]);
    assert_eq!(unmeasured(&fixture), []);

    let dir = fixture.index.dirs(DirKind::CacheMount, "id").unwrap().remove(0);
    fixture.index.open_dir_for_writing(id, &dir.pin).unwrap();
    drop(dir);
    assert_eq!(unmeasured(&fixture), [id]);
    let fixture = fixture.reopen();
    assert_eq!(unmeasured(&fixture), [id]);
}
