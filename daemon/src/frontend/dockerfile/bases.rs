//! What stages start from, and what instructions read besides stages: images and named contexts.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use kiln_dockerfile::Location;
use kiln_registry::ImageRef;

use super::contexts::{self, LocalContext};
use super::convert::Conversion;
use super::errors::located;
use super::graph::source;
use super::image::Image;
use super::options::Options;
use crate::frontend::metadata;
use crate::graph::{Edge, VertexMeta};
use crate::image::{Platform, Resolve};
use crate::solver::SolveError;

/// Where the files of a base come from.
#[derive(Clone, Debug)]
pub(super) enum Root {
    Scratch,
    /// An image, by the reference to load it by.
    Image(String),
    /// A part of the graph that exists already.
    Edge(Edge),
    /// A directory of the client, by the key of the named context.
    Local(String),
}

/// An image or a named context.
#[derive(Clone, Debug)]
pub(super) struct Base {
    pub(super) root: Root,
    pub(super) image: Image,
    /// The config as it was read.
    pub(super) config: Option<Vec<u8>>,
    pub(super) platform: Platform,
}

/// Images that a name that is not found may have been meant for.
const COMMON_IMAGES: [&str; 7] =
    ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];

/// What names a base.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BaseKey {
    pub(super) name: String,
    pub(super) platform: Platform,
    /// Whether it is the named context that takes the place of the stage of that name.
    pub(super) replaces: bool,
}

/// The bases of a build.
#[derive(Debug, Default)]
pub(super) struct Bases {
    bases: BTreeMap<BaseKey, Base>,
    /// Named contexts that are directories, by key.
    pub(super) locals: BTreeMap<String, LocalContext>,
}

impl Bases {
    pub(super) fn get(&self, key: &BaseKey) -> anyhow::Result<&Base> {
        let missing = || anyhow::anyhow!("{} was not resolved", key.name);
        self.bases.get(key).ok_or_else(missing)
    }

    /// Resolves the bases that are not known yet, all at the same time.
    pub(super) async fn resolve(
        &mut self,
        conversion: &Conversion<'_>,
        wanted: Vec<(BaseKey, Location)>,
        stages: &[&str],
    ) -> Result<(), SolveError> {
        let mut missing: BTreeMap<BaseKey, Location> = BTreeMap::new();
        for (key, location) in wanted {
            if !self.bases.contains_key(&key) {
                missing.entry(key).or_insert(location);
            }
        }
        let resolutions = missing.into_iter().map(|(key, location)| async move {
            let resolved = resolve(conversion, &key).await.map_err(|error| {
                if error.is_canceled() || !error.locations().is_empty() {
                    return error;
                }
                let name = &key.name;
                let file = &conversion.loaded.file;
                if name.parse::<ImageRef>().is_err() {
                    let what = format!("failed to parse stage name {name:?}");
                    return located(file, location, error.into_cause().context(what));
                }
                let known = stages.iter().copied().chain(COMMON_IMAGES);
                let help = kiln_dockerfile::closest(name, known);
                let help = help.map(|meant| format!(" (did you mean {meant}?)"));
                let help = help.unwrap_or_default();
                let error = anyhow::anyhow!("{name}: {error}{help}");
                located(file, location, error)
            });
            resolved.map(|(base, local)| (key, base, local))
        });
        for (key, base, local) in try_join_all(resolutions).await? {
            self.locals.extend(local);
            self.bases.insert(key, base);
        }
        Ok(())
    }
}

type Resolved = (Base, Option<(String, LocalContext)>);

async fn resolve(conversion: &Conversion<'_>, key: &BaseKey) -> Result<Resolved, SolveError> {
    let platform = &key.platform;
    if let Some(context_key) = contexts::find(conversion.options, &key.name, platform) {
        let context = contexts::load(conversion, &context_key, platform).await?;
        let (image, config) = match context.image {
            Some((image, config)) => (image, Some(config)),
            None => (Image::empty(platform), None),
        };
        let has_platform = key.replaces && config.is_some() && !image.architecture.is_empty();
        let platform = if has_platform { image.platform() } else { platform.clone() };
        let base = Base { root: context.root, image, config, platform };
        return Ok((base, context.local.map(|local| (context_key, local))));
    }
    let reference: ImageRef = key.name.parse()?;
    let prefix =
        if conversion.options.multi_platform { format!("{platform} ") } else { String::new() };
    let step = format!("[{prefix}internal] load metadata for {reference}");
    let mode = conversion.options.resolve_mode;
    let policy = conversion.work.policy();
    let loaded =
        metadata::load_permitted(conversion.work, policy, &reference, platform, mode, &step).await;
    let (reference, resolved) = loaded.map_err(|error| {
        if error.is_canceled() {
            return error;
        }
        let what = format!("failed to resolve source metadata for {reference}");
        error.into_cause().context(what).into()
    })?;
    let image = Image::parse(&resolved.config)?;
    let root = match reference.digest() {
        _ if image.is_scratch() => Root::Scratch,
        Some(_) => Root::Image(reference.to_string()),
        None => Root::Image(format!("{reference}@{}", resolved.digest)),
    };
    let config = Some(resolved.config);
    Ok((Base { root, image, config, platform: platform.clone() }, None))
}

/// The source that an image is.
pub(super) fn image_source(
    options: &Options,
    reference: &str,
    platform: &Platform,
    meta: VertexMeta,
) -> Edge {
    let mode = match options.resolve_mode {
        Resolve::Default => None,
        Resolve::Pull => Some("pull"),
        Resolve::Local => Some("local"),
    };
    let attrs = mode.map(|mode| ("image.resolvemode".to_owned(), mode.to_owned()));
    let identifier = format!("docker-image://{reference}");
    source(identifier, attrs.into_iter().collect(), Some(platform), meta).output(0)
}
