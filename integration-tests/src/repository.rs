//! A git repository of a test's own.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::context::Context;

/// A repository with files; a web server may serve its [`Repository::git_dir`].
pub struct Repository {
    files: Context,
}

impl Repository {
    /// A repository whose first commit has `files`, on the branch `master`.
    pub fn new(files: Context) -> Self {
        Self::with_format(files, "sha1")
    }

    /// The same with ids of another kind, such as `sha256`.
    pub fn with_format(files: Context, format: &str) -> Self {
        let repository = Self { files };
        let format = format!("--object-format={format}");
        repository.git(&["init", "--quiet", "--initial-branch=master", &format]);
        repository.commit();
        repository
    }

    /// Its working tree.
    pub fn files(&self) -> &Context {
        &self.files
    }

    /// What is to be served.
    pub fn git_dir(&self) -> PathBuf {
        self.files.at(".git")
    }

    /// Commits the files as they are, and returns the commit's id.
    pub fn commit(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message=change"]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Runs a git command in the working tree; what it says is returned. What servers without a
    /// program serve is brought up to date.
    #[track_caller]
    pub fn git(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        self.run(&["update-server-info"]);
        said
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=Test", "-c", "user.email=test@example.com"])
            .args(arguments)
            .current_dir(self.files.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_COMMITTER_DATE", "1700000000 +0000")
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("cannot run git: {error}"));
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {}: {complaint}", arguments.join(" "));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}
