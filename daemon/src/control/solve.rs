//! `Control.Solve`: one build from request to answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::try_join_all;
use kiln_proto::control::{SolveRequest, SolveResponse};
use kiln_proto::pb;
use tonic::Status;

use super::error::{from_rpc, to_rpc};
use crate::attestation::{self, Wanted};
use crate::builds::ActiveBuild;
use crate::collector::is_out_of_space;
use crate::daemon::Daemon;
use crate::exporter;
use crate::frontend::gateway::GatewayBuild;
use crate::frontend::{self, Assignment, FrontendResult, Ref, Refs, Request};
use crate::graph::{DefinitionError, from_definition, from_input};
use crate::history::{Outcome, TraceContext};
use crate::policy::SourcePolicy;
use crate::provenance;
use crate::remote;
use crate::session::Session;
use crate::solver::{Build, BuildRequest, SolveError};

/// How many times a build is tried again because something was damaged that was here. Most of that is
/// dropped one by one, and a disk that goes on like this is not to be built on.
const MOST_DAMAGE: usize = 32;

/// Runs a build until its exports are done. Dropping the future cancels it.
pub(super) async fn solve(
    daemon: &Arc<Daemon>,
    request: SolveRequest,
    trace: TraceContext,
) -> Result<SolveResponse, Status> {
    let id = request.r#ref.clone();
    // It is large, and would be moved about with the call.
    let outcome = Box::pin(run(daemon, request, trace)).await;
    if outcome.is_err() {
        daemon.builds.refuse(&id);
    }
    outcome
}

async fn run(
    daemon: &Arc<Daemon>,
    request: SolveRequest,
    trace: TraceContext,
) -> Result<SolveResponse, Status> {
    if request.r#ref.is_empty() {
        return Err(Status::invalid_argument("a build needs a ref"));
    }
    refuse_unsupported(&request)?;
    let client = session(daemon, &request.session).await?;
    let policy = SourcePolicy::new(
        request.source_policy.as_slice(),
        session(daemon, &request.source_policy_session).await?,
    )
    .map_err(|error| Status::invalid_argument(error.to_string()))?;
    let entitlements: BTreeSet<String> = request.entitlements.iter().cloned().collect();
    for entitlement in &entitlements {
        daemon
            .config
            .check_grant(entitlement)
            .map_err(|error| Status::failed_precondition(error.to_string()))?;
    }
    let invalid = |error: anyhow::Error| Status::invalid_argument(format!("{error:#}"));
    let wanted = Wanted::parse(&request.frontend_attrs).map_err(|error| invalid(error.into()))?;
    let build = BuildRequest {
        id: request.r#ref.clone(),
        session: client.clone(),
        entitlements,
        policy,
        project: project(&request, client.as_deref()),
    };
    let build = Build::new(daemon.clone(), build);
    let cache = request.cache.clone().unwrap_or_default();
    let imports = remote::Imports::parse(&cache.imports, &request.frontend_attrs, &daemon.stores)
        .map_err(invalid)?;
    let cache_exports = remote::Exports::parse(&cache.exports, &daemon.stores).map_err(invalid)?;
    let build = Arc::new(build.with_imports(&imports));
    let has_steps = |definition: &pb::Definition| !definition.def.is_empty();
    if !request.frontend.is_empty() && request.definition.as_ref().is_some_and(has_steps) {
        return Err(Status::invalid_argument(
            "both a definition and a frontend are given: only one of them can say what to build",
        ));
    }
    // A definition without ops is one of a file system without files.
    let is_gateway = request.frontend.is_empty() && request.definition.is_none();
    let asked = asked(&request, is_gateway).map_err(|error| invalid(error.into()))?;
    let work = Assignment::new(build.clone(), asked.clone());
    let gateway = is_gateway
        .then(|| Arc::new(GatewayBuild::new(work.clone(), request.frontend_inputs.clone())));
    let active = ActiveBuild { build: build.clone(), gateway: gateway.clone() };
    let _registration = daemon
        .builds
        .register(active)
        .map_err(|duplicate| Status::already_exists(duplicate.to_string()))?;
    // Clients ask themselves things by builds, too, which nobody wants to read about.
    let recording = (!request.internal).then(|| {
        let exporters = exporter::exporters(&request);
        daemon.history.start(&request, &exporters, &build.progress, trace)
    });

    let running = async {
        let result = async {
            match &gateway {
                Some(gateway) => gateway.returned().await,
                None => run_frontend(&work, &request, asked).await,
            }
        };
        // Meanwhile: lookups wait for a cache that is not read yet, and nothing else does.
        let (result, ()) = tokio::join!(result, imports.load(&build));
        let result = result?.admitted(&build, None).await?;
        let finish = || finish(&build, &request, &wanted, &result, &cache_exports).boxed();
        let (mut may_lose, mut may_meet) = (1, MOST_DAMAGE);
        loop {
            let outcome = finish().await;
            let attempts = match &outcome {
                Err(error) if error.has_lost_layer() => &mut may_lose,
                Err(error) if error.has_met_damage() => &mut may_meet,
                _ => return outcome,
            };
            if *attempts == 0 {
                return outcome;
            }
            *attempts -= 1;
            // A cache has lost what it had, or a disk has changed it: without it there is more to do, but
            // it can be done.
            tracing::debug!(build = build.id, "something cached is lost: building once more");
            build.forget();
        }
    };
    let closed = async {
        match &client {
            Some(session) => session.closed().cancelled().await,
            None => std::future::pending().await,
        }
    };
    let outcome = tokio::select! {
        outcome = running => outcome,
        never = cache_exports.ahead(&build) => match never {},
        () = closed => Err(SolveError::canceled()),
    };
    if let Some(gateway) = &gateway {
        gateway.close();
    }
    // Whoever is told that a build has failed, for the disk was full, may then try again.
    if build.failed_steps.forget() {
        daemon.layers.cleaned_up().await;
    }
    let (answer, outcome) = match outcome {
        Ok((response, outcome)) => (Ok(response), outcome),
        Err(error) => {
            tracing::debug!(build = build.id, %error, "build failed");
            if is_out_of_space(error.cause()) {
                daemon.collector.disk_is_full();
            }
            let error = to_rpc(&error);
            (Err(from_rpc(error.clone())), Outcome::failed(error))
        }
    };
    if let Some(recording) = recording {
        recording.end(outcome);
    }
    daemon.collector.build_ended();
    answer
}

