//! `ListenBuildHistory` and `UpdateBuildHistory`.

use std::sync::Arc;

use kiln_proto::control::{BuildHistoryRequest, UpdateBuildHistoryRequest};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tonic::metadata::MetadataMap;
use tonic::{Response, Status};

use crate::daemon::Daemon;
use crate::history::{Events, InvalidHistoryFilter, LogStream, NoRecord};

/// Tells a listener what time it is here, for it to show how old records are.
const TIMESTAMP: &str = "buildkit-current-timestamp";

fn to_status(error: &anyhow::Error) -> Status {
    let message = format!("{error:#}");
    if error.is::<NoRecord>() {
        Status::not_found(message)
    } else if error.is::<InvalidHistoryFilter>() {
        Status::invalid_argument(message)
    } else {
        Status::internal(message)
    }
}

pub(super) async fn listen(
    daemon: &Arc<Daemon>,
    request: BuildHistoryRequest,
) -> Result<Response<Events>, Status> {
    let events = daemon.history.listen(request).await.map_err(|error| to_status(&error))?;
    let mut response = Response::new(events);
    tell_time(response.metadata_mut());
    Ok(response)
}

fn tell_time(metadata: &mut MetadataMap) {
    let now = OffsetDateTime::now_utc().format(&Rfc3339).ok();
    if let Some(now) = now.and_then(|now| now.parse().ok()) {
        metadata.insert(TIMESTAMP, now);
    }
}

pub(super) async fn update(
    daemon: &Arc<Daemon>,
    request: UpdateBuildHistoryRequest,
) -> Result<(), Status> {
    let UpdateBuildHistoryRequest { r#ref, pinned, delete, finalize } = request;
    let history = &daemon.history;
    let done = if delete {
        history.delete(&r#ref).await
    } else if finalize {
        history.finalize(&r#ref).await;
        Ok(())
    } else {
        history.pin(&r#ref, pinned).await
    };
    done.map_err(|error| to_status(&error))
}

/// The progress of a build that has ended.
pub(super) async fn status(
    daemon: &Arc<Daemon>,
    reference: &str,
) -> Result<Option<LogStream>, Status> {
    daemon.history.status(reference).await.map_err(|error| to_status(&error))
}
