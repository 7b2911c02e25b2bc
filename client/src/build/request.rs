//! From flags to what the daemon is asked to do.

use super::caches::Caches;
use super::exports::Exports;
use super::inputs::Inputs;
use super::policy;
use crate::args::call::{self, Call};
use crate::args::context::{self, NamedContext};
use crate::args::entitlement::{self, Allowed};
use crate::args::invalid::Invalid;
use crate::args::on_error::{self, OnError};
use crate::args::output::{self, Output};
use crate::args::secret::{self, Secret, Source};
use crate::args::ssh::{self, Ssh};
use crate::args::{
    BuildFlags, annotation, attestation, boolean, cache, hosts, key_value, platform, reference,
    resource, ulimit,
};
use crate::paths;
use crate::session::{Credentials, Services};
use crate::terminal;
use anyhow::{Context, Result, bail};
use kiln_proto::control::SolveRequest;
use kiln_proto::sourcepolicy::Policy;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The frontend that every daemon has.
const FRONTEND: &str = "dockerfile.v0";

/// All of a build that is known before the daemon is asked.
#[derive(Debug)]
pub(super) struct Plan {
    /// What the daemon is asked to do.
    pub(super) request: SolveRequest,
    /// What it may use of this machine.
    pub(super) services: Services,
    /// Identifies the context's directory.
    pub(super) shared_key: String,
    /// A question that is asked in place of a build.
    pub(super) call: Option<Call>,
    pub(super) on_error: OnError,
    pub(super) exports: Exports,
    pub(super) caches: Caches,
    /// Keeps temporary directories until the build is over.
    _temporary: Vec<TempDir>,
}

/// Names a flag in errors about its value.
macro_rules! flag {
    ($flag:literal, $value:expr) => {
        $value.context(concat!("--", $flag))
    };
}

/// Reads all values of a flag.
fn each<T>(
    flag: &str,
    values: &[String],
    parse: impl Fn(&str) -> Result<T, Invalid>,
) -> Result<Vec<T>> {
    values
        .iter()
        .filter(|value| !value.is_empty())
        .map(|value| parse(value).with_context(|| format!("--{flag} {value}")))
        .collect()
}

