//! Devices of the host that steps may be given (`RUN --device`), by the Container Device Interface:
//! what files say of them, which ones a step means, and whether it may have them.

mod grant;
mod inject;
mod spec;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kiln_proto::{pb, types};

use spec::{Edits, Spec};

pub(crate) use grant::{DeviceGrants, InvalidGrant};

/// Where files are looked for if nothing else is said, those that go before others last.
const DIRECTORIES: [&str; 4] = ["/etc/cdi", "/var/run/cdi", "/etc/buildkit/cdi", "/etc/kiln/cdi"];

/// By this a file says what its devices are good for, so that steps need not know names.
const CLASS: &str = "org.mobyproject.buildkit.device.class";

/// By this a file lets every step have its devices.
const AUTO_ALLOW: &str = "org.mobyproject.buildkit.device.autoallow";

/// A step cannot have the devices that it asks for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    #[error("required device {0:?} is not registered")]
    NotRegistered(String),
    #[error("required device {0:?}: devices are disabled by the configuration (cdi.disabled)")]
    Disabled(String),
    #[error("device {0} is requested by the build but not allowed")]
    NotAllowed(String),
    #[error("devices {0} are requested by the build but not allowed")]
    SeveralNotAllowed(String),
    #[error("device {device} needs {what}, which this daemon does not have")]
    Unsupported { device: String, what: String },
    #[error("device {device}: node {path}: {reason}")]
    Node { device: String, path: String, reason: String },
    #[error("device {device}: mount {path}: {reason}")]
    Mount { device: String, path: String, reason: String },
}

/// Where devices are described, and which ones every step may have.
#[derive(Debug)]
pub(crate) struct Devices {
    /// None, if devices are disabled.
    directories: Option<Vec<PathBuf>>,
    auto_allowed: BTreeSet<String>,
}

/// A device that is described.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    kind: String,
    /// The kind and a name in it.
    name: String,
    annotations: BTreeMap<String, String>,
    is_allowed: bool,
    /// The file that describes it, and what that changes about a container with any of its devices.
    file: PathBuf,
    common: Edits,
    edits: Edits,
}

impl Devices {
    /// The devices described in `directories`, or in the usual ones if there are none.
    pub(crate) fn new(directories: Vec<PathBuf>, auto_allowed: Vec<String>) -> Self {
        let usual = || DIRECTORIES.into_iter().map(PathBuf::from).collect();
        let directories = if directories.is_empty() { usual() } else { directories };
        let auto_allowed = auto_allowed.into_iter().collect();
        Self { directories: Some(directories), auto_allowed }
    }

    /// No devices at all.
    pub(crate) fn disabled() -> Self {
        Self { directories: None, auto_allowed: BTreeSet::new() }
    }

    /// What is described at the moment, by name. The files are few and small, and drivers write them
    /// when they please, so they are read whenever somebody asks.
    ///
    /// A later directory goes before an earlier one. A device that a directory describes twice is
    /// none: it cannot be told which is meant.
    pub(crate) fn list(&self) -> Vec<Device> {
        let mut found: BTreeMap<String, Device> = BTreeMap::new();
        for directory in self.directories.iter().flatten() {
            let mut of_directory: BTreeMap<String, Vec<Device>> = BTreeMap::new();
            for file in files(directory) {
                match Spec::read(&file) {
                    Ok(spec) => {
                        for device in self.of_spec(&file, spec) {
                            of_directory.entry(device.name.clone()).or_default().push(device);
                        }
                    }
                    Err(error) => {
                        tracing::warn!(file = %file.display(), %error, "no device is described here");
                    }
                }
            }
            for (name, mut devices) in of_directory {
                match (devices.pop(), devices.is_empty()) {
                    (Some(device), true) => drop(found.insert(name, device)),
                    _ => {
                        tracing::warn!(name, directory = %directory.display(), "device described twice");
                        found.remove(&name);
                    }
                }
            }
        }
        found.into_values().collect()
    }

