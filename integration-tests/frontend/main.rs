//! A frontend for tests, to be put into an image. Its build argument `DO` says what it does:
//! nothing at all (`nothing`), fail (`fail`), ask itself (`again`), or else leave the work to the
//! built-in frontend and label the image, also with the Dockerfile as a container of its own has it
//! (`look`).

#![allow(clippy::print_stderr)] // A frontend's words are for who reads its errors.

use std::collections::BTreeMap;
use std::io;

use hyper_util::rt::TokioIo;
use kiln_proto::gateway::llb_bridge_client::LlbBridgeClient;
use kiln_proto::gateway::{
    InputsRequest, NewContainerRequest, ReadFileRequest, ReleaseContainerRequest, ReturnRequest,
    SolveRequest,
};
use kiln_proto::{gateway, pb};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // A thread still reads standard input, and an orderly end would wait for it.
    std::process::exit(run().await)
}

async fn run() -> i32 {
    let options = options();
    match options.get("build-arg:DO").map(String::as_str) {
        Some("nothing") => 0,
        Some("fail") => {
            eprintln!("first word\nlast word");
            3
        }
        _ => match forward(options).await {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("{error}");
                1
            }
        },
    }
}

/// The frontend's options, as its environment has them.
fn options() -> BTreeMap<String, String> {
    let options = std::env::vars()
        .filter_map(|(name, value)| name.starts_with("BUILDKIT_FRONTEND_OPT_").then_some(value));
    let pairs = options.filter_map(|option| {
        option.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
    });
    pairs.collect()
}

async fn forward(mut options: BTreeMap<String, String>) -> Result<(), Box<dyn std::error::Error>> {
    let mut streams = Some(tokio::io::join(tokio::io::stdin(), tokio::io::stdout()));
    let connect = service_fn(move |_| {
        let streams = streams.take().map(TokioIo::new).ok_or(io::ErrorKind::NotConnected);
        std::future::ready(streams.map_err(io::Error::from))
    });
    let channel = Endpoint::from_static("http://gateway").connect_with_connector(connect).await?;
    let mut bridge = LlbBridgeClient::new(channel);
    options.insert("label:made.by".to_owned(), options["cmdline"].clone());
    if options.get("build-arg:DO").is_some_and(|what| what == "look") {
        options.insert("label:looked.at".to_owned(), look(&mut bridge).await?);
    }
    let inputs = bridge.inputs(InputsRequest {}).await?.into_inner();
    let is_again = options.get("build-arg:DO").is_some_and(|what| what == "again");
    let request = SolveRequest {
        frontend: if is_again { "gateway.v0" } else { "dockerfile.v0" }.to_owned(),
        frontend_opt: options.into_iter().collect(),
        frontend_inputs: inputs.definitions,
        allow_result_return: true,
        allow_result_array_ref: true,
        ..SolveRequest::default()
    };
    let answer = match bridge.solve(request).await {
        Ok(answer) => ReturnRequest { result: answer.into_inner().result, error: None },
        Err(status) => {
            let details = prost::Message::decode(status.details())?;
            ReturnRequest { result: None, error: Some(details) }
        }
    };
    bridge.r#return(answer).await?;
    Ok(())
}

/// Mounts the build context in a container, to be written to, and reads its Dockerfile there.
async fn look(bridge: &mut LlbBridgeClient<Channel>) -> Result<String, Box<dyn std::error::Error>> {
    let identifier = "local://context".to_owned();
    let source = pb::op::Op::Source(pb::SourceOp { identifier, ..Default::default() });
    let definition = Some(kiln_integration_tests::chain([source]));
    let request = SolveRequest { definition, allow_result_return: true, ..SolveRequest::default() };
    let answer = bridge.solve(request).await?.into_inner();
    let Some(gateway::result::Result::Ref(context)) = answer.result.and_then(|made| made.result)
    else {
        return Err("a context is one result".into());
    };
    let mount = |dest: &str| pb::Mount {
        dest: dest.to_owned(),
        result_id: context.id.clone(),
        ..pb::Mount::default()
    };
    let container_id = "look".to_owned();
    let mounts = vec![mount("/"), mount("/context")];
    let container = NewContainerRequest { container_id, mounts, ..Default::default() };
    bridge.new_container(container).await?;
    let read = ReadFileRequest {
        r#ref: "look".to_owned(),
        file_path: "/Dockerfile".to_owned(),
        mount_index: 1,
        ..ReadFileRequest::default()
    };
    let read = bridge.read_file_container(read).await?.into_inner();
    let release = ReleaseContainerRequest { container_id: "look".to_owned() };
    bridge.release_container(release).await?;
    Ok(String::from_utf8_lossy(&read.data).into_owned())
}
