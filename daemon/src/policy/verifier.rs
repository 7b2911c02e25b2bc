//! A client that decides about sources itself.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use kiln_proto::gateway::{ResolveSourceMetaRequest, ResolveSourceMetaResponse};
use kiln_proto::policysession::check_policy_response::Result as Answer;
use kiln_proto::policysession::policy_verifier_client::PolicyVerifierClient;
use kiln_proto::policysession::{CheckPolicyRequest, DecisionResponse};
use kiln_proto::session::{MAX_MESSAGE, methods};
use kiln_proto::sourcepolicy::PolicyAction;

use super::{Denied, SourcePolicy, Wanted, normal};
use crate::frontend::gateway::source_meta;
use crate::frontend::{Assignment, Request};
use crate::session::Session;
use crate::solver::Build;

/// How often a client may ask for more, or convert a source.
const MOST: usize = 10;

/// Asks the client about a source. What it wants to know of the source is looked up; what it converts
/// the source to, it is asked about as well.
///
/// Boxed, for a build that wants to know of a source may come to build something.
pub(super) fn ask<'a>(
    policy: &'a SourcePolicy,
    build: &'a Arc<Build>,
    session: &'a Arc<Session>,
    wanted: Wanted,
) -> BoxFuture<'a, anyhow::Result<Wanted>> {
    converse(policy, build, session, wanted).boxed()
}

async fn converse(
    policy: &SourcePolicy,
    build: &Arc<Build>,
    session: &Arc<Session>,
    mut wanted: Wanted,
) -> anyhow::Result<Wanted> {
    let channel = session.channel_for(methods::CHECK_POLICY)?;
    let mut client = PolicyVerifierClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let mut known = None;
    for _ in 0..MOST {
        let source = known.take().unwrap_or_else(|| ResolveSourceMetaResponse {
            source: Some(wanted.source.clone()),
            ..ResolveSourceMetaResponse::default()
        });
        let question = CheckPolicyRequest {
            platform: wanted.platform.clone(),
            source: Some(source),
            ..CheckPolicyRequest::default()
        };
        let answer = client.check_policy(question).await?.into_inner().result;
        match answer.context("the client has no decision about a source")? {
            Answer::Request(request) => known = Some(look_up(build, &wanted, request).await?),
            Answer::Decision(decision) => {
                let Some(update) = decided(&wanted, decision)? else { return Ok(wanted) };
                wanted.source = update;
                wanted.source.identifier = normal(&wanted.source.identifier);
                policy.convert(&mut wanted.source)?;
            }
        }
    }
    bail!("source {:?}: too many policy requests", wanted.source.identifier)
}

/// What a source is to be converted to, if it is allowed at all.
fn decided(
    wanted: &Wanted,
    decision: DecisionResponse,
) -> anyhow::Result<Option<kiln_proto::pb::SourceOp>> {
    match decision.action() {
        PolicyAction::Allow => Ok(None),
        PolicyAction::Convert => {
            let update = decision.update.context("the client converts a source to nothing")?;
            Ok(Some(update))
        }
        PolicyAction::Deny => Err(Denied::ByClient {
            identifier: wanted.source.identifier.clone(),
            action: PolicyAction::Deny.as_str_name(),
            messages: decision.deny_messages,
        }
        .into()),
    }
}

async fn look_up(
    build: &Arc<Build>,
    wanted: &Wanted,
    request: ResolveSourceMetaRequest,
) -> anyhow::Result<ResolveSourceMetaResponse> {
    if request.source.as_ref() != Some(&wanted.source) {
        bail!(
            "the policy is asked about source {:?}, but wants to know of another",
            wanted.source.identifier
        );
    }
    // What a policy looks at is no part of what is built.
    let work = Assignment::new(build.clone(), Request::default());
    let found = source_meta(&work, request).await;
    found.context("error resolving source metadata from policy request")
}
