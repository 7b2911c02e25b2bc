//! The calls. Each carries the ref of its build in its metadata.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use futures::{FutureExt as _, Stream, StreamExt as _, future, stream};
use kiln_proto::control::VertexWarning;
use kiln_proto::gateway::llb_bridge_server::LlbBridge;
use kiln_proto::gateway::{
    EvaluateRequest, EvaluateResponse, ExecMessage, InputsRequest, InputsResponse,
    NewContainerRequest, NewContainerResponse, PingRequest, PongResponse, ReadDirRequest,
    ReadDirResponse, ReadFileRequest, ReadFileResponse, ReleaseContainerRequest,
    ReleaseContainerResponse, ResolveImageConfigRequest, ResolveImageConfigResponse,
    ResolveSourceMetaRequest, ResolveSourceMetaResponse, ReturnRequest, ReturnResponse,
    SolveRequest, SolveResponse, StatFileRequest, StatFileResponse, WarnRequest, WarnResponse,
};
use kiln_proto::sourcepolicy::Policy;
use kiln_proto::{apicaps, header};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{GatewayBuild, container, convert, failed, files, process, source_meta};
use crate::caps;
use crate::daemon::Daemon;
use crate::frontend::{self, FrontendResult, Ref, Refs, metadata};
use crate::graph::{from_definition, from_input};
use crate::image::{Platform, Resolve};
use crate::policy::{SourcePolicy, Wanted};
use crate::solver::SolveError;
use crate::worker;

/// How many messages about processes wait for a frontend to read them.
const MESSAGES: usize = 8;

/// Serves frontends.
pub(crate) enum GatewayService {
    /// All whose builds the daemon knows; calls name their build.
    OfDaemon(Arc<Daemon>),
    /// The one that has a connection of its own.
    OfBuild(Arc<GatewayBuild>),
}

impl GatewayService {
    /// The build that a call is for.
    async fn build<T>(&self, request: &Request<T>) -> Result<Arc<GatewayBuild>, Status> {
        let daemon = match self {
            Self::OfDaemon(daemon) => daemon,
            Self::OfBuild(build) => return Ok(build.clone()),
        };
        let id = header::get_first(request.metadata(), header::BUILD_ID).unwrap_or_default();
        let active = daemon.builds.get(&id).await;
        let gateway = active.and_then(|active| active.gateway);
        gateway.ok_or_else(|| Status::not_found(format!("no gateway build {id:?}")))
    }
}

fn unsupported<T>(what: &str) -> Result<T, Status> {
    Err(Status::unimplemented(format!("{what} is not supported by this daemon yet")))
}

fn invalid(error: &impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

/// The build's source policy, with what a call adds to it.
fn more_rules(gateway: &GatewayBuild, policies: &[Policy]) -> Result<SourcePolicy, Status> {
    gateway.work.policy().with(policies).map_err(|error| invalid(&error))
}

/// Runs blocking work.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Status::internal(error.to_string()))?
}

fn caps(ids: &[&str]) -> Vec<apicaps::ApiCap> {
    let cap =
        |id: &&str| apicaps::ApiCap { id: (*id).to_owned(), enabled: true, ..Default::default() };
    ids.iter().map(cap).collect()
}

#[tonic::async_trait]
impl LlbBridge for GatewayService {
    type ExecProcessStream = Pin<Box<dyn Stream<Item = Result<ExecMessage, Status>> + Send>>;

    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PongResponse>, Status> {
        let gateway = self.build(&request).await?;
        Ok(Response::new(PongResponse {
            frontend_api_caps: caps(caps::GATEWAY),
            llb_caps: caps(caps::LLB),
            workers: worker::list(&gateway.work.daemon, &[]).await?,
        }))
    }

