//! Which questions there are.

use serde::Serialize;

use super::table::table;
use super::{Answer, VERSION};

/// A question, described as BuildKit's clients read it; `null` is a list without members.
#[derive(Serialize)]
struct Request {
    name: &'static str,
    version: &'static str,
    r#type: &'static str,
    description: &'static str,
    opts: Option<&'static [Named]>,
    inputs: Option<&'static [Named]>,
    metadata: &'static [Named],
    refs: Option<&'static [Named]>,
}

#[derive(Serialize)]
struct Named {
    name: &'static str,
    description: &'static str,
}

const ANSWER: &[Named] = &[
    Named { name: "result.json", description: "" },
    Named { name: "result.txt", description: "" },
];

const TARGET: &[Named] = &[Named { name: "target", description: "Target build stage" }];

impl Request {
    const fn new(
        name: &'static str,
        description: &'static str,
        opts: Option<&'static [Named]>,
    ) -> Self {
        Self {
            name,
            version: VERSION,
            r#type: "rpc",
            description,
            opts,
            inputs: None,
            metadata: ANSWER,
            refs: None,
        }
    }
}

/// The questions that BuildKit's frontend tells of. That of the lint rules is not among them;
/// clients that know it ask it all the same.
const REQUESTS: [Request; 3] = [
    Request::new(
        "frontend.outline",
        "List all parameters current build target supports",
        Some(TARGET),
    ),
    Request::new("frontend.targets", "List all targets current build supports", Some(&[])),
    Request::new("frontend.subrequests.describe", "List available subrequest types", None),
];

pub(super) fn answer() -> serde_json::Result<Answer> {
    let mut rows = vec![["NAME", "VERSION", "DESCRIPTION"]];
    rows.extend(REQUESTS.iter().map(|request| {
        let name = request.name.strip_prefix("frontend.").unwrap_or(request.name);
        [name, request.version, request.description]
    }));
    Answer::new(&REQUESTS, table(1, &rows))
}

#[cfg(test)]
mod tests {
    use super::super::Question;
    use super::*;

    #[test]
    fn every_question_that_is_described_is_answered() {
        for request in &REQUESTS {
            assert!(Question::parse(request.name).is_ok(), "{}", request.name);
        }
        insta::assert_snapshot!(answer().unwrap().text, @r"
        NAME                 VERSION DESCRIPTION
        outline              1.0.0   List all parameters current build target supports
        targets              1.0.0   List all targets current build supports
        subrequests.describe 1.0.0   List available subrequest types
        ");
    }
}
