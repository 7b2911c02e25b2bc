//! The frontend's options, by BuildKit's names.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use indexmap::IndexMap;
use kiln_dockerfile::lint::LintOptions;
use kiln_proto::pb;

use super::limits;
use super::remote_source::RemoteSource;
use crate::attestation::{SbomOptions, Wanted};
use crate::attributes::boolean;
use crate::frontend::UnsupportedCapability;
use crate::image::{Platform, Resolve};

/// The build argument with options of the lint rules.
const CHECK: &str = "build-arg:BUILDKIT_DOCKERFILE_CHECK";

/// The build argument that names another frontend.
pub(super) const SYNTAX: &str = "build-arg:BUILDKIT_SYNTAX";

/// What the frontend can do that a client may insist on (`frontend.caps`).
const CAPABILITIES: [&str; 4] = [
    "moby.buildkit.frontend.inputs",
    "moby.buildkit.frontend.subrequests",
    "moby.buildkit.frontend.contexts",
    "moby.buildkit.frontend.gitquerystring",
];

/// What the client asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    /// Path of the Dockerfile.
    pub(super) filename: String,
    /// The local source that has the Dockerfile.
    pub(super) dockerfile_source: String,
    /// Whether the client named that source itself.
    pub(super) is_dockerfile_source_given: bool,
    /// The context, if it is not the client's directory.
    pub(super) remote_context: Option<RemoteSource>,
    /// The directory of the context that counts as the context.
    pub(super) context_directory: Option<String>,
    /// Specifiers of named contexts, by name.
    pub(super) contexts: BTreeMap<String, String>,
    /// Configs of graphs that clients hand in, by name.
    pub(super) input_metadata: BTreeMap<String, String>,
    /// Tells directories apart that have the same name in different builds.
    pub(super) shared_keys: BTreeMap<String, String>,
    /// Sessions that have single local sources, where that is not the build's own.
    pub(super) sessions: BTreeMap<String, String>,
    pub(super) build_args: IndexMap<String, String>,
    /// What `SOURCE_DATE_EPOCH` is, where that was written as a name.
    pub(super) named_epoch: NamedEpoch,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) target: String,
    /// The platforms to build for; none is this daemon's.
    pub(super) platforms: Vec<Platform>,
    pub(super) multi_platform: bool,
    pub(super) resolve_mode: Resolve,
    /// Stages that do not use the cache; an empty list is all of them.
    no_cache: Option<Vec<String>>,
    pub(super) network: pb::NetMode,
    pub(super) extra_hosts: Vec<pb::HostIp>,
    pub(super) hostname: String,
    pub(super) cgroup_parent: String,
    pub(super) shm_size: i64,
    pub(super) ulimits: Vec<pb::Ulimit>,
    pub(super) resources: Option<pb::LinuxResources>,
    pub(super) cache_namespace: String,
    /// How an SBOM of the target is wanted.
    pub(super) sbom: Option<SbomOptions>,
    /// Options of the lint rules.
    pub(super) check: Option<LintOptions>,
    /// The frontend asked for, and whether another frontend asked on our behalf.
    pub(super) syntax: Option<String>,
    pub(super) is_forwarded: bool,
    /// A request for something else than a build.
    pub(super) subrequest: Option<String>,
}

/// What a `SOURCE_DATE_EPOCH` that names a source turned out to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum NamedEpoch {
    /// It names none: it is a number, or is not given.
    #[default]
    Unnamed,
    /// The source has no time.
    Timeless,
    /// The source's time, in seconds.
    At(i64),
}

