//! Caches that BuildKit exported: what it has run is a hit. And what Kiln exports is one there.
//!
//! `buildkit_caches/config.json` is the cache config that BuildKit 0.32.2 exports of the build below.
//! Its records are named by digests that follow from the Dockerfile and the context alone; those of the
//! base image, and the layers, are this test's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use kiln_integration_tests::{Context, Daemon, LayerTar, Registry, State, busybox_layer, digest};
use serde_json::{Value, json};

const DOCKERFILE: &str = r#"
    FROM BASE AS build
    ENV A=1
    RUN --mount=type=cache,target=/c echo "<a>" && mkdir /out && echo 1 > /out/f
    WORKDIR /app
    COPY *.txt dir /app/
    RUN --mount=source=dir,target=/src cat /src/b
    FROM BASE
    COPY --from=build --chown=1:2 /out /out
    COPY --link a.txt /linked/
    COPY <<EOF /text
    text
    EOF
    RUN ["/bin/true"]
"#;

/// A registry that has a base image of one layer.
fn registry_with(layer: &[u8]) -> Registry {
    let registry = Registry::empty();
    let config =
        json!({ "architecture": "amd64", "os": "linux", "config": { "Env": ["PATH=/bin"] } });
    registry.push("base:1", &[layer.to_vec()], &config);
    registry
}

/// The same, of an image in which no command could be run.
fn registry() -> (Registry, Vec<u8>) {
    let layer = LayerTar::new().file("base", 0o644, b"base").finish();
    (registry_with(&layer), layer)
}

/// The cache config of BuildKit's, with the digests of a base image.
fn config(base: &[u8]) -> Value {
    let text = include_str!("buildkit_caches/config.json");
    let mut config: Value = serde_json::from_str(text).expect("a config");
    for record in config["records"].as_array_mut().expect("records") {
        if record["digest"] == "layers of the base" {
            let op = digest(format!("buildkit.source.v0:{}", digest(base)).as_bytes());
            record["digest"] = digest(format!("{op}@0").as_bytes()).into();
        } else if record["digest"] == "manifest of the base" {
            record["digest"] = digest(b"manifest").into();
        }
    }
    config
}

fn context(registry: &Registry) -> Context {
    let dockerfile = DOCKERFILE.replace("BASE", &registry.reference("base:1"));
    Context::new()
        .dockerfile(&dockerfile)
        .file("a.txt", "a")
        .file("dir/b", "b")
        .mode("a.txt", 0o644)
        .mode("dir", 0o755)
        .mode("dir/b", 0o644)
}

/// A content store in a folder, as it is for `type=local`.
struct Store(Context);

impl Store {
    fn put(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        let path = digest.replace(':', "/");
        self.0.write(&format!("blobs/{path}"), bytes);
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    /// The cache as BuildKit has it, with layers that have a file each, of their name.
    fn with_cache(base: &[u8]) -> Self {
        let store = Self(Context::new());
        fs::create_dir_all(store.0.at("blobs/sha256")).expect("a folder");
        let mut config = config(base);
        let mut layers = BTreeMap::new();
        for layer in config["layers"].as_array_mut().expect("layers") {
            let name = layer["blob"].as_str().expect("a name").to_owned();
            let tar = match &*name {
                "base" => base.to_vec(),
                name => LayerTar::new().file(&format!("from/{name}"), 0o644, b"").finish(),
            };
            let mut blob = store.put("application/vnd.oci.image.layer.v1.tar", &tar);
            blob["annotations"] = json!({ "containerd.io/uncompressed": digest(&tar) });
            layer["blob"] = blob["digest"].clone();
            layers.insert(name, blob);
        }
        let config =
            store.put("application/vnd.buildkit.cacheconfig.v0", config.to_string().as_bytes());
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": config,
            "layers": layers.into_values().collect::<Vec<_>>(),
        });
        let mut manifest = store.put(media_type, manifest.to_string().as_bytes());
        manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        store.0.write("index.json", index.to_string());
        store.0.write("oci-layout", r#"{"imageLayoutVersion": "1.0.0"}"#);
        store
    }

    fn import(&self) -> String {
        format!("type=local,src={}", self.0.path().display())
    }
}