    async fn solve(
        &self,
        request: Request<SolveRequest>,
    ) -> Result<Response<SolveResponse>, Status> {
        let gateway = self.build(&request).await?;
        let request = request.into_inner();
        let work = &gateway.work;
        let policy = more_rules(&gateway, &request.source_policies)?;
        let more = (!request.source_policies.is_empty()).then_some(&policy);
        let definition = request.definition.filter(|definition| !definition.def.is_empty());
        let result = match definition {
            Some(definition) => {
                let edge = from_definition(&definition).map_err(|error| invalid(&error))?;
                let refs = Refs::Single(edge.map(|edge| Ref { edge, work: work.clone() }));
                FrontendResult { refs, ..FrontendResult::default() }
            }
            None if request.frontend.is_empty() => FrontendResult::default(),
            None => {
                let mut inputs = BTreeMap::new();
                for (name, definition) in &request.frontend_inputs {
                    let edge = from_input(definition).map_err(|error| invalid(&error))?;
                    inputs.insert(name.clone(), edge);
                }
                let options = request.frontend_opt.into_iter().collect();
                let request = frontend::Request { frontend: request.frontend, options, inputs };
                frontend::solve(work, request)
                    .await
                    .map_err(|error| failed::to_status(&gateway, &error))?
            }
        };
        let result = result
            .admitted(work, more)
            .await
            .map_err(|error| failed::to_status(&gateway, &error))?;
        if request.evaluate {
            for Ref { edge, work } in result.refs.all() {
                work.look_at(edge).await.map_err(|error| failed::to_status(&gateway, &error))?;
            }
        }
        let result = convert::to_message(&gateway, &result);
        Ok(Response::new(SolveResponse { result: Some(result), ..Default::default() }))
    }

