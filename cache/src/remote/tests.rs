//! What an export and an import agree on, and what strangers may send.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    time::{Duration, SystemTime},
};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    descriptor::{Descriptor, UNCOMPRESSED},
    digest::Digest,
    index::Record,
    key::{CacheKey, Link, Selector, content_key, key_of},
    record_type::RecordType,
};

fn blob(name: &str) -> Descriptor {
    let mut blob = Descriptor::new("layer", Digest::of(name), 10);
    blob.annotations.insert(UNCOMPRESSED.to_owned(), Digest::of(format!("{name}.tar")).to_string());
    blob
}

/// Records by primary key, as an index would hold them.
#[derive(Default, Debug)]
struct Records {
    by_key: BTreeMap<CacheKey, Record>,
    chains: HashMap<CacheKey, Vec<Descriptor>>,
    keys: Vec<(CacheKey, CacheKey)>,
}

impl Records {
    /// Adds a record whose primary key is made of the first link of each input, and which is also
    /// known by each other combination of links.
    fn add(&mut self, name: &str, inputs: Vec<Vec<Link>>, chain: &[&str]) -> CacheKey {
        let op = Digest::of(name);
        let mut choices = vec![Vec::new()];
        for links in &inputs {
            choices = choices
                .iter()
                .flat_map(|choice: &Vec<Link>| {
                    links
                        .iter()
                        .map(move |link| [choice.as_slice(), std::slice::from_ref(link)].concat())
                })
                .collect();
        }
        let keys: Vec<_> = choices.iter().map(|links| key_of(&op, 0, links)).collect();
        let key = keys[0];
        self.keys.extend(keys.into_iter().map(|alias| (alias, key)));
        self.by_key.insert(
            key,
            Record {
                key,
                op,
                output: 0,
                inputs,
                result: Vec::new(),
                description: String::new(),
                record_type: RecordType::Regular,
                created_at: SystemTime::UNIX_EPOCH + Duration::from_secs(self.keys.len() as u64),
                duration: None,
            },
        );
        self.chains.insert(key, chain.iter().map(|name| blob(name)).collect());
        key
    }

    fn graph(&self, keys: &[CacheKey]) -> ExportGraph {
        let find =
            |key: &CacheKey| Ok::<_, Infallible>(self.by_key.get(key).cloned().map(Into::into));
        ExportGraph::collect(keys, find).unwrap()
    }

    fn export(&self, keys: &[CacheKey]) -> Exported {
        self.graph(keys).export(&self.chains)
    }
}

fn whole(key: CacheKey) -> Link {
    Link::whole(key)
}

fn part(key: CacheKey, selector: &str) -> Link {
    Link { key, selector: Selector::new(selector) }
}

fn import(exported: &Exported) -> ImportedCache {
    let json = serde_json::to_vec(&exported.config).unwrap();
    ImportedCache::parse(&json, &exported.blobs).unwrap()
}

/// `FROM`, `RUN`, and a `COPY` from a context that is also known by its content.
fn sample() -> (Records, [CacheKey; 3]) {
    let mut records = Records::default();
    let base = records.add("from", vec![], &["base"]);
    let run = records.add("run", vec![vec![whole(base)]], &["base", "run"]);
    let context = key_of(&Digest::of("context"), 0, &[]);
    let files = content_key(&Digest::of("files"));
    let copied = vec![vec![whole(run)], vec![part(context, "src"), whole(files)]];
    let copy = records.add("copy", copied, &["base", "run", "copy"]);
    (records, [base, run, copy])
}

#[test]
fn a_result_without_a_time_is_from_1970() {
    let (records, [base, ..]) = sample();
    let mut exported = records.export(&[base]);
    for record in &mut exported.config.records {
        for result in &mut record.results {
            result.created_at = time::macros::datetime!(0001-01-01 00:00 UTC);
        }
    }
    let hit = import(&exported).lookup(&[base]).unwrap();
    assert_eq!(hit.created_at, time::OffsetDateTime::UNIX_EPOCH);
}

