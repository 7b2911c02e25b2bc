//! Containers of a frontend's own.

use kiln_proto::gateway::NewContainerRequest;
use kiln_proto::pb;
use tonic::Status;

use super::GatewayBuild;
use super::convert::find;
use super::failed;
use crate::ops::exec::Container;
use crate::solver::Snapshot;

/// An input that a mount does not have.
const NO_INPUT: i64 = -1;
/// An output that a mount does not have.
const NO_OUTPUT: i64 = -1;

/// Prepares what is asked for, and gives it its name.
pub(super) async fn create(
    gateway: &GatewayBuild,
    request: NewContainerRequest,
) -> Result<(), Status> {
    let work = &gateway.work;
    let mut inputs = Vec::new();
    let mut mounts = Vec::new();
    for mount in request.mounts {
        let input = match input(gateway, &mount.result_id).await? {
            Some(files) => {
                inputs.push(files);
                i64::try_from(inputs.len() - 1).unwrap_or(NO_INPUT)
            }
            None => NO_INPUT,
        };
        mounts.push(pb::Mount { input, output: NO_OUTPUT, ..mount });
    }
    let meta = pb::Meta {
        hostname: request.hostname,
        extra_hosts: request.extra_hosts,
        ..pb::Meta::default()
    };
    let exec =
        pb::ExecOp { meta: Some(meta), mounts, network: request.network, ..pb::ExecOp::default() };
    let container = Container::new((**work).clone(), exec, inputs)
        .await
        .map_err(|error| Status::unknown(format!("{error:#}")))?;
    gateway.containers.add(&request.container_id, container)
}

/// The files of that name: of a failed step, or of a result.
async fn input(gateway: &GatewayBuild, name: &str) -> Result<Option<Snapshot>, Status> {
    let work = &gateway.work;
    if let Some(files) = failed::find(gateway, name) {
        let files = work.daemon.layers.left(&files).await;
        return files.map_err(|error| Status::unknown(format!("{error:#}")));
    }
    let Some(found) = find(gateway, name)? else { return Ok(None) };
    let files = work.look_at(&found.edge).await;
    files.map(Some).map_err(|error| failed::to_status(gateway, &error))
}
