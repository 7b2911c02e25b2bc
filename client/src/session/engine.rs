//! The docker engine of this machine, as a place for images.

use bytes::Bytes;
use futures::{Stream, StreamExt};
use std::io;
use std::process::Stdio;
use std::sync::Arc;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tonic::Status;

/// The program that knows how to reach the engine, whichever way the user has set it up.
const PROGRAM: &str = "docker";

/// A docker engine that has answered.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    context: Option<Arc<str>>,
}

/// Why there is no engine.
#[derive(Debug, Error)]
pub(crate) enum EngineError {
    /// The program is not there.
    #[error(
        "loading an image needs the program {PROGRAM:?}, which is not on PATH \
         (--output type=docker,dest=FILE writes a file in place of it)"
    )]
    NoProgram,
    /// The program could not be run.
    #[error("loading an image: running {PROGRAM:?}")]
    Run(#[source] io::Error),
    /// No engine answers.
    #[error("loading an image: no docker engine answers: {0}")]
    NoAnswer(String),
}

impl Engine {
    /// Finds the engine, perhaps that of another context of docker.
    pub(crate) async fn find(context: Option<&str>) -> Result<Self, EngineError> {
        let engine = Self { context: context.map(Arc::from) };
        let output = engine
            .command(&["version", "--format", "{{.Server.Version}}"])
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => EngineError::NoProgram,
                _ => EngineError::Run(error),
            })?;
        if output.status.success() {
            Ok(engine)
        } else {
            let message = String::from_utf8_lossy(&output.stderr);
            Err(EngineError::NoAnswer(message.trim().to_owned()))
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        if let Some(context) = &self.context {
            command.arg("--context").arg(&**context);
        }
        command.args(arguments).kill_on_drop(true);
        command
    }

    /// Hands an image over, as the archive that it comes as.
    pub(crate) async fn load(
        &self,
        mut archive: impl Stream<Item = Result<Bytes, Status>> + Unpin,
    ) -> Result<(), Status> {
        let failed = |error: io::Error| Status::unknown(format!("docker load: {error}"));
        let mut child = self
            .command(&["load", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (Some(mut stdin), Some(stderr)) = (child.stdin.take(), child.stderr.take()) else {
            return Err(Status::internal("docker load: no pipes"));
        };
        let mut message = Vec::new();
        let feed = async {
            while let Some(data) = archive.next().await {
                // The engine has closed its end: what it said follows.
                if stdin.write_all(&data?).await.is_err() {
                    break;
                }
            }
            drop(stdin);
            Ok::<(), Status>(())
        };
        let mut limited = stderr.take(64 << 10);
        let (fed, read) = tokio::join!(feed, limited.read_to_end(&mut message));
        fed?;
        read.map_err(failed)?;
        if child.wait().await.map_err(failed)?.success() {
            return Ok(());
        }
        Err(Status::unknown(format!("docker load: {}", String::from_utf8_lossy(&message).trim())))
    }
}
