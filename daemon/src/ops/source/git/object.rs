//! Commits and tags as git stores them.

use super::command::Git;
use super::error::GitError;
use crate::solver::VertexProgress;

/// The objects behind a source.
#[derive(Debug, Clone, Default)]
pub(crate) struct Objects {
    /// The commit's id, where that is not what was resolved.
    pub(crate) commit_id: Option<String>,
    pub(crate) commit: Vec<u8>,
    /// The tag, if it is an object.
    pub(crate) tag: Option<Vec<u8>>,
}

impl Objects {
    /// Reads what `id` is from a repository that has it.
    pub(super) async fn read(
        git: &Git,
        id: &str,
        progress: &VertexProgress,
    ) -> Result<Self, GitError> {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
        let kind = text(git.run(progress, &["cat-file", "-t", id]).await?);
        match kind.as_str() {
            "commit" => {
                let commit = git.run(progress, &["cat-file", "commit", id]).await?;
                Ok(Self { commit, ..Self::default() })
            }
            "tag" => {
                let peeled = format!("{id}^{{commit}}");
                let commit_id = text(git.run(progress, &["rev-parse", &peeled]).await?);
                Ok(Self {
                    commit: git.run(progress, &["cat-file", "commit", &commit_id]).await?,
                    tag: Some(git.run(progress, &["cat-file", "tag", id]).await?),
                    commit_id: Some(commit_id),
                })
            }
            _ => Err(GitError::NoObject(id.to_owned())),
        }
    }

    /// When the commit was made, in seconds.
    pub(crate) fn time(&self) -> Option<i64> {
        // The line ends with the time and its zone; the name before it may be anything.
        let head = self.commit.split(|&byte| byte == b'\n').take_while(|line| !line.is_empty());
        let line = head.into_iter().find(|line| line.starts_with(b"committer "))?;
        let line = std::str::from_utf8(line.rsplit(|&byte| byte == b'>').next()?).ok()?;
        line.split_whitespace().next()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_has_the_time_of_who_committed_it() {
        let time = |text: &str| Objects { commit: text.into(), ..Objects::default() }.time();
        let commit = "tree x\nauthor A <a@b> 1 +0000\ncommitter C > 7 <c@d> 1700000000 +0200\n\nm";
        assert_eq!(time(commit), Some(1_700_000_000));
        assert_eq!(time("tree x\n\ncommitter C <c@d> 5 +0000"), None);
        assert_eq!(time("committer C <c@d> now"), None);
        assert_eq!(time(""), None);
    }
}
