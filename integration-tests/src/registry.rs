//! A real registry on loopback.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::base::busybox_layer;
use crate::http::{Response, request};
use crate::image::Image;
use crate::layer::{digest, gzip};
use crate::process::Process;
use crate::programs::program_layer;
use crate::tap::Tap;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// Debian's `docker-registry` on a free port, plain HTTP. The daemons of the tests take it as their
/// mirror of Docker Hub: `FROM busybox` is its `library/busybox`.
pub struct Registry {
    address: String,
    _process: Process,
    _log: Tap,
    folder: TempDir,
}

impl Registry {
    /// Starts an empty one.
    pub fn empty() -> Self {
        let folder = TempDir::with_prefix("kiln-registry-").expect("temporary folder");
        let config = folder.path().join("config.yml");
        // JSON is YAML.
        let settings = json!({
            "version": 0.1,
            "log": {"level": "info", "accesslog": {"disabled": true}},
            "storage": {
                "filesystem": {"rootdirectory": folder.path().join("data")},
                "delete": {"enabled": true},
            },
            "http": {"addr": "127.0.0.1:0"},
        });
        std::fs::write(&config, settings.to_string()).expect("registry configuration");
        let mut process = Process::spawn(
            Command::new("docker-registry")
                .arg("serve")
                .arg(config)
                .env("OTEL_TRACES_EXPORTER", "none")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped()),
        );
        let log = Tap::on(process.child().stderr.take().expect("stderr of the registry"));
        let line = log
            .line(|line| line.contains("listening on "), Duration::from_secs(30))
            .unwrap_or_else(|| panic!("the registry did not start:\n{}", log.text()));
        let (_, rest) = line.split_once("listening on ").expect("the line that was waited for");
        let address = rest.split(['"', ' ', ',']).next().unwrap_or_default().to_owned();
        Self { address, _process: process, _log: log, folder }
    }

    /// Starts one that has `library/busybox`.
    pub fn start() -> Self {
        let registry = Self::empty();
        registry.push("library/busybox:latest", &[busybox_layer()], &busybox_config());
        registry
    }

    /// Its `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A full reference to `name` in this registry.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// Pushes busybox with `program` as `/name`, as `my/tools`.
    pub fn push_tools(&self, program: &Path, name: &str) {
        let layers = [busybox_layer(), program_layer(program, name).finish()];
        self.push("my/tools:latest", &layers, &image_config());
    }

    /// Pushes an image of uncompressed `layers`; `config` is its config but for the rootfs.
    pub fn push(&self, name: &str, layers: &[Vec<u8>], config: &Value) {
        let (repository, tag) = split(name);
        let mut described = Vec::new();
        for tar in layers {
            let blob = gzip(tar);
            described.push(self.push_blob(repository, LAYER, &blob));
        }
        let mut config = config.clone();
        let diff_ids: Vec<_> = layers.iter().map(|tar| digest(tar)).collect();
        config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.push_blob(repository, CONFIG, config.to_string().as_bytes()),
            "layers": described,
        });
        let target = format!("/v2/{repository}/manifests/{tag}");
        self.call("PUT", &target, MANIFEST, manifest.to_string().as_bytes());
    }

    /// Reads an image back, every byte verified by its digest.
    #[track_caller]
    pub fn image(&self, name: &str) -> Image {
        let (repository, _) = split(name);
        Image::read(&self.manifest(name), &|wanted| self.blob(repository, wanted))
    }

    /// The bytes of a manifest or index.
    #[track_caller]
    pub fn manifest(&self, name: &str) -> Vec<u8> {
        let (repository, tag) = split(name);
        let answer = self.get(&format!("/v2/{repository}/manifests/{tag}"));
        assert_eq!(answer.status, 200, "{name} is not in the registry");
        answer.body
    }

    /// Whether the registry has `name`.
    pub fn has(&self, name: &str) -> bool {
        let (repository, tag) = split(name);
        self.get(&format!("/v2/{repository}/manifests/{tag}")).status == 200
    }

    /// How many blobs have arrived in a repository, whether or not a manifest names them yet.
    pub fn blobs_in(&self, repository: &str) -> usize {
        let layers = format!("data/docker/registry/v2/repositories/{repository}/_layers/sha256");
        std::fs::read_dir(self.folder.path().join(layers)).map_or(0, Iterator::count)
    }

    /// The blob or manifest of a digest, verified.
    #[track_caller]
    pub fn content(&self, repository: &str, wanted: &str) -> Vec<u8> {
        self.blob(repository, wanted)
    }

    fn blob(&self, repository: &str, wanted: &str) -> Vec<u8> {
        // An index's manifests are blobs to `Image::read`, but not to the registry.
        let blob = self.get(&format!("/v2/{repository}/blobs/{wanted}"));
        let answer = if blob.status == 200 {
            blob
        } else {
            self.get(&format!("/v2/{repository}/manifests/{wanted}"))
        };
        assert_eq!(answer.status, 200, "{wanted} is not in {repository}");
        assert_eq!(digest(&answer.body), wanted, "content of {wanted}");
        answer.body
    }

    fn push_blob(&self, repository: &str, media_type: &str, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        let start = self.call("POST", &format!("/v2/{repository}/blobs/uploads/"), "", &[]);
        let location = start.header("location").expect("where to upload").to_owned();
        let target = location.split_once(&self.address).map_or(location.as_str(), |(_, path)| path);
        let mark = if target.contains('?') { '&' } else { '?' };
        let target = format!("{target}{mark}digest={digest}");
        self.call("PUT", &target, "application/octet-stream", bytes);
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    fn get(&self, target: &str) -> Response {
        request(&self.address, "GET", target, &[("Accept", ACCEPTED)], &[])
    }

    fn call(&self, method: &str, target: &str, content_type: &str, body: &[u8]) -> Response {
        let answer =
            request(&self.address, method, target, &[("Content-Type", content_type)], body);
        assert!(
            (200..300).contains(&answer.status),
            "{method} {target}: {} {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
        answer
    }
}

/// The architecture of this machine in the names that images use.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The config of an image for this machine, with programs in `/bin`.
pub fn image_config() -> Value {
    json!({"os": "linux", "architecture": architecture(), "config": {"Env": ["PATH=/bin"]}})
}

fn busybox_config() -> Value {
    json!({
        "architecture": architecture(),
        "os": "linux",
        "created": "2023-11-14T22:13:20Z",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]},
        "history": [{"created": "2023-11-14T22:13:20Z", "created_by": "busybox"}],
    })
}

/// `repository:tag` or `repository@digest`.
fn split(name: &str) -> (&str, &str) {
    name.split_once('@').or_else(|| name.rsplit_once(':')).unwrap_or((name, "latest"))
}
