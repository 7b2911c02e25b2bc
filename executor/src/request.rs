//! From a specification to a request: checks it and puts it in the kernel's terms.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::cgroup::StepCgroup;
use crate::error::{ExecutorError, InvalidSpec};
use crate::executor::{ExecutorConfig, UserNamespaceConfig};
use crate::running::ExecSpec;
use crate::selinux::SelinuxLabels;
use crate::spec::{
    Device, Hook, Mount, Network, ProcessSpec, Rlimit, RlimitResource, Security, User,
};
use crate::user_namespace::{SubordinateIds, in_user_namespace};
use crate::zygote::protocol::{
    At, Failure, Hooks, MountSource, Overlay, Process, Request, Stage, Step, StepHook, StepMount,
    UsersRequest,
};

/// As many layers as overlayfs joins.
pub(crate) const MAX_LAYERS: usize = 500;

/// As large as all files in memory of a step may be together.
const MAX_CONTENT: usize = 64 << 20;

/// What /dev/shm holds if nothing else is said, in bytes; Docker's default.
const SHM_SIZE: u64 = 64 << 20;

/// Checks what does not depend on the conversion.
pub(crate) fn check(spec: &ProcessSpec) -> Result<(), ExecutorError> {
    let invalid = |reason| Err(ExecutorError::InvalidSpec { id: spec.id.clone(), reason });
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if spec.id.is_empty() || !spec.id.bytes().all(is_name) || spec.id.starts_with('.') {
        return invalid(InvalidSpec::Id);
    }
    if spec.args.is_empty() {
        return invalid(InvalidSpec::NoCommand);
    }
    let content: usize = spec
        .mounts
        .iter()
        .map(|mount| if let Mount::File { content, .. } = mount { content.len() } else { 0 })
        .sum();
    if content > MAX_CONTENT {
        return invalid(InvalidSpec::TooLarge(content));
    }
    let paths = std::iter::once(&spec.cwd).chain(spec.hooks.iter().map(|hook| &hook.path));
    if let Some(relative) = paths.into_iter().find(|path| !path.is_absolute()) {
        return invalid(InvalidSpec::Relative(relative.display().to_string()));
    }
    Ok(())
}

/// The request for the user namespace of confined steps, to be tried out with these directories.
pub(crate) fn users(
    config: &UserNamespaceConfig,
    lower: PathBuf,
    upper: PathBuf,
    work: PathBuf,
) -> Result<Request, Failure> {
    let convert = || {
        let upper = Some((path(upper)?, path(work)?));
        let trial = overlay("/", vec![lower], upper)?;
        let directory = path(config.directory.clone())?;
        Ok(UsersRequest { ids: config.ids.clone(), directory, trial })
    };
    let made: Result<_, InvalidSpec> = convert();
    // Nothing but a NUL byte, which no path has that led somewhere.
    made.map(|made| Request::Users(Box::new(made))).map_err(|_| Errno::INVAL).at(Stage::Request, "")
}

/// Fails if an id is none of those that a confined step has.
fn check_ids(spec: &ProcessSpec, ids: &SubordinateIds) -> Result<(), InvalidSpec> {
    check_user(&spec.user, ids)?;
    for mount in &spec.mounts {
        if let Mount::File { uid, gid, .. } | Mount::Device { uid, gid, .. } = mount {
            check_user(&User { uid: *uid, gid: *gid, additional_gids: Vec::new() }, ids)?;
        }
    }
    Ok(())
}

fn check_user(user: &User, ids: &SubordinateIds) -> Result<(), InvalidSpec> {
    let is_missing = |id: &&u32| ids.gid(**id).is_none();
    let gids = std::iter::once(&user.gid).chain(&user.additional_gids);
    let missing = Some(&user.uid).filter(|uid| ids.uid(**uid).is_none());
    match missing.or_else(|| gids.into_iter().find(is_missing)) {
        Some(id) => Err(InvalidSpec::NotMapped(*id, ids.count())),
        None => Ok(()),
    }
}

/// The ids of a step's user namespace, if it has one.
fn ids_of(security: Security, config: &ExecutorConfig) -> Option<&SubordinateIds> {
    let users = config.user_namespace.as_ref().filter(|_| security == Security::Sandbox);
    users.map(|users| &users.ids)
}

/// Converts a checked specification, to be run in `cgroup`.
pub(crate) fn step(
    spec: ProcessSpec,
    cgroup: &StepCgroup,
    has_stdin: bool,
    config: &ExecutorConfig,
) -> Result<Step, ExecutorError> {
    let id = spec.id.clone();
    convert(spec, cgroup, has_stdin, config)
        .map_err(|reason| ExecutorError::InvalidSpec { id, reason })
}

