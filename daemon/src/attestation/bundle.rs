//! Reading what attestations hold.

use std::io::Read as _;
use std::sync::Arc;

use kiln_snapshotter::{Entry, Follow, FsError, View};
use serde_json::Value;

use super::{Attestation, Content, Kind, PROVENANCE, Statement, Subject};
use crate::frontend::Ref;
use crate::solver::{Build, SolveError};

/// A statement larger than this is refused.
const MAX_SIZE: u64 = 40 << 20;

/// Why an attestation was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttestationError {
    #[error("attestation does not have set path")]
    NoPath,
    #[error("attestation does not have available content")]
    NoContent,
    #[error("frontend may not set provenance attestations")]
    Provenance,
    #[error("{0} is not a regular file")]
    NoFile(String),
    #[error("{0} exceeds {MAX_SIZE} bytes")]
    TooLarge(String),
    #[error("cannot read the attestation {path}")]
    Read { path: String, source: std::io::Error },
    #[error("cannot open the attestation {path}")]
    Open { path: String, source: FsError },
    #[error("{path} is not an in-toto statement")]
    Statement { path: String, source: serde_json::Error },
    #[error("{path} is not JSON")]
    Predicate { path: String, source: serde_json::Error },
    #[error("bundle entry {found} does not match required predicate type {required}")]
    Type { found: String, required: String },
}

/// The predicates of `attestations`, each with the attestation that it is of, and with one for each
/// statement of a bundle. The SBOM of the result itself comes first.
pub(crate) async fn unbundle(
    build: &Arc<Build>,
    attestations: &[Attestation],
) -> anyhow::Result<Vec<(Attestation, Value)>> {
    let mut all = Vec::new();
    for attestation in attestations {
        match (attestation.kind, &attestation.content) {
            (Kind::InToto, _) if attestation.path.is_empty() => {
                return Err(AttestationError::NoPath.into());
            }
            (_, Content::Nothing) => return Err(AttestationError::NoContent.into()),
            (Kind::InToto, content) => {
                let is_own = matches!(content, Content::Provenance(_));
                if !is_own && attestation.predicate_type.starts_with(PROVENANCE) {
                    return Err(AttestationError::Provenance.into());
                }
                let predicate = predicate(build, attestation).await?;
                all.push((attestation.clone(), predicate));
            }
            (Kind::Bundle, Content::Files(files)) => {
                let view = view(build, files).await?;
                let bundle = attestation.clone();
                let statements = move || statements(&view, &bundle);
                all.extend(tokio::task::spawn_blocking(statements).await??);
            }
            (Kind::Bundle, Content::Provenance(_)) => {
                return Err(AttestationError::NoContent.into());
            }
        }
    }
    all.sort_by_key(|(attestation, _)| !attestation.is_core_sbom());
    Ok(all)
}

async fn view(build: &Arc<Build>, files: &Ref) -> anyhow::Result<View> {
    let snapshot = build.solve(&files.edge).await.map_err(SolveError::into_cause)?;
    build.daemon.layers.fetch(build, &snapshot).await?;
    build.daemon.layers.view(&snapshot)
}

async fn predicate(build: &Arc<Build>, attestation: &Attestation) -> anyhow::Result<Value> {
    let path = attestation.path.clone();
    let bytes = match &attestation.content {
        Content::Nothing => return Err(AttestationError::NoContent.into()),
        Content::Provenance(provenance) => provenance.write(build)?,
        Content::Files(files) => {
            let (view, path) = (view(build, files).await?, path.clone());
            let read = move || {
                let opened = |source| AttestationError::Open { path: path.clone(), source };
                let entry = view.lookup(&path, Follow::Last).map_err(opened)?;
                read(&entry.ok_or_else(|| AttestationError::NoFile(path.clone()))?, &path)
            };
            tokio::task::spawn_blocking(read).await??
        }
    };
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let predicate = serde_json::from_slice(&bytes);
    Ok(predicate.map_err(|source| AttestationError::Predicate { path, source })?)
}

/// The statements in a bundle's directory, in the order of their names.
fn statements(
    view: &View,
    bundle: &Attestation,
) -> Result<Vec<(Attestation, Value)>, AttestationError> {
    let dir = if bundle.path.is_empty() { "/" } else { &bundle.path };
    let opened = |source| AttestationError::Open { path: dir.to_owned(), source };
    let mut entries = view.read_dir(dir).map_err(opened)?;
    entries.sort_by(|a, b| a.path().cmp(b.path()));
    entries.iter().map(|entry| statement(entry, bundle)).collect()
}

fn statement(
    entry: &Entry,
    bundle: &Attestation,
) -> Result<(Attestation, Value), AttestationError> {
    let path = entry.path().to_string_lossy().into_owned();
    let bytes = read(entry, &path)?;
    let statement: Statement = serde_json::from_slice(&bytes)
        .map_err(|source| AttestationError::Statement { path: path.clone(), source })?;
    let required = &bundle.predicate_type;
    if !required.is_empty() && statement.predicate_type != *required {
        let (found, required) = (statement.predicate_type, required.clone());
        return Err(AttestationError::Type { found, required });
    }
    if statement.predicate_type.starts_with(PROVENANCE) {
        return Err(AttestationError::Provenance);
    }
    let about = |subject: super::StatementSubject| Subject::Other {
        name: subject.name,
        digests: subject.digest,
    };
    let attestation = Attestation {
        kind: Kind::InToto,
        path,
        predicate_type: statement.predicate_type,
        subjects: statement.subject.into_iter().map(about).collect(),
        ..bundle.clone()
    };
    Ok((attestation, statement.predicate))
}

fn read(entry: &Entry, path: &str) -> Result<Vec<u8>, AttestationError> {
    if !entry.metadata().is_file() {
        return Err(AttestationError::NoFile(path.to_owned()));
    }
    let file = entry.open();
    let file = file.map_err(|source| AttestationError::Open { path: path.to_owned(), source })?;
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| AttestationError::Read { path: path.to_owned(), source })?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(AttestationError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}
