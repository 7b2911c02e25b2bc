//! Finding out which commit a branch or tag is at the moment.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt as _;

use super::command::Git;
use super::error::GitError;
use super::source::{GitSource, is_commit_id};
use super::ssh::Ssh;
use super::url::Transport;
use crate::solver::{Build, SolveError, VertexProgress};

/// The name of the repository for git; its address is a setting, for it may have credentials.
pub(super) const REMOTE: &str = "kiln";

/// What a source is at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// The whole name of the branch or tag, or the commit where it was named by that.
    pub(crate) reference: String,
    /// The object's id: of a commit, or of a tag that is an object.
    pub(crate) checksum: String,
    /// The commit that such a tag is of.
    pub(crate) commit: Option<String>,
}

/// Asks the repository, once in a build, unless the commit is named.
pub(super) async fn resolve(
    build: &Arc<Build>,
    source: &GitSource,
    progress: &VertexProgress,
) -> anyhow::Result<Resolved> {
    if is_commit_id(&source.reference) {
        let resolved = Resolved {
            reference: source.reference.clone(),
            checksum: source.reference.clone(),
            commit: None,
        };
        return checked(resolved, source);
    }
    if source.fetch_by_commit {
        return by_commit(source);
    }
    let key = format!("{}#{}", source.remote, source.reference);
    let (task_build, task_source) = (build.clone(), source.clone());
    let progress = progress.clone();
    let compute = move || {
        async move { Ok(Arc::new(ask(&task_build, &task_source, &progress).await?)) }.boxed()
    };
    let resolved = build.git.get(key, compute).await.map_err(SolveError::into_cause)?;
    checked(Resolved::clone(&resolved), source)
}

/// The commit is taken for what the branch or tag is, which is not asked for.
fn by_commit(source: &GitSource) -> anyhow::Result<Resolved> {
    let checksum = source.checksum.clone().unwrap_or_default();
    if !is_commit_id(&checksum) {
        return Err(GitError::FetchByCommit(checksum).into());
    }
    let reference = match source.reference.as_str() {
        "" => checksum.clone(),
        full if full.starts_with("refs/") => full.to_owned(),
        branch => format!("refs/heads/{branch}"),
    };
    Ok(Resolved { reference, checksum, commit: None })
}

fn checked(resolved: Resolved, source: &GitSource) -> anyhow::Result<Resolved> {
    let Some(wanted) = &source.checksum else { return Ok(resolved) };
    let ids = [Some(&resolved.checksum), resolved.commit.as_ref()];
    if ids.iter().flatten().any(|id| id.starts_with(wanted.as_str())) {
        return Ok(resolved);
    }
    let ids: Vec<&str> = ids.into_iter().flatten().map(String::as_str).collect();
    Err(GitError::Mismatch { wanted: wanted.clone(), got: ids.join(" or ") }.into())
}

/// Git with the right to talk with the repository of `source`.
pub(super) async fn git(build: &Arc<Build>, source: &GitSource) -> anyhow::Result<Git> {
    let tmp = build.daemon.config.root.join("tmp");
    let git = Git::outside(&tmp)
        .with_setting(format!("remote.{REMOTE}.url"), &source.remote)
        .with_ssh(Ssh::open(build, source).await?);
    match authorization(build, source).await? {
        Some(header) => {
            let name = format!("http.{}.extraheader", scope(&source.shown()));
            Ok(git.with_setting(name, format!("Authorization: {header}")))
        }
        None => Ok(git),
    }
}

/// What the client's secrets say: for the host first, a whole header before a token.
async fn authorization(build: &Build, source: &GitSource) -> anyhow::Result<Option<String>> {
    if !matches!(source.transport, Transport::Http | Transport::Https) {
        return Ok(None);
    }
    let (header, token) = (&source.header_secret, &source.token_secret);
    let of_host = |name: &Option<String>| name.as_ref().map(|it| format!("{it}.{}", source.host));
    let names = [
        (of_host(header), false),
        (of_host(token), true),
        (header.clone(), false),
        (token.clone(), true),
    ];
    for (name, is_token) in names {
        let Some(name) = name else { continue };
        let Some(secret) = build.secret(&name, true).await? else { continue };
        let secret = secret.trim_ascii();
        let header = if is_token {
            format!("basic {}", STANDARD.encode([b"x-access-token:", secret].concat()))
        } else {
            let text = std::str::from_utf8(secret).ok();
            let text = text.filter(|text| !text.contains(char::is_control));
            text.ok_or(GitError::Secret(name))?.to_owned()
        };
        return Ok(Some(header));
    }
    Ok(None)
}

