//! Exports: what the daemon is told, and where the session puts what comes back.

use crate::args::entitlement::Allowed;
use crate::args::output::{Destination, Output};
use crate::session::{Engine, Layout, LayoutError, Name, Stores, Target};
use anyhow::{Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_proto::control::Exporter;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::Path;

/// The name under which daemons write image layouts; there is but one.
const STORE: &str = "export";

/// The exports of a build.
#[derive(Debug, Default)]
pub(super) struct Exports {
    /// What the daemon is told.
    pub(super) exporters: Vec<Exporter>,
    /// Where the session puts what comes back.
    pub(super) targets: BTreeMap<usize, Target>,
    /// Layouts to serve.
    pub(super) stores: Stores,
    /// Whether something goes to standard output.
    pub(super) uses_stdout: bool,
    /// The layout that gets an image.
    layout: Option<Layout>,
}

impl Exports {
    /// Checks that each export has a place to go.
    pub(super) async fn load(outputs: &[Output], allowed: &Allowed) -> Result<Self> {
        let mut exports = Self::default();
        for (id, output) in outputs.iter().enumerate() {
            let kind = &output.kind;
            match &output.destination {
                Destination::Daemon => {}
                Destination::Stdout => {
                    if std::mem::replace(&mut exports.uses_stdout, true) {
                        bail!("--output: only one export can go to standard output");
                    }
                    if std::io::stdout().is_terminal() {
                        bail!("--output type={kind}: a terminal is no place for it, add dest=FILE");
                    }
                    exports.targets.insert(id, Target::Stdout);
                }
                Destination::File(path) => {
                    if path.is_dir() {
                        bail!("--output: {} is a directory", path.display());
                    }
                    exports.targets.insert(id, Target::File(path.clone()));
                }
                Destination::Directory { path, mirror } => {
                    check_directory(path)?;
                    if *mirror && !allowed.local_delete && !is_below_working_directory(path) {
                        bail!(
                            "--output: mode=delete of {}, which is not below the working \
                             directory, needs --allow=buildx.local.delete",
                            path.display()
                        );
                    }
                    let target = Target::Directory { path: path.clone(), mirror: *mirror };
                    exports.targets.insert(id, target);
                }
                Destination::Layout(path) => {
                    check_directory(path)?;
                    let layout = Layout::new(path);
                    layout.create()?;
                    if exports.layout.replace(layout.clone()).is_some() {
                        bail!("--output: only one export can go to an image layout (tar=false)");
                    }
                    exports.stores.insert(STORE.to_owned(), layout);
                }
                Destination::Engine => {
                    let context = output.attributes.get("context").map(String::as_str);
                    exports.targets.insert(id, Target::Engine(Engine::find(context).await?));
                }
            }
            exports
                .exporters
                .push(Exporter { r#type: kind.clone(), attrs: output.attributes.clone() });
        }
        Ok(exports)
    }

    /// Enters the image that was exported into the layout that holds it now.
    pub(super) fn finish(&self, response: &BTreeMap<String, String>) -> Result<(), LayoutError> {
        let Some(layout) = &self.layout else { return Ok(()) };
        let descriptor = response
            .get("containerimage.descriptor")
            .and_then(|descriptor| STANDARD.decode(descriptor).ok())
            .and_then(|descriptor| serde_json::from_slice::<Value>(&descriptor).ok());
        let Some(descriptor) = descriptor else { return Ok(()) };
        let names = match response.get("image.name").filter(|names| !names.is_empty()) {
            Some(names) => names.split(',').map(|name| Name::Image(name.to_owned())).collect(),
            None => vec![Name::Tag("latest".to_owned())],
        };
        layout.enter(&descriptor, &names)
    }
}

fn check_directory(path: &Path) -> Result<()> {
    if path.exists() && !path.is_dir() {
        bail!("--output: {} is a file", path.display());
    }
    Ok(())
}

/// Whether a directory, of which the last parts may not be there yet, is within this one, and is
/// not this one itself.
fn is_below_working_directory(path: &Path) -> bool {
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(path);
    let existing = if existing == Path::new("") { Path::new(".") } else { existing };
    let (Ok(real), Ok(here)) = (existing.canonicalize(), Path::new(".").canonicalize()) else {
        return false;
    };
    let rest = path.strip_prefix(existing).unwrap_or(Path::new(""));
    let has_parents = rest.components().any(|c| c == std::path::Component::ParentDir);
    let full = real.join(rest);
    !has_parents && full != here && full.starts_with(&here)
}
