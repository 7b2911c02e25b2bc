//! Results as the gateway's messages say them, and back.

use std::collections::BTreeMap;

use kiln_proto::gateway;
use tonic::Status;

use super::GatewayBuild;
use crate::frontend::{FrontendResult, Refs};
use crate::graph::{Edge, to_definition};

/// The message for a result, its parts named for later calls.
pub(super) fn to_message(build: &GatewayBuild, result: &FrontendResult) -> gateway::Result {
    let named = |edge: Option<&Edge>| gateway::Ref {
        id: edge.map(|_| build.name(edge)).unwrap_or_default(),
        def: edge.map(|_| to_definition(edge)),
    };
    let refs = match &result.refs {
        Refs::Single(edge) => gateway::result::Result::Ref(named(edge.as_ref())),
        Refs::Many(refs) => gateway::result::Result::Refs(gateway::RefMap {
            refs: refs.iter().map(|(id, edge)| (id.clone(), named(edge.as_ref()))).collect(),
        }),
    };
    let metadata = result.metadata.iter().map(|(key, value)| (key.clone(), value.clone()));
    gateway::Result {
        result: Some(refs),
        metadata: metadata.collect(),
        attestations: BTreeMap::new(),
    }
}

/// The result that a message names.
pub(super) fn from_message(
    build: &GatewayBuild,
    message: gateway::Result,
) -> Result<FrontendResult, Status> {
    if !message.attestations.is_empty() {
        return Err(Status::unimplemented("attestations are not supported by this daemon"));
    }
    let refs = match message.result {
        None => Refs::Single(None),
        Some(gateway::result::Result::Ref(named)) => Refs::Single(find(build, &named.id)?),
        Some(gateway::result::Result::RefDeprecated(id)) => Refs::Single(find(build, &id)?),
        Some(gateway::result::Result::Refs(map)) => {
            let refs = map.refs.into_iter().map(|(key, named)| Ok((key, find(build, &named.id)?)));
            Refs::Many(refs.collect::<Result<_, Status>>()?)
        }
        Some(gateway::result::Result::RefsDeprecated(map)) => {
            let refs = map.refs.into_iter().map(|(key, id)| Ok((key, find(build, &id)?)));
            Refs::Many(refs.collect::<Result<_, Status>>()?)
        }
    };
    Ok(FrontendResult { refs, metadata: message.metadata.into_iter().collect() })
}

/// The result of that name; the empty name is scratch.
pub(super) fn find(build: &GatewayBuild, id: &str) -> Result<Option<Edge>, Status> {
    if id.is_empty() {
        return Ok(None);
    }
    build.find(id).map_err(|unknown| Status::not_found(unknown.to_string()))
}
