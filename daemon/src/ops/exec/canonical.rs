//! An exec in the form that its digest is of. It is BuildKit's, member for member, so that what one
//! builder has run is a hit for the other.

use kiln_cache::Digest;
use kiln_proto::pb;
use serde::Serialize;

use crate::graph::go_json::{self, OnPlatform, is_empty};
use crate::image::Platform;

/// The digest of `exec` as it is, on `platform`.
pub(super) fn digest(exec: &pb::ExecOp, platform: &pb::Platform) -> anyhow::Result<Digest> {
    let normal = Platform::from(platform);
    let meta = exec.meta.as_ref();
    go_json::digest(&Canonical {
        kind: "buildkit.exec.v0",
        exec: Exec {
            meta: meta.map(Meta::from),
            mounts: if is_plain(&exec.mounts) {
                Vec::new()
            } else {
                exec.mounts.iter().map(Mount::from).collect()
            },
            network: exec.network,
            security: exec.security,
            secretenv: exec.secretenv.iter().map(SecretEnv::from).collect(),
            devices: exec.cdi_devices.iter().map(Device::from).collect(),
        },
        platform: OnPlatform::from(&normal),
        os_features: &platform.os_features,
    })
}

/// Whether the root, which every command has, is the only mount, and nothing is special about it:
/// then mounts are left out.
fn is_plain(mounts: &[pb::Mount]) -> bool {
    let [root] = mounts else { return false };
    root.dest == "/"
        && root.selector.is_empty()
        && !root.readonly
        && root.mount_type() == pb::MountType::Bind
        && root.cache_opt.is_none()
        && root.ssh_opt.is_none()
        && root.secret_opt.is_none()
        && root.result_id.is_empty()
}

#[derive(Serialize)]
struct Canonical<'a> {
    #[serde(rename = "Type")]
    kind: &'static str,
    #[serde(rename = "Exec")]
    exec: Exec<'a>,
    #[serde(flatten)]
    platform: OnPlatform<'a>,
    #[serde(rename = "OSFeatures", skip_serializing_if = "is_empty")]
    os_features: &'a [String],
}

#[derive(Serialize)]
struct Exec<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Meta<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mounts: Vec<Mount<'a>>,
    #[serde(skip_serializing_if = "is_empty")]
    network: i32,
    #[serde(skip_serializing_if = "is_empty")]
    security: i32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secretenv: Vec<SecretEnv<'a>>,
    #[serde(rename = "cdiDevices", skip_serializing_if = "Vec::is_empty")]
    devices: Vec<Device<'a>>,
}

/// Proxies are not in it: they never count.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Meta<'a> {
    #[serde(skip_serializing_if = "is_empty")]
    args: &'a [String],
    #[serde(skip_serializing_if = "is_empty")]
    env: &'a [String],
    #[serde(skip_serializing_if = "is_empty")]
    cwd: &'a str,
    #[serde(skip_serializing_if = "is_empty")]
    user: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    extra_hosts: Vec<Host<'a>>,
    #[serde(skip_serializing_if = "is_empty")]
    hostname: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ulimit: Vec<Ulimit<'a>>,
    #[serde(skip_serializing_if = "is_empty")]
    cgroup_parent: &'a str,
    #[serde(skip_serializing_if = "is_empty")]
    remove_mount_stubs_recursive: bool,
    #[serde(skip_serializing_if = "is_empty")]
    valid_exit_codes: &'a [i32],
}

impl<'a> From<&'a pb::Meta> for Meta<'a> {
    fn from(meta: &'a pb::Meta) -> Self {
        Self {
            args: &meta.args,
            env: &meta.env,
            cwd: &meta.cwd,
            user: &meta.user,
            extra_hosts: meta.extra_hosts.iter().map(|host| Host { host: &host.host }).collect(),
            hostname: &meta.hostname,
            ulimit: meta.ulimit.iter().map(Ulimit::from).collect(),
            cgroup_parent: &meta.cgroup_parent,
            remove_mount_stubs_recursive: meta.remove_mount_stubs_recursive,
            valid_exit_codes: &meta.valid_exit_codes,
        }
    }
}

/// The address does not count, only that there is one of that name.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Host<'a> {
    #[serde(skip_serializing_if = "is_empty")]
    host: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ulimit<'a> {
    #[serde(skip_serializing_if = "is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "is_empty")]
    soft: i64,
    #[serde(skip_serializing_if = "is_empty")]
    hard: i64,
}

impl<'a> From<&'a pb::Ulimit> for Ulimit<'a> {
    fn from(limit: &'a pb::Ulimit) -> Self {
        Self { name: &limit.name, soft: limit.soft, hard: limit.hard }
    }
}

#[derive(Serialize)]
struct SecretEnv<'a> {
    #[serde(rename = "ID", skip_serializing_if = "is_empty")]
    id: &'a str,
    #[serde(skip_serializing_if = "is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "is_empty")]
    optional: bool,
}