impl Plan {
    /// Reads a command line, and looks at the files that it names.
    pub(super) async fn prepare(flags: &BuildFlags, wants_id: bool) -> Result<Self> {
        if let Some((flag, advice)) = flags.refused.given() {
            bail!("{flag} is not supported: {advice}");
        }
        let build_args = build_args(flags)?;
        let allowed = flag!("allow", entitlement::parse(&flags.allow))?;
        let call = call_of(flags)?;
        let on_error = on_error(flags, call.as_ref())?;
        let outputs = if call.is_some() { Vec::new() } else { outputs(flags, wants_id)? };
        let caches = caches(flags, &build_args).await?;
        let contexts: Vec<NamedContext> =
            each("build-context", &flags.build_contexts, context::parse_named)?;
        let secrets = secrets(flags)?;
        let agents = agents(flags)?;

        let mut inputs = Inputs::load(&flags.context, flags.file.as_deref(), &contexts).await?;
        let mut exports = Exports::load(&outputs, &allowed).await?;
        let mut attributes = attributes(flags, &build_args)?;
        attributes.append(&mut inputs.attributes);
        attributes.extend(caches.frontend_attribute().map(|v| ("cache-imports".to_owned(), v)));

        let mut stores = caches.stores.clone();
        stores.append(&mut inputs.stores);
        stores.append(&mut exports.stores);
        let docker = paths::docker_config();
        let services = Services {
            directories: std::mem::take(&mut inputs.directories),
            targets: std::mem::take(&mut exports.targets),
            stores,
            credentials: docker
                .map_or_else(Credentials::default, |d| Credentials::of_directory(&d)),
            secrets,
            agents,
            notices: None,
            upload: inputs.upload.take(),
        };
        let request = SolveRequest {
            r#ref: build_ref(),
            frontend: frontend(&build_args, &mut attributes)?,
            frontend_attrs: attributes,
            cache: Some(caches.options.clone()),
            entitlements: entitlements(flags, allowed),
            exporter_deprecated: exports
                .exporters
                .first()
                .map(|e| e.r#type.clone())
                .unwrap_or_default(),
            exporter_attrs_deprecated: exports
                .exporters
                .first()
                .map(|exporter| exporter.attrs.clone())
                .unwrap_or_default(),
            exporters: exports.exporters.clone(),
            internal: call.is_some(),
            source_policy: policy()?,
            ..SolveRequest::default()
        };
        let Inputs { shared_key, temporary, .. } = inputs;
        Ok(Self {
            request,
            services,
            shared_key,
            call,
            on_error,
            exports,
            caches,
            _temporary: temporary,
        })
    }
}

/// The policy about sources that the environment names.
fn policy() -> Result<Option<Policy>> {
    let path = paths::env(policy::VARIABLE).filter(|path| !path.is_empty());
    path.map(|path| policy::read(Path::new(&path))).transpose()
}

/// Names a build, in the letters and digits that BuildKit's clients use.
fn build_ref() -> String {
    paths::random_id(13).chars().take(25).collect()
}

fn build_args(flags: &BuildFlags) -> Result<BTreeMap<String, String>> {
    let mut args = flag!("build-arg", key_value::build_args(&flags.build_args, paths::env))?;
    let epoch = "SOURCE_DATE_EPOCH";
    if let Some(value) = paths::env(epoch).filter(|value| !value.is_empty()) {
        args.entry(epoch.to_owned()).or_insert(value);
    }
    Ok(args)
}

fn call_of(flags: &BuildFlags) -> Result<Option<Call>> {
    let text = if flags.check { "check" } else { &flags.call };
    flag!("call", call::parse(text))
}

/// What is done about a failed step, which takes somebody at a terminal unless it is nothing.
fn on_error(flags: &BuildFlags, call: Option<&Call>) -> Result<OnError> {
    let wanted = flag!("on-error", on_error::parse(&flags.on_error))?;
    if wanted != OnError::Fail {
        if call.is_some() {
            bail!("--on-error: no step runs for --call and --check");
        }
        if !terminal::is_there() {
            bail!("--on-error: standard input and standard output have to be a terminal");
        }
    }
    Ok(wanted)
}

/// A Dockerfile may be built by a frontend that a build argument names.
fn frontend(
    build_args: &BTreeMap<String, String>,
    attributes: &mut BTreeMap<String, String>,
) -> Result<String> {
    let Some(syntax) = build_args.get("BUILDKIT_SYNTAX") else { return Ok(FRONTEND.to_owned()) };
    let command = syntax.trim();
    if command.is_empty() {
        bail!("--build-arg BUILDKIT_SYNTAX= names no frontend");
    }
    let source = command.split(' ').next().unwrap_or(command);
    attributes.insert("source".to_owned(), source.to_owned());
    attributes.insert("cmdline".to_owned(), syntax.clone());
    Ok("gateway.v0".to_owned())
}

fn outputs(flags: &BuildFlags, wants_id: bool) -> Result<Vec<Output>> {
    for tag in &flags.tags {
        flag!("tag", reference::check(tag))?;
    }
    let parsed = each("output", &flags.outputs, output::parse)?;
    let is_asked_for = !parsed.is_empty();
    let mut outputs: Vec<Output> = parsed.into_iter().flatten().collect();
    output::add_shorthands(&mut outputs, flags.push, flags.load);
    // A name without a place means the daemon's own images, and so does the wish for an id.
    if outputs.is_empty() && !is_asked_for && (!flags.tags.is_empty() || wants_id) {
        outputs.extend(flag!("output", output::parse("type=image"))?);
    }
    let is_tree = |output: &Output| matches!(output.kind.as_str(), "local" | "tar");
    if flags.iidfile.is_some() && outputs.iter().any(is_tree) {
        bail!("--iidfile: what goes to a directory or a tar file of files is no image");
    }
    let annotations = flag!("annotation", annotation::parse(&flags.annotations))?;
    for output in &mut outputs {
        output.attributes.extend(annotations.clone());
        if !flags.tags.is_empty() && matches!(output.kind.as_str(), "image" | "oci" | "docker") {
            output.attributes.insert("name".to_owned(), flags.tags.join(","));
        }
        let is_pushed = output.attributes.get("push").is_some_and(|push| boolean::holds(push));
        if is_pushed && output.attributes.get("name").is_none_or(String::is_empty) {
            bail!("--push: an image needs a name to be pushed (--tag)");
        }
    }
    Ok(outputs)
}

async fn caches(flags: &BuildFlags, build_args: &BTreeMap<String, String>) -> Result<Caches> {
    let from = each("cache-from", &flags.cache_from, cache::parse)?.concat();
    let mut to = each("cache-to", &flags.cache_to, cache::parse)?.concat();
    if build_args.get("BUILDKIT_INLINE_CACHE").is_some_and(|value| boolean::holds(value)) {
        to.push(cache::Cache::inline());
    }
    Caches::load(&from, &to, paths::env).await
}

fn secrets(flags: &BuildFlags) -> Result<Vec<Secret>> {
    let secrets = each("secret", &flags.secrets, |text| secret::parse(text, paths::env))?;
    for secret in &secrets {
        if let Source::File(path) = &secret.source {
            let metadata = std::fs::metadata(path)
                .with_context(|| format!("--secret id={}: {}", secret.id, path.display()))?;
            if metadata.len() > crate::session::MAX_SECRET {
                bail!("--secret id={}: {} is too large", secret.id, path.display());
            }
        }
    }
    Ok(secrets)
}

fn agents(flags: &BuildFlags) -> Result<BTreeMap<String, PathBuf>> {
    let mut wanted = each("ssh", &flags.ssh, ssh::parse)?;
    // A repository that is reached through ssh needs an agent, if there is one.
    if wanted.is_empty() && context::is_git_over_ssh(&flags.context) {
        let socket = std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from);
        wanted.extend(socket.map(|s| Ssh { id: ssh::DEFAULT_ID.to_owned(), socket: Some(s) }));
    }
    let mut agents = BTreeMap::new();
    for Ssh { id, socket } in wanted {
        let socket = socket
            .or_else(|| std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from))
            .with_context(|| format!("--ssh {id}: no agent runs (SSH_AUTH_SOCK is not set)"))?;
        let metadata = std::fs::metadata(&socket)
            .with_context(|| format!("--ssh {id}: {}", socket.display()))?;
        if !std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type()) {
            bail!("--ssh {id}: {} is not the socket of an agent", socket.display());
        }
        if agents.insert(id.clone(), socket).is_some() {
            bail!("--ssh {id} is given twice");
        }
    }
    Ok(agents)
}

