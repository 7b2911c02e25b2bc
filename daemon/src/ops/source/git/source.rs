//! What an op asks for.

use kiln_cache::Digest;
use kiln_proto::pb;

use super::error::GitError;
use super::resolve::Resolved;
use super::url::{GitUrl, Transport};
use crate::ops::path::clean;
use crate::ops::source::{op_digest, without_credentials};

/// A repository, and what is wanted of it.
#[derive(Debug, Clone)]
pub(crate) struct GitSource {
    /// The address for git; may have credentials.
    pub(super) remote: String,
    /// Host and port.
    pub(super) host: String,
    pub(super) transport: Transport,
    /// A branch, a tag or a commit; the default branch if empty.
    pub(super) reference: String,
    pub(super) subdir: String,
    pub(super) checksum: Option<String>,
    pub(super) keep_git_dir: bool,
    pub(super) skip_submodules: bool,
    pub(super) fetch_by_commit: bool,
    /// Whether files get the commit's time.
    pub(super) has_commit_times: bool,
    pub(super) token_secret: Option<String>,
    pub(super) header_secret: Option<String>,
    /// The client's ssh agent.
    pub(super) agent: Option<String>,
    /// The keys of ssh servers that the client knows.
    pub(super) known_hosts: Option<String>,
}

impl GitSource {
    pub(crate) fn parse(op: &pb::SourceOp) -> anyhow::Result<Self> {
        let name = op.identifier.strip_prefix("git://").unwrap_or(&op.identifier);
        let invalid = |text: &str| GitError::Address(without_credentials(text));
        let named = address(name).ok_or_else(|| invalid(name))?;
        let get = |name: &str| op.attrs.get(name).cloned().filter(|value| !value.is_empty());
        let is_on = |name: &str| get(name).is_some_and(|value| value == "true");
        let url = match get("git.fullurl") {
            Some(full) => address(&full).ok_or_else(|| invalid(&full))?,
            None => named.clone(),
        };
        // A check that is asked for must not be passed over.
        let unknown = ["git.sig.", "git.bundle", "git.checkoutbundle"];
        let unknown = op.attrs.keys().find(|key| unknown.iter().any(|it| key.starts_with(it)));
        if let Some(attribute) = unknown {
            return Err(GitError::NotSupported(format!("{attribute} of a git source")).into());
        }
        let (reference, subdir) = named.fragment.split_once(':').unwrap_or((&named.fragment, ""));
        let is_unfit = |c: char| c.is_control() || c.is_whitespace();
        if reference.starts_with('-') || reference.contains(is_unfit) {
            return Err(GitError::Reference(reference.to_owned()).into());
        }
        let checksum = get("git.checksum");
        if let Some(checksum) = &checksum
            && !checksum.bytes().all(|byte| byte.is_ascii_hexdigit())
        {
            return Err(GitError::Checksum(checksum.clone()).into());
        }
        Ok(Self {
            reference: reference.to_owned(),
            subdir: clean(subdir).trim_start_matches('/').to_owned(),
            keep_git_dir: is_on("git.keepgitdir"),
            skip_submodules: is_on("git.skipsubmodules"),
            fetch_by_commit: is_on("git.fetchbycommit"),
            has_commit_times: get("git.mtime").is_some_and(|value| value == "commit"),
            token_secret: get("git.authtokensecret"),
            header_secret: get("git.authheadersecret"),
            checksum,
            host: url.host,
            transport: url.transport,
            remote: url.remote,
            agent: get("git.mountsshsock"),
            known_hosts: get("git.knownsshhosts"),
        })
    }

    /// The address without its credentials.
    pub(super) fn shown(&self) -> String {
        without_credentials(&self.remote)
    }

    /// The address with the branch or tag, as users may write it. May have credentials.
    pub(crate) fn address(&self) -> String {
        match self.reference.as_str() {
            "" => self.remote.clone(),
            reference => format!("{}#{reference}", self.remote),
        }
    }

