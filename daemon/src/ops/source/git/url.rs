//! Addresses of repositories, as git takes them: with a scheme, or `user@host:path`.

use crate::ops::path::clean;

/// How a repository is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Http,
    Https,
    Ssh,
    Git,
}

/// An address of a repository, and what is written behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GitUrl {
    pub(super) transport: Transport,
    /// Host and port.
    pub(super) host: String,
    pub(super) path: String,
    /// The address for git: without query and fragment.
    pub(super) remote: String,
    pub(super) query: String,
    pub(super) fragment: String,
}

impl GitUrl {
    /// Reads an address; none if the text is none, or of another protocol.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.chars().any(char::is_control) {
            return None;
        }
        match text.split_once("://") {
            Some((scheme, rest)) if is_word(scheme, "") => Self::with_scheme(scheme, rest),
            _ => Self::scp_like(text),
        }
    }

    fn with_scheme(scheme: &str, rest: &str) -> Option<Self> {
        let scheme = scheme.to_ascii_lowercase();
        let transport = match scheme.as_str() {
            "http" => Transport::Http,
            "https" => Transport::Https,
            "ssh" => Transport::Ssh,
            "git" => Transport::Git,
            _ => return None,
        };
        let (rest, query, fragment) = parts(rest);
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        Some(Self {
            transport,
            host: host.to_owned(),
            path: path.to_owned(),
            remote: format!("{scheme}://{rest}"),
            query,
            fragment,
        })
    }

    fn scp_like(text: &str) -> Option<Self> {
        let (host, rest) = text.split_once(':')?;
        let (user, host) = host.split_once('@')?;
        if !is_word(user, "-_") || !is_word(host, "-.") {
            return None;
        }
        let (path, query, fragment) = parts(rest);
        Some(Self {
            transport: Transport::Ssh,
            host: host.to_owned(),
            path: path.to_owned(),
            remote: format!("{user}@{host}:{path}"),
            query,
            fragment,
        })
    }

    /// The repository by host and path: the same one for all protocols.
    pub(super) fn place(&self) -> String {
        self.host.clone() + &clean(&self.path)
    }
}

/// What comes before the query; the query; the fragment.
fn parts(text: &str) -> (&str, String, String) {
    let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (text, query) = text.split_once('?').unwrap_or((text, ""));
    let fragment = percent_encoding::percent_decode_str(fragment).decode_utf8_lossy();
    (text, query.to_owned(), fragment.into_owned())
}

/// Whether a text is letters, digits and some of `others`.
fn is_word(text: &str, others: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let cases = [
            ("https://h/a.git", Transport::Https, "h/a.git", "https://h/a.git", "", ""),
            (
                "HTTP://u:p@h:8/a?x=y#r:s",
                Transport::Http,
                "h:8/a",
                "http://u:p@h:8/a",
                "x=y",
                "r:s",
            ),
            ("git@h:a/b.git#r%20s", Transport::Ssh, "h/a/b.git", "git@h:a/b.git", "", "r s"),
            ("ssh://git@h/a", Transport::Ssh, "h/a", "ssh://git@h/a", "", ""),
            ("git://h", Transport::Git, "h/", "git://h", "", ""),
        ];
        for (text, transport, place, remote, query, fragment) in cases {
            let url = GitUrl::parse(text).unwrap();
            let found = (url.transport, url.place(), &*url.remote, &*url.query, &*url.fragment);
            assert_eq!(found, (transport, place.to_owned(), remote, query, fragment), "{text}");
        }
        for text in ["a/b", "file:///a", "ext::sh", "a b@h:c", "https:/h", "git@h", "http://h/\n"] {
            assert_eq!(GitUrl::parse(text), None, "{text}");
        }
    }
}
