//! Where a registry's content is asked for: its mirrors and itself.

use std::sync::Arc;

use url::Url;

use crate::error::{Error, Malformed};
use crate::transport::Transport;

/// One host that may answer for a registry.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) transport: Arc<Transport>,
    /// What stands before the repository: `/v2`, or `/v2/project` for a mirror with a path.
    pub(crate) prefix: String,
    /// For mirrors, the registry that they stand for (`ns` in the query).
    pub(crate) namespace: Option<String>,
}

impl Endpoint {
    /// The address of `path` in `repository`.
    pub(crate) fn url(&self, repository: &str, path: &str) -> Result<Url, Error> {
        let text = format!("{}{}/{repository}/{path}", self.transport.address(), self.prefix);
        let mut url = Url::parse(&text)
            .map_err(|_| Error::Malformed { url: text, problem: Malformed::Address })?;
        if let Some(namespace) = &self.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        Ok(url)
    }

    /// Whether `url` is on this host and reached in the same way.
    pub(crate) fn owns(&self, url: &Url) -> bool {
        Url::parse(&self.transport.address()).is_ok_and(|own| own.origin() == url.origin())
    }
}

/// A mirror as configured, in parts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mirror {
    /// Host and port.
    pub(crate) host: String,
    /// Empty, or a path that begins with a slash.
    pub(crate) path: String,
    /// Whether it was written with `http://`.
    pub(crate) is_plain: bool,
}

impl Mirror {
    /// Reads `[http[s]://]host[:port][/path]`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (is_plain, rest) = match text.split_once("://") {
            Some(("http", rest)) => (true, rest),
            Some(("https", rest)) => (false, rest),
            Some(_) => return None,
            None => (false, text),
        };
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = path.trim_matches('/');
        let is_path = path.is_empty() || path.split('/').all(crate::grammar::is_path_component);
        if !crate::grammar::is_host(host) || !is_path {
            return None;
        }
        let path = if path.is_empty() { String::new() } else { format!("/{path}") };
        Some(Self { host: host.to_owned(), path, is_plain })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_have_a_host_perhaps_a_path_and_perhaps_a_scheme() {
        let rows = [
            ("yourmirror.local:5000", Some(("yourmirror.local:5000", "", false))),
            (
                "core.harbor.domain/proxy.docker.io",
                Some(("core.harbor.domain", "/proxy.docker.io", false)),
            ),
            ("https://m.example/a/b/", Some(("m.example", "/a/b", false))),
            ("http://m.example", Some(("m.example", "", true))),
            ("ftp://m.example", None),
            ("", None),
            ("user@host", None),
            ("host/a?b", None),
            ("host/../x", None),
        ];
        for (text, parts) in rows {
            let expected = parts.map(|(host, path, is_plain): (&str, &str, bool)| Mirror {
                host: host.to_owned(),
                path: path.to_owned(),
                is_plain,
            });
            assert_eq!(Mirror::parse(text), expected, "{text}");
        }
    }
}