    /// The ids of the secrets that it may take to ask the repository.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &str> {
        self.token_secret.iter().chain(&self.header_secret).map(String::as_str)
    }

    /// The id of the client's ssh agent.
    pub(crate) fn agent(&self) -> Option<&str> {
        self.agent.as_deref()
    }

    /// The digest of an op that is known by its commit, and by what is made of that; in BuildKit's words.
    pub(super) fn content_key(&self, resolved: &Resolved) -> Digest {
        // Without the directory `.git` nothing tells a tag from its commit.
        let commit = resolved.commit.as_ref().filter(|_| !self.keep_git_dir);
        let mut name = commit.unwrap_or(&resolved.checksum).clone();
        if self.keep_git_dir {
            name += ".git#";
            name += &resolved.reference;
        }
        if !self.subdir.is_empty() {
            name += ":";
            name += &self.subdir;
        }
        if self.skip_submodules {
            name += "(skip-submodules)";
        }
        if self.has_commit_times {
            name += "(mtime=commit)";
        }
        op_digest(name)
    }
}

/// An address, which has the scheme `https` where it does not say another.
fn address(text: &str) -> Option<GitUrl> {
    GitUrl::parse(text).or_else(|| {
        let is_other = text.contains("://");
        if is_other { None } else { GitUrl::parse(&format!("https://{text}")) }
    })
}

/// Whether a text is a whole commit id: SHA-1 or SHA-256.
pub(super) fn is_commit_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64)
        && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(identifier: &str, attrs: &[(&str, &str)]) -> anyhow::Result<GitSource> {
        GitSource::parse(&pb::SourceOp {
            identifier: identifier.into(),
            attrs: attrs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        })
    }

    #[test]
    fn an_op_names_a_repository_by_host_and_path() {
        let plain = source("git://h/a.git#main:sub", &[]).unwrap();
        assert_eq!((&*plain.remote, &*plain.reference), ("https://h/a.git", "main"));
        assert_eq!((&*plain.host, &*plain.subdir), ("h", "sub"));
        let full = [("git.fullurl", "http://u:p@h:8/a.git")];
        let full = source("git://h:8/a.git#main", &full).unwrap();
        assert_eq!((&*full.remote, &*full.reference), ("http://u:p@h:8/a.git", "main"));
        assert_eq!(full.shown(), "http://xxxxx:xxxxx@h:8/a.git");
    }

    #[test]
    fn what_could_be_taken_for_something_else_is_refused() {
        for (identifier, attrs) in [
            ("git://h/a#--upload-pack=x", &[][..]),
            ("git://h/a#a b", &[]),
            ("git://h/a", &[("git.fullurl", "file:///etc")]),
            ("git://h/a", &[("git.fullurl", "ext://sh")]),
            ("git://h/a", &[("git.checksum", "xyz")]),
            ("git://h/a", &[("git.sig.pubkey", "x")]),
            ("git://h/a", &[("git.bundle", "x")]),
        ] {
            assert!(source(identifier, attrs).is_err(), "{identifier} {attrs:?}");
        }
    }

    #[test]
    fn all_that_makes_other_files_makes_another_key() {
        let resolved = Resolved {
            reference: "refs/tags/v1".into(),
            checksum: "a".repeat(40),
            commit: Some("b".repeat(40)),
        };
        let key = |identifier: &str, attrs: &[(&str, &str)]| {
            source(identifier, attrs).unwrap().content_key(&resolved)
        };
        let plain = key("git://h/a", &[]);
        assert_eq!(plain, key("git://other/b#v1", &[("git.checksum", "aa")]));
        for other in [
            key("git://h/a#:sub", &[]),
            key("git://h/a", &[("git.keepgitdir", "true")]),
            key("git://h/a", &[("git.skipsubmodules", "true")]),
            key("git://h/a", &[("git.mtime", "commit")]),
        ] {
            assert_ne!(plain, other);
        }
        let branch = Resolved { reference: "b".into(), checksum: "b".repeat(40), commit: None };
        let same = source("git://h/a", &[]).unwrap().content_key(&branch);
        assert_eq!(plain, same, "a tag is its commit");
    }
}
