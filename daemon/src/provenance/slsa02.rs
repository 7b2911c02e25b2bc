//! The predicate in the form of SLSA 0.2 (<https://slsa.dev/spec/v0.2/provenance>).

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::build_config::BuildSteps;
use super::predicate::{self, Builder, StepMetadata};
use super::request::Parameters;
use super::sources::{DigestSet, Material};

const BUILD_TYPE: &str = "https://mobyproject.org/buildkit@v1";

/// `https://slsa.dev/provenance/v0.2`
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Predicate<'a> {
    builder: &'a Builder,
    build_type: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    materials: &'a [Material],
    invocation: Invocation<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build_config: Option<&'a BuildSteps>,
    metadata: Metadata<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Invocation<'a> {
    config_source: ConfigSource<'a>,
    parameters: &'a Parameters,
    environment: Environment<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ConfigSource<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    uri: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    digest: &'a DigestSet,
    #[serde(skip_serializing_if = "str::is_empty")]
    entry_point: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Environment<'a> {
    platform: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dockerfile_version: Option<&'static str>,
    #[serde(flatten)]
    more: &'a Map<String, Value>,
}

#[derive(Debug, Serialize)]
struct Metadata<'a> {
    #[serde(rename = "buildInvocationID")]
    invocation_id: &'a str,
    #[serde(rename = "buildStartedOn")]
    started_on: &'a str,
    #[serde(rename = "buildFinishedOn", skip_serializing_if = "Option::is_none")]
    finished_on: Option<&'a str>,
    completeness: Completeness,
    reproducible: bool,
    #[serde(rename = "https://mobyproject.org/buildkit@v1#metadata")]
    steps: &'a StepMetadata,
    #[serde(
        rename = "https://mobyproject.org/buildkit@v1#hermetic",
        skip_serializing_if = "std::ops::Not::not"
    )]
    hermetic: bool,
}

#[derive(Debug, Serialize)]
struct Completeness {
    parameters: bool,
    environment: bool,
    materials: bool,
}

impl<'a> From<&'a predicate::Predicate> for Predicate<'a> {
    fn from(predicate: &'a predicate::Predicate) -> Self {
        let definition = &predicate.build_definition;
        let (external, internal) =
            (&definition.external_parameters, &definition.internal_parameters);
        let metadata = &predicate.run_details.metadata;
        Self {
            builder: &predicate.run_details.builder,
            build_type: BUILD_TYPE,
            materials: &definition.resolved_dependencies,
            invocation: Invocation {
                config_source: ConfigSource {
                    uri: &external.config_source.uri,
                    digest: &external.config_source.digest,
                    entry_point: &external.config_source.path,
                },
                parameters: &external.request,
                environment: Environment {
                    platform: &internal.builder_platform,
                    dockerfile_version: internal.dockerfile_version,
                    more: &internal.environment,
                },
            },
            build_config: internal.build_config.as_ref(),
            metadata: Metadata {
                invocation_id: &metadata.invocation_id,
                started_on: &metadata.started_on,
                finished_on: metadata.finished_on.as_deref(),
                completeness: Completeness {
                    parameters: metadata.completeness.request,
                    environment: true,
                    materials: metadata.completeness.resolved_dependencies,
                },
                reproducible: metadata.reproducible,
                steps: &metadata.steps,
                hermetic: metadata.hermetic,
            },
        }
    }
}
