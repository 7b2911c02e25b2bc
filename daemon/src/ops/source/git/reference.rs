//! Repositories as users name them: an address, and behind it `#ref:subdir` or a query.

use std::collections::BTreeMap;

use super::url::{GitUrl, Transport};
use crate::attributes::boolean;
use crate::ops::path::clean;

/// A repository and what is wanted of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GitRef {
    /// The address for git.
    pub(crate) remote: String,
    pub(crate) transport: Transport,
    /// Host and path, without what is different between protocols.
    pub(crate) place: String,
    /// A branch, a tag or a commit; the default branch if empty.
    pub(crate) reference: String,
    /// The commit that this must be; its beginning is enough.
    pub(crate) checksum: Option<String>,
    /// A directory of the repository; all of it if empty.
    pub(crate) subdir: String,
    pub(crate) keep_git_dir: Option<bool>,
    pub(crate) submodules: Option<bool>,
    /// Which times files get: `checkout` or `commit`.
    pub(crate) mtime: Option<String>,
    /// Whether the commit is taken without asking what the branch or tag is now.
    pub(crate) fetch_by_commit: bool,
    /// Whether the text might be a path as well; only contexts can be named so.
    pub(crate) looks_like_path: bool,
}

/// A repository was named, but with a query that makes no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidGitRef {
    #[error("query {0:?} has no value")]
    NoValue(String),
    #[error("query {0:?} has multiple values")]
    Repeated(String),
    #[error("unexpected query {0:?}")]
    Unknown(String),
    #[error("invalid {name} value: {value:?}")]
    Value { name: &'static str, value: String },
    #[error("{what} conflicts: {one:?} vs {other:?}")]
    Conflict { what: &'static str, one: String, other: String },
    #[error("branch conflicts with tag")]
    BranchAndTag,
}

impl GitRef {
    /// Reads a text; none if it does not name a repository.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, InvalidGitRef> {
        if text.starts_with("./") || text.starts_with("../") {
            return Ok(None);
        }
        let looks_like_path = text.starts_with("github.com/");
        let url = if looks_like_path {
            GitUrl::parse(&format!("https://{text}"))
        } else {
            let is_web = |url: &GitUrl| matches!(url.transport, Transport::Http | Transport::Https);
            GitUrl::parse(text).filter(|url| !is_web(url) || url.path.ends_with(".git"))
        };
        let Some(url) = url else { return Ok(None) };
        let (reference, subdir) = url.fragment.split_once(':').unwrap_or((&url.fragment, ""));
        let mut parsed = Self {
            place: url.place(),
            reference: reference.to_owned(),
            checksum: None,
            subdir: clean(subdir).trim_start_matches('/').to_owned(),
            keep_git_dir: None,
            submodules: None,
            mtime: None,
            fetch_by_commit: false,
            looks_like_path,
            remote: url.remote,
            transport: url.transport,
        };
        parsed.read_query(&url.query)?;
        Ok(Some(parsed))
    }

    /// The address with the branch or tag, and with `subdir`, in the form without a query.
    pub(crate) fn fragment_form(&self, subdir: &str) -> String {
        let mut text = self.remote.clone();
        if !self.reference.is_empty() || !subdir.is_empty() {
            text += &format!("#{}", self.reference);
        }
        if !subdir.is_empty() {
            text += &format!(":{subdir}");
        }
        text
    }

    fn read_query(&mut self, query: &str) -> Result<(), InvalidGitRef> {
        let mut values = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if values.insert(name.clone().into_owned(), value.into_owned()).is_some() {
                return Err(InvalidGitRef::Repeated(name.into_owned()));
            }
        }
        let (mut tag, mut branch) = (None, None);
        for (name, value) in values {
            let is_switch = matches!(&*name, "submodules" | "keep-git-dir" | "fetch-by-commit");
            if value.is_empty() && !is_switch {
                return Err(InvalidGitRef::NoValue(name));
            }
            match &*name {
                "ref" => set("ref", &mut self.reference, value)?,
                "tag" => tag = Some(prefixed("refs/tags/", value)),
                "branch" => branch = Some(prefixed("refs/heads/", value)),
                "subdir" => set("subdir", &mut self.subdir, value)?,
                "checksum" | "commit" => self.checksum = Some(value),
                "keep-git-dir" => self.keep_git_dir = Some(switch("keep-git-dir", &value)?),
                "submodules" => self.submodules = Some(switch("submodules", &value)?),
                "fetch-by-commit" => self.fetch_by_commit = switch("fetch-by-commit", &value)?,
                "mtime" if matches!(&*value, "checkout" | "commit") => self.mtime = Some(value),
                "mtime" => return Err(InvalidGitRef::Value { name: "mtime", value }),
                _ => return Err(InvalidGitRef::Unknown(name)),
            }
        }
        if tag.is_some() && branch.is_some() {
            return Err(InvalidGitRef::BranchAndTag);
        }
        match tag.or(branch) {
            Some(full) => set("ref", &mut self.reference, full),
            None => Ok(()),
        }
    }
}

