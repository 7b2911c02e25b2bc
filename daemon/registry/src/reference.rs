//! Image references with Docker's normalisation.

use std::fmt;
use std::str::FromStr;

use oci_spec::image::{Digest, DigestAlgorithm};

use crate::grammar::{MAX_REPOSITORY_LENGTH, is_host, is_path_component, is_tag};

const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_LEGACY: &str = "index.docker.io";
const DOCKER_HUB_WIRE: &str = "registry-1.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
const DEFAULT_TAG: &str = "latest";

/// Where an image is: a registry host, a repository there, and a tag or digest or both.
///
/// Exists in normal form only: `busybox` is `docker.io/library/busybox:latest`. At least one of
/// tag and digest is there; the digest decides what is pulled where there are both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageRef {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A text that names no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid reference format: {problem}")]
pub struct RefError {
    /// The text as it was given.
    pub reference: String,
    /// What is wrong with it.
    pub problem: RefProblem,
}

/// What is wrong with a reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefProblem {
    /// There is no name.
    #[error("the name is empty")]
    Empty,
    /// 64 hexadecimal digits are an image id, not a name.
    #[error("repository name ({name}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId {
        /// The name.
        name: String,
    },
    /// The repository has upper-case letters.
    #[error("repository name ({repository}) must be lowercase")]
    Uppercase {
        /// The repository.
        repository: String,
    },
    /// The repository is longer than registries accept.
    #[error(
        "repository name must not be more than {MAX_REPOSITORY_LENGTH} characters, has {length}"
    )]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// The part before the first slash is no host.
    #[error("registry host \"{host}\" is not a name or address with an optional port")]
    Host {
        /// The part.
        host: String,
    },
    /// A part of the repository has other characters than letters, digits and single separators.
    #[error("repository name ({repository}) has an invalid component \"{component}\"")]
    Component {
        /// The repository.
        repository: String,
        /// The part between two slashes.
        component: String,
    },
    /// What follows the colon is no tag.
    #[error("tag \"{tag}\" is not 1 to 128 letters, digits, underscores, dots and dashes")]
    Tag {
        /// The tag.
        tag: String,
    },
    /// What follows the `@` is no digest.
    #[error("digest \"{digest}\" is not of the form sha256:<64 hexadecimal digits>")]
    Digest {
        /// The text after the `@`.
        digest: String,
    },
}

impl ImageRef {
    /// The registry's name as users write it: `docker.io` for Docker Hub.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host that answers requests: `registry-1.docker.io` for Docker Hub.
    pub fn wire_host(&self) -> &str {
        wire_host(&self.host)
    }

    /// The repository on its host: `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Host and repository: `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// Whether both name something of one repository.
    pub fn is_of_same_repository(&self, other: &Self) -> bool {
        (&self.host, &self.repository) == (&other.host, &other.repository)
    }

    /// The name as users write it: `busybox`, `user/app`, `ghcr.io/org/app`.
    pub fn familiar_name(&self) -> String {
        if self.host != DOCKER_HUB {
            return self.name();
        }
        match self.repository.strip_prefix(OFFICIAL_PREFIX) {
            Some(official) if !official.contains('/') => official.to_owned(),
            _ => self.repository.clone(),
        }
    }

    /// The whole reference as users write it: `busybox:latest`.
    pub fn familiar(&self) -> String {
        let mut text = self.familiar_name();
        self.push_suffix(&mut text);
        text
    }

    /// The same repository, at exactly `digest`; a tag is dropped.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The same repository, at `tag`; a digest is dropped.
    pub fn with_tag(&self, tag: &str) -> Result<Self, RefError> {
        let problem = RefProblem::Tag { tag: tag.to_owned() };
        let reference = || format!("{}:{tag}", self.name());
        if !is_tag(tag) {
            return Err(RefError { reference: reference(), problem });
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// What stands in a manifest's address: the digest, or else the tag.
    pub(crate) fn object(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }

    fn push_suffix(&self, text: &mut String) {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_ref());
        }
    }
}