impl<'a> From<&'a pb::SecretEnv> for SecretEnv<'a> {
    fn from(secret: &'a pb::SecretEnv) -> Self {
        Self { id: &secret.id, name: &secret.name, optional: secret.optional }
    }
}

#[derive(Serialize)]
struct Device<'a> {
    #[serde(skip_serializing_if = "is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "is_empty")]
    optional: bool,
}

impl<'a> From<&'a pb::CdiDevice> for Device<'a> {
    fn from(device: &'a pb::CdiDevice) -> Self {
        Self { name: &device.name, optional: device.optional }
    }
}

/// A mount without the path that it shows: that is in the links to inputs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Mount<'a> {
    #[serde(skip_serializing_if = "is_empty")]
    input: i64,
    #[serde(skip_serializing_if = "is_empty")]
    dest: &'a str,
    #[serde(skip_serializing_if = "is_empty")]
    output: i64,
    #[serde(skip_serializing_if = "is_empty")]
    readonly: bool,
    #[serde(rename = "mountType", skip_serializing_if = "is_empty")]
    kind: i32,
    #[serde(rename = "TmpfsOpt", skip_serializing_if = "Option::is_none")]
    tmpfs: Option<Tmpfs>,
    #[serde(rename = "cacheOpt", skip_serializing_if = "Option::is_none")]
    cache: Option<Cache<'a>>,
    #[serde(rename = "secretOpt", skip_serializing_if = "Option::is_none")]
    secret: Option<Handed<'a>>,
    #[serde(rename = "SSHOpt", skip_serializing_if = "Option::is_none")]
    ssh: Option<Handed<'a>>,
    #[serde(rename = "resultID", skip_serializing_if = "is_empty")]
    result_id: &'a str,
    #[serde(skip_serializing_if = "is_empty")]
    content_cache: i32,
}

impl<'a> From<&'a pb::Mount> for Mount<'a> {
    fn from(mount: &'a pb::Mount) -> Self {
        // Nothing is left of secrets and sockets, whatever number is given to it.
        let is_handed = matches!(mount.mount_type(), pb::MountType::Secret | pb::MountType::Ssh);
        Self {
            input: mount.input,
            dest: &mount.dest,
            output: if is_handed { 0 } else { mount.output },
            readonly: mount.readonly,
            kind: mount.mount_type,
            tmpfs: mount.tmpfs_opt.as_ref().map(|tmpfs| Tmpfs { size: tmpfs.size }),
            cache: mount.cache_opt.as_ref().map(|cache| Cache::of(cache, &mount.dest)),
            secret: mount.secret_opt.as_ref().map(|secret| Handed {
                id: &secret.id,
                uid: secret.uid,
                gid: secret.gid,
                mode: secret.mode,
                optional: secret.optional,
            }),
            ssh: mount.ssh_opt.as_ref().map(|ssh| Handed {
                // Most clients name the usual agent by no name.
                id: if ssh.id == "default" { "" } else { &ssh.id },
                uid: ssh.uid,
                gid: ssh.gid,
                mode: ssh.mode,
                optional: ssh.optional,
            }),
            result_id: &mount.result_id,
            content_cache: mount.content_cache,
        }
    }
}

#[derive(Serialize)]
struct Tmpfs {
    #[serde(skip_serializing_if = "is_empty")]
    size: i64,
}

#[derive(Default, Serialize)]
struct Cache<'a> {
    #[serde(rename = "ID", skip_serializing_if = "is_empty")]
    id: &'a str,
    #[serde(skip_serializing_if = "is_empty")]
    sharing: i32,
}

impl<'a> Cache<'a> {
    /// Which cache it is counts only if that is no more than the target says, as is the default in
    /// Dockerfiles.
    fn of(cache: &'a pb::CacheOpt, dest: &str) -> Self {
        let name = cache.id.split_once('/').map_or("", |(_, name)| name);
        let is_plain =
            cache.sharing() == pb::CacheSharingOpt::Shared && (cache.id == dest || name == dest);
        if is_plain { Self { id: &cache.id, sharing: cache.sharing } } else { Self::default() }
    }
}