    fn of_spec(&self, file: &std::path::Path, spec: Spec) -> Vec<Device> {
        let Spec { kind, annotations, devices, container_edits: common, .. } = spec;
        let device = |device: spec::DeviceSpec| {
            let name = format!("{kind}={}", device.name);
            let mut annotations = annotations.0.clone();
            annotations.extend(device.annotations.0);
            let is_allowed = self.auto_allowed.contains(&name)
                || self.auto_allowed.contains(&kind)
                || annotations.get(AUTO_ALLOW).is_some_and(|value| is_true(value));
            let (kind, file, common) = (kind.clone(), file.to_owned(), common.clone());
            let edits = device.container_edits;
            Device { kind, name, annotations, is_allowed, file, common, edits }
        };
        devices.into_iter().map(device).collect()
    }

    /// The devices that a step may have of those it asks for, each once.
    pub(crate) fn resolve(
        &self,
        asked: &[pb::CdiDevice],
        grants: &DeviceGrants,
    ) -> Result<Vec<Device>, DeviceError> {
        let mut resolved: Vec<Device> = Vec::new();
        let mut forbidden = Vec::new();
        if asked.is_empty() {
            return Ok(resolved);
        }
        let all = self.list();
        let granted = grants.names().flat_map(|name| matching(&all, name));
        let granted: BTreeSet<_> = granted.map(|device| device.name.clone()).collect();
        for pb::CdiDevice { name, optional } in asked {
            let alias = grants.meaning(name);
            let matching = matching(&all, alias.unwrap_or(name));
            if matching.is_empty() && !optional {
                return Err(match &self.directories {
                    None => DeviceError::Disabled(name.clone()),
                    Some(_) => DeviceError::NotRegistered(name.clone()),
                });
            }
            for device in matching {
                let is_allowed = device.is_allowed
                    || alias.is_some()
                    || grants.all
                    || granted.contains(&device.name);
                if !is_allowed {
                    forbidden.push(device.name.clone());
                } else if resolved.iter().all(|other| other.name != device.name) {
                    resolved.push(device.clone());
                }
            }
        }
        match forbidden.as_slice() {
            [] => Ok(resolved),
            [one] => Err(DeviceError::NotAllowed(one.clone())),
            several => Err(DeviceError::SeveralNotAllowed(several.join(", "))),
        }
    }
}

impl Device {
    pub(crate) fn to_wire(&self) -> types::CdiDevice {
        types::CdiDevice {
            name: self.name.clone(),
            auto_allow: self.is_allowed,
            annotations: self.annotations.clone().into_iter().collect(),
            on_demand: false,
        }
    }
}

/// The devices that a name means: that one, the first of a kind, all of a kind (`kind=*`), or else
/// those of a class.
fn matching<'a>(all: &'a [Device], name: &str) -> Vec<&'a Device> {
    let (kind, which) = name.split_once('=').unwrap_or((name, ""));
    let mut of_kind = all.iter().filter(|device| device.kind == kind);
    let found: Vec<_> = match which {
        _ if !spec::is_kind(kind) => Vec::new(),
        "" => of_kind.next().into_iter().collect(),
        "*" => of_kind.collect(),
        _ => of_kind.filter(|device| device.name == name).collect(),
    };
    if !found.is_empty() {
        return found;
    }
    let is_class = |device: &&Device| device.annotations.get(CLASS).is_some_and(|c| c == name);
    all.iter().filter(is_class).collect()
}

/// The files of a directory that may describe devices, in order.
fn files(directory: &std::path::Path) -> Vec<PathBuf> {
    // Most hosts have none of the usual directories.
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    let is_spec = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "yaml" || extension == "json")
    };
    let mut files: Vec<_> = paths.filter(is_spec).collect();
    files.sort();
    files
}

