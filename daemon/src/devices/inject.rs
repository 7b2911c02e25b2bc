//! Giving devices to a step.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::time::Duration;

use kiln_executor::{Hook, Inert, Mount, ProcessSpec};

use super::spec::{self, DeviceNode, Edits};
use super::{Device, DeviceError};

impl Device {
    /// Gives `devices` to the step that `spec` describes.
    pub(crate) fn give(devices: &[Self], spec: &mut ProcessSpec) -> Result<(), DeviceError> {
        let mut files: Vec<&Path> = Vec::new();
        for device in devices {
            if !files.contains(&device.file.as_path()) {
                files.push(&device.file);
                device.apply(&device.common, spec)?;
            }
            device.apply(&device.edits, spec)?;
        }
        Ok(())
    }

    fn apply(&self, edits: &Edits, spec: &mut ProcessSpec) -> Result<(), DeviceError> {
        if let Some(what) = edits.unsupported() {
            return Err(DeviceError::Unsupported { device: self.name.clone(), what });
        }
        for var in &edits.env {
            let name = var.split_once('=').map_or(var.as_str(), |(name, _)| name);
            spec.env.retain(|other| other.split_once('=').is_none_or(|(other, _)| other != name));
            spec.env.push(var.clone());
        }
        for node in &edits.device_nodes {
            let made = self.node(node, spec)?;
            replace(made, spec);
        }
        for mount in &edits.mounts {
            let made = self.mount(mount)?;
            replace(made, spec);
        }
        for hook in &edits.hooks {
            spec.hooks.extend(self.hook(hook));
        }
        let groups = &mut spec.user.additional_gids;
        for gid in &edits.additional_gids {
            if *gid != 0 && !groups.contains(gid) {
                groups.push(*gid);
            }
        }
        Ok(())
    }

    fn node(&self, node: &DeviceNode, spec: &ProcessSpec) -> Result<Mount, DeviceError> {
        let invalid = |reason: String| DeviceError::Node {
            device: self.name.clone(),
            path: node.path.display().to_string(),
            reason,
        };
        let (is_block, major, minor) = match (node.kind.as_str(), node.major) {
            ("b", major @ 1..) => (true, major, node.minor),
            ("c" | "u", major @ 1..) => (false, major, node.minor),
            ("" | "b" | "c" | "u", _) => {
                let found = of_host(node.host_path.as_ref().unwrap_or(&node.path));
                let found = found.map_err(|error| invalid(error.to_string()))?;
                let (is_block, ..) = found.ok_or_else(|| invalid("not a device".to_owned()))?;
                if !node.kind.is_empty() && is_block != (node.kind == "b") {
                    return Err(invalid(format!("not of type {:?}", node.kind)));
                }
                found.ok_or_else(|| invalid("not a device".to_owned()))?
            }
            (other, _) => return Err(invalid(format!("type {other:?} is not supported"))),
        };
        if let Some(other) = node.permissions.chars().find(|c| !"rwm".contains(*c)) {
            return Err(invalid(format!("unknown permission {other:?}")));
        }
        let has = |c: char| node.permissions.is_empty() || node.permissions.contains(c);
        Ok(Mount::Device {
            device: kiln_executor::Device {
                is_block,
                major,
                minor,
                read: has('r'),
                write: has('w'),
            },
            source: node.host_path.as_ref().unwrap_or(&node.path).clone(),
            target: node.path.clone(),
            mode: node.file_mode.unwrap_or(0o666),
            uid: node.uid.unwrap_or(spec.user.uid),
            gid: node.gid.unwrap_or(spec.user.gid),
        })
    }

    /// The program as the executor takes it; of others, the device has been refused.
    fn hook(&self, hook: &spec::Hook) -> Option<Hook> {
        Some(Hook {
            kind: hook.moment.kind().ok()?,
            path: hook.path.clone().into(),
            args: hook.args.clone(),
            env: hook.env.clone(),
            timeout: hook.timeout.map(|seconds| Duration::from_secs(seconds.get().into())),
            declared_in: self.file.clone(),
        })
    }

    fn mount(&self, mount: &spec::Mount) -> Result<Mount, DeviceError> {
        let invalid = |reason: String| DeviceError::Mount {
            device: self.name.clone(),
            path: mount.container_path.display().to_string(),
            reason,
        };
        if !matches!(mount.kind.as_str(), "" | "bind" | "none") {
            return Err(invalid(format!("type {:?} is not supported", mount.kind)));
        }
        let (mut read_only, mut recursive, mut inert) = (false, false, Inert::default());
        for option in &mount.options {
            match option.as_str() {
                "ro" => read_only = true,
                "rw" => read_only = false,
                "rbind" => recursive = true,
                "nosuid" => inert.nosuid = true,
                "nodev" => inert.nodev = true,
                "noexec" => inert.noexec = true,
                // What is so anyhow.
                "bind" | "suid" | "dev" | "exec" | "private" | "rprivate" => {}
                other => return Err(invalid(format!("option {other:?} is not supported"))),
            }
        }
        let (source, target) = (mount.host_path.clone(), mount.container_path.clone());
        Ok(Mount::Bind { source, subpath: None, target, read_only, recursive, inert })
    }
}

/// Whether the host's file is a block device, and its numbers; `None` if it is no device.
fn of_host(path: &Path) -> std::io::Result<Option<(bool, u32, u32)>> {
    let file = std::fs::metadata(path)?;
    let kind = file.file_type();
    let number = file.rdev();
    let is_device = kind.is_block_device() || kind.is_char_device();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    Ok(is_device.then_some((kind.is_block_device(), major, minor)))
}

/// Adds a mount, in the place of an earlier one of the same target.
fn replace(mount: Mount, spec: &mut ProcessSpec) {
    let target = target(&mount).to_owned();
    spec.mounts.retain(|other| self::target(other) != target);
    spec.mounts.push(mount);
}

fn target(mount: &Mount) -> &Path {
    match mount {
        Mount::Bind { target, .. }
        | Mount::Overlay { target, .. }
        | Mount::Tmpfs { target, .. }
        | Mount::File { target, .. }
        | Mount::Device { target, .. } => target,
    }
}
