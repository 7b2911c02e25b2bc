//! How a run ends that did not do what it was asked to do.

use crate::source::{self, Lines};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_proto::rpc;
use prost::Message;
use serde_json::Value;
use std::fmt;
use std::io::Write;
use std::process::ExitCode;
use tonic::{Code, Status};

/// The exit code of a run that was interrupted.
pub(crate) const INTERRUPTED: u8 = 130;

/// The end of a run.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It could not be done.
    Error(anyhow::Error),
    /// The user ended it.
    Interrupted(Option<anyhow::Error>),
    /// It could not be done, and the user has read why.
    Told,
    /// It was done, and the answer is no.
    Code(u8),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

impl Failure {
    /// Tells the user, and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let (error, code) = match self {
            Self::Error(error) => (Some(error), 1),
            Self::Interrupted(error) => (error.as_ref(), INTERRUPTED),
            Self::Told => (None, 1),
            Self::Code(code) => (None, *code),
        };
        if let Some(error) = error.filter(|error| !is_broken_pipe(error)) {
            tell(error);
        }
        code.into()
    }
}

/// Tells the user why something could not be done.
pub(crate) fn tell(error: &anyhow::Error) {
    // Nobody is left to be told when standard error is gone.
    let _ = std::io::stderr().write_all(render(error).as_bytes());
}

/// Whether a reader of the output has seen enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The error and its causes, but for those that the errors before them tell already.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| {
        if text.is_empty() {
            cause
        } else if text.ends_with(&cause) {
            text
        } else {
            format!("{text}: {cause}")
        }
    })
}

/// The places of the Dockerfile that an error is about, then the error itself.
fn render(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        if let Some(refused) = cause.downcast_ref::<Refused>() {
            refused.sources().for_each(|source| text.push_str(&source));
        }
    }
    text + &format!("ERROR: {}\n", sentence(error))
}

/// The daemon's answer to a request that it could not fulfil.
#[derive(Debug)]
pub(crate) struct Refused(Box<Status>);

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self(Box::new(status))
    }
}

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    /// The message alone, as the code says nothing more where it is unknown.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.0.message();
        if std::error::Error::source(&*self.0).is_some() {
            // It was made here: nothing that a daemon sends has a source.
            return write!(formatter, "the connection to the daemon broke: {message}");
        }
        match self.0.code() {
            Code::Unknown | Code::Ok => formatter.write_str(message),
            Code::Cancelled => write!(formatter, "Canceled: {message}"),
            code => write!(formatter, "{code:?}: {message}"),
        }
    }
}

impl Refused {
    /// Excerpts of the files that the daemon names as the places of the error.
    fn sources(&self) -> impl Iterator<Item = String> {
        let details =
            rpc::Status::decode(self.0.details()).map(|status| status.details).unwrap_or_default();
        details
            .into_iter()
            .filter(|detail| detail.type_url.contains("errdefs.Source"))
            .filter_map(|detail| excerpt(&detail.value))
    }
}

/// The excerpt of a `Source` detail, which travels as JSON.
fn excerpt(json: &[u8]) -> Option<String> {
    let source: Value = serde_json::from_slice(json).ok()?;
    let info = &source["info"];
    let data = STANDARD.decode(info["data"].as_str()?).ok()?;
    let line = |position: &Value| position["line"].as_i64().unwrap_or(0);
    let ranges: Vec<Lines> = source["ranges"]
        .as_array()?
        .iter()
        .map(|range| Lines::new(line(&range["start"]), line(&range["end"])))
        .collect();
    let filename = info["filename"].as_str().unwrap_or_default();
    Some(source::excerpt(filename, &String::from_utf8_lossy(&data), &ranges))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;
    use prost_types::Any;

    #[test]
    fn the_place_of_an_error_is_shown_before_it() {
        let detail = serde_json::json!({
            "info": { "filename": "Dockerfile", "data": STANDARD.encode("FROM a\nRUN false\n") },
            "ranges": [{ "start": { "line": 2 }, "end": { "line": 2 } }],
        });
        let status = rpc::Status {
            code: 2,
            message: String::new(),
            details: vec![Any {
                type_url: "github.com/moby/buildkit/errdefs.Source+json".to_owned(),
                value: detail.to_string().into_bytes(),
            }],
        };
        let message = "process \"/bin/sh -c false\" did not complete successfully: exit code: 1";
        let status = Status::with_details(Code::Unknown, message, status.encode_to_vec().into());
        let error = Err::<(), _>(Refused::from(status))
            .context("failed to solve")
            .context("failed to build")
            .unwrap_err();
        insta::assert_snapshot!(render(&error), @r#"
        Dockerfile:2
        --------------------
           1 |     FROM a
           2 | >>> RUN false
           3 |     
        --------------------
        ERROR: failed to build: failed to solve: process "/bin/sh -c false" did not complete successfully: exit code: 1
        "#);
    }

    #[test]
    fn details_that_make_no_sense_are_left_out() {
        for json in
            ["", "[]", "{}", r#"{"info":{"data":"!"}}"#, r#"{"info":{"data":""},"ranges":3}"#]
        {
            assert_eq!(excerpt(json.as_bytes()), None, "{json}");
        }
        let refused = Refused::from(Status::with_details(Code::Internal, "x", vec![255; 9].into()));
        assert_eq!(refused.sources().count(), 0);
        assert_eq!(refused.to_string(), "Internal: x");
    }
}
