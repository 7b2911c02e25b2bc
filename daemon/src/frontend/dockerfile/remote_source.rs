//! Sources that are addresses: files of web servers, and git repositories.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::graph::source;
use crate::graph::{Vertex, VertexMeta};
use crate::ops::source::git::{GitRef, InvalidGitRef, Transport};

/// What an address names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RemoteSource {
    Git(Box<GitRef>),
    Http(String),
}

impl RemoteSource {
    /// What a source of ADD names; none if it is a path.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, InvalidGitRef> {
        Ok(Self::parse_context(text)?.filter(|remote| match remote {
            Self::Git(git) => !git.looks_like_path,
            Self::Http(_) => true,
        }))
    }

    /// What a context names; none if it is no address.
    pub(super) fn parse_context(text: &str) -> Result<Option<Self>, InvalidGitRef> {
        if let Some(git) = GitRef::parse(text)? {
            return Ok(Some(Self::Git(Box::new(git))));
        }
        let is_http = text.starts_with("http://") || text.starts_with("https://");
        Ok(is_http.then(|| Self::Http(text.to_owned())))
    }

    /// For messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Git(_) => "a git ref",
            Self::Http(_) => "a URL",
        }
    }
}

/// The source that a file of a web server is.
pub(super) fn http(
    url: &str,
    filename: &str,
    checksum: Option<&str>,
    meta: VertexMeta,
) -> Arc<Vertex> {
    let mut attrs = BTreeMap::from([("http.filename".to_owned(), filename.to_owned())]);
    attrs.extend(checksum.map(|digest| ("http.checksum".to_owned(), digest.to_owned())));
    source(url.to_owned(), attrs, None, meta)
}

/// The name that ADD gives a file, which does not depend on what its server says.
pub(super) fn file_name(url: &str) -> String {
    let path = url::Url::parse(url).map(|url| url.path().to_owned()).unwrap_or_default();
    let path = percent_encoding::percent_decode_str(&path).decode_utf8_lossy();
    match path.trim_end_matches('/').rsplit('/').next().unwrap_or_default() {
        "" | "." => "__unnamed__".to_owned(),
        name => name.to_owned(),
    }
}

/// The source that a repository is, as `git` says.
pub(super) fn git(git: &GitRef, meta: VertexMeta) -> Arc<Vertex> {
    let mut identifier = format!("git://{}", git.place);
    if !git.reference.is_empty() || !git.subdir.is_empty() {
        identifier += &format!("#{}", git.reference);
    }
    if !git.subdir.is_empty() {
        identifier += &format!(":{}", git.subdir);
    }
    let mut attrs = BTreeMap::new();
    let mut set = |name: &str, value: &str| {
        attrs.insert(format!("git.{name}"), value.to_owned());
    };
    set("fullurl", &git.remote);
    set("authtokensecret", "GIT_AUTH_TOKEN");
    set("authheadersecret", "GIT_AUTH_HEADER");
    if git.transport == Transport::Ssh {
        set("mountsshsock", "default");
    }
    if git.keep_git_dir == Some(true) {
        set("keepgitdir", "true");
    }
    if git.submodules == Some(false) {
        set("skipsubmodules", "true");
    }
    if git.fetch_by_commit {
        set("fetchbycommit", "true");
    }
    if let Some(checksum) = &git.checksum {
        set("checksum", checksum);
    }
    if let Some(mtime) = &git.mtime {
        set("mtime", mtime);
    }
    source(identifier, attrs, None, meta)
}

#[cfg(test)]
mod tests {
    use kiln_proto::pb;

    use super::super::graph::named;
    use super::*;

    #[test]
    fn remote_sources_are_told_from_files() {
        for (text, kind) in [
            ("https://host/a.tar.gz", Some("a URL")),
            ("https://host/a.git#main", Some("a git ref")),
            ("git@host:a", Some("a git ref")),
            ("github.com/a/b", None),
            ("dir/https://x", None),
            ("a.git", None),
        ] {
            let found = RemoteSource::parse(text).unwrap();
            assert_eq!(found.as_ref().map(RemoteSource::kind), kind, "{text}");
        }
        assert!(RemoteSource::parse_context("github.com/a/b").unwrap().is_some());
    }

    #[test]
    fn files_are_named_by_their_address() {
        for (url, name) in [
            ("http://h/a/b.txt?x", "b.txt"),
            ("http://h/", "__unnamed__"),
            ("http://h/a%20b/", "a b"),
            ("http://", "__unnamed__"),
        ] {
            assert_eq!(file_name(url), name, "{url}");
        }
    }

    #[test]
    fn a_repository_is_named_the_same_for_all_protocols() {
        let identifier = |text: &str| {
            let git_ref = GitRef::parse(text).unwrap().unwrap();
            let vertex = git(&git_ref, named(""));
            let pb::op::Op::Source(source) = vertex.op() else { panic!("not a source") };
            (source.identifier.clone(), source.attrs["git.fullurl"].clone())
        };
        let (https, url) = identifier("https://h/a.git?ref=main&subdir=x");
        assert_eq!((&*https, &*url), ("git://h/a.git#main:x", "https://h/a.git"));
        assert_eq!(identifier("git@h:a.git#main:x").0, https);
        assert_eq!(identifier("https://h/a.git").0, "git://h/a.git");
    }
}
