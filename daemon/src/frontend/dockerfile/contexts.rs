//! The build context, and the named contexts that take the place of stages and images.

use std::collections::BTreeMap;

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_cache::Digest;
use kiln_dockerfile::plan::ContextPaths;
use kiln_registry::ImageRef;

use super::bases::Root;
use super::convert::Conversion;
use super::graph::{named, source};
use super::image::Image;
use super::load::{CONTEXT, IGNORE_FILE, LocalSource, patterns_of_source};
use super::options::Options;
use super::remote_source::{RemoteSource, git, http};
use crate::frontend::Assignment;
use crate::frontend::metadata::{self, NotAnImage};
use crate::graph::Edge;
use crate::image::{Origin, Platform, read_by_digest};
use crate::ops::source::without_credentials;
use crate::provenance::ImageSource;
use crate::solver::SolveError;

/// A named context that is a directory of the client.
#[derive(Clone, Debug)]
pub(super) struct LocalContext {
    /// Its name in the session.
    source: String,
    exclude: Vec<String>,
}

/// What instructions read of directories of the client.
#[derive(Clone, Debug, Default)]
pub(super) struct UsedPaths {
    pub(super) context: ContextPaths,
    /// Of named contexts, by their keys.
    pub(super) locals: BTreeMap<String, ContextPaths>,
}

/// The sources that the client's directories are.
pub(super) struct Sources {
    /// The build context.
    pub(super) context: Option<Edge>,
    /// Named contexts, by their keys.
    pub(super) locals: BTreeMap<String, Edge>,
}

impl Sources {
    /// Sources that have the paths in `used`, and all where that does not say which.
    pub(super) fn new(
        conversion: &Conversion<'_>,
        ignore: &[String],
        locals: &BTreeMap<String, LocalContext>,
        used: &UsedPaths,
    ) -> anyhow::Result<Self> {
        let (work, options) = (conversion.work, conversion.options);
        let context = match &conversion.loaded.context {
            Some(given) => given.files.clone(),
            None => {
                let local = LocalSource {
                    name: CONTEXT,
                    step: "[internal] load build context".to_owned(),
                    hint: CONTEXT.to_owned(),
                    follow: &used.context.to_follow().unwrap_or_default(),
                    exclude: ignore,
                    is_small: false,
                };
                Some(local.vertex(work, options)?.output(0))
            }
        };
        let mut edges = BTreeMap::new();
        for (key, local) in locals {
            let follow = used.locals.get(key).and_then(ContextPaths::to_follow);
            let shared = options.shared_keys.get(key).map_or("", String::as_str);
            let local = LocalSource {
                name: &local.source,
                step: format!("[context {key}] load from client"),
                hint: format!("context:{key}-{shared}"),
                follow: &follow.unwrap_or_default(),
                exclude: &local.exclude,
                is_small: false,
            };
            edges.insert(key.clone(), local.vertex(work, options)?.output(0));
        }
        Ok(Self { context, locals: edges })
    }
}

/// The key of the named context called `name`, for `platform` in particular or else for all.
pub(super) fn find(options: &Options, name: &str, platform: &Platform) -> Option<String> {
    if name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case(CONTEXT) {
        return None;
    }
    let name = name.parse::<ImageRef>().ok()?.familiar();
    let name = name.strip_suffix(":latest").unwrap_or(&name);
    let keys = [format!("{name}::{platform}"), name.to_owned()];
    keys.into_iter().find(|key| options.contexts.contains_key(key))
}

/// A named context, ready for use.
pub(super) struct NamedContext {
    pub(super) root: Root,
    /// The config that comes with it, also as it was read.
    pub(super) image: Option<(Image, Vec<u8>)>,
    /// The directory, if it is one.
    pub(super) local: Option<LocalContext>,
}

impl NamedContext {
    /// A context that is nothing but files.
    fn of_files(edge: Edge) -> Self {
        Self { root: Root::Edge(edge), image: None, local: None }
    }
}

/// Loads the named context of that key.
pub(super) async fn load(
    conversion: &Conversion<'_>,
    key: &str,
    platform: &Platform,
) -> Result<NamedContext, SolveError> {
    let mut specifier = conversion.options.contexts.get(key).cloned().unwrap_or_default();
    for _ in 0..MOST_CONVERSIONS {
        let loaded = load_from(conversion, key, &specifier, platform).await;
        let updated = match &loaded {
            Err(error) => error.cause().downcast_ref::<NotAnImage>(),
            Ok(_) => None,
        };
        match updated {
            Some(NotAnImage { updated, .. }) => specifier.clone_from(updated),
            None => return loaded,
        }
    }
    Err(anyhow!("the source policy converts the context {key} over and over").into())
}

/// How often a policy may convert the image that a context is to something else, which may be an
/// image again.
const MOST_CONVERSIONS: usize = 10;

