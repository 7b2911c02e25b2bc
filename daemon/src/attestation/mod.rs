//! What is attested of results: where they come from ([`provenance`](crate::provenance)), what is
//! in them (an SBOM, which a [scanner](scanner) writes), and what frontends have to say.
//!
//! An attestation is an in-toto statement: a predicate, and the subjects that it is about. Until
//! it is exported it is not known what the subjects are, nor when the build is done, so what
//! travels with a result is how the predicate is had.

mod bundle;
mod scanner;
mod statement;
mod wanted;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::frontend::{Assignment, FrontendResult, Ref, Request};
use crate::provenance::{self, Provenance};
use crate::solver::{Build, SolveError};

pub(crate) use bundle::unbundle;
pub(crate) use scanner::{Scanned, Scanner};
pub(crate) use statement::{DigestSet, Statement, StatementSubject};
pub(crate) use wanted::{SbomOptions, Wanted};

/// The type of statements, and of the blobs that hold them.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.in-toto+json";
/// Says in a manifest what a statement is about.
pub(crate) const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
/// The predicate that an SBOM is.
pub(crate) const SPDX: &str = "https://spdx.dev/Document";
/// What the types of provenance begin with.
const PROVENANCE: &str = "https://slsa.dev/provenance/";

/// Keys of what is said of an attestation besides (moby/buildkit, `solver/result/attestation.go`).
const REASON: &str = "reason";
const SBOM_CORE: &str = "sbom-core";
const INLINE_ONLY: &str = "inline-only";

/// Something that is attested of a file system.
#[derive(Clone, Debug)]
pub(crate) struct Attestation {
    pub(crate) kind: Kind,
    pub(crate) metadata: BTreeMap<String, Bytes>,
    pub(crate) content: Content,
    /// Of the predicate, or of the directory of a bundle's statements.
    pub(crate) path: String,
    pub(crate) predicate_type: String,
    pub(crate) subjects: Vec<Subject>,
}

/// What the content of an attestation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A predicate.
    InToto,
    /// A directory of statements.
    Bundle,
}

/// How the content of an attestation is had.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Nothing,
    /// A file or a directory of a result.
    Files(Ref),
    Provenance(Arc<Provenance>),
}

/// What an attestation is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Whatever is exported, and by this name if it is not empty.
    Itself {
        name: String,
    },
    Other {
        name: String,
        digests: DigestSet,
    },
}

impl Attestation {
    /// Whether only images hold it, and only those in which it is usual.
    pub(crate) fn is_inline_only(&self) -> bool {
        self.metadata.get(INLINE_ONLY).is_some_and(|value| value.as_ref() == b"true")
    }

    /// Whether it is the SBOM of the result itself, and not of what it was made from.
    pub(crate) fn is_core_sbom(&self) -> bool {
        let stem = self.filename().split('.').next().unwrap_or_default();
        self.metadata.get(SBOM_CORE).is_some_and(|name| name.as_ref() == stem.as_bytes())
    }

    /// The last part of its path.
    pub(crate) fn filename(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    fn of_provenance(provenance: Arc<Provenance>) -> Self {
        let inline_only = provenance.is_inline_only().to_string();
        Self {
            kind: Kind::InToto,
            metadata: BTreeMap::from([
                (REASON.to_owned(), Bytes::from_static(b"provenance")),
                (INLINE_ONLY.to_owned(), inline_only.into()),
            ]),
            path: provenance.filename().to_owned(),
            predicate_type: provenance.predicate_type().to_owned(),
            subjects: Vec::new(),
            content: Content::Provenance(provenance),
        }
    }
}

/// Adds what the client wants attested to `result`, which is solved, and makes everything that
/// takes steps.
pub(crate) async fn complete(
    build: &Arc<Build>,
    wanted: &Wanted,
    result: &mut FrontendResult,
) -> Result<(), SolveError> {
    let mut all = std::mem::take(&mut result.attestations);
    let is_sbom = |attestation: &Attestation| attestation.predicate_type == SPDX;
    if let Some(sbom) = &wanted.sbom
        && !all.values().flatten().any(is_sbom)
    {
        add_sboms(build, sbom, result, &mut all).await?;
    }
    if let Some(options) = &wanted.provenance {
        let platforms = result.platforms()?;
        for (id, provenance) in provenance::of_result(build, result, &platforms, options)? {
            all.entry(id).or_default().push(Attestation::of_provenance(provenance));
        }
    }
    for attestation in all.values_mut().flatten() {
        if let Content::Files(files) = &mut attestation.content {
            files.edge = build.admit(&files.edge).await?;
            build.solve(&files.edge).await?;
        }
    }
    result.attestations = all;
    Ok(())
}

/// Lets a scanner look at each file system of a result whose frontend has not done so.
async fn add_sboms(
    build: &Arc<Build>,
    options: &SbomOptions,
    result: &FrontendResult,
    all: &mut BTreeMap<String, Vec<Attestation>>,
) -> Result<(), SolveError> {
    let work = Assignment::new(build.clone(), Request::default());
    let scanner = Scanner::new(&work, options).await?;
    for (id, _) in result.platforms()? {
        let Some(target) = result.refs.of_platform(&id) else { continue };
        let scanned = Scanned { target: Some(target.edge.clone()), ..Scanned::default() };
        let attestation = scanner.attestation(&id, &scanned);
        all.entry(id).or_default().push(attestation);
    }
    Ok(())
}
