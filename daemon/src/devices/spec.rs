//! Specification files of devices: what each changes about a container
//! (Container Device Interface, <https://github.com/cncf-tags/container-device-interface>).

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use kiln_executor::HookKind;
use serde::{Deserialize, Deserializer};

/// The versions of the format that are known.
const VERSIONS: [&str; 9] =
    ["0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"];

/// A file that describes no devices.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpecError {
    #[error(transparent)]
    Read(#[from] std::io::Error),
    #[error("{0}")]
    Syntax(String),
    #[error("unknown cdiVersion {0:?}")]
    Version(String),
    #[error("invalid kind {0:?}: expected vendor/class")]
    Kind(String),
    #[error("invalid device name {0:?}")]
    Name(String),
    #[error("invalid environment variable {0:?}: expected NAME=value")]
    Env(String),
    #[error("hook {0:?}: expected an absolute path")]
    HookPath(String),
}

/// A file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    cdi_version: String,
    /// Vendor and class.
    pub(super) kind: String,
    #[serde(default)]
    pub(super) annotations: Annotations,
    pub(super) devices: Vec<DeviceSpec>,
    /// For a container with any of the devices.
    #[serde(default)]
    pub(super) container_edits: Edits,
}

/// One device of a file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DeviceSpec {
    pub(super) name: String,
    #[serde(default)]
    pub(super) annotations: Annotations,
    pub(super) container_edits: Edits,
}

/// What changes about a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Edits {
    pub(super) env: Vec<String>,
    pub(super) device_nodes: Vec<DeviceNode>,
    pub(super) mounts: Vec<Mount>,
    pub(super) additional_gids: Vec<u32>,
    pub(super) hooks: Vec<Hook>,
    /// Of the next two only whether there are any counts: a step that needs them does not run.
    net_devices: Vec<serde_json::Value>,
    intel_rdt: Option<serde_json::Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DeviceNode {
    pub(super) path: PathBuf,
    /// Where the host has it, if elsewhere.
    pub(super) host_path: Option<PathBuf>,
    #[serde(default, rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) major: u32,
    #[serde(default)]
    pub(super) minor: u32,
    pub(super) file_mode: Option<u32>,
    /// Of `r`, `w` and `m`; all, if there are none.
    #[serde(default)]
    pub(super) permissions: String,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Mount {
    pub(super) host_path: PathBuf,
    pub(super) container_path: PathBuf,
    #[serde(default)]
    pub(super) options: Vec<String>,
    #[serde(default, rename = "type")]
    pub(super) kind: String,
}

/// A program of the host for a moment in the life of a container.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Hook {
    #[serde(rename = "hookName")]
    pub(super) moment: HookName,
    pub(super) path: String,
    /// With the program's name.
    #[serde(default)]
    pub(super) args: Vec<String>,
    #[serde(default)]
    pub(super) env: Vec<String>,
    /// In seconds.
    pub(super) timeout: Option<NonZero<u32>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum HookName {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

impl HookName {
    /// What the executor knows it as, or its name if it does not.
    pub(super) fn kind(self) -> Result<HookKind, &'static str> {
        match self {
            Self::Prestart => Ok(HookKind::Prestart),
            Self::CreateRuntime => Ok(HookKind::CreateRuntime),
            Self::CreateContainer => Ok(HookKind::CreateContainer),
            Self::StartContainer => Err("startContainer"),
            Self::Poststart => Err("poststart"),
            Self::Poststop => Err("poststop"),
        }
    }
}

/// Words for programs. Files also have booleans and numbers for their values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Annotations(pub(super) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = BTreeMap::<String, serde_json::Value>::deserialize(deserializer)?;
        let text = |value| match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        Ok(Self(map.into_iter().map(|(name, value)| (name, text(value))).collect()))
    }
}

impl Spec {
    pub(super) fn read(path: &Path) -> Result<Self, SpecError> {
        Self::parse(&std::fs::read_to_string(path)?)
    }

    /// Parses a file in YAML, of which JSON is a part.
    fn parse(text: &str) -> Result<Self, SpecError> {
        let options = serde_saphyr::options! { legacy_octal_numbers: true };
        let spec: Self = serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| SpecError::Syntax(error.to_string()))?;
        spec.check()?;
        Ok(spec)
    }

    fn check(&self) -> Result<(), SpecError> {
        if !VERSIONS.contains(&self.cdi_version.as_str()) {
            return Err(SpecError::Version(self.cdi_version.clone()));
        }
        if !is_kind(&self.kind) {
            return Err(SpecError::Kind(self.kind.clone()));
        }
        for device in &self.devices {
            if !is_word(&device.name, "_-.:", |first| first.is_ascii_alphanumeric()) {
                return Err(SpecError::Name(device.name.clone()));
            }
        }
        let edits = self.devices.iter().map(|device| &device.container_edits);
        let edits = edits.chain([&self.container_edits]);
        let hooks = edits.clone().flat_map(|edits| &edits.hooks);
        if let Some(hook) = hooks.clone().find(|hook| !hook.path.starts_with('/')) {
            return Err(SpecError::HookPath(hook.path.clone()));
        }
        let vars = edits.flat_map(|edits| &edits.env);
        for var in vars.chain(hooks.flat_map(|hook| &hook.env)) {
            if var.split_once('=').is_none_or(|(name, _)| name.is_empty()) {
                return Err(SpecError::Env(var.clone()));
            }
        }
        Ok(())
    }
}