fn convert(
    spec: ProcessSpec,
    cgroup: &StepCgroup,
    has_stdin: bool,
    config: &ExecutorConfig,
) -> Result<Step, InvalidSpec> {
    let insecure = spec.security == Security::Insecure;
    let ids = ids_of(spec.security, config);
    ids.map_or(Ok(()), |ids| check_ids(&spec, ids))?;
    let hooks = hooks(&spec)?;
    let upper = Some((path(spec.rootfs.upper)?, path(spec.rootfs.work)?));
    Ok(Step {
        hooks,
        root: overlay("/", spec.rootfs.lower, upper)?,
        mounts: spec.mounts.into_iter().map(mount).collect::<Result<_, _>>()?,
        hostname: spec.hostname.into_bytes(),
        has_network: spec.network != Network::Host,
        shm_size: spec.shm_size.unwrap_or(SHM_SIZE),
        read_only_root: spec.read_only_root,
        controllers: cgroup
            .limiting(&spec.limits)
            .into_iter()
            .map(|(name, dir)| Ok((path(name.into())?, path(dir)?)))
            .collect::<Result<_, _>>()?,
        no_device_nodes: !insecure && !cgroup.guards_devices(),
        process: Process {
            args: strings(spec.args, "an argument")?,
            env: strings(spec.env, "the environment")?,
            cwd: path(spec.cwd)?,
            uid: spec.user.uid,
            gid: spec.user.gid,
            groups: spec.user.additional_gids,
            insecure,
            has_users: ids.is_some(),
            rlimits: rlimits(&spec.rlimits, cgroup, config),
            tty: spec.tty,
            apparmor_profile: profile(spec.security, config)?,
            selinux: labels(spec.security, config),
            oom_score_adj: config.oom_score_adj,
            cgroup: cgroup.join().0,
            has_stdin,
        },
    })
}

/// The hooks of a step, which are in their order. Their bundle is mounted over overlayfs' scratch
/// directory: that is there, is the step's alone, and is nothing to them.
fn hooks(spec: &ProcessSpec) -> Result<Option<Box<Hooks>>, InvalidSpec> {
    if spec.hooks.is_empty() {
        return Ok(None);
    }
    let bundle = &spec.rootfs.work;
    let bundle = bundle.to_str().ok_or_else(|| InvalidSpec::NotUnicode(bundle.clone()))?;
    let list = spec.hooks.iter().map(hook).collect::<Result<_, _>>()?;
    Ok(Some(Box::new(Hooks { id: spec.id.clone(), bundle: bundle.to_owned(), list })))
}

fn hook(hook: &Hook) -> Result<StepHook, InvalidSpec> {
    let path = path(hook.path.clone())?;
    let args = strings(hook.args.clone(), "an argument of a hook")?;
    Ok(StepHook {
        kind: hook.kind,
        args: if args.is_empty() { vec![path.clone()] } else { args },
        path,
        env: strings(hook.env.clone(), "the environment of a hook")?,
        timeout: hook.timeout,
    })
}

/// Converts a further process for a step in `cgroup`.
pub(crate) fn further(
    id: &str,
    spec: ExecSpec,
    security: Security,
    cgroup: &StepCgroup,
    has_stdin: bool,
    config: &ExecutorConfig,
) -> Result<Process, ExecutorError> {
    let invalid = |reason| ExecutorError::InvalidSpec { id: id.into(), reason };
    if spec.args.is_empty() {
        return Err(invalid(InvalidSpec::NoCommand));
    }
    let ids = ids_of(security, config);
    ids.map_or(Ok(()), |ids| check_user(&spec.user, ids)).map_err(invalid)?;
    Ok(Process {
        args: strings(spec.args, "an argument").map_err(invalid)?,
        env: strings(spec.env, "the environment").map_err(invalid)?,
        cwd: path(spec.cwd).map_err(invalid)?,
        uid: spec.user.uid,
        gid: spec.user.gid,
        groups: spec.user.additional_gids,
        insecure: security == Security::Insecure,
        has_users: ids.is_some(),
        rlimits: Vec::new(),
        tty: spec.tty,
        apparmor_profile: profile(security, config).map_err(invalid)?,
        selinux: labels(security, config),
        oom_score_adj: 0,
        cgroup: cgroup.join().0,
        has_stdin,
    })
}

/// The profile of a process, unless it is unconfined.
fn profile(security: Security, config: &ExecutorConfig) -> Result<Option<CString>, InvalidSpec> {
    let profile = config.apparmor_profile.as_ref().filter(|_| security == Security::Sandbox);
    let c_string = |profile: &String| CString::new(profile.as_str());
    profile.map(c_string).transpose().map_err(|_| InvalidSpec::NulByte("the AppArmor profile"))
}

