//! The provenance of a build for its metadata file, from the daemon's record of the build.

use super::solve::Response;
use crate::args::boolean;
use crate::daemon::Daemon;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_proto::content::ReadContentRequest;
use kiln_proto::control::{BuildHistoryRecord, BuildHistoryRequest, BuildResultInfo, Descriptor};
use serde_json::{Map, Value, json};
use tonic::{Code, Status};

/// Where the provenance is in the metadata file; behind it is the platform, if there are several.
const KEY: &str = "buildx.build.provenance";
const MEDIA_TYPE: &str = "application/vnd.in-toto+json";
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
const SLSA: &str = "https://slsa.dev/provenance/";
const SLSA_1: &str = "https://slsa.dev/provenance/v1";
const BUILD_TYPE: &str = "https://mobyproject.org/buildkit@v1";
/// Provenance larger than this is taken for a mistake.
const MAX_SIZE: usize = 64 << 20;

/// How much of the provenance the metadata file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Disabled,
    /// Neither steps nor times.
    Min,
    Max,
}

impl Mode {
    /// What `BUILDX_METADATA_PROVENANCE` says.
    pub(super) fn of_environment(env: impl Fn(&str) -> Option<String>) -> Self {
        match env("BUILDX_METADATA_PROVENANCE").as_deref() {
            Some("max") => Self::Max,
            Some("disabled") => Self::Disabled,
            Some(other) if boolean::parse(other) == Ok(false) => Self::Disabled,
            _ => Self::Min,
        }
    }
}

