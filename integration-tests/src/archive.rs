//! Images in the tar files that `--output type=oci` and `type=docker` make.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::image::Image;
use crate::layer::{Kind, Layer, entries};

/// The regular files of a tar.
pub fn unpack_archive(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    entries(tar)
        .into_iter()
        .filter(|entry| entry.kind == Kind::File)
        .map(|entry| (entry.path, entry.contents))
        .collect()
}

/// The image in an OCI layout tar.
pub fn oci_archive(tar: &[u8]) -> Image {
    let files = unpack_archive(tar);
    assert!(files.contains_key("oci-layout"), "an OCI layout has an oci-layout file");
    let blob = |digest: &str| -> Vec<u8> {
        let path = format!("blobs/{}", digest.replace(':', "/"));
        let bytes = files.get(&path).unwrap_or_else(|| panic!("{path} is missing")).clone();
        assert_eq!(crate::layer::digest(&bytes), digest, "a blob has the digest it is named by");
        bytes
    };
    Image::read(&files["index.json"], &blob)
}

/// The image in a tar that `docker load` takes.
pub fn docker_archive(tar: &[u8]) -> Image {
    let files = unpack_archive(tar);
    let manifest: Value = serde_json::from_slice(&files["manifest.json"]).expect("manifest.json");
    let manifest = manifest[0].clone();
    let path = |value: &Value| value.as_str().expect("a path").to_owned();
    Image {
        digest: String::new(),
        config: serde_json::from_slice(&files[&path(&manifest["Config"])]).expect("config"),
        layers: manifest["Layers"]
            .as_array()
            .expect("layers")
            .iter()
            .map(|layer| Layer::read(&files[&path(layer)], ""))
            .collect(),
        manifest,
    }
}