impl Edits {
    /// What of the changes this daemon does not make, if there is any such.
    pub(super) fn unsupported(&self) -> Option<String> {
        for hook in &self.hooks {
            if let Err(name) = hook.moment.kind() {
                return Some(format!("the hook {name} ({})", hook.path));
            }
        }
        if !self.net_devices.is_empty() {
            return Some("network devices (netDevices)".to_owned());
        }
        self.intel_rdt.as_ref().map(|_| "a class of Intel RDT (intelRdt)".to_owned())
    }
}

/// Whether `kind` is a vendor and a class.
pub(super) fn is_kind(kind: &str) -> bool {
    let is_letter = |first: char| first.is_ascii_alphabetic();
    kind.split_once('/').is_some_and(|(vendor, class)| {
        is_word(vendor, "_-.", is_letter) && is_word(class, "_-.", is_letter)
    })
}

fn is_word(word: &str, also: &str, is_first: impl Fn(char) -> bool) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || also.contains(c);
    word.starts_with(is_first)
        && word.ends_with(|c: char| c.is_ascii_alphanumeric())
        && word.chars().all(is_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_be_yaml_or_json() {
        let yaml = "
            cdiVersion: '0.6.0'
            kind: vendor.com/net
            annotations:
              org.mobyproject.buildkit.device.autoallow: true
            devices:
            - name: one
              containerEdits:
                env: [A=b]
                deviceNodes:
                - path: /dev/one
                  fileMode: 0640
                  permissions: rw
                mounts:
                - {hostPath: /a, containerPath: /b, options: [ro, nosuid]}
                additionalGids: [5]
            ";
        let json = r#"{
            "cdiVersion": "0.6.0", "kind": "vendor.com/net",
            "annotations": {"org.mobyproject.buildkit.device.autoallow": "true"},
            "devices": [{"name": "one", "containerEdits": {
                "env": ["A=b"],
                "deviceNodes": [{"path": "/dev/one", "fileMode": 416, "permissions": "rw"}],
                "mounts": [{"hostPath": "/a", "containerPath": "/b", "options": ["ro", "nosuid"]}],
                "additionalGids": [5]
            }}]
        }"#;
        let (yaml, json) = (Spec::parse(yaml).unwrap(), Spec::parse(json).unwrap());
        assert_eq!(yaml.devices[0].container_edits, json.devices[0].container_edits);
        assert_eq!(yaml.annotations, json.annotations);
        assert_eq!(yaml.devices[0].container_edits.device_nodes[0].file_mode, Some(0o640));
    }

    #[test]
    fn a_file_that_is_wrong_is_refused_with_the_reason() {
        let with = |version: &str, kind: &str, device: &str| {
            Spec::parse(&format!("{{cdiVersion: '{version}', kind: {kind}, devices: [{device}]}}"))
        };
        let device = "{name: one, containerEdits: {}}";
        let with_hook = |hook| format!("{{name: a, containerEdits: {{hooks: [{{{hook}}}]}}}}");
        assert!(with("0.6.0", "vendor.com/net", device).is_ok());
        for (version, kind, device, reason) in [
            ("9.9.9", "vendor.com/net", device, "unknown cdiVersion \"9.9.9\""),
            ("0.6.0", "net", device, "invalid kind \"net\": expected vendor/class"),
            ("0.6.0", "v/n", "{name: '-', containerEdits: {}}", "invalid device name \"-\""),
            ("0.6.0", "v/n", "{name: a, containerEdits: {env: [A]}}", "expected NAME=value"),
            ("0.6.0", "v/n", "{name: a, containerEdits: {bogus: 1}}", "bogus"),
            ("0.6.0", "v/n", &with_hook("hookName: later, path: /x"), "later"),
            ("0.6.0", "v/n", &with_hook("hookName: prestart, path: x"), "an absolute path"),
            ("0.6.0", "v/n", &with_hook("hookName: prestart, path: /x, timeout: 0"), "zero"),
            ("0.6.0", "v/n", &with_hook("hookName: prestart, path: /x, env: [A]"), "NAME=value"),
        ] {
            let error = with(version, kind, device).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn what_is_not_done_is_named() {
        let hooks = "{hooks: [{hookName: createContainer, path: /bin/x},
                              {hookName: poststop, path: /bin/y, args: [y]}]}";
        for (edits, named) in [
            (hooks, "the hook poststop (/bin/y)"),
            ("{netDevices: [{hostInterfaceName: a, name: b}]}", "network devices (netDevices)"),
            ("{intelRdt: {closID: a}}", "a class of Intel RDT (intelRdt)"),
        ] {
            let edits: Edits = serde_saphyr::from_str(edits).unwrap();
            assert_eq!(edits.unsupported().as_deref(), Some(named));
        }
    }
}
