//! Why a repository could not be had.

/// Why a repository could not be had. Addresses are named without credentials.
#[derive(Debug, thiserror::Error)]
pub(super) enum GitError {
    #[error("building from git repositories needs the program git on the daemon's host")]
    NoGit,
    #[error("cannot run git")]
    Run(#[source] std::io::Error),
    #[error("git {command}: {message}")]
    Failed { command: String, message: String },
    #[error("git {command} says more than {limit} bytes")]
    TooMuch { command: String, limit: u64 },
    #[error("invalid git repository {0:?}")]
    Address(String),
    #[error("invalid git ref {0:?}")]
    Reference(String),
    #[error("{0} is not supported by this daemon yet")]
    NotSupported(String),
    #[error("invalid checksum {0} for Git URL, expected hex commit hash")]
    Checksum(String),
    #[error("fetch-by-commit requires a full commit SHA checksum, got {0:?}")]
    FetchByCommit(String),
    #[error("expected checksum to match {wanted}, got {got}")]
    Mismatch { wanted: String, got: String },
    #[error("could not find default branch for repository: {0}")]
    NoDefaultBranch(String),
    #[error("repository does not contain ref {reference}: {remote}")]
    NoReference { remote: String, reference: String },
    #[error("failed to fetch remote {remote}: it does not have commit {commit}")]
    NoCommit { remote: String, commit: String },
    #[error("object {0} of the repository is no commit")]
    NoObject(String),
    #[error("invalid subdir {subdir}: {problem}")]
    Subdir { subdir: String, problem: &'static str },
    #[error("the secret {0} is not fit for a header")]
    Secret(String),
}
