//! `opentelemetry.proto.collector.trace.v1.TraceService`: clients send the spans of their builds.

use std::sync::Arc;

use kiln_proto::trace::trace_service_server::TraceService;
use kiln_proto::trace::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tonic::{Request, Response, Status};

use crate::daemon::Daemon;

/// Keeps spans for the records of builds.
pub(crate) struct TraceReceiver(pub(crate) Arc<Daemon>);

#[tonic::async_trait]
impl TraceService for TraceReceiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let refused = self.0.history.traces().add(request.into_inner().resource_spans);
        let partial_success = (refused > 0).then(|| ExportTracePartialSuccess {
            rejected_spans: i64::try_from(refused).unwrap_or(i64::MAX),
            error_message: "the trace has too many spans".to_owned(),
        });
        Ok(Response::new(ExportTraceServiceResponse { partial_success }))
    }
}
