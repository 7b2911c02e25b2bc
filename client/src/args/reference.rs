//! Names of images, as `--tag` takes them.

use super::invalid::Invalid;

/// Refuses what is not `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`, saying which part is wrong.
pub(crate) fn check(text: &str) -> Result<(), Invalid> {
    let not = |expected| Err(Invalid::not(text, expected));
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (text, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return not("an image name (its digest is malformed)");
    }
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (name, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return not("an image name (its tag is malformed)");
    }
    let mut components = path.split('/').peekable();
    let first = components.peek().copied().unwrap_or_default();
    if path.contains('/') && is_host(first) {
        components.next();
    }
    for component in components {
        if !is_component(component) {
            let lower = component.to_ascii_lowercase();
            return not(if lower != component && is_component(&lower) {
                "an image name (it must be lowercase)"
            } else {
                "an image name"
            });
        }
    }
    Ok(())
}

/// A first component names a registry if it cannot be anything else.
fn is_host(component: &str) -> bool {
    let has_mark = component.contains(['.', ':']) || component == "localhost";
    let (host, port) = component.rsplit_once(':').unwrap_or((component, "0"));
    let is_ipv6 = host.starts_with('[') && host.ends_with(']');
    (has_mark || component.bytes().any(|b| b.is_ascii_uppercase()))
        && !host.is_empty()
        && (is_ipv6 || host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-'))
        && !port.is_empty()
        && port.bytes().all(|b| b.is_ascii_digit())
}

/// Lower-case words and digits, joined by `.`, `_`, `__` or any number of `-`.
fn is_component(component: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_in_words =
        bytes.first().copied().is_some_and(is_word) && bytes.last().copied().is_some_and(is_word);
    ends_in_words
        && bytes.split(|&b| is_word(b)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-')
        })
}

fn is_tag(tag: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|b| is_word(b) || b == b'.' || b == b'-')
}

/// Whether a text is a digest, such as `sha256:…`.
pub(crate) fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        let length = match algorithm {
            "sha256" => 64,
            "sha384" => 96,
            "sha512" => 128,
            _ => return false,
        };
        hex.len() == length && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images_pass() {
        let digest = format!("a@sha256:{}", "0".repeat(64));
        for text in [
            "a",
            "a:1.2-x_Y",
            "user/app",
            "localhost:5000/a/b:tag",
            "registry.example.com/a-b/c_d__e.f",
            "REGISTRY/a",
            "[::1]:5000/a",
            &digest,
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn the_wrong_part_of_a_name_is_named() {
        for (text, expected) in [
            ("Bad", r#""Bad" is not an image name (it must be lowercase)"#),
            ("a:b:c", r#""a:b:c" is not an image name"#),
            ("a:", r#""a:" is not an image name (its tag is malformed)"#),
            ("", r#""" is not an image name"#),
            ("a//b", r#""a//b" is not an image name"#),
            ("a@sha256:0", r#""a@sha256:0" is not an image name (its digest is malformed)"#),
            ("a-", r#""a-" is not an image name"#),
        ] {
            assert_eq!(check(text).unwrap_err().to_string(), expected, "{text}");
        }
    }
}