#[test]
fn an_imported_cache_has_each_result_under_each_of_its_keys() {
    let (records, [_, run, copy]) = sample();
    let imported = import(&records.export(&[copy]));
    let names =
        |hit: ImportedHit| hit.blobs.into_iter().map(|blob| blob.digest).collect::<Vec<_>>();
    let digests = |names: &[&str]| names.iter().map(Digest::of).collect::<Vec<_>>();

    assert_eq!(names(imported.lookup(&[run]).unwrap()), digests(&["base", "run"]));
    // Another context with the same files.
    let files = content_key(&Digest::of("files"));
    let by_content = key_of(&Digest::of("copy"), 0, &[whole(run), whole(files)]);
    assert_ne!(by_content, copy);
    let hit = imported.lookup(&[by_content]).unwrap();
    assert_eq!(hit.key, copy, "dependants are keyed as by the exporter");
    assert_eq!(hit.blobs[2].diff_id().unwrap().digest(), &Digest::of("copy.tar"));
    assert_eq!(names(hit), digests(&["base", "run", "copy"]));
    assert_eq!(imported.lookup(&[files]), None, "content is not a result");
}

#[test]
fn with_mode_min_keys_lead_to_the_last_result_only() {
    let (mut records, [_, run, copy]) = sample();
    records.chains.retain(|key, _| *key == copy);
    let imported = import(&records.export(&[copy]));
    assert_eq!(imported.lookup(&[run]), None);
    assert_eq!(imported.primary(&run), Some(run));
    assert_eq!(imported.lookup(&[copy]).unwrap().blobs.len(), 3);
}

#[test]
fn a_cache_in_an_image_refers_to_the_layers_of_the_image() {
    let (records, [_, run, copy]) = sample();
    let image = |names: &[&str]| names.iter().map(|name| blob(name)).collect::<Vec<_>>();
    let inline = |layers: &[Descriptor]| {
        let digests: Vec<_> = layers.iter().map(|layer| layer.digest).collect();
        records.export(&[copy]).inline(&digests)
    };
    // In the order of the image, and in another.
    for names in [["base", "run", "copy"], ["copy", "base", "run"]] {
        let layers = image(&names);
        let json = serde_json::to_vec(&inline(&layers).unwrap()).unwrap();
        let imported = ImportedCache::parse_inline(&json, &layers).unwrap();
        for (key, names) in [(run, &["base", "run"][..]), (copy, &["base", "run", "copy"])] {
            let digests: Vec<_> = names.iter().map(Digest::of).collect();
            let hit = imported.lookup(&[key]).unwrap();
            assert_eq!(hit.blobs.iter().map(|blob| blob.digest).collect::<Vec<_>>(), digests);
        }
    }
    assert_eq!(inline(&image(&["other"])), None);
    let layers = image(&["base"]);
    let json = serde_json::to_vec(&inline(&layers).unwrap()).unwrap();
    let imported = ImportedCache::parse_inline(&json, &layers).unwrap();
    assert_eq!(imported.lookup(&[copy]), None, "its layers are not in the image");
}

#[test]
fn what_an_imported_cache_knows_of_steps_is_exported_again() {
    let (mut records, [_, run, copy]) = sample();
    records.chains.retain(|key, _| *key == copy);
    let first = records.export(&[copy]);
    let imported = import(&first);
    assert!(imported.record(&run).is_some());
    // A daemon that found the last step in the cache has a record of that one only.
    let find = |key: &CacheKey| {
        let own = records.by_key.get(key).filter(|record| record.key == copy);
        Ok::<_, Infallible>(own.cloned().map(Into::into).or_else(|| imported.record(key)))
    };
    assert_eq!(ExportGraph::collect(&[copy], find).unwrap().export(&records.chains), first);
}

#[test]
fn the_config_is_buildkits_json() {
    let (records, [_, _, copy]) = sample();
    let exported = records.export(&[copy]);
    let digest = |name: &str| Digest::of(name).to_string();
    let output = |name: &str, output| digest(&format!("{}@{output}", digest(name)));
    assert_eq!(
        serde_json::to_value(&exported.config).unwrap(),
        json!({
            "layers": [
                {"blob": digest("base"), "parent": -1},
                {"blob": digest("run")},
                {"blob": digest("copy"), "parent": 1},
            ],
            "records": [
                {
                    "layers": [{"layer": 0, "createdAt": "1970-01-01T00:00:01Z"}],
                    "digest": output("from", 0),
                },
                {
                    "layers": [{"layer": 1, "createdAt": "1970-01-01T00:00:02Z"}],
                    "digest": output("run", 0),
                    "inputs": [[{"link": 0}]],
                },
                {"digest": output("context", 0)},
                {"digest": output("files", -1)},
                {
                    "layers": [{"layer": 2, "createdAt": "1970-01-01T00:00:04Z"}],
                    "digest": output("copy", 0),
                    "inputs": [
                        [{"link": 1}],
                        [{"selector": "src", "link": 2}, {"link": 3}],
                    ],
                },
            ],
        })
    );
}

