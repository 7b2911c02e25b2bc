//! Caches that BuildKit exported: what it has run is a hit.
//!
//! `buildkit_caches/config.json` is the cache config that BuildKit 0.32.2 exports of the build below.
//! Its records are named by digests that follow from the Dockerfile and the context alone; those of the
//! base image, and the layers, are this test's.

use std::collections::BTreeMap;
use std::fs;

use kiln_integration_tests::{Context, Daemon, LayerTar, Registry, State, digest};
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

/// A registry that has a base image of one layer, in which no command could be run.
fn registry() -> (Registry, Vec<u8>) {
    let registry = Registry::empty();
    let layer = LayerTar::new().file("base", 0o644, b"base").finish();
    let config =
        json!({ "architecture": "amd64", "os": "linux", "config": { "Env": ["PATH=/bin"] } });
    registry.push("base:1", std::slice::from_ref(&layer), &config);
    (registry, layer)
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
        let text = include_str!("buildkit_caches/config.json");
        let mut config: Value = serde_json::from_str(text).expect("a config");
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
        for record in config["records"].as_array_mut().expect("records") {
            if record["digest"] == "layers of the base" {
                let op = digest(format!("buildkit.source.v0:{}", digest(base)).as_bytes());
                record["digest"] = digest(format!("{op}@0").as_bytes()).into();
            } else if record["digest"] == "manifest of the base" {
                record["digest"] = digest(b"manifest").into();
            }
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
