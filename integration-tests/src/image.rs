//! An image as a test looks at it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::layer::{Entry, Kind, Layer};

/// An image with all of its content.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of the manifest; empty where the format has none.
    pub digest: String,
    /// The manifest as JSON.
    pub manifest: Value,
    /// The config as JSON.
    pub config: Value,
    /// Lowest first.
    pub layers: Vec<Layer>,
}

impl Image {
    /// Reads an image by its manifest, with `blob` to get the content of a digest.
    ///
    /// An index is followed to its first manifest.
    pub(crate) fn read(manifest: &[u8], blob: &dyn Fn(&str) -> Vec<u8>) -> Self {
        let json: Value = serde_json::from_slice(manifest).expect("manifest");
        if let Some(manifests) = json["manifests"].as_array() {
            let first = manifests.first().expect("a manifest in the index");
            return Self::read(&blob(text(&first["digest"])), blob);
        }
        let config = blob(text(&json["config"]["digest"]));
        let layers = json["layers"]
            .as_array()
            .expect("layers of the manifest")
            .iter()
            .map(|layer| Layer::read(&blob(text(&layer["digest"])), text(&layer["mediaType"])))
            .collect();
        Self {
            digest: crate::layer::digest(manifest),
            config: serde_json::from_slice(&config).expect("config"),
            layers,
            manifest: json,
        }
    }

    /// What a container of this image would see: path to entry, whiteouts applied.
    pub fn files(&self) -> BTreeMap<String, Entry> {
        let mut files = BTreeMap::new();
        for layer in &self.layers {
            for entry in &layer.entries {
                let (folder, name) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
                if name == ".wh..wh..opq" {
                    remove_below(&mut files, folder);
                } else if let Some(gone) = name.strip_prefix(".wh.") {
                    let gone = if folder.is_empty() {
                        gone.to_owned()
                    } else {
                        format!("{folder}/{gone}")
                    };
                    remove_below(&mut files, &gone);
                    files.remove(&gone);
                }
            }
            for entry in &layer.entries {
                if !entry.path.is_empty() && !entry.path.contains(".wh.") {
                    files.insert(entry.path.clone(), entry.clone());
                }
            }
        }
        files
    }

    /// The file at `path`.
    #[track_caller]
    pub fn file(&self, path: &str) -> Entry {
        let mut files = self.files();
        files.remove(path).unwrap_or_else(|| {
            panic!("{path} is not in the image, which has {:#?}", files.keys().collect::<Vec<_>>())
        })
    }

    /// Whether there is anything at `path`.
    pub fn has(&self, path: &str) -> bool {
        self.files().contains_key(path)
    }

    /// The paths of the top layer.
    #[track_caller]
    pub fn top(&self) -> Vec<&str> {
        self.layers.last().expect("a layer").paths()
    }

    /// The layers' diffIDs as the config lists them; a test may rely on that they are true.
    #[track_caller]
    pub fn diff_ids(&self) -> Vec<String> {
        let listed: Vec<_> = self.config["rootfs"]["diff_ids"]
            .as_array()
            .expect("diff_ids of the config")
            .iter()
            .map(|id| text(id).to_owned())
            .collect();
        let real: Vec<_> = self.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        assert_eq!(listed, real, "the config's diffIDs are those of the layers");
        listed
    }

    /// The regular files, for a comparison of contents.
    pub fn contents(&self) -> BTreeMap<String, String> {
        self.files()
            .into_iter()
            .filter(|(_, entry)| entry.kind == Kind::File)
            .map(|(path, entry)| (path, entry.text()))
            .collect()
    }
}

fn remove_below(files: &mut BTreeMap<String, Entry>, folder: &str) {
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    files.retain(|path, _| !path.starts_with(&prefix));
}

#[track_caller]
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a string"))
}