/// The host that answers for the registry `host`.
pub(crate) fn wire_host(host: &str) -> &str {
    if host == DOCKER_HUB { DOCKER_HUB_WIRE } else { host }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.name();
        self.push_suffix(&mut text);
        f.write_str(&text)
    }
}

impl FromStr for ImageRef {
    type Err = RefError;

    fn from_str(text: &str) -> Result<Self, RefError> {
        parse(text).map_err(|problem| RefError { reference: text.to_owned(), problem })
    }
}

fn parse(text: &str) -> Result<ImageRef, RefProblem> {
    if text.is_empty() {
        return Err(RefProblem::Empty);
    }
    if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(RefProblem::LooksLikeId { name: text.to_owned() });
    }
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(parse_digest(digest)?)),
        None => (text, None),
    };
    let (host, path) = split_host(name);
    let (repository, tag) = match path.split_once(':') {
        Some((repository, tag)) => (repository, Some(tag)),
        None => (path, None),
    };
    let repository = if host == DOCKER_HUB && !repository.contains('/') {
        format!("{OFFICIAL_PREFIX}{repository}")
    } else {
        repository.to_owned()
    };
    check_repository(&repository)?;
    if !is_host(host) {
        return Err(RefProblem::Host { host: host.to_owned() });
    }
    if let Some(tag) = tag
        && !is_tag(tag)
    {
        return Err(RefProblem::Tag { tag: tag.to_owned() });
    }
    let tag = tag.or(digest.is_none().then_some(DEFAULT_TAG)).map(str::to_owned);
    Ok(ImageRef { host: host.to_owned(), repository, tag, digest })
}

/// The first part is a host where it cannot be a Docker Hub user: it has a dot, a colon or an
/// upper-case letter, or is `localhost`.
fn split_host(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((DOCKER_HUB_LEGACY, path)) => (DOCKER_HUB, path),
        Some((host, path))
            if host == "localhost"
                || host.contains(['.', ':'])
                || host.contains(char::is_uppercase) =>
        {
            (host, path)
        }
        _ => (DOCKER_HUB, name),
    }
}

fn check_repository(repository: &str) -> Result<(), RefProblem> {
    if repository.is_empty() || repository == OFFICIAL_PREFIX {
        return Err(RefProblem::Empty);
    }
    if repository.contains(char::is_uppercase) {
        return Err(RefProblem::Uppercase { repository: repository.to_owned() });
    }
    if repository.len() > MAX_REPOSITORY_LENGTH {
        return Err(RefProblem::TooLong { length: repository.len() });
    }
    match repository.split('/').find(|component| !is_path_component(component)) {
        Some(component) => Err(RefProblem::Component {
            repository: repository.to_owned(),
            component: component.to_owned(),
        }),
        None => Ok(()),
    }
}

