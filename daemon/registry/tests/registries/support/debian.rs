//! Debian's `docker-registry`, one of its own for each test.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A running registry; killed when dropped.
pub(crate) struct Debian {
    process: Child,
    address: String,
    _config: TempDir,
}

impl Debian {
    /// An open registry.
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    /// A registry with more lines in its configuration, in which `$DIR` is the directory that
    /// `prepare` may fill.
    pub(crate) fn with(extra: &str) -> Self {
        Self::prepared(extra, |_| {})
    }

    pub(crate) fn prepared(extra: &str, prepare: impl FnOnce(&std::path::Path)) -> Self {
        let directory = TempDir::new().unwrap();
        prepare(directory.path());
        let extra = extra.replace("$DIR", directory.path().to_str().unwrap());
        let config = format!(
            "version: 0.1\nstorage:\n  inmemory: {{}}\nhttp:\n  addr: 127.0.0.1:0\n{extra}\n"
        );
        let path = directory.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry is installed");
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let address = listening(&mut log);
        // Read on, or the registry would block on a full pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { process, address, _config: directory }
    }

    /// Host and port.
    pub(crate) fn host(&self) -> &str {
        &self.address
    }

    /// A reference in this registry.
    pub(crate) fn image(&self, name: &str) -> kiln_registry::ImageRef {
        super::image(&format!("{}/{name}", self.address))
    }
}

/// The address in the line that says where the registry listens.
fn listening(log: &mut impl BufRead) -> String {
    let mut said = String::new();
    loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "docker-registry ended: {said}");
        if let Some((_, address)) = line.split_once("listening on ") {
            return address.split(['"', ',']).next().unwrap().to_owned();
        }
        said.push_str(&line);
    }
}

impl Drop for Debian {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
