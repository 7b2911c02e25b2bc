//! Image layouts on disk: blobs by digest, and an index of names.
//!
//! OCI image layout, <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>.

use crate::args::reference;
use rustix::fs::{FlockOperation, flock};
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use thiserror::Error;

const INDEX: &str = "index.json";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const IMAGE_NAME: &str = "io.containerd.image.name";
/// The types of blobs that name others.
const MANIFESTS: [&str; 4] = [
    INDEX_TYPE,
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// A layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    root: PathBuf,
}

/// How an image is called in a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    /// By a word.
    Tag(String),
    /// By an image's full name.
    Image(String),
}

/// Why a layout's index could not be used.
#[derive(Debug, Error)]
pub(crate) enum LayoutError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The index is not what it should be.
    #[error("{path}: {source}")]
    Malformed {
        /// The index.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// No image of the name is there.
    #[error("{path}: no image {tag:?}")]
    NoImage {
        /// The index.
        path: PathBuf,
        /// The name.
        tag: String,
    },
}

impl Layout {
    pub(crate) fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where a blob is, if the digest is one.
    pub(crate) fn blob(&self, digest: &str) -> Option<PathBuf> {
        let (algorithm, hex) = digest.split_once(':').filter(|_| reference::is_digest(digest))?;
        Some(self.root.join("blobs").join(algorithm).join(hex))
    }

    /// Makes the layout's directories.
    pub(crate) fn create(&self) -> Result<(), LayoutError> {
        let path = self.root.join("blobs/sha256");
        std::fs::create_dir_all(&path).map_err(|source| LayoutError::Io { path, source })
    }

    /// The digest of an image by its name; an index with one image has it under any name.
    pub(crate) fn resolve(&self, tag: &str, or_only: bool) -> Result<String, LayoutError> {
        let path = self.root.join(INDEX);
        let data = std::fs::read(&path)
            .map_err(|source| LayoutError::Io { path: path.clone(), source })?;
        let index: Value = serde_json::from_slice(&data)
            .map_err(|source| LayoutError::Malformed { path: path.clone(), source })?;
        let manifests = index["manifests"].as_array().map(Vec::as_slice).unwrap_or_default();
        let named = |annotation: &str| {
            manifests.iter().find(|manifest| manifest["annotations"][annotation] == tag)
        };
        let only = || manifests.first().filter(|_| or_only && manifests.len() == 1);
        named(IMAGE_NAME)
            .or_else(|| named(REF_NAME))
            .or_else(only)
            .and_then(|manifest| manifest["digest"].as_str())
            .filter(|digest| reference::is_digest(digest))
            .map(str::to_owned)
            .ok_or_else(|| LayoutError::NoImage { path, tag: tag.to_owned() })
    }

    /// Removes the blobs that no name leads to. If it cannot be told which these are, none is.
    pub(crate) fn remove_unnamed(&self) -> Result<(), LayoutError> {
        let _lock = self.lock()?;
        let mut named = HashSet::new();
        let mut left = vec![self.root.join(INDEX)];
        while let Some(path) = left.pop() {
            let data = std::fs::read(&path)
                .map_err(|source| LayoutError::Io { path: path.clone(), source })?;
            let json: Value = serde_json::from_slice(&data)
                .map_err(|source| LayoutError::Malformed { path: path.clone(), source })?;
            let lists = ["manifests", "layers"].map(|key| json[key].as_array());
            let descriptors = lists.into_iter().flatten().flatten().chain([&json["config"]]);
            for descriptor in descriptors {
                let blob = descriptor["digest"].as_str().and_then(|digest| self.blob(digest));
                let is_manifest =
                    descriptor["mediaType"].as_str().is_some_and(|kind| MANIFESTS.contains(&kind));
                left.extend(blob.clone().filter(|blob| is_manifest && !named.contains(blob)));
                named.extend(blob);
            }
        }
        let path = self.root.join("blobs");
        self.remove_others(&path, &named).map_err(|source| LayoutError::Io { path, source })
    }

    /// Removes the blobs that are not `kept`. What is being written has no blob's name yet.
    fn remove_others(&self, blobs: &Path, kept: &HashSet<PathBuf>) -> io::Result<()> {
        for algorithm in std::fs::read_dir(blobs)? {
            let algorithm = algorithm?;
            for file in std::fs::read_dir(algorithm.path())? {
                let (name, algorithm) = (file?.file_name(), algorithm.file_name());
                let digest = format!("{}:{}", algorithm.display(), name.display());
                if let Some(blob) = self.blob(&digest).filter(|blob| !kept.contains(blob)) {
                    std::fs::remove_file(blob)?;
                }
            }
        }
        Ok(())
    }

    /// Keeps other builds from changing the layout: two may write to one.
    fn lock(&self) -> Result<File, LayoutError> {
        let lock = || {
            let directory = File::open(&self.root)?;
            flock(&directory, FlockOperation::LockExclusive)?;
            Ok(directory)
        };
        lock().map_err(|source| LayoutError::Io { path: self.root.clone(), source })
    }

