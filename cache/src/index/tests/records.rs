//! Records, their keys, and the layers of their results.

use super::*;
use crate::{
    key::{Link, content_key},
    layer::ChainId,
};

#[test]
fn a_record_is_found_under_each_of_its_keys_also_by_the_next_process() {
    let fixture = Fixture::new();
    let layer = fixture.index.alloc_layer().unwrap();
    let content = content_key(&op("files"));
    let saved = record("a", vec![layer]);
    drop(
        fixture
            .index
            .save(saved.clone(), &KeyParts::default(), &[content], &[LayerRow::new(layer, vec![])])
            .unwrap(),
    );
    fixture.index.link(key("other"), &key("a"), &[]).unwrap();

    let fixture = fixture.reopen();
    for key in [key("a"), content, key("other")] {
        assert_eq!(fixture.hit(&key), Some(saved.clone()));
    }
    assert_eq!(fixture.hit(&key("b")), None);
    let hit = fixture.index.lookup(&[key("b"), content, key("a")]).unwrap().unwrap();
    assert_eq!(hit.row.key, key("a"));
}

#[test]
fn a_record_whose_layer_is_unknown_is_not_saved() {
    let fixture = Fixture::new();
    let error = fixture
        .index
        .save(record("a", vec![LayerId(7)]), &KeyParts::default(), &[], &[])
        .unwrap_err();
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
    drop(fixture.index.save(again, &KeyParts::default(), &[key("a")], &[]).unwrap());
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
    drop(fixture.index.save(step, &KeyParts::default(), &[], &[row]).unwrap());
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
fn a_key_leads_to_the_record_that_took_it_whatever_becomes_of_the_one_that_had_it() {
    let fixture = Fixture::new();
    let (first, second) = (fixture.step("first", &[]), fixture.step("second", &[]));
    for name in ["one", "two"] {
        fixture.index.link(key(name), &key("first"), &[]).unwrap();
    }
    let again = record("second", vec![second]);
    drop(fixture.index.save(again, &KeyParts::default(), &[key("one"), key("two")], &[]).unwrap());
    let pin = fixture.index.pin_layers(&[second]);
    assert_eq!(fixture.prune_all().layers, [first]);
    drop(pin);
    for name in ["one", "two"] {
        assert_eq!(fixture.hit(&key(name)).unwrap().key, key("second"));
    }
    fixture.prune_all();
    assert_eq!(fixture.index.db.scan_raw(schema::Family::Aliases, &[]).count(), 0);
}
