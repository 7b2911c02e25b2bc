//! The history of builds, as clients of BuildKit's API read it.

use std::fmt::Write as _;

use kiln_integration_tests::{Context, Daemon, World, digest};
use kiln_proto::content::ReadContentRequest;
use kiln_proto::content::content_client::ContentClient;
use kiln_proto::control::control_client::ControlClient;
use kiln_proto::control::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest, Descriptor,
    DiskUsageRequest, PruneRequest, StatusRequest, UpdateBuildHistoryRequest,
};
use kiln_proto::rpc;
use prost::Message as _;
use serde_json::Value;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};

struct Client {
    control: ControlClient<Channel>,
    content: ContentClient<Channel>,
}

impl Client {
    async fn connect(daemon: &Daemon) -> Self {
        let address = format!("unix:{}", daemon.socket().display());
        let channel = Endpoint::from_shared(address).expect("address");
        let channel = channel.connect().await.expect("the daemon");
        Self { control: ControlClient::new(channel.clone()), content: ContentClient::new(channel) }
    }

    async fn listen(&mut self, request: BuildHistoryRequest) -> Streaming<BuildHistoryEvent> {
        self.control.listen_build_history(request).await.expect("history").into_inner()
    }

    /// All records, the oldest first.
    async fn records(&mut self) -> Vec<BuildHistoryRecord> {
        self.filtered("").await
    }

    async fn filtered(&mut self, filter: &str) -> Vec<BuildHistoryRecord> {
        let filter = if filter.is_empty() { Vec::new() } else { vec![filter.to_owned()] };
        let request =
            BuildHistoryRequest { early_exit: true, filter, ..BuildHistoryRequest::default() };
        let mut events = self.listen(request).await;
        let mut records = Vec::new();
        while let Some(event) = events.message().await.expect("an event") {
            records.extend(event.record);
        }
        records.sort_by_key(|record| record.created_at.map(|time| (time.seconds, time.nanos)));
        records
    }

    async fn read(&mut self, blob: &Descriptor) -> Vec<u8> {
        let request = ReadContentRequest { digest: blob.digest.clone(), offset: 0, size: 0 };
        let mut pieces = self.content.read(request).await.expect("a blob").into_inner();
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.message().await.expect("a piece") {
            bytes.extend(piece.data);
        }
        assert_eq!(bytes.len() as i64, blob.size);
        bytes
    }

    async fn update(&mut self, request: UpdateBuildHistoryRequest) -> Result<(), tonic::Status> {
        self.control.update_build_history(request).await.map(drop)
    }
}