#[test]
fn every_step_of_a_cache_that_buildkit_has_exported_is_a_hit() {
    let (registry, base) = registry();
    let (context, store) = (context(&registry), Store::with_cache(&base));
    let daemon = Daemon::start(&registry);
    let build = daemon
        .build(&context)
        .args(["--platform", "linux/amd64", "--cache-from", &store.import()])
        .args(["--push", "-t", &registry.reference("app:1")])
        .succeeds();
    assert_eq!(build.ran(), <[&str; 0]>::default(), "{}", build.stderr);
    let image = registry.image("app:1");
    for path in ["base", "from/out", "from/linked", "from/text", "from/true"] {
        assert!(image.has(path), "{path}");
    }

    let build = daemon
        .build(&context)
        .args(["--platform", "linux/amd64", "--target", "build"])
        .args(["--cache-from", &store.import()])
        .succeeds();
    assert_eq!(build.ran(), <[&str; 0]>::default(), "{}", build.stderr);
}

#[test]
fn what_buildkit_has_not_run_is_no_hit() {
    let (registry, base) = registry();
    let (context, store) = (context(&registry), Store::with_cache(&base));
    context.write("a.txt", "b");
    let daemon = Daemon::start(&registry);
    let build = daemon
        .build(&context)
        .args(["--platform", "linux/amd64", "--target", "build"])
        .args(["--cache-from", &store.import()])
        .fails();
    assert_eq!(build.ran(), ["COPY *.txt dir /app/"], "{}", build.stderr);
    build.step_is("WORKDIR /app", &State::Cached);
}

/// Where BuildKit finds, in a cache with `records`, what it knows by the one at `number` of its own.
///
/// A record is found by its digest, from those of its inputs: each has several, of which one is
/// enough.
fn found(number: usize, own: &[Value], records: &[Value]) -> BTreeSet<usize> {
    let inputs = |record: &Value| record["inputs"].as_array().cloned().unwrap_or_default();
    let keys = |input: &Value| input.as_array().cloned().unwrap_or_default();
    let link = |key: &Value| usize::try_from(key["link"].as_u64().expect("a link")).expect("small");
    let wanted: Vec<BTreeSet<_>> = inputs(&own[number])
        .iter()
        .map(|input| {
            let keys = keys(input).into_iter();
            keys.flat_map(|key| {
                let linked = found(link(&key), own, records).into_iter();
                linked.map(move |at| (key["selector"].to_string(), at))
            })
            .collect()
        })
        .collect();
    let is_found = |record: &Value| {
        let inputs = inputs(record);
        record["digest"] == own[number]["digest"]
            && inputs.len() == wanted.len()
            && inputs.iter().zip(&wanted).all(|(input, wanted)| {
                let keys = keys(input).into_iter();
                keys.into_iter()
                    .any(|key| wanted.contains(&(key["selector"].to_string(), link(&key))))
            })
    };
    (0..records.len()).filter(|&at| is_found(&records[at])).collect()
}

#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "runs the steps, whose keys name amd64")]
fn buildkit_finds_every_step_in_a_cache_that_kiln_exports() {
    let base = busybox_layer();
    let registry = registry_with(&base);
    let daemon = Daemon::start(&registry);
    let cache = format!("type=registry,ref={},mode=max", registry.reference("cache:1"));
    daemon
        .build(&context(&registry))
        .args(["--platform", "linux/amd64", "--cache-to", &cache])
        .succeeds();
    let parsed = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).expect("JSON");
    let manifest = parsed(registry.manifest("cache:1"));
    let digest = manifest["config"]["digest"].as_str().expect("a digest");
    let exported = parsed(registry.content("cache", digest));
    let records = exported["records"].as_array().expect("records");

    let own = config(&base);
    let own = own["records"].as_array().expect("records");
    let has_result = |record: &Value| {
        ["layers", "chains"]
            .iter()
            .any(|kind| record[kind].as_array().is_some_and(|it| !it.is_empty()))
    };
    let with_result = own.iter().enumerate().filter(|(_, record)| has_result(record));
    assert_eq!(with_result.clone().count(), 9, "the base, and each step that has made something");
    for (number, record) in with_result {
        let found = found(number, own, records);
        assert!(
            found.iter().any(|&at| has_result(&records[at])),
            "{record} is not in {exported:#}"
        );
    }
}
