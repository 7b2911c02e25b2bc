//! Builds whose frontend is the test itself.

use kiln_proto::control::control_client::ControlClient;
use kiln_proto::control::{Exporter, ListWorkersRequest};
use kiln_proto::gateway::exec_message::Input;
use kiln_proto::gateway::llb_bridge_client::LlbBridgeClient;
use kiln_proto::gateway::{ExecMessage, ExitMessage, FdMessage, InitMessage, NewContainerRequest};
use kiln_proto::types::WorkerRecord;
use kiln_proto::{control, gateway, header, pb};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::daemon::Daemon;
use crate::layer::digest;

/// A build under way.
pub struct GatewayBuild {
    id: String,
    /// The calls; their requests come from [`Self::request`].
    pub bridge: LlbBridgeClient<Channel>,
    building: JoinHandle<Result<(), Status>>,
}

impl GatewayBuild {
    /// Starts a build of that name, of which nothing is exported.
    pub async fn start(daemon: &Daemon, id: &str) -> Self {
        Self::start_with(daemon, id, Vec::new()).await
    }

    /// Starts a build whose result goes to `exporters`.
    pub async fn start_with(daemon: &Daemon, id: &str, exporters: Vec<Exporter>) -> Self {
        let address = format!("unix:{}", daemon.socket().display());
        let endpoint = Endpoint::from_shared(address).expect("the address of the daemon");
        let channel = endpoint.connect().await.expect("a connection to the daemon");
        let build = control::SolveRequest { r#ref: id.to_owned(), exporters, ..Default::default() };
        let mut control = ControlClient::new(channel.clone());
        let building = tokio::spawn(async move { control.solve(build).await.map(drop) });
        Self { id: id.to_owned(), bridge: LlbBridgeClient::new(channel), building }
    }

    /// A call of this build.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(header::BUILD_ID, self.id.parse().expect("an id of letters"));
        request
    }

    /// Ends the build with nothing.
    pub async fn end(self) {
        self.finish(gateway::Result::default()).await.expect("a build that ends well");
    }

    /// Ends the build with a result; what comes of that is what its client hears.
    pub async fn finish(mut self, result: gateway::Result) -> Result<(), Status> {
        let end = gateway::ReturnRequest { result: Some(result), error: None };
        let end = self.request(end);
        self.bridge.r#return(end).await.expect("the end of the frontend");
        self.building.await.expect("a build")
    }

    /// The result of a graph.
    pub async fn solve(&mut self, graph: pb::Definition) -> gateway::Ref {
        let question = gateway::SolveRequest { definition: Some(graph), ..Default::default() };
        let question = self.request(question);
        let answer = self.bridge.solve(question).await.expect("an answer").into_inner();
        match answer.result.and_then(|result| result.result) {
            Some(gateway::result::Result::Ref(named)) => named,
            other => panic!("expected one result: {other:?}"),
        }
    }

    /// Makes a container on the files of an image.
    pub async fn container(&mut self, id: &str, image: &str) {
        let result_id = self.solve(definition(image_op(image))).await.id;
        let root = pb::Mount { dest: "/".to_owned(), result_id, ..pb::Mount::default() };
        self.container_on(id, vec![root]).await.expect("a container");
    }

    /// Makes a container on mounts.
    pub async fn container_on(&mut self, id: &str, mounts: Vec<pb::Mount>) -> Result<(), Status> {
        let container_id = id.to_owned();
        let wanted = NewContainerRequest { container_id, mounts, ..Default::default() };
        let wanted = self.request(wanted);
        self.bridge.new_container(wanted).await.map(drop)
    }