#[test]
fn the_same_records_make_the_same_config() {
    let (records, [base, run, copy]) = sample();
    let exported = records.export(&[copy, base, run]);
    assert_eq!(records.export(&[run, copy, base]), exported);
    assert_eq!(exported.blobs, ["base", "run", "copy"].map(blob));
}

#[test]
fn a_config_without_manifest_describes_its_layers() {
    let (records, [_, _, copy]) = sample();
    let mut exported = records.export(&[copy]);
    exported.annotate();
    let layer = serde_json::to_value(&exported.config.layers[0]).unwrap();
    assert_eq!(
        layer["annotations"],
        json!({
            "mediaType": "layer",
            "diffID": Digest::of("base.tar").to_string(),
            "size": 10,
            "createdAt": "1970-01-01T00:00:00Z",
        })
    );
    assert_eq!(import(&exported).keys().count(), 6);
}

#[test]
fn records_that_are_linked_in_a_circle_are_exported_by_their_keys() {
    let mut records = Records::default();
    let first = records.add("first", vec![], &["a"]);
    let second = records.add("second", vec![vec![whole(first)]], &["a", "b"]);
    // Its input was later found to have the same content as its result.
    let other = records.add("other", vec![vec![whole(second)]], &["a", "b"]);
    let inputs = &mut records.by_key.get_mut(&second).unwrap().inputs;
    inputs[0].push(whole(other));
    let imported = import(&records.export(&[other]));
    for key in [first, second, other, key_of(&Digest::of("second"), 0, &[whole(other)])] {
        assert!(imported.lookup(&[key]).is_some());
    }
}

#[test]
fn a_step_that_had_to_run_again_is_found_as_if_it_had_not() {
    let mut records = Records::default();
    let base = records.add("base", vec![], &["a"]);
    let usual = records.add("run", vec![vec![whole(base)]], &["a", "b"]);
    // What `--no-cache` does: a key of its own for this one run, and so for all above it.
    let mut run = records.by_key.remove(&usual).unwrap();
    run.key = CacheKey::new(Digest::of("no cache"));
    records.chains.insert(run.key, vec![blob("a"), blob("again")]);
    let above = records.add("above", vec![vec![whole(run.key)]], &["a", "again", "c"]);
    records.by_key.insert(run.key, run);

    let imported = import(&records.export(&[above]));
    assert_eq!(imported.lookup(&[usual]).unwrap().blobs[1], blob("again"));
    let usual_above = key_of(&Digest::of("above"), 0, &[whole(usual)]);
    assert_eq!(imported.lookup(&[usual_above]).unwrap().blobs.len(), 3);
    assert_eq!(imported.lookup(&[above]), None);
}

#[test]
fn an_imported_result_can_be_exported_again() {
    let (records, [_, run, copy]) = sample();
    let imported = import(&records.export(&[copy]));
    let hit = imported.lookup(&[copy]).unwrap();
    assert_eq!(hit.inputs, records.by_key[&copy].inputs);
    assert_eq!(key_of(&Digest::of("copy"), 0, &[whole(run), hit.inputs[1][0].clone()]), copy);
}

#[test]
fn a_result_of_which_a_blob_is_missing_is_none() {
    let (records, [base, run, copy]) = sample();
    let mut exported = records.export(&[copy]);
    exported.blobs.remove(1);
    let imported = import(&exported);
    assert!(imported.lookup(&[base]).is_some());
    assert!(imported.lookup(&[run]).is_none());
    assert!(imported.lookup(&[copy]).is_none());
    assert_eq!(imported.lookup(&[copy, base]).unwrap().blobs.len(), 1);
}

#[test]
fn a_manifest_reads_back_in_each_of_its_forms() {
    let manifest = CacheManifest {
        config: Descriptor::new(CONFIG_MEDIA_TYPE, Digest::of("config"), 6),
        layers: vec![blob("a"), blob("b")],
    };
    for format in [ManifestFormat::OciImage, ManifestFormat::OciIndex, ManifestFormat::DockerList] {
        let json = manifest.to_json(format);
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(value["schemaVersion"], 2);
        assert_eq!(value["mediaType"], format.media_type());
        assert_eq!(value.get("manifests").is_some(), format != ManifestFormat::OciImage);
        assert_eq!(CacheManifest::parse(&json).unwrap(), Some(manifest.clone()));
    }
}

