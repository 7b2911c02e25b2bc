//! The flags of `kiln build`, which are those of `docker buildx build`.

use super::{boolean, size};
use clap::{ArgAction, Args, ValueEnum};
use std::path::PathBuf;

/// The command line of `kiln build`.
#[derive(Debug, Args)]
pub(crate) struct BuildFlags {
    /// The context: a directory, a git repository, a URL, or - for an archive or a Dockerfile on
    /// standard input
    #[arg(value_name = "PATH | URL | -")]
    pub(crate) context: String,

    /// The Dockerfile, or - for standard input [default: PATH/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<String>,

    /// A name of the image: [REGISTRY/]REPOSITORY[:TAG]
    #[arg(short, long = "tag", value_name = "NAME")]
    pub(crate) tags: Vec<String>,

    /// Set a build argument; without a value it is the environment's
    #[arg(long = "build-arg", value_name = "KEY[=VALUE]", allow_hyphen_values = true)]
    pub(crate) build_args: Vec<String>,

    /// Build up to this stage
    #[arg(long)]
    pub(crate) target: Option<String>,

    /// Where the result goes: a directory, - or type=image|registry|local|tar|oci|docker,KEY=VALUE
    #[arg(short, long = "output", value_name = "DIR | - | type=TYPE,...")]
    pub(crate) outputs: Vec<String>,

    /// Push the image to its registry
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", hide_default_value = true, hide_possible_values = true,
          value_parser = boolean::parse, action = ArgAction::Set, value_name = "BOOL")]
    pub(crate) push: bool,

    /// Load the image into the docker engine of this machine
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", hide_default_value = true, hide_possible_values = true,
          value_parser = boolean::parse, action = ArgAction::Set, value_name = "BOOL")]
    pub(crate) load: bool,

    /// Rerun every step
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", hide_default_value = true, hide_possible_values = true,
          value_parser = boolean::parse, action = ArgAction::Set, value_name = "BOOL")]
    pub(crate) no_cache: bool,

    /// Rerun every step of a stage
    #[arg(long, value_name = "STAGE")]
    pub(crate) no_cache_filter: Vec<String>,

    /// Ask registries for newer base images
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", hide_default_value = true, hide_possible_values = true,
          value_parser = boolean::parse, action = ArgAction::Set, value_name = "BOOL")]
    pub(crate) pull: bool,

    /// How progress is shown [default: tty on a terminal, or else plain]
    #[arg(long, value_enum, default_value = "auto", hide_default_value = true)]
    pub(crate) progress: ProgressMode,

    /// What comes after a step that fails: fail; or shell, to look around in it as it was left; or the
    /// path of another program in it
    #[arg(
        long,
        default_value = "fail",
        hide_default_value = true,
        value_name = "fail | shell | PROGRAM"
    )]
    pub(crate) on_error: String,

    /// Show nothing, and print the image's id at the end
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", hide_default_value = true, hide_possible_values = true,
          value_parser = boolean::parse, action = ArgAction::Set, value_name = "BOOL")]
    pub(crate) quiet: bool,

    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,

    /// Write what is known of the result to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,

    /// Set a label of the image
    #[arg(long = "label", value_name = "KEY=VALUE", allow_hyphen_values = true)]
    pub(crate) labels: Vec<String>,

    /// Set an annotation of the image: [TYPE[PLATFORM]:]KEY=VALUE
    #[arg(long = "annotation", value_name = "KEY=VALUE")]
    pub(crate) annotations: Vec<String>,

    /// The platform to build for: OS/ARCHITECTURE[/VARIANT]
    #[arg(
        long = "platform",
        value_name = "PLATFORM",
        env = "DOCKER_DEFAULT_PLATFORM",
        hide_env = true
    )]
    pub(crate) platforms: Vec<String>,

    /// Another context: NAME=DIR, or a URL, docker-image://IMAGE or oci-layout://DIR
    #[arg(long = "build-context", value_name = "NAME=SOURCE")]
    pub(crate) build_contexts: Vec<String>,

    /// Where to look for cached steps: IMAGE, or type=registry|local,KEY=VALUE
    #[arg(long, value_name = "IMAGE | type=TYPE,...")]
    pub(crate) cache_from: Vec<String>,

    /// Where to keep cached steps: IMAGE, or type=inline|registry|local,KEY=VALUE
    #[arg(long, value_name = "IMAGE | type=TYPE,...")]
    pub(crate) cache_to: Vec<String>,

    /// A secret for RUN --mount=type=secret: id=ID[,src=FILE|,env=VARIABLE]
    #[arg(long = "secret", value_name = "id=ID,...")]
    pub(crate) secrets: Vec<String>,

    /// An ssh agent for RUN --mount=type=ssh: default, or ID=SOCKET
    #[arg(long, value_name = "ID[=SOCKET]")]
    pub(crate) ssh: Vec<String>,

    /// Add a line to /etc/hosts: HOST:IP
    #[arg(long = "add-host", value_name = "HOST:IP")]
    pub(crate) add_hosts: Vec<String>,

    /// The network of RUN instructions: default, none or host
    #[arg(long, default_value = "default", hide_default_value = true)]
    pub(crate) network: String,

    /// Allow network.host, security.insecure or device
    #[arg(long, value_name = "ENTITLEMENT")]
    pub(crate) allow: Vec<String>,

    /// Limit what a process of a step may use: NAME=SOFT[:HARD]
    #[arg(long = "ulimit", value_name = "LIMIT")]
    pub(crate) ulimits: Vec<String>,

    /// The size of /dev/shm
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(crate) shm_size: Option<i64>,

    /// The parent cgroup of RUN instructions
    #[arg(long, value_name = "CGROUP")]
    pub(crate) cgroup_parent: Option<String>,

    /// Limit what a step may use: memory=SIZE, cpu-quota=MICROSECONDS...
    #[arg(long = "resource", value_name = "KEY=VALUE")]
    pub(crate) resources: Vec<String>,

    /// Ask about the Dockerfile in place of building: check, outline or targets, in JSON with
    /// ,format=json
    #[arg(
        long,
        default_value = "build",
        hide_default_value = true,
        alias = "print",
        value_name = "METHOD"
    )]
    pub(crate) call: String,

    /// Check the Dockerfile: --call=check
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "false",
          default_missing_value = "true", hide_default_value = true, hide_possible_values = true,
          value_parser = boolean::parse, action = ArgAction::Set, value_name = "BOOL")]
    pub(crate) check: bool,

    /// Add an attestation: type=sbom|provenance,KEY=VALUE
    #[arg(long, value_name = "type=TYPE,...")]
    pub(crate) attest: Vec<String>,

    /// Add provenance: true, false or mode=min|max
    #[arg(long, value_name = "VALUE")]
    pub(crate) provenance: Option<String>,

    /// Add a bill of materials: true, false or generator=IMAGE
    #[arg(long, value_name = "VALUE")]
    pub(crate) sbom: Option<String>,

    #[command(flatten)]
    pub(crate) classic: ClassicFlags,

    #[command(flatten)]
    pub(crate) refused: RefusedFlags,
}