    /// Makes a result.
    pub async fn evaluate(&mut self, result: &gateway::Ref) -> Result<(), Status> {
        let wanted = gateway::EvaluateRequest { r#ref: result.id.clone() };
        let wanted = self.request(wanted);
        self.bridge.evaluate(wanted).await.map(drop)
    }

    /// Runs a shell command in a container.
    pub async fn shell(&mut self, container: &str, command: &str, tty: bool) -> Shell {
        self.process(container, &["sh", "-c", command], tty, &[0, 1, 2]).await
    }

    /// Runs a program in a container, with the descriptors in `fds`.
    pub async fn process(
        &mut self,
        container: &str,
        args: &[&str],
        tty: bool,
        fds: &[u32],
    ) -> Shell {
        let (orders, messages) = mpsc::channel(16);
        let meta = pb::Meta {
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            cwd: "/".to_owned(),
            ..pb::Meta::default()
        };
        let init = InitMessage {
            container_id: container.to_owned(),
            meta: Some(meta),
            fds: fds.to_owned(),
            tty,
            ..Default::default()
        };
        let shell = Shell::order(Input::Init(init));
        orders.send(shell).await.expect("a queue");
        let messages = self.request(ReceiverStream::new(messages));
        let said = self.bridge.exec_process(messages).await.expect("a process").into_inner();
        Shell { orders, said, output: String::new(), ended: Vec::new() }
    }
}

/// What a daemon says of its worker.
pub async fn worker(daemon: &Daemon) -> WorkerRecord {
    let address = format!("unix:{}", daemon.socket().display());
    let endpoint = Endpoint::from_shared(address).expect("the address of the daemon");
    let channel = endpoint.connect().await.expect("a connection to the daemon");
    let workers = ControlClient::new(channel).list_workers(ListWorkersRequest::default()).await;
    workers.expect("an answer").into_inner().record.pop().expect("a worker")
}

/// A process that the test talks with.
pub struct Shell {
    orders: mpsc::Sender<ExecMessage>,
    said: Streaming<ExecMessage>,
    /// What it has written so far, output and errors.
    output: String,
    /// The outputs that have ended.
    ended: Vec<u32>,
}

/// How a process ended.
#[derive(Debug)]
pub struct End {
    /// Its exit code, and what went wrong.
    pub exit: ExitMessage,
    /// What it has written, output and errors.
    pub output: String,
    /// The outputs that ended.
    pub ended: Vec<u32>,
}

impl End {
    /// What went wrong.
    pub fn error(&self) -> &str {
        self.exit.error.as_ref().map_or("", |error| &error.message)
    }
}

impl Shell {
    fn order(input: Input) -> ExecMessage {
        ExecMessage { process_id: "one".to_owned(), input: Some(input) }
    }

    /// Sends it a message.
    pub async fn send(&self, input: Input) {
        self.orders.send(Self::order(input)).await.expect("a queue");
    }

    /// Writes to its input.
    pub async fn write(&self, text: &str) {
        let data = text.to_owned().into();
        self.send(Input::File(FdMessage { fd: 0, eof: false, data })).await;
    }

    /// Ends its input.
    pub async fn close(&self) {
        self.send(Input::File(FdMessage { fd: 0, eof: true, ..Default::default() })).await;
    }

    /// Waits until it has written `text`.
    pub async fn until(&mut self, text: &str) {
        while !self.output.contains(text) {
            if let Input::Exit(exit) = self.next().await {
                panic!("ended with {exit:?} after {:?}", self.output);
            }
        }
    }

    /// Waits for its end: its exit code and what it has written.
    pub async fn exit(self) -> (u32, String) {
        let End { exit, output, .. } = self.end().await;
        (exit.code, output)
    }

    /// Waits for its end.
    pub async fn end(mut self) -> End {
        let mut code = None;
        loop {
            match self.next().await {
                Input::Exit(exit) => code = Some(exit),
                Input::Done(_) => {
                    let exit = code.expect("an exit before the end");
                    return End { exit, output: self.output, ended: self.ended };
                }
                _ => {}
            }
        }
    }

    async fn next(&mut self) -> Input {
        let message = self.said.message().await.expect("a message").expect("one more message");
        let input = message.input.expect("something in a message");
        if let Input::File(file) = &input {
            self.output.push_str(&String::from_utf8_lossy(&file.data));
            self.ended.extend(file.eof.then_some(file.fd));
        }
        input
    }
}

/// A graph of one op without inputs.
fn definition(op: pb::op::Op) -> pb::Definition {
    chain([op])
}

/// A graph of ops of which each has the one before as its only input.
pub fn chain(ops: impl IntoIterator<Item = pb::op::Op>) -> pb::Definition {
    let mut graph = pb::Definition::default();
    let mut inputs = Vec::new();
    for op in ops.into_iter().map(Some).chain([None]) {
        let op = pb::Op { op, inputs, ..Default::default() }.encode_to_vec();
        inputs = vec![pb::Input { digest: digest(&op), index: 0 }];
        graph.def.push(op.into());
    }
    graph
}

/// The op that is the files of an image.
pub fn image_op(image: &str) -> pb::op::Op {
    let identifier = format!("docker-image://{image}");
    pb::op::Op::Source(pb::SourceOp { identifier, ..pb::SourceOp::default() })
}

/// A graph that makes a single file.
pub fn file_definition(path: &str, content: &str) -> pb::Definition {
    let action = pb::file_action::Action::Mkfile(pb::FileActionMkFile {
        path: path.to_owned(),
        mode: 0o644,
        data: content.to_owned().into(),
        owner: None,
        timestamp: -1,
    });
    let action = pb::FileAction { input: -1, secondary_input: -1, output: 0, action: Some(action) };
    definition(pb::op::Op::File(pb::FileOp { actions: vec![action] }))
}