/// The session of that id, which may still be on its way; none if there is no id.
async fn session(daemon: &Daemon, id: &str) -> Result<Option<Arc<Session>>, Status> {
    if id.is_empty() {
        return Ok(None);
    }
    let found = daemon.sessions.get(id).await;
    let missing = || Status::failed_precondition(format!("no active session for {id}"));
    found.ok_or_else(missing).map(Some)
}

/// What is the same for builds of the same Dockerfile of the same directory or repository.
fn project(request: &SolveRequest, client: Option<&Session>) -> String {
    let option = |name: &str| request.frontend_attrs.get(name).map_or("", String::as_str);
    // What follows the mark is a branch or the like.
    let context = option("context").split('#').next().unwrap_or_default();
    let directory = client.map_or("", Session::shared_key);
    [&request.frontend, directory, context, option("filename")].join("\0")
}

/// Requests whose wishes this daemon would not carry out are refused, not half done.
fn refuse_unsupported(request: &SolveRequest) -> Result<(), Status> {
    let refuse =
        |what: &str| Err(Status::unimplemented(format!("{what} is not supported by this daemon")));
    if request.proxy_network {
        return refuse("a proxy network");
    }
    Ok(())
}

/// What the client asks for, if it is no graph. A client that is the frontend itself reads its own
/// inputs.
fn asked(request: &SolveRequest, is_gateway: bool) -> Result<Request, DefinitionError> {
    let mut inputs = BTreeMap::new();
    for (name, definition) in &request.frontend_inputs {
        match from_input(definition) {
            Ok(input) => drop(inputs.insert(name.clone(), input)),
            Err(_) if is_gateway => {}
            Err(error) => return Err(error),
        }
    }
    let options = request.frontend_attrs.clone().into_iter().collect();
    Ok(Request { frontend: request.frontend.clone(), options, inputs })
}

async fn run_frontend(
    work: &Arc<Assignment>,
    request: &SolveRequest,
    asked: Request,
) -> Result<FrontendResult, SolveError> {
    if request.frontend.is_empty()
        && let Some(definition) = &request.definition
    {
        let edge = from_definition(definition)?;
        let refs = Refs::Single(edge.map(|edge| Ref { edge, work: work.clone() }));
        return Ok(FrontendResult { refs, ..FrontendResult::default() });
    }
    frontend::solve(work, asked).await
}

/// Solves what the frontend answered, and exports it.
async fn finish(
    build: &Arc<Build>,
    request: &SolveRequest,
    wanted: &Wanted,
    result: &FrontendResult,
    cache_exports: &remote::Exports,
) -> Result<(SolveResponse, Outcome), SolveError> {
    let metadata = result.metadata.iter();
    let metadata =
        metadata.map(|(key, value)| (key.clone(), String::from_utf8_lossy(value).into_owned()));
    let mut outcome = Outcome::of(metadata.collect());
    try_join_all(result.refs.edges().into_iter().map(|edge| build.solve(edge))).await?;
    if !request.internal {
        match provenance::for_record(build, result, wanted.provenance.as_ref()) {
            Ok(provenance) => outcome.comes_from(build.clone(), provenance),
            // The record goes without. If it matters to an exporter, that will say so.
            Err(error) => tracing::debug!(build = build.id, "no provenance: {error:#}"),
        }
    }
    let mut attested = result.clone();
    attestation::complete(build, wanted, &mut attested).await?;
    let is_cache = cache_exports.is_inline;
    let mut exporter_response =
        exporter::run(build, request, &attested, is_cache, &mut outcome).await?;
    // What a frontend has to say to its client, whatever is exported.
    let said = outcome.metadata.iter().filter(|(key, _)| key.starts_with("frontend."));
    exporter_response.extend(said.map(|(key, value)| (key.clone(), value.clone())));
    exporter_response.extend(cache_exports.run(build, &result.refs).await?);
    Ok((SolveResponse { exporter_response }, outcome))
}
