//! The predicate in the form of SLSA 1 (<https://slsa.dev/spec/v1.0/provenance>), with BuildKit's
//! parameters (moby/buildkit, `docs/attestations/slsa-definitions.md`).

use std::collections::BTreeMap;
use std::time::SystemTime;

use kiln_cache::Descriptor;
use serde::Serialize;
use serde_json::{Map, Value};

use super::build_config::{BuildConfig, BuildSteps, StepSource, Steps};
use super::capture::Capture;
use super::options::{Mode, ProvenanceOptions};
use super::request::{ConfigSource, Local, Parameters, Used};
use super::sources::Material;
use super::timestamp;
use super::usage::ResourceUsage;
use crate::graph::VertexDigest;
use crate::image::Platform;
use crate::solver::Build;
use crate::worker;

const BUILD_TYPE: &str =
    "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";

/// `https://slsa.dev/provenance/v1`
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Predicate {
    pub(super) build_definition: BuildDefinition,
    pub(super) run_details: RunDetails,
}

/// What was to be done.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BuildDefinition {
    build_type: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) resolved_dependencies: Vec<Material>,
    pub(super) external_parameters: ExternalParameters,
    pub(super) internal_parameters: InternalParameters,
}

/// What users asked for.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExternalParameters {
    pub(super) config_source: ConfigSource,
    pub(super) request: Parameters,
}

/// What the builder made of it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct InternalParameters {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) build_config: Option<BuildSteps>,
    pub(super) builder_platform: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dockerfile_version: Option<&'static str>,
    #[serde(flatten)]
    pub(super) environment: Map<String, Value>,
}

/// How it was done.
#[derive(Clone, Debug, Serialize)]
pub(super) struct RunDetails {
    pub(super) builder: Builder,
    pub(super) metadata: Metadata,
}

/// Who did it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Builder {
    pub(super) id: String,
}

/// What else there is to say.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) invocation_id: String,
    pub(super) started_on: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) finished_on: Option<String>,
    #[serde(rename = "buildkit_metadata")]
    pub(super) steps: StepMetadata,
    #[serde(rename = "buildkit_hermetic", skip_serializing_if = "std::ops::Not::not")]
    pub(super) hermetic: bool,
    #[serde(rename = "buildkit_completeness")]
    pub(super) completeness: Completeness,
    #[serde(rename = "buildkit_reproducible", skip_serializing_if = "std::ops::Not::not")]
    pub(super) reproducible: bool,
}

/// What is known of the steps and of the client's files.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct StepMetadata {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) vcs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<StepSource>,
    /// The layers that outputs are, by step and output; each output may be several stacks.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) layers: BTreeMap<String, Vec<Vec<Descriptor>>>,
}

/// Whether everything is told.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Completeness {
    pub(super) request: bool,
    pub(super) resolved_dependencies: bool,
}

impl Predicate {
    pub(super) fn new(build: &Build, capture: &Capture, options: &ProvenanceOptions) -> Self {
        let mut request = capture.request.clone().unwrap_or_default();
        let mut is_request_complete = !request.request.frontend.is_empty();
        let vcs = request.take_vcs();
        let used = |used: &BTreeMap<String, bool>| {
            let used = used.iter();
            used.map(|(id, &optional)| Used { id: id.clone(), optional }).collect()
        };
        let locals = capture.sources.locals.iter().map(|name| Local { name: name.clone() });
        let mut parameters = Parameters {
            secrets: used(&capture.secrets),
            ssh: used(&capture.ssh),
            locals: locals.collect(),
            root: capture.root.clone().map(Box::new),
            compatibility_version: worker::COMPATIBILITY_VERSION,
            ..request.request
        };
        if options.mode == Mode::Min && parameters.minimize() {
            is_request_complete = false;
        }
        let is_dockerfile = parameters.frontend == crate::frontend::DOCKERFILE;
        let is_complete = !capture.is_incomplete();
        Self {
            build_definition: BuildDefinition {
                build_type: BUILD_TYPE,
                resolved_dependencies: capture.sources.materials(),
                external_parameters: ExternalParameters {
                    config_source: request.config_source,
                    request: parameters,
                },
                internal_parameters: InternalParameters {
                    build_config: None,
                    builder_platform: Platform::host().to_string(),
                    dockerfile_version: is_dockerfile.then_some(worker::DOCKERFILE_VERSION),
                    environment: build.daemon.config.provenance_env.0.clone(),
                },
            },
            run_details: RunDetails {
                builder: Builder { id: options.builder_id.clone() },
                metadata: Metadata {
                    invocation_id: build.id.clone(),
                    started_on: timestamp(build.started_at),
                    finished_on: None,
                    steps: StepMetadata { vcs, ..StepMetadata::default() },
                    hermetic: is_complete && !capture.has_network,
                    completeness: Completeness {
                        request: is_request_complete,
                        resolved_dependencies: is_complete,
                    },
                    reproducible: options.reproducible,
                },
            },
        }
    }

    /// Notes when the build was done.
    pub(super) fn finish(&mut self, at: SystemTime) {
        self.run_details.metadata.finished_on = Some(timestamp(at));
    }

    /// Adds every step, where it was written, the layers that it made, and what it used.
    pub(super) fn add_build_config(
        &mut self,
        config: BuildConfig,
        layers: impl FnOnce(&Steps) -> anyhow::Result<BTreeMap<String, Vec<Vec<Descriptor>>>>,
        usage: impl Fn(VertexDigest) -> Option<ResourceUsage>,
    ) -> anyhow::Result<()> {
        let metadata = &mut self.run_details.metadata.steps;
        metadata.layers = layers(&config.steps)?;
        metadata.source = config.source;
        let mut steps = BuildSteps::from(&config.steps);
        steps.add_usage(&config.steps, usage);
        self.build_definition.internal_parameters.build_config = Some(steps);
        Ok(())
    }
}
