//! Networks by plugins: the Container Network Interface (its specification 1.0, "Section 2:
//! Execution Protocol").

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::namespace::Namespace;

const INTERFACE: &str = "eth0";

/// Where plugins and their configuration are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniConfig {
    /// A configuration of one plugin, or a list of them.
    pub config: PathBuf,
    /// The directory of the plugins.
    pub plugins: PathBuf,
    /// A directory of the daemon's own, in which it remembers what is connected, so that the next
    /// one can take back what it could not.
    pub state: PathBuf,
}

/// What is wrong with plugins.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CniError {
    /// A file cannot be read or written.
    #[error("{0}")]
    File(PathBuf, #[source] io::Error),
    /// The configuration is none.
    #[error("{0}: {1}")]
    Config(PathBuf, &'static str),
    /// The configuration is no JSON.
    #[error("{0}")]
    Json(PathBuf, #[source] serde_json::Error),
    /// A plugin cannot be run.
    #[error("plugin {0}")]
    Run(PathBuf, #[source] io::Error),
    /// A plugin could not do what it was asked.
    #[error("plugin {0}: {1}")]
    Failed(PathBuf, String),
}

/// The plugins in the order in which they connect.
#[derive(Debug)]
pub(super) struct Cni {
    directory: PathBuf,
    state: PathBuf,
    name: Value,
    version: Value,
    plugins: Vec<(PathBuf, Map<String, Value>)>,
    connected: u64,
}

/// A namespace that plugins have connected.
#[derive(Debug)]
pub(super) struct Attachment {
    id: String,
    result: Value,
}

impl Cni {
    /// Reads the configuration, and disconnects what an earlier daemon has left connected.
    pub(super) fn read(config: &CniConfig) -> Result<Self, CniError> {
        let path = &config.config;
        let text = fs::read(path).map_err(|source| CniError::File(path.clone(), source))?;
        let file: Value =
            serde_json::from_slice(&text).map_err(|source| CniError::Json(path.clone(), source))?;
        let wrong = |what| CniError::Config(path.clone(), what);
        let Value::Object(file) = file else { return Err(wrong("not an object")) };
        let text = |key: &str| file.get(key).filter(|value| value.is_string()).cloned();
        let name = text("name").ok_or_else(|| wrong("it has no \"name\""))?;
        let version = text("cniVersion").unwrap_or_else(|| "0.1.0".into());
        let plugins = match file.get("plugins") {
            Some(Value::Array(plugins)) => plugins.clone(),
            Some(_) => return Err(wrong("\"plugins\" is not a list")),
            None => vec![Value::Object(file)],
        };
        let program = |plugin: Value| {
            let Value::Object(plugin) = plugin else { return Err(wrong("a plugin is no object")) };
            match plugin.get("type").and_then(Value::as_str) {
                Some(kind) if !kind.is_empty() && !kind.contains('/') && kind != ".." => {
                    Ok((config.plugins.join(kind), plugin))
                }
                _ => Err(wrong("a plugin has no \"type\" that names a program")),
            }
        };
        let plugins = plugins.into_iter().map(program).collect::<Result<Vec<_>, _>>()?;
        if plugins.is_empty() {
            return Err(wrong("it has no plugins"));
        }
        let state = config.state.clone();
        let directory = config.plugins.clone();
        let cni = Self { directory, state, name, version, plugins, connected: 0 };
        cni.disconnect_stale()?;
        Ok(cni)
    }

    /// Connects a namespace.
    pub(super) fn attach(&mut self, namespace: &Namespace) -> Result<Attachment, CniError> {
        self.connected += 1;
        let id = format!("kiln-{}-{}", std::process::id(), self.connected);
        let mut attachment = Attachment { id, result: Value::Null };
        self.remember(&attachment)?;
        match self.add(&mut attachment, &path_of(namespace)) {
            Ok(()) => self.remember(&attachment).map(|()| attachment),
            Err(error) => {
                self.detach(&attachment, namespace);
                Err(error)
            }
        }
    }

    fn add(&self, attachment: &mut Attachment, namespace: &str) -> Result<(), CniError> {
        for plugin in &self.plugins {
            let output = self.run(plugin, "ADD", attachment, namespace)?;
            let result = serde_json::from_slice(&output);
            attachment.result =
                result.map_err(|source| CniError::Json(plugin.0.clone(), source))?;
        }
        Ok(())
    }

    /// Disconnects a namespace.
    pub(super) fn detach(&self, attachment: &Attachment, namespace: &Namespace) {
        self.delete(attachment, &path_of(namespace));
    }

    fn delete(&self, attachment: &Attachment, namespace: &str) {
        let mut is_gone = true;
        for plugin in self.plugins.iter().rev() {
            if let Err(error) = self.run(plugin, "DEL", attachment, namespace) {
                tracing::warn!(id = attachment.id, %error, "cannot disconnect a network");
                is_gone = false;
            }
        }
        if is_gone {
            // Asked to disconnect once more, plugins do not mind.
            let _ = fs::remove_file(self.file(&attachment.id));
        }
    }

    /// Disconnects what is remembered and not this daemon's.
    fn disconnect_stale(&self) -> Result<(), CniError> {
        let failed = |source| CniError::File(self.state.clone(), source);
        fs::create_dir_all(&self.state).map_err(failed)?;
        for entry in fs::read_dir(&self.state).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let result = fs::read(entry.path()).ok();
            let result = result.and_then(|text| serde_json::from_slice(&text).ok());
            let id = entry.file_name().to_string_lossy().into_owned();
            self.delete(&Attachment { id, result: result.unwrap_or_default() }, "");
        }
        Ok(())
    }

    fn remember(&self, attachment: &Attachment) -> Result<(), CniError> {
        let path = self.file(&attachment.id);
        let written = fs::write(&path, attachment.result.to_string());
        written.map_err(|source| CniError::File(path, source))
    }

    fn file(&self, id: &str) -> PathBuf {
        self.state.join(id)
    }

    /// Has a plugin carry out a command; its output is the result.
    fn run(
        &self,
        (program, config): &(PathBuf, Map<String, Value>),
        command: &str,
        attachment: &Attachment,
        namespace: &str,
    ) -> Result<Vec<u8>, CniError> {
        let mut config = config.clone();
        config.insert("name".to_owned(), self.name.clone());
        config.insert("cniVersion".to_owned(), self.version.clone());
        if !attachment.result.is_null() {
            config.insert("prevResult".to_owned(), attachment.result.clone());
        }
        let run = || {
            let mut child = Command::new(program)
                .env("CNI_COMMAND", command)
                .env("CNI_CONTAINERID", &attachment.id)
                .env("CNI_NETNS", namespace)
                .env("CNI_IFNAME", INTERFACE)
                .env("CNI_PATH", &self.directory)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                // One that does not read its configuration says itself what it thinks of it.
                let _ = stdin.write_all(Value::Object(config).to_string().as_bytes());
            }
            child.wait_with_output()
        };
        let output = run().map_err(|source| CniError::Run(program.clone(), source))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(CniError::Failed(program.clone(), reason(&output.stdout, &output.stderr)))
    }
}

/// A path by which a plugin finds the namespace, which has none of its own.
fn path_of(namespace: &Namespace) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_fd().as_raw_fd())
}

/// What a plugin that failed says.
fn reason(stdout: &[u8], stderr: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Failure {
        msg: String,
        #[serde(default)]
        details: String,
    }
    match serde_json::from_slice(stdout) {
        Ok(Failure { msg, details }) if details.is_empty() => msg,
        Ok(Failure { msg, details }) => format!("{msg}: {details}"),
        Err(_) => [stdout, stderr]
            .map(|text| String::from_utf8_lossy(text).trim().to_owned())
            .join(" ")
            .trim()
            .to_owned(),
    }
}