    /// Enters an image into the index under names, which it takes from images that had them.
    pub(crate) fn enter(&self, descriptor: &Value, names: &[Name]) -> Result<(), LayoutError> {
        let path = self.root.join(INDEX);
        let io_error = |source| LayoutError::Io { path: path.clone(), source };
        let _lock = self.lock()?;
        let mut index: Map<String, Value> = match std::fs::read(&path) {
            Ok(data) if !data.is_empty() => serde_json::from_slice(&data)
                .map_err(|source| LayoutError::Malformed { path: path.clone(), source })?,
            Ok(_) => Map::new(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Map::new(),
            Err(source) => return Err(io_error(source)),
        };
        index.entry("schemaVersion").or_insert(json!(2));
        index.entry("mediaType").or_insert(json!(INDEX_TYPE));
        let entries = index.remove("manifests");
        let mut entries = match entries {
            Some(Value::Array(entries)) => entries,
            _ => Vec::new(),
        };
        for name in names {
            let (image, tag) = name.annotations();
            entries.retain(|entry| {
                let annotation = |key: &str| entry["annotations"][key].as_str().unwrap_or_default();
                annotation(IMAGE_NAME) != image || annotation(REF_NAME) != tag
            });
            let mut entry = descriptor.clone();
            if !entry["annotations"].is_object() {
                entry["annotations"] = json!({});
            }
            if !image.is_empty() {
                entry["annotations"][IMAGE_NAME] = json!(image);
            }
            entry["annotations"][REF_NAME] = json!(tag);
            entries.push(entry);
        }
        index.insert("manifests".to_owned(), Value::Array(entries));
        write_file(&self.root.join("oci-layout"), &json!({ "imageLayoutVersion": "1.0.0" }))?;
        write_file(&path, &Value::Object(index))
    }
}

impl Name {
    /// The name as an image's name (if it is one), and as a tag.
    fn annotations(&self) -> (&str, &str) {
        match self {
            Self::Tag(tag) => ("", tag),
            Self::Image(name) => {
                let tag = match name.rsplit_once('@') {
                    Some((_, digest)) => digest,
                    None => name
                        .rsplit_once(':')
                        .map(|(_, tag)| tag)
                        .filter(|tag| !tag.contains('/'))
                        .unwrap_or_default(),
                };
                (name, tag)
            }
        }
    }
}

/// Writes a file whole or not at all.
fn write_file(path: &Path, content: &Value) -> Result<(), LayoutError> {
    let write = || {
        let directory = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(directory)?;
        file.write_all(content.to_string().as_bytes())?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(|source| LayoutError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(letter: &str) -> String {
        format!("sha256:{}", letter.repeat(64))
    }

    #[test]
    fn a_name_means_the_image_that_was_entered_last_under_it() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path());
        let tag = Name::Tag("latest".to_owned());
        layout.enter(&json!({ "digest": digest("a") }), std::slice::from_ref(&tag)).unwrap();
        let image = Name::Image("docker.io/library/a:1".to_owned());
        layout.enter(&json!({ "digest": digest("b"), "size": 1 }), &[image]).unwrap();
        layout.enter(&json!({ "digest": digest("c") }), &[tag]).unwrap();

        assert_eq!(layout.resolve("latest", false).unwrap(), digest("c"));
        assert_eq!(layout.resolve("docker.io/library/a:1", false).unwrap(), digest("b"));
        assert_eq!(layout.resolve("1", false).unwrap(), digest("b"));
        assert!(layout.resolve("2", true).is_err());
        let index = std::fs::read_to_string(root.path().join(INDEX)).unwrap();
        assert_eq!(index.matches("digest").count(), 2, "{index}");
    }

    #[test]
    fn the_only_image_has_any_name_if_that_is_wanted() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path());
        layout.enter(&json!({ "digest": digest("a") }), &[Name::Tag("x".to_owned())]).unwrap();
        assert_eq!(layout.resolve("latest", true).unwrap(), digest("a"));
        assert!(layout.resolve("latest", false).is_err());
    }

    #[test]
    fn what_no_name_leads_to_can_be_removed() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path());
        layout.create().unwrap();
        let write = |letter: &str, content: &Value| {
            std::fs::write(layout.blob(&digest(letter)).unwrap(), content.to_string()).unwrap();
        };
        let descriptor = |letter: &str, kind: &str| json!({ "digest": digest(letter), "mediaType": kind, "size": 1 });
        let [config, layer] = ["b", "c"].map(|letter| descriptor(letter, "other"));
        write("a", &json!({ "config": config, "layers": [layer] }));
        write("d", &json!({ "manifests": [descriptor("a", MANIFESTS[1])] }));
        ["b", "c", "e"]
            .iter()
            .for_each(|letter| write(letter, &json!({ "layers": [digest("d")] })));
        let left = || {
            let blobs = std::fs::read_dir(root.path().join("blobs/sha256")).unwrap();
            let name = |blob: io::Result<std::fs::DirEntry>| blob.unwrap().file_name();
            let mut names: Vec<_> = blobs.map(|blob| name(blob).into_string().unwrap()).collect();
            names.sort();
            names.iter().map(|name| name[..1].to_owned()).collect::<String>()
        };
        let tag = |name: &str| [Name::Tag(name.to_owned())];
        layout.enter(&descriptor("d", INDEX_TYPE), &tag("x")).unwrap();
        layout.enter(&descriptor("f", INDEX_TYPE), &tag("y")).unwrap();
        layout.remove_unnamed().unwrap_err();
        assert_eq!(left(), "abcde", "what the lost image had is not known");
        layout.enter(&descriptor("d", INDEX_TYPE), &tag("y")).unwrap();
        layout.remove_unnamed().unwrap();
        assert_eq!(left(), "abcd");
        layout.enter(&descriptor("a", MANIFESTS[1]), &tag("x")).unwrap();
        layout.enter(&descriptor("a", MANIFESTS[1]), &tag("y")).unwrap();
        layout.remove_unnamed().unwrap();
        assert_eq!(left(), "abc");
    }

    #[test]
    fn a_path_is_not_a_digest() {
        let layout = Layout::new("/l");
        assert_eq!(layout.blob("sha256:../../etc/passwd"), None);
        assert_eq!(layout.blob("../x:y"), None);
        let path = format!("/l/blobs/sha256/{}", "a".repeat(64));
        assert_eq!(layout.blob(&digest("a")).unwrap(), Path::new(&path));
    }
}