/// The labels of a process and its files, unless it is unconfined.
fn labels(security: Security, config: &ExecutorConfig) -> Option<SelinuxLabels> {
    config.selinux.clone().filter(|_| security == Security::Sandbox)
}

fn mount(mount: Mount) -> Result<StepMount, InvalidSpec> {
    let mut attributes = 0;
    let (target, read_only, source) = match mount {
        Mount::Bind { source, subpath, target, read_only, recursive, inert } => {
            attributes |= if inert.nosuid { libc::MOUNT_ATTR_NOSUID } else { 0 };
            attributes |= if inert.nodev { libc::MOUNT_ATTR_NODEV } else { 0 };
            attributes |= if inert.noexec { libc::MOUNT_ATTR_NOEXEC } else { 0 };
            let subpath = subpath.map(path).transpose()?;
            (target, read_only, MountSource::Bind { path: path(source)?, subpath, recursive })
        }
        Mount::Overlay { lower, upper, subpath, target, read_only } => {
            let upper = upper.map(|dirs| Ok((path(dirs.upper)?, path(dirs.work)?))).transpose()?;
            let read_only = read_only || upper.is_none();
            let overlay = overlay(&target.to_string_lossy(), lower, upper)?;
            let subpath = subpath.map(path).transpose()?;
            (target, read_only, MountSource::Overlay { overlay, subpath })
        }
        Mount::Tmpfs { target, size, mode } => (target, false, MountSource::Tmpfs { size, mode }),
        Mount::Device { device, source, target, mode, uid, gid } => {
            let Device { is_block, major, minor, .. } = device;
            let host = path(source)?;
            (target, false, MountSource::Device { host, is_block, major, minor, mode, uid, gid })
        }
        Mount::File { content, target, mode, uid, gid } => {
            (target, true, MountSource::File { content, mode, uid, gid })
        }
    };
    if !target.is_absolute() {
        return Err(InvalidSpec::Relative(target.display().to_string()));
    }
    attributes |= if read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
    Ok(StepMount { target: path(target)?, attributes, source })
}

fn overlay(
    target: &str,
    lower: Vec<PathBuf>,
    upper: Option<(CString, CString)>,
) -> Result<Overlay, InvalidSpec> {
    match lower.len() {
        0 => return Err(InvalidSpec::NoLayers(target.into())),
        1..=MAX_LAYERS => {}
        count => return Err(InvalidSpec::TooManyLayers(target.into(), count)),
    }
    let lower = lower.into_iter().rev().map(path).collect::<Result<_, _>>()?;
    Ok(Overlay { lower, upper })
}

fn path(path: PathBuf) -> Result<CString, InvalidSpec> {
    CString::new(path.into_os_string().into_vec()).map_err(|_| InvalidSpec::NulByte("a path"))
}

fn strings<T: Into<OsString>>(
    strings: Vec<T>,
    what: &'static str,
) -> Result<Vec<CString>, InvalidSpec> {
    let c_string = |string: T| CString::new(string.into().into_vec());
    strings.into_iter().map(|s| c_string(s).map_err(|_| InvalidSpec::NulByte(what))).collect()
}

/// The limits by the kernel's numbers. Where an ordinary user has no control groups, the limit of
/// processes is one of these, too: it is for all steps of a user together, and that is something.
fn rlimits(
    limits: &[Rlimit],
    cgroup: &StepCgroup,
    config: &ExecutorConfig,
) -> Vec<(u32, u64, u64)> {
    let own = limits.iter().map(|limit| (number(limit.resource), limit.soft, limit.hard));
    let mut all: Vec<_> = own.collect();
    let processes = number(RlimitResource::Nproc);
    if let (StepCgroup::None, Some(pids)) = (cgroup, config.pids)
        && in_user_namespace()
        && !all.iter().any(|(resource, ..)| *resource == processes)
    {
        let most = getrlimit(Resource::Nproc).maximum.map_or(pids, |most| most.min(pids));
        all.push((processes, most, most));
    }
    all
}

/// The kernel's number of a resource, the same on x86-64 and arm64.
fn number(resource: RlimitResource) -> u32 {
    match resource {
        RlimitResource::Cpu => 0,
        RlimitResource::Fsize => 1,
        RlimitResource::Data => 2,
        RlimitResource::Stack => 3,
        RlimitResource::Core => 4,
        RlimitResource::Rss => 5,
        RlimitResource::Nproc => 6,
        RlimitResource::Nofile => 7,
        RlimitResource::Memlock => 8,
        RlimitResource::As => 9,
        RlimitResource::Locks => 10,
        RlimitResource::Sigpending => 11,
        RlimitResource::Msgqueue => 12,
        RlimitResource::Nice => 13,
        RlimitResource::Rtprio => 14,
        RlimitResource::Rttime => 15,
    }
}
