//! What keys were made of, and how long that is known.

use std::time::Duration;

use super::*;
use crate::file_list::{Checksum, FileList, FileListBuilder};

const STEP: [&str; 2] = ["project", "RUN x"];

fn parts(value: &str, files: Option<FileList>) -> KeyParts {
    KeyParts {
        steps: vec![StepId::of(&STEP)],
        parts: vec![KeyPart { name: "command".to_owned(), value: PartValue::of(value) }],
        inputs: vec![InputPart { name: "FROM base".to_owned(), files }],
    }
}

fn save(fixture: &Fixture, name: &str, age: u64, files: Option<FileList>) -> LayerId {
    let layer = fixture.index.alloc_layer().unwrap();
    let made = Record {
        created_at: SystemTime::UNIX_EPOCH + Duration::from_secs(1000 - age),
        ..record(name, vec![layer])
    };
    let row = LayerRow::new(layer, Vec::new());
    drop(fixture.index.save(made, &parts(name, files), &[], &[row]).unwrap());
    layer
}

fn earlier(fixture: &Fixture) -> Vec<CacheKey> {
    let found = fixture.index.earlier(&StepId::of(&STEP)).unwrap();
    found.iter().map(|earlier| earlier.record.key).collect()
}

fn rows(index: &Index, family: schema::Family) -> usize {
    index.db.scan_raw(family, &[]).count()
}

#[test]
fn a_step_knows_its_last_records_the_newest_first() {
    let fixture = Fixture::new();
    for (name, age) in [("second", 2), ("first", 1), ("fourth", 4), ("third", 3), ("fifth", 5)] {
        save(&fixture, name, age, None);
    }
    let names = ["first", "second", "third", "fifth"];
    assert_eq!(earlier(&fixture), names.map(key), "the oldest when there were too many is gone");
    save(&fixture, "third", 0, None);
    let names = ["third", "first", "second", "fifth"];
    assert_eq!(earlier(&fixture), names.map(key), "one that is replaced counts once");
    assert_eq!(fixture.index.earlier(&StepId::of(&["other"])).unwrap(), []);
}

#[test]
fn what_a_later_run_is_compared_with_is_what_was_saved_however_much_it_is() {
    let fixture = Fixture::new();
    let part = |n| KeyPart { name: format!("env VARIABLE_{n}"), value: PartValue::of("value") };
    for count in 0..100 {
        let parts = KeyParts::new(Vec::new(), (0..count).map(part).collect(), Vec::new());
        let saved = record(&count.to_string(), Vec::new());
        let key = saved.key;
        drop(fixture.index.save(saved, &parts, &[], &[]).unwrap());
        assert_eq!(fixture.index.parts(&key).unwrap().unwrap_or_default(), parts, "{count}");
    }
}

#[test]
fn parts_and_files_are_kept_as_long_as_their_record() {
    let fixture = Fixture::new();
    let mut files = FileListBuilder::default();
    files.push(b"main.rs", &op("content"), Checksum::EMPTY);
    let files = files.finish().unwrap();
    save(&fixture, "a", 1, Some(files.clone()));
    let fixture = fixture.reopen();
    assert_eq!(fixture.index.file_list(&key("a"), 0).unwrap(), Some(files));
    assert_eq!(fixture.index.file_list(&key("a"), 1).unwrap(), None);
    assert_eq!(fixture.index.parts(&key("a")).unwrap(), Some(parts("a", None)));

    fixture.prune_all();
    assert_eq!(earlier(&fixture), []);
    for family in [schema::Family::Parts, schema::Family::FileLists, schema::Family::Steps] {
        assert_eq!(rows(&fixture.index, family), 0, "{family:?}");
    }
}

#[test]
fn a_step_forgets_records_that_go_together() {
    let fixture = Fixture::new();
    let layers = ["a", "b", "c", "d"].map(|name| save(&fixture, name, 1, None));
    let pin = fixture.index.pin_layers(&[layers[1]]);
    fixture.prune_all();
    assert_eq!(earlier(&fixture), [key("b")]);
    drop(pin);
    fixture.prune_all();
    assert_eq!(rows(&fixture.index, schema::Family::Steps), 0);
}

#[test]
fn what_a_step_comes_to_know_while_a_collection_goes_on_is_what_it_knows_then() {
    type Change = fn(&Fixture, LayerId);
    let changes: [(&str, Change, &[&str]); 3] = [
        (
            "another record",
            |fixture, _| {
                save(fixture, "new", 0, None);
            },
            &["new", "other"],
        ),
        ("a record less", |fixture, other| fixture.index.disown_layer(other).unwrap(), &[]),
        (
            "a record that is another step's now",
            |fixture, other| {
                let parts = KeyParts { steps: vec![StepId::of(&["moved"])], ..parts("", None) };
                drop(fixture.index.save(record("other", vec![other]), &parts, &[], &[]).unwrap());
            },
            &[],
        ),
    ];
    for (name, change, left) in changes {
        let fixture = Fixture::new();
        let layers = ["old", "older"].map(|name| save(&fixture, name, 9, None));
        let other = save(&fixture, "other", 5, None);
        let removed = fixture.remove_after(&layers, || change(&fixture, other));
        assert_eq!(removed, layers, "{name}");
        let remembered = fixture.index.db.get_raw(schema::Family::Steps, &StepId::of(&STEP).0);
        assert_eq!(earlier(&fixture), left.iter().map(|name| key(name)).collect::<Vec<_>>());
        assert_eq!(remembered.unwrap().is_some(), !left.is_empty(), "{name}");
    }
}

#[test]
fn all_of_a_record_goes_whichever_version_saved_it() {
    let fixture = Fixture::new();
    let layer = save(&fixture, "a", 0, FileListBuilder::default().finish());
    fixture.index.link(key("alias"), &key("a"), &[]).unwrap();
    let mut batch = db::Batch::new(&fixture.index.db);
    batch.put_raw(schema::Family::Links, &links::record(layer, &key("a")), &[]);
    batch.write().unwrap();
    assert_eq!(fixture.prune_all().layers, [layer]);
    for family in schema::Family::ALL {
        let is_of_records = !matches!(family, schema::Family::Meta | schema::Family::Volatile);
        assert!(!is_of_records || rows(&fixture.index, family) == 0, "{family:?}");
    }
}
