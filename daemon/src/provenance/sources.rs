//! What a result was made from that came from outside.

use kiln_cache::Digest;
use kiln_registry::ImageRef;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

use super::purl::{Kind, image_purl};
use crate::image::Platform;
use crate::ops::source::without_credentials;

/// Everything that came from outside, each thing once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sources {
    pub(super) images: Vec<ImageSource>,
    /// Single blobs of repositories, by reference.
    pub(super) blobs: BTreeMap<(String, Home), Digest>,
    /// Commits, by address and branch or tag.
    pub(super) git: BTreeMap<String, String>,
    /// Files of web servers, by address.
    pub(super) http: BTreeMap<String, Digest>,
    /// Directories of the client, by name.
    pub(super) locals: BTreeSet<String>,
}

/// Where an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Home {
    Registry,
    /// An OCI layout of the client.
    Layout,
}

/// An image, by what it was asked for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageSource {
    reference: String,
    platform: Option<Platform>,
    digest: Digest,
    home: Home,
}

/// Something that went in, as predicates name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Material {
    pub(super) uri: String,
    pub(super) digest: DigestSet,
}

/// Digests of one thing, by algorithm.
pub(super) type DigestSet = BTreeMap<String, String>;

impl ImageSource {
    /// An image of a registry, or of the daemon's own store.
    pub(crate) fn in_registry(reference: String, platform: &Platform, digest: Digest) -> Self {
        Self { reference, platform: Some(platform.clone()), digest, home: Home::Registry }
    }

    /// An image of an OCI layout that the client serves.
    pub(crate) fn in_layout(reference: String, platform: &Platform, digest: Digest) -> Self {
        Self { reference, platform: Some(platform.clone()), digest, home: Home::Layout }
    }

    /// The name with its tag, and whether a digest says more than that.
    fn name_and_tag(&self) -> (String, bool) {
        match self.reference.parse::<ImageRef>() {
            Ok(image) => {
                let tag = image.tag().unwrap_or("latest");
                (format!("{}:{tag}", image.name()), image.digest().is_some())
            }
            Err(_) => (self.reference.clone(), false),
        }
    }

    fn purl(&self) -> String {
        image_purl(self.home.kind(), &self.reference, self.platform.as_ref(), &[])
    }
}

impl Home {
    fn kind(self) -> Kind {
        match self {
            Self::Registry => Kind::Docker,
            Self::Layout => Kind::Oci,
        }
    }
}

impl Sources {
    pub(super) fn add_image(&mut self, image: ImageSource) {
        let is_same = |known: &ImageSource| {
            (&known.reference, known.home, &known.platform)
                == (&image.reference, image.home, &image.platform)
        };
        if !self.images.iter().any(is_same) {
            self.images.push(image);
        }
    }

    pub(super) fn add_git(&mut self, address: &str, commit: String) {
        self.git.entry(without_credentials(address)).or_insert(commit);
    }

    pub(super) fn add_http(&mut self, address: &str, digest: Digest) {
        self.http.entry(without_credentials(address)).or_insert(digest);
    }

    pub(super) fn merge(&mut self, other: Self) {
        other.images.into_iter().for_each(|image| self.add_image(image));
        for (address, commit) in other.git {
            self.git.entry(address).or_insert(commit);
        }
        for (address, digest) in other.http {
            self.http.entry(address).or_insert(digest);
        }
        for (blob, digest) in other.blobs {
            self.blobs.entry(blob).or_insert(digest);
        }
        self.locals.extend(other.locals);
    }

    /// Sorts the images, and leaves out those by digest that are there by tag as well: a frontend
    /// resolves a tag, and then takes what it was.
    pub(super) fn settle_images(&mut self) {
        let named: BTreeSet<String> = self
            .images
            .iter()
            .filter_map(|image| {
                let (name, is_by_digest) = image.name_and_tag();
                (!is_by_digest).then_some(name)
            })
            .collect();
        self.images.retain(|image| {
            let (name, is_by_digest) = image.name_and_tag();
            !(is_by_digest && named.contains(&name))
        });
        self.images.sort_by(|a, b| a.reference.cmp(&b.reference));
    }

