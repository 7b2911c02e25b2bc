//! Questions about a Dockerfile, which a client asks with the option `requestid` in place of a
//! build. The answer is metadata of a result without files: `result.json` for programs,
//! `result.txt` for people, and `version`, which says how the first is to be read.

mod describe;
mod lint;
mod outline;
mod table;
mod targets;

use std::collections::BTreeMap;

use serde::Serialize;

use super::convert::{Conversion, Scope};
use super::options::Options;
use crate::frontend::{FrontendResult, UnsupportedRequest};
use crate::solver::SolveError;

/// The version of every answer's form.
const VERSION: &str = "1.0.0";

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// What the lint rules find.
    Lint,
    /// What the target can be given.
    Outline,
    /// Which stages there are.
    Targets,
    /// Which questions there are.
    Describe,
}

impl Question {
    /// The question of that name.
    pub(super) fn parse(name: &str) -> Result<Self, UnsupportedRequest> {
        match name {
            "frontend.lint" => Ok(Self::Lint),
            "frontend.outline" => Ok(Self::Outline),
            "frontend.targets" => Ok(Self::Targets),
            "frontend.subrequests.describe" => Ok(Self::Describe),
            other => Err(UnsupportedRequest(other.to_owned())),
        }
    }

    /// The stages that it is about: rules are checked in all stages, unless a target is named.
    pub(super) fn scope(self, options: &Options) -> Scope {
        if self == Self::Lint && options.target.is_empty() { Scope::File } else { Scope::Target }
    }
}

/// Answers a question about the Dockerfile that `conversion` would convert.
pub(super) async fn answer(
    question: Question,
    conversion: &Conversion<'_>,
) -> Result<FrontendResult, SolveError> {
    let answer = match question {
        Question::Lint => lint::answer(conversion).await,
        Question::Outline => outline::answer(conversion).await,
        Question::Targets => targets::answer(&conversion.loaded.file),
        Question::Describe => Ok(describe::answer()?),
    };
    Ok(answer?.into_result())
}

/// What there is to say.
struct Answer {
    json: Vec<u8>,
    text: String,
    /// What a command that asks exits with, where the answer can be bad news.
    status: Option<u8>,
}

impl Answer {
    fn new(answer: &impl Serialize, text: String) -> serde_json::Result<Self> {
        Ok(Self { json: serde_json::to_vec_pretty(answer)?, text, status: None })
    }

    fn into_result(self) -> FrontendResult {
        let mut metadata = BTreeMap::from([
            ("result.json".to_owned(), self.json.into()),
            ("result.txt".to_owned(), self.text.into()),
            ("version".to_owned(), VERSION.into()),
        ]);
        if let Some(status) = self.status {
            metadata.insert("result.statuscode".to_owned(), status.to_string().into());
        }
        FrontendResult { metadata, ..FrontendResult::default() }
    }
}
