//! SBOMs: a scanner, which is an image, looks at a result as a step of the build and writes
//! statements (moby/buildkit, `docs/attestations/sbom-protocol.md`).

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use kiln_proto::pb;
use kiln_registry::ImageRef;
use serde::Deserialize;

use super::wanted::SbomOptions;
use super::{Attestation, Content, Kind, REASON, SBOM_CORE, SPDX};
use crate::frontend::{Assignment, Ref, metadata};
use crate::graph::{Edge, Vertex, VertexMeta};
use crate::image::Platform;
use crate::solver::SolveError;

/// What the SBOM of a result is called; those of what it was made from are called after it.
const CORE: &str = "sbom";
/// Where the scanner finds what it looks at.
const SOURCE: &str = "/run/src/core/sbom";
const EXTRAS: &str = "/run/src/extras";
/// Where it writes.
const DESTINATION: &str = "/run/out/";
/// An index that means "no input" or "no output".
const NONE: i64 = -1;

/// A scanner, ready to run.
pub(crate) struct Scanner {
    work: Arc<Assignment>,
    image: ImageRef,
    files: Edge,
    args: Vec<String>,
    env: Vec<String>,
    working_dir: String,
    ignore_cache: bool,
}

/// What a scanner looks at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scanned {
    /// The result; none is an empty file system.
    pub(crate) target: Option<Edge>,
    /// What went into it, by name.
    pub(crate) extras: BTreeMap<String, Option<Edge>>,
    /// Whether it is looked at even if it was seen before.
    pub(crate) ignore_cache: bool,
}

/// What matters here of an image's config.
#[derive(Debug, Default, Deserialize)]
struct Image {
    #[serde(default)]
    config: Option<Process>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Process {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
}

impl Scanner {
    /// Resolves the scanner's image; what it writes are results of `work`.
    pub(crate) async fn new(
        work: &Arc<Assignment>,
        options: &SbomOptions,
    ) -> Result<Self, SolveError> {
        let SbomOptions { generator, parameters, resolve_mode, ignore_cache } = options;
        let platform = Platform::host();
        let (policy, mode) = (work.policy(), *resolve_mode);
        let loaded = metadata::load_permitted(work, policy, generator, &platform, mode, "").await;
        let (generator, resolved) = loaded.map_err(|error| {
            if error.is_canceled() {
                return error;
            }
            let what = format!(
                "cannot load the SBOM generator {generator} (another one can be named by \
                 generator=IMAGE)"
            );
            error.into_cause().context(what).into()
        })?;
        let image: Image = serde_json::from_slice(&resolved.config)
            .with_context(|| format!("invalid image config of {generator}"))?;
        let process = image.config.unwrap_or_default();
        let mut args = process.entrypoint.unwrap_or_default();
        args.extend(process.cmd.unwrap_or_default());
        if args.is_empty() {
            return Err(anyhow::anyhow!("the SBOM generator {generator} has no command").into());
        }
        let mut env = process.env.unwrap_or_default();
        let told = parameters.iter().map(|(name, value)| format!("BUILDKIT_SCAN_{name}={value}"));
        env.extend(told);
        let by_digest = match generator.digest() {
            Some(_) => generator.to_string(),
            None => format!("{generator}@{}", resolved.digest),
        };
        let op = pb::SourceOp {
            identifier: format!("docker-image://{by_digest}"),
            ..pb::SourceOp::default()
        };
        let op = pb::op::Op::Source(op);
        let meta = VertexMeta::default();
        let files = Vertex::new(op, Vec::new(), Some(platform.to_pb()), meta).output(0);
        let working_dir = process.working_dir.filter(|dir| !dir.is_empty());
        Ok(Self {
            work: work.clone(),
            image: generator,
            files,
            args,
            env,
            working_dir: working_dir.unwrap_or_else(|| "/".to_owned()),
            ignore_cache: *ignore_cache,
        })
    }

    /// The statements that the scanner will have written of `scanned`, which is for the platform
    /// `id`.
    pub(crate) fn attestation(&self, id: &str, scanned: &Scanned) -> Attestation {
        let files = Ref { edge: self.step(id, scanned), work: self.work.clone() };
        Attestation {
            kind: Kind::Bundle,
            metadata: BTreeMap::from([
                (REASON.to_owned(), Bytes::from_static(b"sbom")),
                (SBOM_CORE.to_owned(), Bytes::from_static(CORE.as_bytes())),
            ]),
            content: Content::Files(files),
            path: String::new(),
            predicate_type: SPDX.to_owned(),
            subjects: Vec::new(),
        }
    }

    fn step(&self, id: &str, scanned: &Scanned) -> Edge {
        let mut inputs = vec![self.files.clone()];
        let mut mounts = vec![
            pb::Mount { dest: "/".to_owned(), output: NONE, ..pb::Mount::default() },
            pb::Mount {
                input: NONE,
                dest: "/tmp".to_owned(),
                output: NONE,
                mount_type: pb::MountType::Tmpfs.into(),
                tmpfs_opt: Some(pb::TmpfsOpt::default()),
                ..pb::Mount::default()
            },
            pb::Mount { input: NONE, dest: DESTINATION.to_owned(), ..pb::Mount::default() },
        ];
        let mut look = |dest: String, edge: Option<&Edge>| {
            let input = edge.map_or(NONE, |edge| {
                inputs.push(edge.clone());
                inputs.len() as i64 - 1
            });
            mounts.push(pb::Mount {
                input,
                dest,
                output: NONE,
                readonly: true,
                ..pb::Mount::default()
            });
        };
        look(SOURCE.to_owned(), scanned.target.as_ref());
        for (name, edge) in &scanned.extras {
            look(format!("{EXTRAS}/{CORE}-{name}"), edge.as_ref());
        }
        let mut env = self.env.clone();
        env.push(format!("BUILDKIT_SCAN_DESTINATION={DESTINATION}"));
        env.push(format!("BUILDKIT_SCAN_SOURCE={SOURCE}"));
        if !scanned.extras.is_empty() {
            env.push(format!("BUILDKIT_SCAN_SOURCE_EXTRAS={EXTRAS}"));
        }
        let meta = pb::Meta {
            args: self.args.clone(),
            env,
            cwd: self.working_dir.clone(),
            ..pb::Meta::default()
        };
        let op = pb::ExecOp { meta: Some(meta), mounts, ..pb::ExecOp::default() };
        let vertex_meta = VertexMeta {
            name: format!("[{id}] generating sbom using {}", self.image),
            ignore_cache: self.ignore_cache || scanned.ignore_cache,
            ..VertexMeta::default()
        };
        let platform = Some(Platform::host().to_pb());
        Vertex::new(pb::op::Op::Exec(op), inputs, platform, vertex_meta).output(0)
    }
}
