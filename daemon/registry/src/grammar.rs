//! The character rules of image references (the distribution project's reference grammar).

/// The longest repository path that registries accept.
pub(crate) const MAX_REPOSITORY_LENGTH: usize = 255;

/// The longest tag.
const MAX_TAG_LENGTH: usize = 128;

/// Whether `host` is a domain name, IPv4 address or bracketed IPv6 address with an optional port.
pub(crate) fn is_host(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        return address.parse::<std::net::Ipv6Addr>().is_ok()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (name, port_is_fine) = match host.split_once(':') {
        Some((name, port)) => (name, is_port(port)),
        None => (host, true),
    };
    port_is_fine && name.split('.').all(is_domain_label)
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

fn is_domain_label(label: &str) -> bool {
    !label.is_empty()
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Whether `component` is lower-case letters and digits, joined by `.`, `_`, `__` or dashes.
pub(crate) fn is_path_component(component: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut rest = component;
    loop {
        let after_word = rest.trim_start_matches(is_word);
        if after_word.len() == rest.len() {
            return false;
        }
        if after_word.is_empty() {
            return true;
        }
        let word = after_word.find(is_word).unwrap_or(after_word.len());
        let separator = &after_word[..word];
        let is_separator =
            matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-');
        if !is_separator {
            return false;
        }
        rest = &after_word[word..];
    }
}

/// Whether `tag` is a word character followed by at most 127 of `[A-Za-z0-9_.-]`.
pub(crate) fn is_tag(tag: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= MAX_TAG_LENGTH
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|b| is_word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_addresses_and_ports() {
        let good =
            ["localhost", "a.b", "A-b.c:443", "127.0.0.1:5000", "[::1]", "[::1]:5000", "x:65535"];
        for host in good {
            assert!(is_host(host), "{host}");
        }
        let bad = [
            "", "a..b", "-a", "a-", "a_b", "a:", "a:b", "a:65536", "a:+1", "::1", "[::1", "[x]",
            "[::1]5", "[::1]:", "a:1:2", "a/b", "a@b", "ä.de",
        ];
        for host in bad {
            assert!(!is_host(host), "{host}");
        }
    }

    #[test]
    fn path_components_join_words_by_one_separator() {
        for component in ["a", "0", "a.b", "a_b", "a__b", "a-b", "a---b", "a.b-c_d"] {
            assert!(is_path_component(component), "{component}");
        }
        let bad =
            ["", ".", "a..b", "a___b", "a._b", "-a", "a-", "A", "a b", "a:b", "..", "ä", "aä"];
        for component in bad {
            assert!(!is_path_component(component), "{component}");
        }
    }

    #[test]
    fn tags_start_with_a_word_character_and_have_an_end() {
        let longest = "a".repeat(128);
        for tag in ["latest", "_", "1.2-RC_3", longest.as_str()] {
            assert!(is_tag(tag), "{tag}");
        }
        let too_long = "a".repeat(129);
        for tag in ["", ".a", "-a", "a/b", "a:b", "a b", "ä", too_long.as_str()] {
            assert!(!is_tag(tag), "{tag}");
        }
    }
}