fn set(what: &'static str, field: &mut String, value: String) -> Result<(), InvalidGitRef> {
    if !field.is_empty() && *field != value {
        return Err(InvalidGitRef::Conflict { what, one: field.clone(), other: value });
    }
    *field = value;
    Ok(())
}

fn prefixed(prefix: &str, name: String) -> String {
    if name.starts_with(prefix) { name } else { format!("{prefix}{name}") }
}

/// A boolean in any of Go's spellings; without a value it is on.
fn switch(name: &'static str, value: &str) -> Result<bool, InvalidGitRef> {
    let read = if value.is_empty() { Some(true) } else { boolean(value) };
    read.ok_or_else(|| InvalidGitRef::Value { name, value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> GitRef {
        GitRef::parse(text).unwrap().unwrap_or_else(|| panic!("{text} is no repository"))
    }

    #[test]
    fn repositories_are_told_from_files_and_urls() {
        for text in ["./a.git", "../a@b:c", "a/b.git", "https://h/a.tar", "ftp://h/a.git", "a:b"] {
            assert_eq!(GitRef::parse(text), Ok(None), "{text}");
        }
        for text in ["https://h/a.git", "git://h/a", "ssh://g@h/a", "git@h:a", "github.com/a/b"] {
            assert!(GitRef::parse(text).unwrap().is_some(), "{text}");
        }
        let github = parse("github.com/a/b#main");
        assert_eq!((&*github.remote, github.looks_like_path), ("https://github.com/a/b", true));
    }

    #[test]
    fn a_fragment_names_a_reference_and_a_directory() {
        for (text, reference, subdir) in [
            ("https://h/a.git", "", ""),
            ("https://h/a.git#main", "main", ""),
            ("https://h/a.git#:sub/dir", "", "sub/dir"),
            ("git@h:a.git#v1:/x/../../y/", "v1", "y"),
        ] {
            let parsed = parse(text);
            assert_eq!((&*parsed.reference, &*parsed.subdir), (reference, subdir), "{text}");
        }
    }

    #[test]
    fn a_query_says_the_same_and_more() {
        let text =
            "https://h/a.git?tag=v1&subdir=x&commit=ab&keep-git-dir&submodules=0&mtime=commit";
        let parsed = parse(text);
        assert_eq!((&*parsed.reference, &*parsed.subdir), ("refs/tags/v1", "x"));
        assert_eq!(parsed.checksum.as_deref(), Some("ab"));
        assert_eq!((parsed.keep_git_dir, parsed.submodules), (Some(true), Some(false)));
        assert_eq!(parsed.mtime.as_deref(), Some("commit"));
        assert_eq!(parsed.remote, "https://h/a.git");
        assert_eq!(parse("https://h/a.git?branch=b").reference, "refs/heads/b");
        assert!(parse("https://h/a.git?fetch-by-commit=1&checksum=x").fetch_by_commit);
    }

    #[test]
    fn a_query_that_makes_no_sense_is_an_error() {
        for (query, error) in [
            ("?ref=", "query \"ref\" has no value"),
            ("?ref=a&ref=b", "query \"ref\" has multiple values"),
            ("?invalid=x", "unexpected query \"invalid\""),
            ("?ref=a#b", "ref conflicts: \"b\" vs \"a\""),
            ("?tag=a&branch=b", "branch conflicts with tag"),
            ("?tag=a&ref=b", "ref conflicts: \"b\" vs \"refs/tags/a\""),
            ("?submodules=x", "invalid submodules value: \"x\""),
            ("?mtime=now", "invalid mtime value: \"now\""),
        ] {
            let found = GitRef::parse(&format!("https://h/a.git{query}")).unwrap_err();
            assert_eq!(found.to_string(), error);
        }
    }
}