/// Limits as the classic command spells them.
#[derive(Debug, Args)]
pub(crate) struct ClassicFlags {
    #[arg(short, long, hide = true)]
    memory: Option<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    memory_swap: Option<String>,
    #[arg(short, long, hide = true)]
    cpu_shares: Option<String>,
    #[arg(long, hide = true)]
    cpu_period: Option<String>,
    #[arg(long, hide = true)]
    cpu_quota: Option<String>,
    #[arg(long, hide = true)]
    cpuset_cpus: Option<String>,
    #[arg(long, hide = true)]
    cpuset_mems: Option<String>,
}

impl ClassicFlags {
    /// The limits as `--resource` spells them.
    pub(crate) fn resources(&self) -> Vec<String> {
        [
            ("memory", &self.memory),
            ("memory-swap", &self.memory_swap),
            ("cpu-shares", &self.cpu_shares),
            ("cpu-period", &self.cpu_period),
            ("cpu-quota", &self.cpu_quota),
            ("cpuset-cpus", &self.cpuset_cpus),
            ("cpuset-mems", &self.cpuset_mems),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_deref()?)))
        .collect()
    }
}

/// Flags of other clients that Kiln knows in order to say why it does not take them.
#[derive(Debug, Args)]
pub(crate) struct RefusedFlags {
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "")]
    builder: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "")]
    policy: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "")]
    isolation: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "")]
    security_opt: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "")]
    squash: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "")]
    compress: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "")]
    rm: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "")]
    force_rm: Option<String>,
}

impl RefusedFlags {
    /// The first flag that was given, and what to do without it.
    pub(crate) fn given(&self) -> Option<(&'static str, &'static str)> {
        [
            (&self.builder, "--builder", "choose a daemon with --host or KILN_HOST"),
            (&self.policy, "--policy", "source policies are not supported yet"),
            (&self.isolation, "--isolation", "steps always run in containers"),
            (&self.security_opt, "--security-opt", "use RUN --security in the Dockerfile"),
            (&self.squash, "--squash", "use a multi-stage Dockerfile"),
            (&self.compress, "--compress", "only changed files are sent, leave it out"),
            (&self.rm, "--rm", "no containers remain after a build, leave it out"),
            (&self.force_rm, "--force-rm", "no containers remain after a build, leave it out"),
        ]
        .into_iter()
        .find_map(|(value, flag, advice)| value.is_some().then_some((flag, advice)))
    }
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// As a live view on a terminal, or else plain
    Auto,
    /// As a live view
    Tty,
    /// Line by line
    Plain,
    /// Only the image's id
    Quiet,
    /// Not at all
    None,
    /// As JSON, one event a line
    Rawjson,
}