    async fn r#return(
        &self,
        request: Request<ReturnRequest>,
    ) -> Result<Response<ReturnResponse>, Status> {
        let gateway = self.build(&request).await?;
        let request = request.into_inner();
        let answer = match request.error.filter(|error| error.code != 0) {
            Some(error) => {
                let code = tonic::Code::from(error.code);
                let details = prost::Message::encode_to_vec(&error);
                Err(SolveError::from(Status::with_details(code, error.message, details.into())))
            }
            None => Ok(convert::from_message(&gateway, request.result.unwrap_or_default())?),
        };
        gateway.end(answer);
        Ok(Response::new(ReturnResponse {}))
    }

    async fn inputs(
        &self,
        request: Request<InputsRequest>,
    ) -> Result<Response<InputsResponse>, Status> {
        let definitions = self.build(&request).await?.inputs.clone();
        Ok(Response::new(InputsResponse { definitions }))
    }

    async fn resolve_image_config(
        &self,
        request: Request<ResolveImageConfigRequest>,
    ) -> Result<Response<ResolveImageConfigResponse>, Status> {
        let gateway = self.build(&request).await?;
        let request = request.into_inner();
        if request.resolver_type != 0 {
            return unsupported("resolving images of an OCI layout by this call");
        }
        let platform = request.platform.as_ref().map_or_else(Platform::host, Platform::from);
        let mode = Resolve::parse(&request.resolve_mode).map_err(|error| invalid(&error))?;
        let image =
            request.r#ref.parse().map_err(|error: kiln_registry::RefError| invalid(&error))?;
        let policy = more_rules(&gateway, &request.source_policies)?;
        let (image, found) = metadata::load_permitted(
            &gateway.work,
            &policy,
            &image,
            &platform,
            mode,
            &request.log_name,
        )
        .await
        .map_err(|error| failed::to_status(&gateway, &error))?;
        Ok(Response::new(ResolveImageConfigResponse {
            digest: found.digest.to_string(),
            config: found.config.into(),
            r#ref: image.to_string(),
        }))
    }

    async fn resolve_source_meta(
        &self,
        request: Request<ResolveSourceMetaRequest>,
    ) -> Result<Response<ResolveSourceMetaResponse>, Status> {
        let gateway = self.build(&request).await?;
        let request = request.into_inner();
        let policy = more_rules(&gateway, &request.source_policies)?;
        let wanted = Wanted {
            source: request.source.unwrap_or_default(),
            platform: request.platform.clone(),
        };
        let wanted = metadata::permitted(&gateway.work, &policy, wanted)
            .await
            .map_err(|error| failed::to_status(&gateway, &error))?;
        let request = ResolveSourceMetaRequest {
            source: Some(wanted.source),
            source_policies: vec![],
            ..request
        };
        source_meta(&gateway.work, request).await.map(Response::new)
    }

    async fn read_file(
        &self,
        request: Request<ReadFileRequest>,
    ) -> Result<Response<ReadFileResponse>, Status> {
        let gateway = self.build(&request).await?;
        let request = request.into_inner();
        let view = files::view(&gateway, &request.r#ref).await?;
        let data = blocking(move || files::read(&view, &request)).await?;
        Ok(Response::new(ReadFileResponse { data: data.into() }))
    }

    async fn read_dir(
        &self,
        request: Request<ReadDirRequest>,
    ) -> Result<Response<ReadDirResponse>, Status> {
        let gateway = self.build(&request).await?;
        let request = request.into_inner();
        let view = files::view(&gateway, &request.r#ref).await?;
        let list = move || files::list(&view, &request.dir_path, &request.include_pattern);
        let entries = blocking(list).await?;
        Ok(Response::new(ReadDirResponse { entries }))
    }

    async fn stat_file(
        &self,
        request: Request<StatFileRequest>,
    ) -> Result<Response<StatFileResponse>, Status> {
        let gateway = self.build(&request).await?;
        let request = request.into_inner();
        let view = files::view(&gateway, &request.r#ref).await?;
        let stat = blocking(move || files::stat(&view, &request.path)).await?;
        Ok(Response::new(StatFileResponse { stat: Some(stat) }))
    }

    async fn evaluate(
        &self,
        request: Request<EvaluateRequest>,
    ) -> Result<Response<EvaluateResponse>, Status> {
        let gateway = self.build(&request).await?;
        if let Some(Ref { edge, work }) = convert::find(&gateway, &request.get_ref().r#ref)? {
            work.look_at(&edge).await.map_err(|error| failed::to_status(&gateway, &error))?;
        }
        Ok(Response::new(EvaluateResponse {}))
    }

    async fn warn(&self, request: Request<WarnRequest>) -> Result<Response<WarnResponse>, Status> {
        let gateway = self.build(&request).await?;
        let request = request.into_inner();
        let warning = VertexWarning {
            vertex: request.digest,
            level: request.level,
            short: request.short,
            detail: request.detail,
            url: request.url,
            info: request.info,
            ranges: request.ranges,
        };
        gateway.work.progress.warn(warning);
        Ok(Response::new(WarnResponse {}))
    }

    async fn new_container(
        &self,
        request: Request<NewContainerRequest>,
    ) -> Result<Response<NewContainerResponse>, Status> {
        let gateway = self.build(&request).await?;
        container::create(&gateway, request.into_inner()).await?;
        Ok(Response::new(NewContainerResponse {}))
    }

    async fn release_container(
        &self,
        request: Request<ReleaseContainerRequest>,
    ) -> Result<Response<ReleaseContainerResponse>, Status> {
        let gateway = self.build(&request).await?;
        gateway.containers.release(&request.get_ref().container_id)?;
        Ok(Response::new(ReleaseContainerResponse {}))
    }

    async fn exec_process(
        &self,
        request: Request<Streaming<ExecMessage>>,
    ) -> Result<Response<Self::ExecProcessStream>, Status> {
        let gateway = self.build(&request).await?;
        let incoming = request.into_inner();
        let (outgoing, messages) = mpsc::channel(MESSAGES);
        let serve = process::serve(gateway, incoming, outgoing);
        // One stream of both, so that the processes go when their messages are not wanted any more.
        let serve = serve.into_stream().filter_map(|()| future::ready(None));
        let messages = stream::select(ReceiverStream::new(messages), serve);
        Ok(Response::new(messages.boxed()))
    }

    async fn read_file_container(
        &self,
        request: Request<ReadFileRequest>,
    ) -> Result<Response<ReadFileResponse>, Status> {
        let gateway = self.build(&request).await?;
        let request = request.into_inner();
        let view = files::view_of_container(&gateway, &request.r#ref, request.mount_index)?;
        let data = blocking(move || files::read(&view, &request)).await?;
        Ok(Response::new(ReadFileResponse { data: data.into() }))
    }

    async fn read_dir_container(
        &self,
        request: Request<ReadDirRequest>,
    ) -> Result<Response<ReadDirResponse>, Status> {
        let gateway = self.build(&request).await?;
        let request = request.into_inner();
        let view = files::view_of_container(&gateway, &request.r#ref, request.mount_index)?;
        let list = move || files::list(&view, &request.dir_path, &request.include_pattern);
        let entries = blocking(list).await?;
        Ok(Response::new(ReadDirResponse { entries }))
    }

    async fn stat_file_container(
        &self,
        request: Request<StatFileRequest>,
    ) -> Result<Response<StatFileResponse>, Status> {
        let gateway = self.build(&request).await?;
        let request = request.into_inner();
        let view = files::view_of_container(&gateway, &request.r#ref, request.mount_index)?;
        let stat = blocking(move || files::stat(&view, &request.path)).await?;
        Ok(Response::new(StatFileResponse { stat: Some(stat) }))
    }
}