impl Options {
    pub(super) fn parse(options: &BTreeMap<String, String>) -> anyhow::Result<Self> {
        let get = |name: &str| options.get(name).map(String::as_str);
        let text = |name: &str| get(name).unwrap_or_default().to_owned();
        let given = |name: &str| get(name).filter(|value| !value.is_empty()).map(str::to_owned);
        let with_prefix = |prefix: &'static str| {
            options.iter().filter_map(move |(name, value)| {
                Some((name.strip_prefix(prefix)?.to_owned(), value.clone()))
            })
        };
        refuse(options)?;
        let platforms = platforms(&text("platform"))?;
        let multi = given("build-arg:BUILDKIT_MULTI_PLATFORM").or_else(|| given("multi-platform"));
        let multi_platform = match multi {
            None => platforms.len() > 1,
            Some(text) => match (boolean(&text), platforms.len() > 1) {
                (None, _) => bail!("invalid boolean value for multi-platform: {text}"),
                (Some(false), true) => {
                    bail!("conflicting config: returning multiple target platforms is not allowed")
                }
                (Some(wanted), _) => wanted,
            },
        };
        let context = given(get("contextkey").unwrap_or("context")).unwrap_or_default();
        Ok(Self {
            filename: given("filename").unwrap_or_else(|| "Dockerfile".to_owned()),
            dockerfile_source: given("dockerfilekey").unwrap_or_else(|| "dockerfile".to_owned()),
            is_dockerfile_source_given: get("dockerfilekey").is_some(),
            remote_context: remote_context(&context, &get)?,
            context_directory: given("contextsubdir"),
            contexts: with_prefix("context:").collect(),
            input_metadata: with_prefix("input-metadata:").collect(),
            shared_keys: with_prefix("sharedkey:localdir:").collect(),
            sessions: with_prefix("local-sessionid:").collect(),
            build_args: with_prefix("build-arg:").collect(),
            named_epoch: NamedEpoch::Unnamed,
            labels: with_prefix("label:").collect(),
            target: text("target"),
            platforms,
            multi_platform,
            resolve_mode: Resolve::parse(&text("image-resolve-mode"))?,
            no_cache: get("no-cache").map(|stages| {
                stages.split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect()
            }),
            network: network(&text("force-network-mode"))?,
            extra_hosts: limits::extra_hosts(&text("add-hosts"))
                .context("failed to parse additional hosts")?,
            hostname: given("build-arg:BUILDKIT_SANDBOX_HOSTNAME")
                .unwrap_or_else(|| text("hostname")),
            cgroup_parent: text("cgroup-parent"),
            shm_size: limits::shm_size(&text("shm-size")).context("failed to parse shm size")?,
            ulimits: limits::ulimits(&text("ulimit")).context("failed to parse ulimit")?,
            resources: limits::resources(options).context("failed to parse resource limits")?,
            cache_namespace: text("build-arg:BUILDKIT_CACHE_MOUNT_NS"),
            sbom: Wanted::parse(options)?.sbom,
            check: get(CHECK)
                .map(LintOptions::parse)
                .transpose()
                .with_context(|| format!("failed to parse {CHECK}"))?,
            syntax: given(SYNTAX),
            is_forwarded: get("cmdline").is_some(),
            subrequest: given("requestid"),
        })
    }

    /// Whether the steps of the stage `name` run even if they are cached.
    pub(super) fn is_uncached(&self, name: &str) -> bool {
        self.no_cache.as_ref().is_some_and(|stages| {
            stages.is_empty() || stages.iter().any(|stage| stage.eq_ignore_ascii_case(name))
        })
    }
}

/// The context, if it is an address.
fn remote_context<'a>(
    context: &str,
    get: &impl Fn(&str) -> Option<&'a str>,
) -> anyhow::Result<Option<RemoteSource>> {
    let mut remote = RemoteSource::parse_context(context)?;
    if let Some(RemoteSource::Git(git)) = &mut remote {
        if get("build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR").and_then(boolean) == Some(true) {
            git.keep_git_dir = Some(true);
        }
        // Times that depend on when the files were checked out would be in the result.
        if get("build-arg:SOURCE_DATE_EPOCH").is_some_and(|epoch| !epoch.is_empty()) {
            git.mtime = Some("commit".to_owned());
        }
    }
    Ok(remote)
}