/// A secret or an agent's socket.
#[derive(Serialize)]
struct Handed<'a> {
    #[serde(rename = "ID", skip_serializing_if = "is_empty")]
    id: &'a str,
    #[serde(skip_serializing_if = "is_empty")]
    uid: u32,
    #[serde(skip_serializing_if = "is_empty")]
    gid: u32,
    #[serde(skip_serializing_if = "is_empty")]
    mode: u32,
    #[serde(skip_serializing_if = "is_empty")]
    optional: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amd64() -> pb::Platform {
        Platform::new("linux", "amd64", "").to_pb()
    }

    fn meta() -> pb::Meta {
        let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        pb::Meta {
            args: strings(&["/bin/sh", "-c", "echo \"<a>\" && true"]),
            env: strings(&["PATH=/bin", "A=é\u{2028}"]),
            cwd: "/w".into(),
            remove_mount_stubs_recursive: true,
            ..Default::default()
        }
    }

    fn root() -> pb::Mount {
        pb::Mount { dest: "/".into(), ..Default::default() }
    }

    fn exec(meta: pb::Meta, mounts: Vec<pb::Mount>) -> pb::ExecOp {
        pb::ExecOp { meta: Some(meta), mounts, ..Default::default() }
    }

    /// A mount of something else than the root.
    fn mount(kind: pb::MountType, dest: &str) -> pb::Mount {
        pb::Mount {
            input: -1,
            output: -1,
            dest: dest.into(),
            mount_type: kind.into(),
            ..Default::default()
        }
    }

    fn digest_of(exec: &pb::ExecOp) -> String {
        digest(exec, &amd64()).unwrap().to_string()
    }

    // The digests that BuildKit 0.32.2 computes of the same ops.

    #[test]
    fn a_command_has_the_digest_that_buildkit_gives_it() {
        let mut proxied = meta();
        proxied.proxy_env = Some(pb::ProxyEnv { http_proxy: "x".into(), ..Default::default() });
        for meta in [meta(), proxied] {
            assert_eq!(
                digest_of(&exec(meta, vec![root()])),
                "sha256:1e109f194ea1b6c693cdeec3cf0687fa3742d865285a3c6def67435e5a5cc65e"
            );
        }
    }

    #[test]
    fn all_that_is_said_of_a_process_is_in_the_digest_that_buildkit_gives_it() {
        let meta = pb::Meta {
            user: "u".into(),
            extra_hosts: vec![pb::HostIp { host: "h".into(), ip: "1.2.3.4".into() }],
            hostname: "n".into(),
            ulimit: vec![pb::Ulimit { name: "nofile".into(), soft: 1, hard: 2 }],
            cgroup_parent: "c".into(),
            valid_exit_codes: vec![1, 0],
            ..meta()
        };
        let exec = pb::ExecOp {
            network: pb::NetMode::None.into(),
            security: pb::SecurityMode::Insecure.into(),
            secretenv: vec![pb::SecretEnv { id: "s".into(), name: "S".into(), optional: true }],
            cdi_devices: vec![pb::CdiDevice { name: "v/d=1".into(), optional: true }],
            ..exec(meta, vec![root()])
        };
        assert_eq!(
            digest(&exec, &Platform::new("linux", "arm", "7").to_pb()).unwrap().to_string(),
            "sha256:6fa9db4ed2e28037b67ba79da9d64a26f5614538d34bbaa30d01018f3d5813df"
        );
    }

    #[test]
    fn mounts_are_in_the_digest_that_buildkit_gives_a_command() {
        use pb::MountType::{Bind, Cache, Secret, Ssh, Tmpfs};
        let shown = |path: &str, dest: &str| pb::Mount {
            input: 1,
            selector: path.into(),
            readonly: true,
            ..mount(Bind, dest)
        };
        let cache = |dest: &str, id: &str, sharing: pb::CacheSharingOpt| pb::Mount {
            cache_opt: Some(pb::CacheOpt { id: id.into(), sharing: sharing.into() }),
            ..mount(Cache, dest)
        };
        let secret =
            pb::SecretOpt { id: "s".into(), mode: 0o400, optional: true, ..Default::default() };
        let ssh = pb::SshOpt { id: "default".into(), mode: 0o600, ..Default::default() };
        // Numbers of outputs and the name of the usual agent are others in BuildKit, and do not count.
        let mounts = vec![
            root(),
            shown("/go.mod", "/src/go.mod"),
            shown("/go.sum", "/src/go.sum"),
            cache("/c", "/c", pb::CacheSharingOpt::Shared),
            cache("/l", "/l", pb::CacheSharingOpt::Locked),
            cache("/n", "ns//n", pb::CacheSharingOpt::Shared),
            pb::Mount { tmpfs_opt: Some(pb::TmpfsOpt { size: 5 }), ..mount(Tmpfs, "/t") },
            pb::Mount { secret_opt: Some(secret), ..mount(Secret, "/run/secrets/s") },
            pb::Mount { ssh_opt: Some(ssh), ..mount(Ssh, "/run/ssh") },
        ];
        assert_eq!(
            digest_of(&exec(meta(), mounts)),
            "sha256:b2d118edf05dcdce88185e6f1da365d3c1babd53b3b593ae9b97cb96a808eb34"
        );
    }

    #[test]
    fn which_shared_cache_is_mounted_does_not_count() {
        let with = |id: &str| {
            let sharing = pb::CacheSharingOpt::Locked.into();
            let cache_opt = Some(pb::CacheOpt { id: id.into(), sharing });
            let cache = pb::Mount { cache_opt, ..mount(pb::MountType::Cache, "/c") };
            digest_of(&exec(meta(), vec![root(), cache]))
        };
        assert_eq!(with("a"), with("b"));
    }
}