    /// All of them that have a digest.
    pub(super) fn materials(&self) -> Vec<Material> {
        let images = self.images.iter().map(|image| Material::new(image.purl(), &image.digest));
        let blobs = self.blobs.iter().map(|((reference, home), digest)| {
            let uri = image_purl(home.kind(), reference, None, &[("ref_type", "blob")]);
            Material::new(uri, digest)
        });
        let git = self.git.iter().map(|(address, commit)| Material {
            uri: address.clone(),
            digest: commit_digests(commit),
        });
        let http = self.http.iter().map(|(address, digest)| Material::new(address.clone(), digest));
        images.chain(blobs).chain(git).chain(http).collect()
    }
}

impl Material {
    fn new(uri: String, digest: &Digest) -> Self {
        Self { uri, digest: digests(digest) }
    }
}

/// A digest as predicates have it.
pub(super) fn digests(digest: &Digest) -> DigestSet {
    BTreeMap::from([("sha256".to_owned(), digest.to_hex())])
}

/// A commit as predicates have it.
pub(super) fn commit_digests(commit: &str) -> DigestSet {
    let algorithm = if commit.len() == 64 { "sha256" } else { "sha1" };
    BTreeMap::from([(algorithm.to_owned(), commit.to_owned())])
}

/// Which images are for the platform `id`. One that was resolved for each of the platforms is only
/// for its own; any other may be a tool of a step, for all.
pub(super) fn images_of_platform(
    images: Vec<ImageSource>,
    id: &str,
    platforms: &[(String, Platform)],
) -> Vec<ImageSource> {
    let has = |reference: &str, wanted: &Platform| {
        images.iter().any(|image| {
            let platform = image.platform.as_ref();
            image.reference == reference && platform.is_some_and(|it| wanted.rank(it).is_some())
        })
    };
    let Some((_, current)) = platforms.iter().find(|(known, _)| known == id) else {
        return images;
    };
    let is_for_current = |image: &ImageSource| {
        let is_for_each = platforms.iter().all(|(_, platform)| has(&image.reference, platform));
        let Some(platform) = image.platform.as_ref().filter(|_| is_for_each) else { return true };
        (&platform.os, &platform.architecture) == (&current.os, &current.architecture)
    };
    images.iter().filter(|image| is_for_current(image)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(reference: &str, platform: &str) -> ImageSource {
        let platform = platform.parse().unwrap();
        ImageSource::in_registry(reference.to_owned(), &platform, Digest::of("a"))
    }

    #[test]
    fn an_image_by_tag_stands_for_the_digest_that_it_was_resolved_to() {
        let digest = Digest::of("a");
        let mut sources = Sources::default();
        for reference in [
            format!("docker.io/library/b:latest@{digest}"),
            "docker.io/library/b:latest".to_owned(),
            format!("docker.io/library/a@{digest}"),
        ] {
            sources.add_image(image(&reference, "linux/amd64"));
            sources.add_image(image(&reference, "linux/amd64"));
        }
        sources.settle_images();
        let uris: Vec<String> = sources.materials().into_iter().map(|it| it.uri).collect();
        assert_eq!(
            uris,
            [
                format!("pkg:docker/a?digest={digest}&platform=linux%2Famd64"),
                "pkg:docker/b@latest?platform=linux%2Famd64".to_owned(),
            ]
        );
    }

    #[test]
    fn an_image_of_each_platform_is_for_its_own_only() {
        let platforms = ["linux/amd64", "linux/arm64"];
        let platforms = platforms.map(|id| (id.to_owned(), id.parse().unwrap()));
        let images = vec![
            image("docker.io/library/base:latest", "linux/amd64"),
            image("docker.io/library/base:latest", "linux/arm64"),
            image("docker.io/library/tool:latest", "linux/amd64"),
        ];
        let found = images_of_platform(images.clone(), "linux/arm64", &platforms);
        assert_eq!(found, images[1..]);
    }

    #[test]
    fn addresses_are_named_without_credentials() {
        let mut sources = Sources::default();
        sources.add_git("https://u:p@h/a.git#main", "c".repeat(40));
        sources.add_git("https://u:p@h/a.git#main", "d".repeat(40));
        sources.add_http("https://u:p@h/f", Digest::of("f"));
        let expected = serde_json::json!([
            { "uri": "https://xxxxx:xxxxx@h/a.git#main", "digest": { "sha1": "c".repeat(40) } },
            { "uri": "https://xxxxx:xxxxx@h/f", "digest": { "sha256": Digest::of("f").to_hex() } },
        ]);
        assert_eq!(serde_json::to_value(sources.materials()).unwrap(), expected);
    }
}