fn entitlements(flags: &BuildFlags, allowed: Allowed) -> Vec<String> {
    let mut entitlements = allowed.entitlements;
    if flags.network == "host" {
        entitlements.push("network.host".to_owned());
    }
    entitlements
}

/// What the frontend is told, but for its files.
fn attributes(
    flags: &BuildFlags,
    build_args: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    if flags.no_cache && !flags.no_cache_filter.is_empty() {
        bail!("--no-cache and --no-cache-filter cannot be used together");
    }
    let mut attributes = BTreeMap::new();
    let mut set = |key: &str, value: String| drop(attributes.insert(key.to_owned(), value));
    for (key, value) in build_args {
        set(&format!("build-arg:{key}"), value.clone());
    }
    for (key, value) in flag!("label", key_value::labels(&flags.labels))? {
        set(&format!("label:{key}"), value);
    }
    if let Some(target) = flags.target.as_ref().filter(|target| !target.is_empty()) {
        set("target", target.clone());
    }
    if flags.pull {
        set("image-resolve-mode", "pull".to_owned());
    }
    if flags.no_cache {
        set("no-cache", String::new());
    } else if !flags.no_cache_filter.is_empty() {
        set("no-cache", flags.no_cache_filter.join(","));
    }
    let platforms: Vec<_> = flags.platforms.iter().filter(|p| !p.is_empty()).cloned().collect();
    if !platforms.is_empty() {
        set("platform", flag!("platform", platform::parse(&platforms))?);
    }
    match flags.network.as_str() {
        "" | "default" => {}
        network @ ("host" | "none") => set("force-network-mode", network.to_owned()),
        other => {
            return flag!("network", Err(Invalid::not(other, "default, none or host")));
        }
    }
    let list = |key: &str, value: String| (!value.is_empty()).then(|| (key.to_owned(), value));
    let lists = [
        list("add-hosts", flag!("add-host", hosts::parse(&flags.add_hosts))?),
        list("ulimit", flag!("ulimit", ulimit::parse(&flags.ulimits))?),
        list("cgroup-parent", flags.cgroup_parent.clone().unwrap_or_default()),
        list(
            "shm-size",
            flags.shm_size.filter(|&s| s > 0).map(|s| s.to_string()).unwrap_or_default(),
        ),
    ];
    attributes.extend(lists.into_iter().flatten());
    let classic = flags.classic.resources();
    let limits = classic.iter().chain(&flags.resources).map(String::as_str);
    attributes.extend(flag!("resource", resource::parse(limits))?);
    let (provenance, sbom) = (flags.provenance.as_deref(), flags.sbom.as_deref());
    let attestations = attestation::parse(&flags.attest, provenance, sbom, paths::env);
    attributes.extend(flag!("attest", attestations)?);
    Ok(attributes)
}

#[cfg(test)]
mod tests;