fn parse_digest(text: &str) -> Result<Digest, RefProblem> {
    // An algorithm that nobody here can compute could never be verified.
    Digest::from_str(text)
        .ok()
        .filter(|digest| !matches!(digest.algorithm(), DigestAlgorithm::Other(_)))
        .ok_or_else(|| RefProblem::Digest { digest: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b";

    #[test]
    fn references_are_normalised_as_docker_does() {
        let rows = [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("user/app", "docker.io/user/app:latest", "user/app:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x:latest"),
            ("127.0.0.1:5000/a/b:t", "127.0.0.1:5000/a/b:t", "127.0.0.1:5000/a/b:t"),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("Registry/x", "Registry/x:latest", "Registry/x:latest"),
            ("ghcr.io/org/app:v1", "ghcr.io/org/app:v1", "ghcr.io/org/app:v1"),
            ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        ];
        for (text, full, familiar) in rows {
            let image: ImageRef = text.parse().unwrap();
            assert_eq!(image.to_string(), full, "{text}");
            assert_eq!(image.familiar(), familiar, "{text}");
            assert_eq!(full.parse::<ImageRef>().unwrap(), image, "{text}");
            assert_eq!(familiar.parse::<ImageRef>().unwrap(), image, "{text}");
        }
    }

    #[test]
    fn a_digest_replaces_the_default_tag_and_stands_beside_a_given_one() {
        let image: ImageRef = format!("busybox@{DIGEST}").parse().unwrap();
        assert_eq!(image.to_string(), format!("docker.io/library/busybox@{DIGEST}"));
        assert_eq!(image.tag(), None);

        let image: ImageRef = format!("busybox:1@{DIGEST}").parse().unwrap();
        assert_eq!(image.to_string(), format!("docker.io/library/busybox:1@{DIGEST}"));
        assert_eq!(image.object(), DIGEST);
    }

    #[test]
    fn docker_hub_answers_at_another_host() {
        let wire = |text: &str| text.parse::<ImageRef>().unwrap().wire_host().to_owned();
        assert_eq!(wire("busybox"), "registry-1.docker.io");
        assert_eq!(wire("ghcr.io/x"), "ghcr.io");
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let id = "a".repeat(64);
        let long = "a/".repeat(150);
        let rows = [
            ("", "the name is empty"),
            ("docker.io/", "the name is empty"),
            (":tag", "the name is empty"),
            (id.as_str(), "cannot specify 64-byte hexadecimal strings"),
            ("Foo", "repository name (library/Foo) must be lowercase"),
            ("user/Foo:x", "repository name (user/Foo) must be lowercase"),
            (long.as_str(), "must not be more than 255 characters, has 300"),
            ("a..b/x", "registry host \"a..b\""),
            ("::1/x", "registry host \"::1\""),
            ("host:99999/x", "registry host \"host:99999\""),
            ("a//b", "invalid component \"\""),
            ("a/-b", "invalid component \"-b\""),
            ("a/../b", "invalid component \"..\""),
            ("a/b?x=y", "invalid component \"b?x=y\""),
            ("busybox:", "tag \"\" is not"),
            ("busybox:a b", "tag \"a b\" is not"),
            ("busybox:a:b", "tag \"a:b\" is not"),
            ("busybox@sha256:12", "digest \"sha256:12\" is not"),
            ("busybox@md5:d41d8cd98f00b204e9800998ecf8427e", "digest \"md5:"),
            ("busybox@", "digest \"\" is not"),
        ];
        for (text, words) in rows {
            let error = text.parse::<ImageRef>().unwrap_err();
            assert_eq!(error.reference, text);
            let message = error.to_string();
            assert!(message.starts_with("invalid reference format: "), "{message}");
            assert!(message.contains(words), "{text}: {message}");
        }
    }

    #[test]
    fn a_repository_is_kept_when_tag_or_digest_change() {
        let image: ImageRef = "localhost:5000/x:1".parse().unwrap();
        assert_eq!(image.with_tag("2").unwrap().to_string(), "localhost:5000/x:2");
        assert!(image.with_tag("a/b").is_err());
        let pinned = image.with_digest(DIGEST.parse().unwrap());
        assert_eq!(pinned.to_string(), format!("localhost:5000/x@{DIGEST}"));
    }

    proptest::proptest! {
        #[test]
        fn what_is_accepted_reads_back_the_same_and_fits_an_address(
            text in "[a-zA-Z0-9.:/@_\\[\\]%?# -]{0,40}|[a-z0-9.:/_-]{1,30}(:[a-zA-Z0-9_.-]{1,8})?"
        ) {
            if let Ok(image) = text.parse::<ImageRef>() {
                proptest::prop_assert_eq!(&image.to_string().parse::<ImageRef>().unwrap(), &image);
                proptest::prop_assert_eq!(&image.familiar().parse::<ImageRef>().unwrap(), &image);
                let address = format!("https://{}/v2/{}/x", image.wire_host(), image.repository());
                let path = format!("/v2/{}/x", image.repository());
                // Numbers that are no IPv4 address make a name that only a request finds wrong.
                if let Ok(url) = url::Url::parse(&address) {
                    proptest::prop_assert_eq!(url.path(), path);
                }
            }
        }
    }
}
