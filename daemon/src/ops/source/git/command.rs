//! Runs the host's git on foreign repositories: without any configuration but what is said here,
//! without hooks, helpers, prompts, and transports that reach the host's own files or keys.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

use super::error::GitError;
use super::ssh::Ssh;
use crate::ops::source::without_credentials;
use crate::solver::VertexProgress;

/// The most that a command may say on its standard output.
const MOST_OUTPUT: u64 = 64 << 20;
/// The most that is kept of what a command complains about.
const MOST_COMPLAINT: usize = 16 << 10;

/// Fetches commits without those before them.
pub(super) const WITHOUT_HISTORY: &str = "--depth=1";

/// Settings of every command. A command line wins over what a repository's own configuration says.
const SETTINGS: [(&str, &str); 11] = [
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.askPass", ""),
    ("core.logAllRefUpdates", "false"),
    ("credential.helper", ""),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("init.defaultBranch", "master"),
    ("advice.detachedHead", "false"),
    // A server that sends next to nothing for a minute has gone.
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "60"),
];
/// Environment that is passed on.
const PASSED_ON: [&str; 9] = [
    "PATH",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
];

/// How git is run.
#[derive(Clone, Default)]
pub(super) struct Git {
    /// Where it runs.
    directory: PathBuf,
    repository: Option<PathBuf>,
    work_tree: Option<PathBuf>,
    index: Option<PathBuf>,
    /// Settings that others on this host must not see, as they would see a command line.
    settings: Vec<(String, String)>,
    ssh: Option<Arc<Ssh>>,
    reads_local: bool,
}

