//! The checker finds what is wrong, and drops it with what depends on it.

use super::*;
use crate::index::{
    db::Batch,
    links,
    schema::{self, Family},
};

impl Fixture {
    pub(super) fn check(&self, layers: &[LayerId]) -> Vec<String> {
        self.findings(layers).iter().map(ToString::to_string).collect()
    }

    fn findings(&self, layers: &[LayerId]) -> Vec<Finding> {
        let blobs = self.store.list().unwrap();
        let on_disk = OnDisk { layers: layers.to_vec(), dirs: Vec::new(), blobs };
        self.index.check(&on_disk).unwrap()
    }

    /// Repairs until nothing is wrong.
    fn repair(&self, layers: &[LayerId]) {
        for _ in 0..8 {
            let findings = self.findings(layers);
            if findings.is_empty() {
                return;
            }
            self.index.drop_broken(&self.store, &findings).unwrap();
            self.reconcile(layers, "boot-1");
        }
        panic!("still wrong: {:?}", self.check(layers));
    }

    fn change(&self, change: impl FnOnce(&mut Batch<'_>)) {
        let mut batch = Batch::new(&self.index.db);
        change(&mut batch);
        batch.write().unwrap();
    }
}

#[test]
fn nothing_is_wrong_with_what_is_saved_linked_replaced_and_pruned() {
    let fixture = Fixture::new();
    let base = fixture.step("base", &[]);
    let top = fixture.step("top", &[base]);
    let other = fixture.step("other", &[base]);
    fixture.index.link(key("alias"), &key("top"), &[]).unwrap();
    fixture.index.link(key("alias"), &key("other"), &[]).unwrap();
    let again = fixture.step("top", &[base]);
    drop(fixture.index.save(record("empty", Vec::new()), &KeyParts::default(), &[], &[]).unwrap());
    let blob = fixture.blob("layer").row;
    let descriptor = Descriptor::new("type", blob.digest, blob.size);
    fixture.index.set_blob(base, descriptor).unwrap();
    fixture.index.put_layer_data(top, "kind", b"data").unwrap();
    fixture.index.touch([base, top]);
    fixture.index.flush_touches().unwrap();
    assert_eq!(fixture.check(&[base, top, other, again]), <[String; 0]>::default());
    fixture.prune_all();
    fixture.index.collect_blobs(&fixture.store).unwrap();
    assert_eq!(fixture.check(&[]), <[String; 0]>::default());
}

#[test]
fn a_layer_without_its_directory_goes_with_all_that_was_made_on_it() {
    let fixture = Fixture::new();
    let base = fixture.step("base", &[]);
    let middle = fixture.step("middle", &[base]);
    let top = fixture.step("top", &[base, middle]);
    let other = fixture.step("other", &[base]);
    let there = [base, top, other];
    assert_eq!(fixture.check(&there), [format!("layer {middle} is not on the disk")]);
    fixture.repair(&there);
    assert!(fixture.hit(&key("middle")).is_none());
    assert!(fixture.hit(&key("top")).is_none());
    assert!(fixture.hit(&key("base")).is_some());
    assert!(fixture.hit(&key("other")).is_some());
    assert!(fixture.index.layer(top).unwrap().is_none());
}

#[test]
fn a_damaged_blob_goes_with_the_image_that_has_it() {
    let fixture = Fixture::new();
    let (one, two) = (fixture.blob("one"), fixture.blob("two"));
    for (name, blob) in [("one", one.row), ("two", two.row)] {
        fixture.index.put_image(name, &image(&blob, &[], &[])).unwrap();
    }
    std::fs::write(fixture.store.path(&one.row.digest), "on").unwrap();
    assert_eq!(
        fixture.check(&[]),
        [format!("blob {} has 2 bytes on the disk, 3 in its row", one.row.digest)]
    );
    fixture.repair(&[]);
    assert!(fixture.index.image("one").unwrap().is_none());
    assert!(fixture.index.image("two").unwrap().is_some());
    assert_eq!(fixture.store.list().unwrap(), [two.row]);
}

#[test]
fn every_row_that_cannot_be_read_or_leads_nowhere_is_found_and_dropped() {
    type Harm = fn(&Fixture, LayerId, LayerId);
    let harms: [(&str, Harm); 10] = [
        ("layer TOP cannot be read", |fixture, _, top| {
            fixture.change(|batch| batch.put_raw(Family::Layers, &top.0.to_be_bytes(), b"x"));
        }),
        ("layer TOP refers to layer BASE, which is not there", |fixture, base, _| {
            fixture.change(|batch| batch.delete(Family::Layers, &base.0.to_be_bytes()));
        }),
        ("layer TOP is not known to layer BASE", |fixture, base, top| {
            fixture.change(|batch| batch.delete(Family::Links, &links::child(base, top)));
        }),
        ("is not known to layer TOP", |fixture, _, top| {
            fixture.change(|batch| batch.delete(Family::Links, &links::record(top, &key("top"))));
        }),
        ("is not known to layer TOP", |fixture, _, top| {
            let leads = leads::Leads::default();
            fixture.change(|batch| {
                batch.put(Family::Links, &links::record(top, &key("top")), &leads);
            });
        }),
        ("cannot be read", |fixture, _, _| {
            let key = key("top");
            fixture.change(|batch| batch.put_raw(Family::Records, key.digest().as_bytes(), b"x"));
        }),
        ("of links refers to something, which is not there", |fixture, _, _| {
            let key = key("top");
            fixture.change(|batch| batch.delete(Family::Records, key.digest().as_bytes()));
        }),
        ("of aliases is not known to", |fixture, _, _| {
            let (alias, primary) = (key("alias"), key("top"));
            fixture.change(|batch| batch.put(Family::Aliases, alias.digest().as_bytes(), &primary));
        }),
        ("of layer-data refers to a layer, which is not there", |fixture, _, _| {
            fixture.change(|batch| batch.put_raw(Family::LayerData, b"12345678kind", b"x"));
        }),
        ("has a number that would be given out again", |fixture, _, _| {
            fixture.change(|batch| batch.put(Family::Meta, b"numbers", &1u64));
        }),
    ];
    for (expected, harm) in harms {
        let fixture = Fixture::new();
        let base = fixture.step("base", &[]);
        let top = fixture.step("top", &[base]);
        harm(&fixture, base, top);
        let found = fixture.check(&[base, top]);
        let (base_name, top_name) = (base.to_string(), top.to_string());
        let expected = expected.replace("BASE", &base_name).replace("TOP", &top_name);
        assert!(found.iter().any(|line| line.contains(&expected)), "{expected}: {found:?}");
        fixture.repair(&[base, top]);
        // It goes on as if that had never been.
        let again = fixture.step("top", &[fixture.step("base", &[])]);
        assert!(again > top);
        assert!(fixture.hit(&key("top")).is_some());
    }
}

#[test]
fn what_was_made_on_a_disowned_layer_is_not_found_any_more_and_stays_while_it_is_used() {
    let fixture = Fixture::new();
    let base = fixture.step("base", &[]);
    let top = fixture.step("top", &[base]);
    let other = fixture.step("other", &[]);
    let used = fixture.index.pin_layers(&[top]);
    fixture.index.disown_layer(base).unwrap();
    assert!(fixture.hit(&key("base")).is_none() && fixture.hit(&key("top")).is_none());
    assert!(fixture.hit(&key("other")).is_some());
    assert_eq!(fixture.check(&[base, top, other]), <[String; 0]>::default());
    assert_eq!(fixture.prune_all().layers, [other]);
    drop(used);
    assert_eq!(fixture.prune_all().layers.len(), 2);
}

#[test]
fn a_damaged_index_is_refused_until_it_is_set_aside() {
    let fixture = Fixture::new();
    fixture.step("base", &[]);
    let Fixture { root, index, store: _ } = fixture;
    drop(index);
    let path = root.path().join("index");
    std::fs::write(path.join("CURRENT"), "nothing of the kind").unwrap();
    for _ in 0..2 {
        let error = Index::open(&path).unwrap_err();
        assert!(error.is_damage(), "{error}");
    }
    let aside = Index::set_aside(&path).unwrap();
    assert!(aside.join("CURRENT").exists());
    let index = Index::open(&path).unwrap();
    assert!(index.lookup(&[key("base")]).unwrap().is_none());
    drop(index);

    // Found out by the last process, which could not put it right.
    std::fs::write(schema::damage_mark(&path), "").unwrap();
    assert!(Index::open(&path).unwrap_err().is_damage());
    Index::set_aside(&path).unwrap();
    Index::open(&path).unwrap();
}
