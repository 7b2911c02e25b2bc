//! Results as the gateway's messages say them, and back.

use std::collections::BTreeMap;

use kiln_proto::gateway;
use tonic::Status;

use super::GatewayBuild;
use crate::attestation::{Attestation, Content, Kind, Subject};
use crate::frontend::{FrontendResult, Ref, Refs};
use crate::graph::to_definition;

/// The message for a result, its parts named for later calls.
pub(super) fn to_message(build: &GatewayBuild, result: &FrontendResult) -> gateway::Result {
    let refs = match &result.refs {
        Refs::Single(one) => gateway::result::Result::Ref(named(build, one.as_ref())),
        Refs::Many(refs) => gateway::result::Result::Refs(gateway::RefMap {
            refs: refs.iter().map(|(id, one)| (id.clone(), named(build, one.as_ref()))).collect(),
        }),
    };
    let metadata = result.metadata.iter().map(|(key, value)| (key.clone(), value.clone()));
    let attestations = result.attestations.iter().map(|(platform, attestations)| {
        let attestation = attestations.iter().map(|one| attestation_to(build, one)).collect();
        (platform.clone(), gateway::Attestations { attestation })
    });
    gateway::Result {
        result: Some(refs),
        metadata: metadata.collect(),
        attestations: attestations.collect(),
    }
}

fn named(build: &GatewayBuild, result: Option<&Ref>) -> gateway::Ref {
    gateway::Ref {
        id: result.map(|_| build.name(result)).unwrap_or_default(),
        def: result.map(|result| to_definition(Some(&result.edge))),
    }
}

fn attestation_to(build: &GatewayBuild, attestation: &Attestation) -> gateway::Attestation {
    let kind = match attestation.kind {
        Kind::InToto => gateway::AttestationKind::InToto,
        Kind::Bundle => gateway::AttestationKind::Bundle,
    };
    let subjects = attestation.subjects.iter().map(|subject| match subject {
        Subject::Itself { name } => gateway::InTotoSubject {
            kind: gateway::InTotoSubjectKind::Self_.into(),
            name: name.clone(),
            digest: Vec::new(),
        },
        Subject::Other { name, digests } => gateway::InTotoSubject {
            kind: gateway::InTotoSubjectKind::Raw.into(),
            name: name.clone(),
            digest: digests.iter().map(|(kind, digest)| format!("{kind}:{digest}")).collect(),
        },
    });
    let files = match &attestation.content {
        Content::Files(files) => Some(files),
        // Made by the daemon, after all frontends.
        Content::Nothing | Content::Provenance(_) => None,
    };
    gateway::Attestation {
        kind: kind.into(),
        metadata: attestation.metadata.clone().into_iter().collect(),
        r#ref: files.map(|files| named(build, Some(files))),
        path: attestation.path.clone(),
        in_toto_predicate_type: attestation.predicate_type.clone(),
        in_toto_subjects: subjects.collect(),
    }
}

/// The result that a message names.
pub(super) fn from_message(
    build: &GatewayBuild,
    message: gateway::Result,
) -> Result<FrontendResult, Status> {
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
    let mut attestations = BTreeMap::new();
    for (platform, message) in message.attestations {
        let converted = message.attestation.into_iter().map(|one| attestation_from(build, one));
        attestations.insert(platform, converted.collect::<Result<_, Status>>()?);
    }
    let metadata = message.metadata.into_iter().collect();
    Ok(FrontendResult { refs, metadata, attestations })
}

fn attestation_from(
    build: &GatewayBuild,
    message: gateway::Attestation,
) -> Result<Attestation, Status> {
    let invalid = |what: &str, number: i32| {
        Status::invalid_argument(format!("unknown attestation {what} {number}"))
    };
    let kind = match gateway::AttestationKind::try_from(message.kind) {
        Ok(gateway::AttestationKind::InToto) => Kind::InToto,
        Ok(gateway::AttestationKind::Bundle) => Kind::Bundle,
        Err(_) => return Err(invalid("kind", message.kind)),
    };
    let subject = |subject: gateway::InTotoSubject| {
        let name = subject.name;
        match gateway::InTotoSubjectKind::try_from(subject.kind) {
            Ok(gateway::InTotoSubjectKind::Self_) => Ok(Subject::Itself { name }),
            Ok(gateway::InTotoSubjectKind::Raw) => {
                let digests = subject.digest.iter().map(|digest| {
                    let (kind, digest) = digest.split_once(':').ok_or_else(|| {
                        Status::invalid_argument(format!("invalid digest {digest:?} of {name:?}"))
                    })?;
                    Ok((kind.to_owned(), digest.to_owned()))
                });
                let digests = digests.collect::<Result<_, Status>>()?;
                Ok(Subject::Other { name, digests })
            }
            Err(_) => Err(invalid("subject kind", subject.kind)),
        }
    };
    let subjects = message.in_toto_subjects.into_iter().map(subject);
    let files = match message.r#ref {
        Some(named) => find(build, &named.id)?,
        None => None,
    };
    Ok(Attestation {
        kind,
        subjects: subjects.collect::<Result<_, Status>>()?,
        metadata: message.metadata.into_iter().collect(),
        content: files.map_or(Content::Nothing, Content::Files),
        path: message.path,
        predicate_type: message.in_toto_predicate_type,
    })
}

/// The result of that name; the empty name is scratch.
pub(super) fn find(build: &GatewayBuild, id: &str) -> Result<Option<Ref>, Status> {
    if id.is_empty() {
        return Ok(None);
    }
    build.find(id).map_err(|unknown| Status::not_found(unknown.to_string()))
}