/// As Go reads a boolean.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(kind: &str, devices: &str, annotation: &str) -> String {
        let devices = devices.split(' ').map(|name| {
            format!("{{name: {name}, containerEdits: {{env: ['WHO={kind}={name}']}}}}")
        });
        let devices = devices.collect::<Vec<_>>().join(", ");
        format!(
            "{{cdiVersion: '0.6.0', kind: {kind}, devices: [{devices}], annotations: {{{annotation}}}}}"
        )
    }

    fn devices(files: &[(&str, String)]) -> (tempfile::TempDir, Devices) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let directories = ["low", "high"].map(|name| folder.path().join(name)).into();
        (folder, Devices::new(directories, vec!["auto.com/kind".into(), "v.com/one=b".into()]))
    }

    fn asked(name: &str, optional: bool) -> pb::CdiDevice {
        pb::CdiDevice { name: name.to_owned(), optional }
    }

    #[test]
    fn a_later_directory_goes_before_an_earlier_one_and_conflicts_hide_a_device() {
        let (_folder, devices) = devices(&[
            ("low/a.yaml", spec("v.com/one", "a b", "")),
            ("low/ignored.txt", spec("v.com/one", "c", "")),
            ("low/broken.json", "{".to_owned()),
            ("high/a.json", spec("v.com/one", "a", "which: high")),
            ("high/b.yaml", spec("v.com/two", "x y", "")),
            ("high/c.yaml", spec("v.com/two", "x", "")),
        ]);
        let list = devices.list();
        let names: Vec<_> = list.iter().map(|device| device.name.as_str()).collect();
        assert_eq!(names, ["v.com/one=a", "v.com/one=b", "v.com/two=y"]);
        assert_eq!(list[0].annotations["which"], "high");
    }

    /// What is asked for, whether it may be missing, what is granted, and what comes of it.
    type Row<'a> = (&'a str, bool, &'a [&'a str], Result<&'a str, &'a str>);

    #[test]
    fn a_step_gets_what_it_names_as_far_as_it_may() {
        let (_folder, devices) = devices(&[
            ("low/a.yaml", spec("v.com/one", "a b c", "")),
            ("low/b.yaml", spec("auto.com/kind", "x", "")),
            (
                "low/c.yaml",
                spec("open.com/kind", "y", &format!("{AUTO_ALLOW}: true, {CLASS}: gpu")),
            ),
        ]);
        let table: &[Row<'_>] = &[
            ("v.com/one=a", false, &["device"], Ok("v.com/one=a")),
            ("v.com/one=a", false, &["device=v.com/one=a"], Ok("v.com/one=a")),
            ("v.com/one=a", false, &["device=v.com/one=*"], Ok("v.com/one=a")),
            ("mine", false, &["device=v.com/one=c,alias=mine"], Ok("v.com/one=c")),
            ("v.com/one", false, &["device"], Ok("v.com/one=a")),
            ("v.com/one=*", false, &["device"], Ok("v.com/one=a v.com/one=b v.com/one=c")),
            ("v.com/one=b", false, &[], Ok("v.com/one=b")),
            ("auto.com/kind=x", false, &[], Ok("auto.com/kind=x")),
            ("gpu", false, &[], Ok("open.com/kind=y")),
            ("v.com/none", true, &[], Ok("")),
            ("v.com/none", false, &[], Err("required device \"v.com/none\" is not registered")),
            (
                "v.com/one=a",
                true,
                &["device=v.com/one=b"],
                Err("device v.com/one=a is requested by the build but not allowed"),
            ),
            (
                "v.com/one=*",
                false,
                &[],
                Err("devices v.com/one=a, v.com/one=c are requested by the build but not allowed"),
            ),
        ];
        for (name, optional, grants, expected) in table {
            let grants = DeviceGrants::of(grants.iter().copied()).unwrap();
            let resolved = devices.resolve(&[asked(name, *optional)], &grants);
            let resolved = resolved.map(|devices| {
                devices.iter().map(|device| device.name.as_str()).collect::<Vec<_>>().join(" ")
            });
            let resolved = resolved.map_err(|error| error.to_string());
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(resolved, expected, "{name} with {grants:?}");
        }
    }

    #[test]
    fn no_device_is_had_where_they_are_disabled() {
        let grants = DeviceGrants::of(["device"].into_iter()).unwrap();
        let error = Devices::disabled().resolve(&[asked("v.com/one", false)], &grants).unwrap_err();
        assert!(error.to_string().contains("cdi.disabled"), "{error}");
        assert!(
            Devices::disabled().resolve(&[asked("v.com/one", true)], &grants).unwrap().is_empty()
        );
    }
}