/// Wishes that would otherwise be passed over in silence.
fn refuse(options: &BTreeMap<String, String>) -> anyhow::Result<()> {
    let wanted = options.get("frontend.caps").map_or("", String::as_str).split(',');
    for capability in wanted.filter(|capability| !capability.is_empty()) {
        // After a plus sign: what to do where another frontend is asked for.
        let capability = capability.split('+').next().unwrap_or_default();
        if !CAPABILITIES.contains(&capability) {
            bail!(UnsupportedCapability(capability.to_owned()));
        }
    }
    Ok(())
}

fn platforms(text: &str) -> anyhow::Result<Vec<Platform>> {
    let parse = |name: &str| {
        name.parse().with_context(|| format!("failed to parse target platform {name}"))
    };
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(parse).collect()
}

fn network(text: &str) -> anyhow::Result<pb::NetMode> {
    match text {
        "" | "sandbox" => Ok(pb::NetMode::Unset),
        "none" => Ok(pb::NetMode::None),
        "host" => Ok(pb::NetMode::Host),
        other => bail!("invalid netmode {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> anyhow::Result<Options> {
        let map = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Options::parse(&map)
    }

    #[test]
    fn no_cache_is_for_all_stages_or_those_named() {
        assert!(!options(&[]).unwrap().is_uncached("a"));
        assert!(options(&[("no-cache", "")]).unwrap().is_uncached(""));
        let some = options(&[("no-cache", "a,B")]).unwrap();
        assert!(some.is_uncached("A") && some.is_uncached("b") && !some.is_uncached("c"));
    }

    #[test]
    fn capabilities_are_refused_by_name() {
        let caps = |caps| options(&[("frontend.caps", caps)]).map(|_| ());
        assert!(caps("").is_ok());
        assert!(
            caps("moby.buildkit.frontend.contexts+forward,moby.buildkit.frontend.inputs").is_ok()
        );
        for wanted in ["moby.buildkit.frontend.inputs,other", "other+forward"] {
            let error = caps(wanted).unwrap_err();
            assert_eq!(error.downcast::<UnsupportedCapability>().unwrap().0, "other", "{wanted}");
        }
    }

    #[test]
    fn several_platforms_make_a_multi_platform_build() {
        assert!(!options(&[("platform", "linux/amd64")]).unwrap().multi_platform);
        let two = [("platform", "linux/amd64,linux/arm64")];
        assert!(options(&two).unwrap().multi_platform);
        let one = [("platform", "linux/amd64"), ("multi-platform", "true")];
        assert!(options(&one).unwrap().multi_platform);
        let conflict = [two[0], ("multi-platform", "0")];
        assert!(options(&conflict).is_err());
    }

    #[test]
    fn only_remote_contexts_count_as_such() {
        assert_eq!(options(&[("context", "local:x")]).unwrap().remote_context, None);
        let url = "https://example.com/a.tar";
        let expected = Some(RemoteSource::Http(url.to_owned()));
        assert_eq!(options(&[("context", url)]).unwrap().remote_context, expected);
    }

    #[test]
    fn a_repository_as_context_is_checked_out_as_the_arguments_say() {
        let git = |more: &[(&str, &str)]| {
            let pairs = [&[("context", "https://h/a.git")], more].concat();
            match options(&pairs).unwrap().remote_context {
                Some(RemoteSource::Git(git)) => (git.keep_git_dir, git.mtime),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(git(&[]), (None, None));
        let keep = ("build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR", "1");
        assert_eq!(git(&[keep]), (Some(true), None));
        let epoch = ("build-arg:SOURCE_DATE_EPOCH", "context");
        assert_eq!(git(&[epoch]), (None, Some("commit".to_owned())));
        assert!(options(&[("context", "https://h/a.git?invalid=x")]).is_err());
    }
}
