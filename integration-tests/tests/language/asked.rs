//! The frontend, asked by the gateway.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_integration_tests::{World, digest};
use kiln_proto::control::control_client::ControlClient;
use kiln_proto::gateway::llb_bridge_client::LlbBridgeClient;
use kiln_proto::{control, gateway, header, pb};
use prost::Message as _;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// The built-in frontend of a daemon.
pub(crate) struct Frontend {
    channel: Channel,
    asked: AtomicUsize,
}

impl Frontend {
    pub(crate) async fn connect(world: &World) -> Self {
        let address = format!("unix:{}", world.daemon.socket().display());
        let endpoint = Endpoint::from_shared(address).expect("the address of the daemon");
        let channel = endpoint.connect().await.expect("a connection to the daemon");
        Self { channel, asked: AtomicUsize::new(0) }
    }

    /// What the frontend makes of a Dockerfile, whose context has a file `a` alone.
    pub(crate) async fn convert(
        &self,
        dockerfile: &str,
        options: &[(&str, &str)],
    ) -> Result<gateway::Result, Status> {
        let id = format!("language-{}", self.asked.fetch_add(1, Ordering::Relaxed));
        let build = control::SolveRequest { r#ref: id.clone(), ..Default::default() };
        let mut control = ControlClient::new(self.channel.clone());
        let building = tokio::spawn(async move { control.solve(build).await });

        let mut bridge = LlbBridgeClient::new(self.channel.clone());
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let question = gateway::SolveRequest {
            frontend: "dockerfile.v0".to_owned(),
            frontend_opt: options.collect(),
            frontend_inputs: BTreeMap::from([
                ("dockerfile".to_owned(), file("/Dockerfile", dockerfile)),
                ("context".to_owned(), file("/a", "")),
            ])
            .into_iter()
            .collect(),
            allow_result_return: true,
            allow_result_array_ref: true,
            ..Default::default()
        };
        let answer = bridge.solve(of_build(&id, question)).await;
        let end = gateway::ReturnRequest::default();
        bridge.r#return(of_build(&id, end)).await.expect("the end of the build");
        building.await.expect("a build").expect("a build that ends well");
        Ok(answer?.into_inner().result.unwrap_or_default())
    }
}

fn of_build<T>(id: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(header::BUILD_ID, id.parse().expect("an id of letters"));
    request
}

/// A graph that makes a single file.
fn file(path: &str, content: &str) -> pb::Definition {
    let action = pb::file_action::Action::Mkfile(pb::FileActionMkFile {
        path: path.to_owned(),
        mode: 0o644,
        data: content.to_owned().into(),
        owner: None,
        timestamp: -1,
    });
    let action = pb::FileAction { input: -1, secondary_input: -1, output: 0, action: Some(action) };
    let op = pb::op::Op::File(pb::FileOp { actions: vec![action] });
    let op = pb::Op { op: Some(op), ..Default::default() }.encode_to_vec();
    let result = pb::Input { digest: digest(&op), index: 0 };
    let result = pb::Op { inputs: vec![result], ..Default::default() }.encode_to_vec();
    pb::Definition { def: vec![op.into(), result.into()], ..Default::default() }
}