/// Asks for the provenance of a build that is done. Of a daemon that keeps no record there is none.
pub(super) async fn fetch(daemon: &Daemon, build: &str, mode: Mode) -> Result<Response, Status> {
    let mut told = Response::new();
    if mode == Mode::Disabled {
        return Ok(told);
    }
    let request =
        BuildHistoryRequest { r#ref: build.to_owned(), early_exit: true, ..Default::default() };
    let mut events = match daemon.control().listen_build_history(request).await {
        Ok(events) => events.into_inner(),
        Err(status) if status.code() == Code::Unimplemented => return Ok(told),
        Err(status) => return Err(status),
    };
    while let Some(event) = events.message().await? {
        let Some(record) = event.record else { continue };
        for (key, result) in results(&record) {
            let Some((descriptor, kind)) = provenance(result) else { continue };
            let predicate = read(daemon, descriptor).await?;
            let predicate: Value = serde_json::from_slice(&predicate)
                .map_err(|error| Status::internal(format!("invalid provenance: {error}")))?;
            let predicate = if kind == SLSA_1 { to_slsa_02(predicate) } else { predicate };
            told.insert(key, STANDARD.encode(reduced(predicate, mode).to_string()));
        }
    }
    Ok(told)
}

/// The results of a build by what they are called in the metadata file.
fn results(record: &BuildHistoryRecord) -> Vec<(String, &BuildResultInfo)> {
    if record.results.is_empty() {
        return record.result.iter().map(|result| (KEY.to_owned(), result)).collect();
    }
    let by_platform = record.results.iter();
    by_platform.map(|(platform, result)| (format!("{KEY}/{platform}"), result)).collect()
}

fn provenance(result: &BuildResultInfo) -> Option<(&Descriptor, &str)> {
    result.attestations.iter().find_map(|attestation| {
        let kind = attestation.annotations.get(PREDICATE_TYPE)?;
        let is_provenance = attestation.media_type == MEDIA_TYPE && kind.starts_with(SLSA);
        is_provenance.then_some((attestation, kind.as_str()))
    })
}

async fn read(daemon: &Daemon, descriptor: &Descriptor) -> Result<Vec<u8>, Status> {
    let request =
        ReadContentRequest { digest: descriptor.digest.clone(), ..ReadContentRequest::default() };
    let mut pieces = daemon.content().read(request).await?.into_inner();
    let mut content = Vec::new();
    while let Some(piece) = pieces.message().await? {
        content.extend_from_slice(&piece.data);
        if content.len() > MAX_SIZE {
            return Err(Status::resource_exhausted(format!("it has more than {MAX_SIZE} bytes")));
        }
    }
    Ok(content)
}

fn reduced(mut predicate: Value, mode: Mode) -> Value {
    if mode == Mode::Min
        && let Some(members) = predicate.as_object_mut()
    {
        members.remove("buildConfig");
        members.remove("metadata");
    }
    predicate
}

/// SLSA 1 as SLSA 0.2, which is what metadata files have.
fn to_slsa_02(mut predicate: Value) -> Value {
    let mut take = |path: &str| predicate.pointer_mut(path).map(Value::take).unwrap_or_default();
    let mut config_source = take("/buildDefinition/externalParameters/configSource");
    rename(&mut config_source, "path", "entryPoint");
    let mut environment = take("/buildDefinition/internalParameters");
    let build_config = environment.as_object_mut().and_then(|it| it.remove("buildConfig"));
    rename(&mut environment, "builderPlatform", "platform");
    let metadata = take("/runDetails/metadata");
    let of = |name: &str| metadata.get(name).cloned().unwrap_or_default();
    let completeness = of("buildkit_completeness");
    let is = |value: &Value| value.as_bool().unwrap_or_default();
    without_null(json!({
        "builder": take("/runDetails/builder"),
        "buildType": BUILD_TYPE,
        "materials": take("/buildDefinition/resolvedDependencies"),
        "invocation": {
            "configSource": config_source,
            "parameters": take("/buildDefinition/externalParameters/request"),
            "environment": environment,
        },
        "buildConfig": build_config,
        "metadata": without_null(json!({
            "buildInvocationID": of("invocationId"),
            "buildStartedOn": of("startedOn"),
            "buildFinishedOn": of("finishedOn"),
            "completeness": {
                "parameters": is(&completeness["request"]),
                "environment": true,
                "materials": is(&completeness["resolvedDependencies"]),
            },
            "reproducible": is(&of("buildkit_reproducible")),
            "https://mobyproject.org/buildkit@v1#metadata": of("buildkit_metadata"),
            "https://mobyproject.org/buildkit@v1#hermetic": of("buildkit_hermetic"),
        })),
    }))
}

fn rename(object: &mut Value, from: &str, to: &str) {
    let Some(members) = object.as_object_mut() else { return };
    if let Some(value) = members.remove(from) {
        members.insert(to.to_owned(), value);
    }
}

fn without_null(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(members.collect::<Map<_, _>>())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_predicates_are_told_in_the_older_form() {
        let predicate = json!({
            "buildDefinition": {
                "buildType": "x",
                "resolvedDependencies": [{ "uri": "pkg:docker/a" }],
                "externalParameters": {
                    "configSource": { "path": "Dockerfile" },
                    "request": { "frontend": "dockerfile.v0" },
                },
                "internalParameters": {
                    "buildConfig": { "llbDefinition": [] },
                    "builderPlatform": "linux/amd64",
                    "foo": "bar",
                },
            },
            "runDetails": {
                "builder": { "id": "b" },
                "metadata": {
                    "invocationId": "i",
                    "startedOn": "s",
                    "buildkit_metadata": {},
                    "buildkit_completeness": { "request": true, "resolvedDependencies": false },
                },
            },
        });
        let older = to_slsa_02(predicate);
        let least = json!({
            "builder": { "id": "b" },
            "buildType": BUILD_TYPE,
            "materials": [{ "uri": "pkg:docker/a" }],
            "invocation": {
                "configSource": { "entryPoint": "Dockerfile" },
                "parameters": { "frontend": "dockerfile.v0" },
                "environment": { "platform": "linux/amd64", "foo": "bar" },
            },
        });
        assert_eq!(reduced(older.clone(), Mode::Min), least);
        let completeness = json!({ "parameters": true, "environment": true, "materials": false });
        assert_eq!(
            reduced(older, Mode::Max)["metadata"],
            json!({
                "buildInvocationID": "i",
                "buildStartedOn": "s",
                "completeness": completeness,
                "reproducible": false,
                "https://mobyproject.org/buildkit@v1#metadata": {},
            })
        );
    }

    #[test]
    fn the_environment_says_how_much_the_metadata_file_has() {
        let mode = |value: Option<&str>| Mode::of_environment(|_| value.map(str::to_owned));
        for (value, expected) in [
            (None, Mode::Min),
            (Some("anything"), Mode::Min),
            (Some("max"), Mode::Max),
            (Some("disabled"), Mode::Disabled),
            (Some("false"), Mode::Disabled),
        ] {
            assert_eq!(mode(value), expected, "{value:?}");
        }
    }
}