/// The addresses for which a secret is: the repository, and on GitHub all others there as well, for
/// the submodules.
fn scope(remote: &str) -> &str {
    const ALL_OF: [&str; 2] = ["https://github.com/", "https://www.github.com/"];
    ALL_OF.into_iter().find(|host| remote.starts_with(host)).unwrap_or(remote)
}

async fn ask(
    build: &Arc<Build>,
    source: &GitSource,
    progress: &VertexProgress,
) -> anyhow::Result<Resolved> {
    let git = git(build, source).await?;
    let mut reference = source.reference.clone();
    if reference.is_empty() {
        let arguments = ["ls-remote", "--symref", "--", REMOTE, "HEAD"];
        let answer = git.run(progress, &arguments).await?;
        let branch = default_branch(&String::from_utf8_lossy(&answer));
        reference = branch.ok_or_else(|| GitError::NoDefaultBranch(source.shown()))?;
    }
    let peeled = format!("{reference}^{{}}");
    let arguments = ["ls-remote", "--", REMOTE, &reference, &peeled];
    let answer = git.run(progress, &arguments).await?;
    let found = pick(&String::from_utf8_lossy(&answer), &reference);
    let remote = source.shown();
    Ok(found.ok_or(GitError::NoReference { remote, reference })?)
}

/// The branch that a repository says is its default one.
fn default_branch(answer: &str) -> Option<String> {
    let branch = answer.split_once("refs/heads/")?.1.split_whitespace().next()?;
    (!branch.starts_with('-')).then(|| branch.to_owned())
}

/// What of a repository's answer is `reference`: its whole name, else a branch, else a tag.
fn pick(answer: &str, reference: &str) -> Option<Resolved> {
    let find = |name: &str| {
        let mut lines = answer.lines().filter_map(|line| line.split_once('\t'));
        let id = lines.find(|(_, found)| *found == name)?.0;
        is_commit_id(id).then(|| id.to_owned())
    };
    let below = |directory: &str| {
        format!("{directory}{}", reference.strip_prefix(directory).unwrap_or(reference))
    };
    for name in [below("refs/"), below("refs/heads/"), below("refs/tags/")] {
        if let Some(checksum) = find(&name) {
            let is_tag = name.starts_with("refs/tags/");
            let commit = if is_tag { find(&format!("{name}^{{}}")) } else { None };
            return Some(Resolved { reference: name, checksum, commit });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> String {
        digit.to_string().repeat(40)
    }

    #[test]
    fn a_branch_comes_before_a_tag_of_the_same_name() {
        let (a, b, c) = (id('a'), id('b'), id('c'));
        let answer = format!(
            "{a}\trefs/heads/v1\n{b}\trefs/tags/v1\n{c}\trefs/tags/v1^{{}}\n{c}\trefs/heads/x/v1\n"
        );
        let found = |reference: &str| {
            pick(&answer, reference).map(|it| (it.reference, it.checksum, it.commit))
        };
        assert_eq!(found("v1"), Some(("refs/heads/v1".into(), a.clone(), None)));
        assert_eq!(found("heads/v1"), Some(("refs/heads/v1".into(), a, None)));
        let tag = ("refs/tags/v1".into(), b, Some(c.clone()));
        assert_eq!(found("refs/tags/v1"), Some(tag.clone()));
        assert_eq!(found("tags/v1"), Some(tag));
        assert_eq!(found("x/v1"), Some(("refs/heads/x/v1".into(), c, None)));
        assert_eq!(found("v"), None);
        assert_eq!(pick("fatal\trefs/heads/v1", "v1"), None);
    }

    #[test]
    fn the_default_branch_is_what_head_points_to() {
        let answer = format!("ref: refs/heads/trunk\tHEAD\n{}\tHEAD\n", id('a'));
        assert_eq!(default_branch(&answer).as_deref(), Some("trunk"));
        assert_eq!(default_branch("ref: refs/heads/--exec\tHEAD\n"), None);
        assert_eq!(default_branch(""), None);
    }

    #[test]
    fn a_secret_is_for_its_repository() {
        assert_eq!(scope("https://github.com/a/b.git"), "https://github.com/");
        assert_eq!(scope("https://h/a.git"), "https://h/a.git");
    }
}
