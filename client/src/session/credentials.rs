//! Logins at registries, as docker's configuration file keeps them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The registry that people mean when they name none, and the key of its login.
const DOCKER_HUB: [&str; 2] = ["registry-1.docker.io", "docker.io"];
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// The user name by which helpers say that a secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// Where logins are. The file is read when a registry asks for one, and not before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Credentials {
    file: Option<PathBuf>,
}

/// A login; one without a user name is an identity token, one without a secret is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) username: String,
    pub(crate) secret: String,
}

/// Why a login could not be had.
#[derive(Debug, Error)]
pub(crate) enum CredentialsError {
    /// The file cannot be read.
    #[error("reading {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{path}: {source}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// An entry of the file is not what it should be.
    #[error("{path}: the login of {key:?} is malformed")]
    BadLogin {
        /// The file.
        path: PathBuf,
        /// The entry.
        key: String,
    },
    /// A helper could not be run.
    #[error("running {program}: {source}")]
    Run {
        /// The helper.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A helper failed.
    #[error("{program}: {message}")]
    Helper {
        /// The helper.
        program: String,
        /// What it said.
        message: String,
    },
}

/// The parts of docker's configuration file that are about logins.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Entry>,
    creds_store: String,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

impl Credentials {
    /// Logins of a docker configuration directory.
    pub(crate) fn of_directory(directory: &Path) -> Self {
        Self { file: Some(directory.join("config.json")) }
    }

    /// The login at a registry.
    pub(crate) async fn login(&self, host: &str) -> Result<Login, CredentialsError> {
        let Some(path) = &self.file else { return Ok(Login::default()) };
        let config: Config = match tokio::fs::read(path).await {
            Ok(data) => serde_json::from_slice(&data)
                .map_err(|source| CredentialsError::Malformed { path: path.clone(), source })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Config::default(),
            Err(source) => return Err(CredentialsError::Read { path: path.clone(), source }),
        };
        let key = if DOCKER_HUB.contains(&host) { DOCKER_HUB_KEY } else { host };
        let helper = config.cred_helpers.get(key).or(Some(&config.creds_store));
        if let Some(helper) = helper.filter(|helper| !helper.is_empty()) {
            return ask_helper(helper, key).await;
        }
        match config.find(key) {
            None => Ok(Login::default()),
            Some((key, entry)) => entry
                .login()
                .ok_or_else(|| CredentialsError::BadLogin { path: path.clone(), key: key.clone() }),
        }
    }
}

impl Config {
    /// The login of a registry. Keys may be URLs: then their host counts.
    fn find(&self, key: &str) -> Option<(&String, &Entry)> {
        self.auths
            .get_key_value(key)
            .or_else(|| self.auths.iter().find(|(other, _)| host(other) == host(key)))
    }
}

fn host(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    key.split('/').next().unwrap_or(key)
}

impl Entry {
    fn login(&self) -> Option<Login> {
        if !self.identitytoken.is_empty() {
            return Some(Login { username: String::new(), secret: self.identitytoken.clone() });
        }
        if self.auth.is_empty() {
            let Self { username, password, .. } = self;
            return Some(Login { username: username.clone(), secret: password.clone() });
        }
        let decoded = String::from_utf8(STANDARD.decode(&self.auth).ok()?).ok()?;
        let (username, secret) = decoded.split_once(':')?;
        let secret = secret.trim_end_matches('\0');
        Some(Login { username: username.to_owned(), secret: secret.to_owned() })
    }
}

/// Asks a credential helper, which reads the registry's key and answers with a login.
async fn ask_helper(name: &str, key: &str) -> Result<Login, CredentialsError> {
    let program = format!("docker-credential-{name}");
    let failed = |source| CredentialsError::Run { program: program.clone(), source };
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(key.as_bytes()).await.map_err(failed)?;
    }
    let output = child.wait_with_output().await.map_err(failed)?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if message.contains("credentials not found") {
            return Ok(Login::default());
        }
        return Err(CredentialsError::Helper { program, message });
    }
    let answer: HelperAnswer = serde_json::from_slice(&output.stdout)
        .map_err(|error| CredentialsError::Helper { program, message: error.to_string() })?;
    let username = if answer.username == TOKEN_USER { String::new() } else { answer.username };
    Ok(Login { username, secret: answer.secret })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn login(config: &str, host: &str) -> Result<Login, CredentialsError> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config.json"), config).unwrap();
        Credentials::of_directory(directory.path()).login(host).await
    }

    fn expected(username: &str, secret: &str) -> Login {
        Login { username: username.to_owned(), secret: secret.to_owned() }
    }

    #[tokio::test]
    async fn logins_are_found_by_host() {
        // "me:pass:word"
        let config = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "bWU6cGFzczp3b3Jk"},
            "https://r.example/v2/": {"username": "u", "password": "p"},
            "t.example:5000": {"identitytoken": "token"}
        }}"#;
        for (host, login) in [
            ("registry-1.docker.io", expected("me", "pass:word")),
            ("docker.io", expected("me", "pass:word")),
            ("r.example", expected("u", "p")),
            ("t.example:5000", expected("", "token")),
            ("t.example", Login::default()),
        ] {
            assert_eq!(super::tests::login(config, host).await.unwrap(), login, "{host}");
        }
    }

    #[tokio::test]
    async fn a_missing_file_is_no_login_and_a_broken_one_is_an_error() {
        let nowhere = Credentials::of_directory(Path::new("/nonexistent"));
        assert_eq!(nowhere.login("r").await.unwrap(), Login::default());
        assert!(login("{", "r").await.is_err());
        let error = login(r#"{"auths": {"r": {"auth": "!"}}}"#, "r").await.unwrap_err();
        assert!(error.to_string().ends_with(r#"the login of "r" is malformed"#), "{error}");
    }

    #[tokio::test]
    async fn a_helper_that_is_missing_is_named() {
        let error = login(r#"{"credsStore": "none-such"}"#, "r").await.unwrap_err();
        assert!(error.to_string().starts_with("running docker-credential-none-such"), "{error}");
    }
}
