//! `moby.buildkit.v1.Control`.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use kiln_proto::control::control_server::Control;
use kiln_proto::control::{
    BuildHistoryRequest, BytesMessage, DiskUsageRequest, DiskUsageResponse, InfoRequest,
    InfoResponse, ListWorkersRequest, ListWorkersResponse, PruneRequest, SolveRequest,
    SolveResponse, StatusRequest, StatusResponse, UpdateBuildHistoryRequest,
    UpdateBuildHistoryResponse, UsageRecord,
};
use kiln_proto::types;
use tonic::{Request, Response, Status, Streaming};

use super::{history, solve, usage};
use crate::daemon::Daemon;
use crate::history::{Events, TraceContext};
use crate::solver::to_response;
use crate::worker;

/// Serves one daemon.
pub(crate) struct ControlService(pub(crate) Arc<Daemon>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Control for ControlService {
    type PruneStream = Answers<UsageRecord>;
    type StatusStream = Answers<StatusResponse>;
    type SessionStream = Answers<BytesMessage>;
    type ListenBuildHistoryStream = Events;

    async fn disk_usage(
        &self,
        request: Request<DiskUsageRequest>,
    ) -> Result<Response<DiskUsageResponse>, Status> {
        let record = usage::disk_usage(&self.0, &request.into_inner()).await?;
        Ok(Response::new(DiskUsageResponse { record }))
    }

    async fn prune(
        &self,
        request: Request<PruneRequest>,
    ) -> Result<Response<Self::PruneStream>, Status> {
        let removed = usage::prune(&self.0, &request.into_inner()).await?;
        let removed = futures::stream::iter(removed.into_iter().map(Ok));
        Ok(Response::new(removed.boxed()))
    }

    async fn solve(
        &self,
        request: Request<SolveRequest>,
    ) -> Result<Response<SolveResponse>, Status> {
        let trace = TraceContext::of(request.metadata(), &request.get_ref().r#ref);
        let answer = solve::solve(&self.0, request.into_inner(), trace).await?;
        Ok(Response::new(answer))
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<Self::StatusStream>, Status> {
        let id = request.into_inner().r#ref;
        if !self.0.builds.is_known(&id)
            && let Some(recorded) = history::status(&self.0, &id).await?
        {
            return Ok(Response::new(recorded.boxed()));
        }
        let progress = self.0.builds.progress(&id).await;
        let progress = progress.ok_or_else(|| Status::not_found(format!("no such build {id}")))?;
        let stream = futures::stream::unfold(progress.watch(), |mut watcher| async move {
            let events = watcher.next_few().await?;
            Some((Ok(to_response(events)), watcher))
        });
        Ok(Response::new(stream.boxed()))
    }

    async fn session(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let accepted = kiln_proto::session::accept(request);
        let accepted =
            accepted.await.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let outgoing = self.0.sessions.add(accepted);
        Ok(Response::new(outgoing.map(Ok).boxed()))
    }

    async fn list_workers(
        &self,
        request: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        let record = worker::list(&self.0, &request.into_inner().filter).await?;
        Ok(Response::new(ListWorkersResponse { record }))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let buildkit_version: Option<types::BuildkitVersion> = Some(worker::version());
        Ok(Response::new(InfoResponse { buildkit_version }))
    }

    async fn listen_build_history(
        &self,
        request: Request<BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        history::listen(&self.0, request.into_inner()).await
    }

    async fn update_build_history(
        &self,
        request: Request<UpdateBuildHistoryRequest>,
    ) -> Result<Response<UpdateBuildHistoryResponse>, Status> {
        history::update(&self.0, request.into_inner()).await?;
        Ok(Response::new(UpdateBuildHistoryResponse {}))
    }
}