#[test]
fn an_images_manifest_is_no_cache_and_other_documents_are_errors() {
    let config = Descriptor::new("application/vnd.oci.image.config.v1+json", Digest::of(""), 0);
    let image = json!({"schemaVersion": 2, "config": config, "layers": null});
    assert_eq!(CacheManifest::parse(image.to_string().as_bytes()).unwrap(), None);
    let empty = json!({"schemaVersion": 2, "manifests": []});
    assert_eq!(CacheManifest::parse(empty.to_string().as_bytes()).unwrap(), None);
    for json in ["{}", "[]", "", r#"{"config": 1}"#] {
        assert!(CacheManifest::parse(json.as_bytes()).is_err(), "{json}");
    }
}

#[test]
fn a_config_that_leads_nowhere_is_refused() {
    let digest = Digest::of("x").to_string();
    let record = |inputs: serde_json::Value| json!({"digest": digest, "inputs": inputs});
    let result = |layer: i64| json!({"digest": digest, "layers": [{"layer": layer, "createdAt": "2026-01-01T00:00:00Z"}]});
    let table = [
        ("a link to nothing", json!({"records": [record(json!([[{"link": 1}]]))]})),
        ("a negative link", json!({"records": [record(json!([[{"link": -1}]]))]})),
        ("a link to itself", json!({"records": [record(json!([[{"link": 0}]]))]})),
        (
            "a circle",
            json!({"records": [record(json!([[{"link": 1}]])), record(json!([[{"link": 0}]]))]}),
        ),
        ("an empty input", json!({"records": [record(json!([[]]))]})),
        ("a result of no layer", json!({"records": [result(0)]})),
        ("a result of a negative layer", json!({"records": [result(-1)]})),
        ("a layer on no layer", json!({"layers": [{"blob": digest, "parent": 1}]})),
        ("another algorithm", json!({"records": [{"digest": "md5:00"}]})),
        ("a number for a digest", json!({"records": [{"digest": 1}]})),
        ("a text", json!("x")),
    ];
    for (what, config) in table {
        assert!(ImportedCache::parse(config.to_string().as_bytes(), &[]).is_err(), "{what}");
    }
    let nulls = json!({"layers": null, "records": [{"digest": digest, "inputs": null}], "new": 1});
    assert!(ImportedCache::parse(nulls.to_string().as_bytes(), &[]).is_ok());
}

#[test]
fn layers_in_a_circle_are_no_result() {
    let layer = |parent: i64| CacheLayer {
        blob: blob("a").digest,
        parent_index: parent,
        annotations: None,
    };
    let created_at = SystemTime::UNIX_EPOCH.into();
    let record = CacheRecord {
        results: vec![CacheResult { layer_index: 0, created_at }],
        chains: vec![],
        digest: Digest::of("x"),
        inputs: vec![],
    };
    let config = CacheConfig { layers: vec![layer(1), layer(0)], records: vec![record] };
    let imported = ImportedCache::new(config, &[blob("a")]).unwrap();
    assert_eq!(imported.lookup(&[CacheKey::new(Digest::of("x"))]), None);
}

#[test]
fn a_result_may_be_a_list_of_layers_and_the_newest_counts() {
    let time = |seconds| (SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).into();
    let layer =
        |name: &str| CacheLayer { blob: blob(name).digest, parent_index: -1, annotations: None };
    let record = CacheRecord {
        results: vec![CacheResult { layer_index: 0, created_at: time(1) }],
        chains: vec![ChainedResult { layer_indexes: vec![1, 0], created_at: time(2) }],
        digest: Digest::of("x"),
        inputs: vec![],
    };
    let config = CacheConfig { layers: vec![layer("a"), layer("b")], records: vec![record] };
    let imported = ImportedCache::new(config, &[blob("a"), blob("b")]).unwrap();
    let hit = imported.lookup(&[CacheKey::new(Digest::of("x"))]).unwrap();
    assert_eq!(hit.blobs, [blob("b"), blob("a")]);
}