fn change(reference: &str) -> UpdateBuildHistoryRequest {
    UpdateBuildHistoryRequest { r#ref: reference.to_owned(), ..Default::default() }
}

fn project() -> Context {
    Context::new().dockerfile("FROM busybox\nCOPY a /a\nRUN echo said && cp /a /b\n").file("a", "a")
}

#[tokio::test]
async fn a_build_leaves_a_record_with_its_steps_and_its_log() {
    let mut world = World::start();
    let context = project();
    let name = world.registry.reference("app:1");
    world.build(&context).args(["--push", "-t", &name, "--build-arg", "WHO=me"]).succeeds();
    world.build(&context).succeeds();

    let mut client = Client::connect(&world.daemon).await;
    let records = client.records().await;
    let [first, second] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!(first.frontend, "dockerfile.v0");
    assert_eq!(first.frontend_attrs["build-arg:WHO"], "me");
    assert_eq!(first.exporters[0].r#type, "image");
    assert_eq!(first.error, None);
    assert!(first.created_at.is_some() && first.completed_at.is_some());
    assert_eq!(first.num_completed_steps, first.num_total_steps);
    assert!(first.num_cached_steps < second.num_cached_steps);
    let image = &first.result.as_ref().expect("a result").results[&0];
    assert_eq!(image.digest, digest(&world.registry.manifest("app:1")));

    // After the daemon was started again, all of it is still there.
    world.daemon.stop();
    world.daemon.start_again();
    let mut client = Client::connect(&world.daemon).await;
    let again = client.records().await;
    let refs = |records: &[BuildHistoryRecord]| {
        records.iter().map(|record| record.r#ref.clone()).collect::<Vec<_>>()
    };
    assert_eq!(refs(&again), refs(&records));
    assert!(!client.read(image).await.is_empty());
    let request = StatusRequest { r#ref: first.r#ref.clone() };
    let mut status = client.control.status(request).await.expect("progress").into_inner();
    let mut log = Vec::new();
    while let Some(message) = status.message().await.expect("a message") {
        log.extend(message.logs.into_iter().map(|line| line.msg));
    }
    assert_eq!(log, ["said\n"]);
}

#[tokio::test]
async fn a_failed_build_leaves_its_error_with_its_details() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nRUN exit 7\n");
    world.build(&context).fails();
    let mut client = Client::connect(&world.daemon).await;
    assert_eq!(client.filtered("status==completed").await, []);
    let records = client.filtered("status==error").await;
    let error = records[0].error.as_ref().expect("an error");
    assert!(error.message.contains("exit code: 7"), "{error:?}");
    assert_eq!(error.details, []);
    let blob = records[0].external_error.as_ref().expect("details");
    let whole = rpc::Status::decode(&*client.read(blob).await).expect("a status");
    assert_eq!(whole.message, error.message);
    let kinds: Vec<_> = whole.details.iter().map(|detail| &*detail.type_url).collect();
    for kind in ["errdefs.Vertex+json", "errdefs.Source+json", "stack.Stack+json"] {
        assert!(kinds.iter().any(|known| known.ends_with(kind)), "{kinds:?}");
    }
}

#[tokio::test]
async fn a_listener_hears_of_a_build_from_its_start_to_its_removal() {
    let world = World::start();
    let mut client = Client::connect(&world.daemon).await;
    let mut events = client.listen(BuildHistoryRequest::default()).await;
    let mut next = async || {
        let event = events.message().await.expect("an event").expect("more events");
        let record = event.record.clone().expect("a record");
        (event.r#type(), record)
    };
    let context = project();
    let building = world.build(&context).start();
    let (kind, started) = next().await;
    assert_eq!((kind, &started.completed_at), (BuildHistoryEventType::Started, &None));
    assert_eq!(building.finish().code, Some(0));
    let (kind, completed) = next().await;
    assert_eq!((kind, &completed.r#ref), (BuildHistoryEventType::Complete, &started.r#ref));

    // The client says that it has sent its spans.
    let reference = &started.r#ref;
    client
        .update(UpdateBuildHistoryRequest { finalize: true, ..change(reference) })
        .await
        .expect("finalize");
    let (kind, finalized) = next().await;
    assert_eq!(kind, BuildHistoryEventType::Complete);
    let trace = client.read(finalized.trace.as_ref().expect("a trace")).await;
    let spans: Vec<serde_json::Value> = serde_json::Deserializer::from_slice(&trace)
        .into_iter()
        .collect::<Result<_, _>>()
        .expect("spans");
    let names: Vec<_> = spans.iter().filter_map(|span| span["Name"].as_str()).collect();
    assert!(names.contains(&"moby.buildkit.v1.Control/Solve"), "{names:?}");
    assert!(names.iter().any(|name| name.ends_with("RUN echo said && cp /a /b")), "{names:?}");

    client
        .update(UpdateBuildHistoryRequest { pinned: true, ..change(reference) })
        .await
        .expect("pin");
    assert!(next().await.1.pinned);
    let delete = || UpdateBuildHistoryRequest { delete: true, ..change(reference) };
    client.update(delete()).await.expect("delete");
    assert_eq!(next().await.0, BuildHistoryEventType::Deleted);
    let gone = client.update(delete()).await.expect_err("it is gone");
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test]
async fn blobs_of_a_record_survive_a_prune_and_go_with_the_record() {
    let world = World::start();
    world.build(&project()).succeeds();
    let mut client = Client::connect(&world.daemon).await;
    let record = client.records().await.remove(0);
    let logs = record.logs.expect("a log");
    let prune = PruneRequest { all: true, ..PruneRequest::default() };
    let mut pruned = client.control.prune(prune).await.expect("prune").into_inner();
    while pruned.message().await.expect("a row").is_some() {}
    client.read(&logs).await;
    let usage = client.control.disk_usage(DiskUsageRequest::default()).await.expect("usage");
    assert_eq!(usage.into_inner().record, []);

    let delete = UpdateBuildHistoryRequest { delete: true, ..change(&record.r#ref) };
    client.update(delete).await.expect("delete");
    let request = ReadContentRequest { digest: logs.digest, offset: 0, size: 0 };
    let gone = client.content.read(request).await.expect_err("the blob is gone");
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test]
async fn a_record_of_many_steps_lists_the_layers_of_the_last_ones_and_stays_small() {
    const STEPS: usize = 200;
    let world = World::start();
    let mut dockerfile = "FROM scratch\n".to_owned();
    for step in 0..STEPS {
        writeln!(dockerfile, "COPY f /{step}").expect("in memory");
    }
    let context = Context::new().dockerfile(&dockerfile).file("f", "f");
    world.build(&context).args(["-t", "app"]).succeeds();
    let mut client = Client::connect(&world.daemon).await;
    let record = client.records().await.remove(0);
    let provenance = &record.result.expect("a result").attestations[0];
    let predicate: Value = serde_json::from_slice(&client.read(provenance).await).expect("JSON");
    let layers = &predicate["runDetails"]["metadata"]["buildkit_metadata"]["layers"];
    let of_one = |layers: &Value| layers[0].as_array().map_or(0, Vec::len);
    let mut lengths: Vec<_> = layers.as_object().expect("steps").values().map(of_one).collect();
    lengths.sort_unstable();
    let listed = lengths.iter().sum::<usize>();
    assert!((4800..=5000).contains(&listed), "{lengths:?}");
    assert_eq!(lengths, (STEPS - lengths.len() + 1..=STEPS).collect::<Vec<_>>());
}