impl Git {
    /// Outside of any repository.
    pub(super) fn outside(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            repository: Some("/dev/null".into()),
            ..Self::default()
        }
    }

    /// With another repository.
    pub(super) fn with_git_dir(&self, git_dir: &Path) -> Self {
        let (directory, repository) = (git_dir.to_owned(), Some(git_dir.to_owned()));
        Self { directory, repository, ..self.clone() }
    }

    /// With files, which must be in a directory that is there.
    pub(super) fn with_work_tree(&self, work_tree: &Path) -> Self {
        let (directory, work_tree) = (work_tree.to_owned(), Some(work_tree.to_owned()));
        Self { directory, work_tree, ..self.clone() }
    }

    /// With an index of its own.
    pub(super) fn with_index(&self, index: &Path) -> Self {
        Self { index: Some(index.to_owned()), ..self.clone() }
    }

    pub(super) fn with_setting(&self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let mut git = self.clone();
        git.settings.push((name.into(), value.into()));
        git
    }

    /// May reach repositories behind ssh, if there is a way.
    pub(super) fn with_ssh(&self, ssh: Option<Ssh>) -> Self {
        Self { ssh: ssh.map(Arc::new), ..self.clone() }
    }

    /// May fetch from a repository of this host, and from no other.
    pub(super) fn reading_local(&self) -> Self {
        Self { reads_local: true, ..self.clone() }
    }

    /// Runs a command to its end, and shows what it complains about at `progress`. Where the server
    /// cannot leave out the history, it is fetched.
    pub(super) async fn run(
        &self,
        progress: &VertexProgress,
        arguments: &[&str],
    ) -> Result<Vec<u8>, GitError> {
        let (mut output, mut complaint) = self.run_quietly(arguments).await;
        if let Err(GitError::Failed { message, .. }) = &output
            && (message.contains("--depth") || message.contains("shallow"))
            && arguments.contains(&WITHOUT_HISTORY)
        {
            let whole = arguments.iter().copied().filter(|&it| it != WITHOUT_HISTORY);
            (output, complaint) = self.run_quietly(&whole.collect::<Vec<_>>()).await;
        }
        if !complaint.is_empty() {
            progress.log(2, Bytes::from(complaint));
        }
        output
    }

    /// Whether a command succeeds.
    pub(super) async fn succeeds(&self, arguments: &[&str]) -> Result<bool, GitError> {
        match self.run_quietly(arguments).await.0 {
            Ok(_) => Ok(true),
            Err(GitError::Failed { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn run_quietly(&self, arguments: &[&str]) -> (Result<Vec<u8>, GitError>, Vec<u8>) {
        let mut running = match self.command(arguments).spawn() {
            Ok(child) => Running(child),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return (Err(GitError::NoGit), Vec::new());
            }
            Err(error) => return (Err(GitError::Run(error)), Vec::new()),
        };
        let (stdout, stderr) = (running.0.stdout.take(), running.0.stderr.take());
        let command = arguments.first().copied().unwrap_or_default().to_owned();
        let ((output, is_whole), complaint) =
            tokio::join!(read_up_to(stdout, MOST_OUTPUT), read_end(stderr));
        let complaint = self.without_credentials(complaint);
        if !is_whole {
            return (Err(GitError::TooMuch { command, limit: MOST_OUTPUT }), complaint);
        }
        let result = match running.0.wait().await {
            Ok(status) if status.success() => Ok(output),
            Ok(_) => {
                let message = String::from_utf8_lossy(&complaint).trim().to_owned();
                Err(GitError::Failed { command, message })
            }
            Err(error) => Err(GitError::Run(error)),
        };
        (result, complaint)
    }

    /// What a command complains about, which may have the address in it.
    fn without_credentials(&self, complaint: Vec<u8>) -> Vec<u8> {
        let addresses = self.settings.iter().filter(|(name, _)| name.ends_with(".url"));
        let shown = addresses.map(|(_, address)| (address, without_credentials(address)));
        let hidden: Vec<_> = shown.filter(|(address, shown)| *address != shown).collect();
        if hidden.is_empty() {
            return complaint;
        }
        let text = String::from_utf8_lossy(&complaint).into_owned();
        hidden.iter().fold(text, |text, (address, shown)| text.replace(*address, shown)).into()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.env_clear();
        for name in PASSED_ON {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        let null = "/dev/null";
        command
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", null)
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("HOME", null)
            .env("LC_ALL", "C")
            .env("GIT_TERMINAL_PROMPT", "0")
            // Submodules come with addresses of their own, and they are not to be trusted.
            .env(
                "GIT_ALLOW_PROTOCOL",
                match (self.reads_local, &self.ssh) {
                    (true, _) => "file",
                    (false, Some(_)) => "http:https:git:ssh",
                    (false, None) => "http:https:git",
                },
            );
        if let Some(ssh) = &self.ssh {
            command
                .env("SSH_AUTH_SOCK", ssh.socket())
                .env("GIT_SSH_COMMAND", ssh.command())
                .env("GIT_SSH_VARIANT", "ssh");
        }
        command.envs(self.repository.as_ref().map(|path| ("GIT_DIR", path)));
        command.envs(self.work_tree.as_ref().map(|path| ("GIT_WORK_TREE", path)));
        command.envs(self.index.as_ref().map(|path| ("GIT_INDEX_FILE", path)));
        let own = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let settings: Vec<_> = SETTINGS.into_iter().chain(own).collect();
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (index, (name, value)) in settings.into_iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{index}"), name);
            command.env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        command
            .args(arguments)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Helpers of git end with it.
            .process_group(0);
        command
    }
}

/// A git that runs; ends with its helpers when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // The id is none once the process was waited for.
        let id = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(id) = id {
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

/// What `reader` has, and whether that is all.
async fn read_up_to(reader: Option<impl AsyncRead + Unpin>, most: u64) -> (Vec<u8>, bool) {
    let mut data = Vec::new();
    let Some(reader) = reader else { return (data, true) };
    // A process that dies has said all that it will say.
    let _ = reader.take(most + 1).read_to_end(&mut data).await;
    let is_whole = data.len() as u64 <= most;
    (data, is_whole)
}

/// The end of what `reader` has; all of it is read.
async fn read_end(reader: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut data: Vec<u8> = Vec::new();
    let Some(mut reader) = reader else { return data };
    while let Ok(1..) = reader.read_buf(&mut data).await {
        let excess = data.len().saturating_sub(MOST_COMPLAINT);
        data.drain(..excess);
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_do_not_tell_credentials() {
        let git = Git::default().with_setting("remote.kiln.url", "https://u:p@h/a.git");
        let complaint = b"fatal: unable to access 'https://u:p@h/a.git/'".to_vec();
        let shown = git.without_credentials(complaint);
        assert_eq!(shown, b"fatal: unable to access 'https://xxxxx:xxxxx@h/a.git/'");
    }

    #[tokio::test]
    async fn git_is_run_with_no_configuration_but_this() {
        let directory = tempfile::tempdir().unwrap();
        let git = Git::outside(directory.path());
        let (listed, _) = git.run_quietly(&["config", "--list", "--show-scope"]).await;
        let listed = String::from_utf8(listed.unwrap()).unwrap();
        assert!(listed.contains("core.hookspath=/dev/null"), "{listed}");
        assert!(listed.lines().all(|line| line.starts_with("command\t")), "{listed}");
    }

    #[tokio::test]
    async fn a_command_that_fails_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let git = Git::outside(directory.path());
        let (failed, _) = git.run_quietly(&["ls-remote", "--", "file:///nowhere"]).await;
        let failed = failed.unwrap_err().to_string();
        assert!(failed.contains("transport 'file' not allowed"), "{failed}");
        assert!(!git.succeeds(&["cat-file", "-e", "HEAD"]).await.unwrap());
    }
}
