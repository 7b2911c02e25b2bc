//! Questions about a Dockerfile, which the frontend answers in place of building it.
//!
//! Only a gateway hands on such answers.

use super::checks::Checks;
use super::gateway::Bridge;
use super::solve::Response;
use crate::args::call::Call;
use crate::daemon::Daemon;
use kiln_proto::control::SolveRequest;
use kiln_proto::gateway;
use tonic::Status;

/// The capability of frontends that answer questions.
const CAPABILITY: &str = "moby.buildkit.frontend.subrequests+forward";
/// Asks a question.
pub(super) async fn ask(
    daemon: &Daemon,
    mut request: SolveRequest,
    call: &Call,
) -> Result<Response, Status> {
    let frontend = std::mem::take(&mut request.frontend);
    let mut options = request.frontend_attrs.clone();
    options.insert("requestid".to_owned(), format!("frontend.{}", call.name));
    let capabilities = options.entry("frontend.caps".to_owned()).or_default();
    if !capabilities.is_empty() {
        capabilities.push(',');
    }
    capabilities.push_str(CAPABILITY);
    let question = gateway::SolveRequest {
        frontend,
        frontend_opt: options,
        allow_result_return: true,
        allow_result_array_ref: true,
        ..gateway::SolveRequest::default()
    };
    let bridge = Bridge::new(daemon, &request.r#ref);
    let mut control = daemon.control();
    // The error of either: the request's says more, as it carries the place in the Dockerfile.
    let (solved, answer) = tokio::join!(control.solve(request), put(bridge, question));
    solved?;
    let metadata = answer?.metadata.into_iter();
    Ok(metadata.map(|(key, value)| (key, String::from_utf8_lossy(&value).into_owned())).collect())
}

/// Asks, and ends the build, whatever the answer is.
async fn put(
    mut bridge: Bridge,
    question: gateway::SolveRequest,
) -> Result<gateway::Result, Status> {
    bridge.wait().await?;
    let answer = bridge.solve(question).await;
    bridge.finish(answer.as_ref().cloned()).await?;
    answer
}

/// An answer as the user gets it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// What goes to standard output.
    pub(super) text: String,
    /// The exit code that it stands for.
    pub(super) code: u8,
    /// The error that it stands for.
    pub(super) error: Option<String>,
}

/// What the user gets to see of an answer. `dockerfile` is the file's name to its user.
pub(super) fn render(call: &Call, response: &Response, dockerfile: Option<&str>) -> Answer {
    let get = |key: &str| response.get(key).map(String::as_str);
    let code = get("result.statuscode")
        .filter(|_| !call.ignores_status)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0);
    let json = get("result.json");
    let checks =
        json.filter(|_| call.name == "lint").and_then(|json| Checks::parse(json, dockerfile));
    let error = checks.as_ref().and_then(Checks::error);
    let text = match (call.is_json, json, checks) {
        (true, Some(json), _) => format!("{json}\n"),
        (false, _, Some(checks)) => checks.text(),
        _ => get("result.txt").unwrap_or_default().to_owned(),
    };
    Answer { text, code, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, is_json: bool, ignores_status: bool) -> Call {
        Call { name: name.to_owned(), is_json, ignores_status }
    }

    fn response(pairs: &[(&str, &str)]) -> Response {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn an_answer_is_text_or_json_as_the_user_asks() {
        let answered = response(&[("result.json", "{}"), ("result.txt", "TARGET\n")]);
        assert_eq!(render(&call("targets", false, false), &answered, None).text, "TARGET\n");
        assert_eq!(render(&call("targets", true, false), &answered, None).text, "{}\n");
        assert_eq!(render(&call("targets", true, false), &response(&[]), None), Answer::default());
    }

    #[test]
    fn bad_news_is_an_exit_code_unless_it_is_ignored() {
        let answered = response(&[
            ("result.json", r#"{"warnings":[{"ruleName":"A","detail":"a"}],"sources":[]}"#),
            ("result.statuscode", "1"),
        ]);
        assert_eq!(render(&call("lint", false, false), &answered, None).code, 1);
        assert_eq!(render(&call("lint", false, true), &answered, None).code, 0);
    }
}