#[test]
fn alternatives_without_end_cost_keys_and_not_the_machine() {
    let bare = |number: usize| CacheRecord {
        results: vec![],
        chains: vec![],
        digest: Digest::of(number.to_string()),
        inputs: vec![],
    };
    let link = |link_index| CacheInput { selector: String::new(), link_index };
    let mut records = vec![bare(0), bare(1)];
    let inputs = vec![vec![link(0), link(1)]; 64];
    records.push(CacheRecord { inputs, ..bare(2) });
    // A thousand records, each twice linked to the one before.
    for number in 3_usize..1000 {
        let before = number as i64 - 1;
        let inputs = vec![vec![link(before), link(before)]; 2];
        records.push(CacheRecord { inputs, ..bare(number) });
    }
    let config = CacheConfig { layers: vec![], records };
    let imported = ImportedCache::new(config, &[]).unwrap();
    assert!(imported.keys().count() < 1100);
    let [first, second] = [0, 1].map(|number: u32| {
        let key = CacheKey::new(Digest::of(number.to_string()));
        std::iter::repeat_n(whole(key), 64).collect::<Vec<_>>()
    });
    let digest = crate::key::OutputDigest(Digest::of("2"));
    for links in [first, second] {
        assert!(imported.primary(&digest.key(links.iter())).is_some());
    }
}

/// Records, each linked to some before it and to some content.
fn graphs() -> impl Strategy<Value = Records> {
    let link = (any::<prop::sample::Index>(), 0_u8..3, 0..3_u8);
    let input = proptest::collection::vec(link, 1..4);
    let record = (proptest::collection::vec(input, 0..4), 0_usize..4);
    proptest::collection::vec(record, 1..20).prop_map(|specs| {
        let mut records = Records::default();
        let mut made: Vec<CacheKey> = Vec::new();
        for (number, (inputs, layers)) in specs.into_iter().enumerate() {
            let inputs = inputs
                .into_iter()
                .map(|links| {
                    links
                        .into_iter()
                        .map(|(to, selector, kind)| {
                            let selector = ["", "a", "b"][usize::from(selector)];
                            if kind == 0 || made.is_empty() {
                                let content = format!("content {}", to.index(5));
                                part(content_key(&Digest::of(content)), selector)
                            } else {
                                part(made[to.index(made.len())], selector)
                            }
                        })
                        .collect()
                })
                .collect();
            let names: Vec<_> = (0..layers).map(|layer| format!("{number}.{layer}")).collect();
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            made.push(records.add(&format!("op {number}"), inputs, &names));
        }
        records
    })
}

proptest! {
    #[test]
    fn an_import_finds_all_the_keys_of_what_was_exported(records in graphs()) {
        let keys: Vec<_> = records.by_key.keys().copied().collect();
        let imported = import(&records.export(&keys));
        for (key, primary) in &records.keys {
            prop_assert_eq!(imported.primary(key), Some(*primary));
            let chain = &records.chains[primary];
            match imported.lookup(&[*key]) {
                Some(hit) => prop_assert_eq!(&hit.blobs, chain),
                None => prop_assert!(chain.is_empty()),
            }
        }
    }

    #[test]
    fn no_config_makes_an_import_panic(
        parents in proptest::collection::vec(-2_i64..6, 0..6),
        links in proptest::collection::vec(
            proptest::collection::vec(proptest::collection::vec(-1_i64..6, 0..3), 0..3), 0..6),
        results in proptest::collection::vec(-1_i64..6, 0..6),
    ) {
        let created_at = SystemTime::UNIX_EPOCH.into();
        let layers = parents
            .into_iter()
            .map(|parent_index| {
                CacheLayer { blob: blob("a").digest, parent_index, annotations: None }
            })
            .collect();
        let records = links
            .into_iter()
            .enumerate()
            .map(|(number, inputs)| CacheRecord {
                results: results
                    .get(number)
                    .map(|&layer_index| CacheResult { layer_index, created_at })
                    .into_iter()
                    .collect(),
                chains: vec![],
                digest: Digest::of(number.to_string()),
                inputs: inputs
                    .into_iter()
                    .map(|links| {
                        let link = |link_index| CacheInput { selector: String::new(), link_index };
                        links.into_iter().map(link).collect()
                    })
                    .collect(),
            })
            .collect();
        if let Ok(imported) = ImportedCache::new(CacheConfig { layers, records }, &[blob("a")]) {
            for key in imported.keys() {
                let _ = imported.lookup(&[*key]);
            }
        }
    }
}
