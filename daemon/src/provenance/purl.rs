//! Names of images as package URLs (package-url/purl-spec).

use kiln_registry::ImageRef;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::image::Platform;

/// What is written as it is in names.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// What is written as it is behind the name.
const VALUE: &AsciiSet =
    &NAME.remove(b':').remove(b'@').remove(b'+').remove(b'$').remove(b'&').remove(b'=');

/// The type of package that an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Docker,
    Oci,
}

/// The package URL of an image.
pub(crate) fn image_purl(
    kind: Kind,
    reference: &str,
    platform: Option<&Platform>,
    more: &[(&str, &str)],
) -> String {
    let kind = match kind {
        Kind::Docker => "docker",
        Kind::Oci => "oci",
    };
    let (name, version, digest) = match reference.parse::<ImageRef>() {
        Ok(image) => {
            let digest = image.digest().map(ToString::to_string);
            let version = image.tag().map(str::to_owned);
            let latest = digest.is_none().then(|| "latest".to_owned());
            (image.familiar_name(), version.or(latest), digest)
        }
        Err(_) => (reference.to_owned(), None, None),
    };
    let parts: Vec<String> =
        name.split('/').map(|part| utf8_percent_encode(part, NAME).to_string()).collect();
    let mut url = format!("pkg:{kind}/{}", parts.join("/"));
    if let Some(version) = version {
        url += &format!("@{}", utf8_percent_encode(&version, VALUE));
    }
    let platform = platform.map(short);
    let qualifiers = [("digest", digest.as_deref()), ("platform", platform.as_deref())];
    let qualifiers = qualifiers.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let qualifiers: Vec<String> = qualifiers
        .chain(more.iter().copied())
        .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, VALUE)))
        .collect();
    if !qualifiers.is_empty() {
        url += &format!("?{}", qualifiers.join("&"));
    }
    url
}

/// The platform without the version of its system.
fn short(platform: &Platform) -> String {
    Platform { os_version: String::new(), ..platform.clone() }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_as_users_write_them() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let platform: Platform = "linux/arm/v7".parse().unwrap();
        for (reference, platform, expected) in [
            ("alpine", None, "pkg:docker/alpine@latest".to_owned()),
            ("docker.io/library/alpine:3", None, "pkg:docker/alpine@3".to_owned()),
            ("ghcr.io/foo/bar", None, "pkg:docker/ghcr.io/foo/bar@latest".to_owned()),
            ("localhost:5000/a:1", None, "pkg:docker/localhost%3A5000/a@1".to_owned()),
            (
                "user/a",
                Some(&platform),
                "pkg:docker/user/a@latest?platform=linux%2Farm%2Fv7".into(),
            ),
            (&format!("a@{digest}"), None, format!("pkg:docker/a?digest={digest}")),
            (&format!("a:1@{digest}"), None, format!("pkg:docker/a@1?digest={digest}")),
        ] {
            assert_eq!(image_purl(Kind::Docker, reference, platform, &[]), expected);
        }
        let blob = image_purl(Kind::Oci, &format!("a@{digest}"), None, &[("ref_type", "blob")]);
        assert_eq!(blob, format!("pkg:oci/a?digest={digest}&ref_type=blob"));
    }
}
