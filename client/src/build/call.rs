//! Questions about a Dockerfile, which the frontend answers in place of building it.
//!
//! Only a gateway hands on such answers: the build's request names no frontend and stays open
//! while the frontend is asked through it.

use super::solve::Response;
use crate::args::call::Call;
use crate::daemon::Daemon;
use crate::source::{self, Lines};
use kiln_proto::control::SolveRequest;
use kiln_proto::gateway::llb_bridge_client::LlbBridgeClient;
use kiln_proto::gateway::{self, PingRequest, ReturnRequest};
use kiln_proto::header::BUILD_ID;
use kiln_proto::rpc;
use kiln_proto::session::MAX_MESSAGE;
use serde_json::Value;
use std::fmt::Write as _;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// The capability of frontends that answer questions.
const CAPABILITY: &str = "moby.buildkit.frontend.subrequests+forward";
/// The gateway opens a little after the build's request has come.
const ATTEMPTS: usize = 50;
const PAUSE: Duration = Duration::from_millis(20);

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
    let (solved, answer) = tokio::join!(control.solve(request), bridge.ask(question));
    solved?;
    let metadata = answer?.metadata.into_iter();
    Ok(metadata.map(|(key, value)| (key, String::from_utf8_lossy(&value).into_owned())).collect())
}

/// The gateway of one build.
struct Bridge {
    client: LlbBridgeClient<Channel>,
    build: String,
}

impl Bridge {
    fn new(daemon: &Daemon, build: &str) -> Self {
        let client = LlbBridgeClient::new(daemon.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        Self { client, build: build.to_owned() }
    }

    fn request<T>(&self, message: T) -> Result<Request<T>, Status> {
        let mut request = Request::new(message);
        let build = self.build.parse().map_err(|_| Status::internal("a malformed build ref"))?;
        request.metadata_mut().insert(BUILD_ID, build);
        Ok(request)
    }

    /// Asks, and ends the build, whatever the answer is.
    async fn ask(mut self, question: gateway::SolveRequest) -> Result<gateway::Result, Status> {
        self.wait().await?;
        let request = self.request(question)?;
        let answer = self.client.solve(request).await;
        let (result, error) = match &answer {
            Ok(response) => (response.get_ref().result.clone(), None),
            Err(status) => (None, Some(to_rpc(status))),
        };
        let request = self.request(ReturnRequest { result, error })?;
        self.client.r#return(request).await?;
        Ok(answer?.into_inner().result.unwrap_or_default())
    }

    async fn wait(&mut self) -> Result<(), Status> {
        let mut attempt = 1;
        loop {
            let request = self.request(PingRequest {})?;
            match self.client.ping(request).await {
                Ok(_) => return Ok(()),
                Err(status) if attempt == ATTEMPTS => return Err(status),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
            attempt += 1;
        }
    }
}

/// The error as it came, with its details.
fn to_rpc(status: &Status) -> rpc::Status {
    let details = <rpc::Status as prost::Message>::decode(status.details());
    rpc::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: details.unwrap_or_default().details,
    }
}

/// The answer as the user reads it, and the exit code that it stands for.
pub(super) fn render(call: &Call, response: &Response, dockerfile: Option<&str>) -> (String, u8) {
    let get = |key: &str| response.get(key).map(String::as_str);
    let code = get("result.statuscode")
        .filter(|_| !call.ignores_status)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0);
    let text = match (call.is_json, call.name.as_str()) {
        (true, _) => get("result.json").map(|json| format!("{json}\n")),
        (false, "lint") => get("result.json").and_then(|json| lint(json, dockerfile)),
        (false, _) => None,
    };
    let text = text.or_else(|| get("result.txt").map(str::to_owned)).unwrap_or_default();
    (text, code)
}

/// The warnings of a check, each with its place.
fn lint(json: &str, dockerfile: Option<&str>) -> Option<String> {
    let results: Value = serde_json::from_str(json).ok()?;
    let warnings = results["warnings"].as_array().map(Vec::as_slice).unwrap_or_default();
    let error = results["buildError"].as_object();
    let mut text = match warnings.len() {
        0 if error.is_some() => String::new(),
        0 => return Some("Check complete, no warnings found.\n".to_owned()),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    let string = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for warning in warnings {
        // Writing to a string cannot fail.
        let _ = write!(text, "\nWARNING: {}", string(&warning["ruleName"]));
        let url = string(&warning["url"]);
        if !url.is_empty() {
            let _ = write!(text, " - {url}");
        }
        let _ = writeln!(text, "\n{}", string(&warning["detail"]));
        text.push_str(&place(&results, &warning["location"], dockerfile));
    }
    if let Some(error) = error {
        let message = error.get("message").map(string).unwrap_or_default();
        let _ = writeln!(text, "{}{message}", if warnings.is_empty() { "" } else { "\n" });
        let location = error.get("location").unwrap_or(&Value::Null);
        text.push_str(&place(&results, location, dockerfile));
    }
    Some(text)
}

fn place(results: &Value, location: &Value, dockerfile: Option<&str>) -> String {
    use base64::Engine as _;
    let index = location["sourceIndex"].as_u64().unwrap_or(0) as usize;
    let file = &results["sources"][index];
    let data = file["data"].as_str().unwrap_or_default();
    let data = base64::engine::general_purpose::STANDARD.decode(data).unwrap_or_default();
    let line = |position: &Value| position["line"].as_i64().unwrap_or(0);
    let ranges: Vec<Lines> = location["ranges"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|range| Lines::new(line(&range["start"]), line(&range["end"])))
        .collect();
    let name = dockerfile.or(file["filename"].as_str()).unwrap_or_default();
    source::excerpt(name, &String::from_utf8_lossy(&data), &ranges)
}