/// Loads it from where `specifier` says.
async fn load_from(
    conversion: &Conversion<'_>,
    key: &str,
    specifier: &str,
    platform: &Platform,
) -> Result<NamedContext, SolveError> {
    let options = conversion.options;
    match RemoteSource::parse(specifier).map_err(anyhow::Error::from)? {
        Some(RemoteSource::Git(repository)) => {
            let step = named(format!("[internal] load git source {}", repository.remote));
            return Ok(NamedContext::of_files(git(&repository, step).output(0)));
        }
        Some(RemoteSource::Http(url)) => {
            let shown = without_credentials(&url);
            let step = named(format!("[context {key}] {shown}"));
            return Ok(NamedContext::of_files(http(&url, CONTEXT, None, step).output(0)));
        }
        None => {}
    }
    let invalid = || anyhow!("invalid context specifier {specifier} for {key}");
    let (kind, rest) = specifier.split_once(':').ok_or_else(invalid)?;
    match kind {
        "docker-image" => image(conversion, key, rest.trim_start_matches("//"), platform).await,
        "oci-layout" => layout(conversion, key, rest.trim_start_matches("//"), platform).await,
        "local" => local(conversion.work, options, key, rest.trim_start_matches("//")).await,
        "input" => input(conversion, key, rest),
        _ => Err(anyhow!("unsupported context source {kind} for {key}").into()),
    }
}

async fn image(
    conversion: &Conversion<'_>,
    key: &str,
    name: &str,
    platform: &Platform,
) -> Result<NamedContext, SolveError> {
    if name == "scratch" {
        return Ok(NamedContext { root: Root::Scratch, image: None, local: None });
    }
    let reference: ImageRef = name.parse()?;
    let mode = conversion.options.resolve_mode;
    let step = format!("[context {key}] load metadata for {name}");
    let policy = conversion.work.policy();
    let (reference, resolved) =
        metadata::load_permitted(conversion.work, policy, &reference, platform, mode, &step)
            .await?;
    let root = match reference.digest() {
        Some(_) => reference.to_string(),
        None => format!("{reference}@{}", resolved.digest),
    };
    let edge = super::bases::image_source(
        conversion.options,
        &root,
        platform,
        named(format!("[context {key}] {name}")),
    );
    let image = Image::parse(&resolved.config)?;
    Ok(NamedContext { root: Root::Edge(edge), image: Some((image, resolved.config)), local: None })
}

async fn layout(
    conversion: &Conversion<'_>,
    key: &str,
    specifier: &str,
    platform: &Platform,
) -> Result<NamedContext, SolveError> {
    let work = conversion.work;
    let (store, digest) = specifier
        .rsplit_once('@')
        .with_context(|| format!("oci-layout reference {specifier:?} has no digest"))?;
    // A tag in front of the digest does not count.
    let store = match store.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => store,
    };
    let digest: Digest = digest
        .parse()
        .with_context(|| format!("could not parse oci-layout reference {specifier:?}"))?;
    let name = key.split("::").next().unwrap_or(key);
    let vertex = work.progress.internal(
        &format!("oci-layout:{key}:{specifier}:{platform}"),
        &format!("[context {key}] load metadata for {name}@{digest}"),
    );
    let origin = Origin::Session(format!("oci:{store}"));
    let resolved = vertex.run(read_by_digest(work, origin, digest, platform)).await?;
    let mut attrs = BTreeMap::from([("oci.store".to_owned(), store.to_owned())]);
    if let Some(session) = work.session_id() {
        attrs.insert("oci.session".to_owned(), session.to_owned());
    }
    let reference = format!("{}@{digest}", name.parse::<ImageRef>()?.name());
    work.note_image(ImageSource::in_layout(reference.clone(), platform, resolved.digest));
    let identifier = format!("oci-layout://{reference}");
    let step = named(format!("[context {key}] OCI load from client"));
    let edge = source(identifier, attrs, Some(platform), step).output(0);
    let image = Image::parse(&resolved.config)?;
    Ok(NamedContext { root: Root::Edge(edge), image: Some((image, resolved.config)), local: None })
}

async fn local(
    work: &Assignment,
    options: &Options,
    key: &str,
    name: &str,
) -> Result<NamedContext, SolveError> {
    let step = format!("[context {key}] load {IGNORE_FILE}");
    let hint = format!("context:{key}-{IGNORE_FILE}");
    let exclude = patterns_of_source(work, options, name, step, hint).await?;
    let local = LocalContext { source: name.to_owned(), exclude };
    Ok(NamedContext { root: Root::Local(key.to_owned()), image: None, local: Some(local) })
}

fn input(conversion: &Conversion<'_>, key: &str, name: &str) -> Result<NamedContext, SolveError> {
    let input = conversion.request.inputs.get(name);
    let input = input.with_context(|| format!("invalid input {name} for {key}"))?;
    let root = input.clone().map_or(Root::Scratch, Root::Edge);
    let mut image = None;
    if let Some(text) = conversion.options.input_metadata.get(name) {
        let metadata: BTreeMap<String, String> = serde_json::from_str(text)
            .with_context(|| format!("failed to parse input metadata {text}"))?;
        if let Some(config) = metadata.get("containerimage.config") {
            let config = STANDARD.decode(config)?;
            image = Some((Image::parse(&config)?, config));
        }
    }
    Ok(NamedContext { root, image, local: None })
}
