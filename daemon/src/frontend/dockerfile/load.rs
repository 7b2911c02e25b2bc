//! Reads the Dockerfile and the ignore file from the client.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;

use anyhow::Context as _;
use kiln_dockerfile::{Dockerfile, MOST_BYTES, ParseError};
use kiln_proto::pattern::read_ignore_file;
use kiln_proto::pb;
use kiln_snapshotter::{FsError, View};
use tonic::{Code, Status};

use super::graph::{named, source};
use super::options::Options;
use super::remote::{GivenContext, given_context};
use crate::frontend::Assignment;
use crate::graph::{Edge, Vertex, to_definition};
use crate::solver::{Build, SolveError};

/// The name of a context's ignore file.
pub(super) const IGNORE_FILE: &str = ".dockerignore";
/// The local source that is the context.
pub(super) const CONTEXT: &str = "context";

/// A Dockerfile, and the ignore file beside it.
pub(super) struct Loaded {
    pub(super) file: Arc<pb::SourceInfo>,
    /// What it says, up to the first error.
    pub(super) parsed: Arc<Dockerfile>,
    pub(super) error: Option<ParseError>,
    /// The step that loaded it.
    pub(super) vertex: Option<Arc<Vertex>>,
    /// The ignore file that belongs to this Dockerfile only, with its name.
    ignore: Option<(String, Vec<u8>)>,
    /// The build context, if it is not the client's directory.
    pub(super) context: Option<GivenContext>,
}

/// What a local source has of a client's directory.
#[derive(Default)]
pub(super) struct LocalSource<'a> {
    /// Its name in the session.
    pub(super) name: &'a str,
    /// What the step is called.
    pub(super) step: String,
    /// Tells apart selections of the same directory, which are kept separately.
    pub(super) hint: String,
    /// Paths to send; all if empty.
    pub(super) follow: &'a [String],
    pub(super) exclude: &'a [String],
    /// Whether this is about a few files that are sent anew each time.
    pub(super) is_small: bool,
}

impl LocalSource<'_> {
    pub(super) fn vertex(&self, build: &Build, options: &Options) -> anyhow::Result<Arc<Vertex>> {
        let mut attrs = BTreeMap::new();
        let session = options.sessions.get(self.name).map(String::as_str);
        if let Some(session) = session.or(build.session_id()) {
            attrs.insert("local.session".to_owned(), session.to_owned());
        }
        attrs.insert("local.sharedkeyhint".to_owned(), self.hint.clone());
        let lists = [("local.followpaths", self.follow), ("local.excludepatterns", self.exclude)];
        for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            attrs.insert(name.to_owned(), serde_json::to_string(list)?);
        }
        if self.is_small {
            attrs.insert("local.differ".to_owned(), "none".to_owned());
        }
        Ok(source(format!("local://{}", self.name), attrs, None, named(&self.step)))
    }
}

/// Reads a file of a result; `None` if there is none.
pub(super) async fn read_file(
    work: &Assignment,
    edge: &Edge,
    path: &str,
) -> Result<Option<Vec<u8>>, SolveError> {
    let snapshot = work.look_at(edge).await?;
    work.daemon.layers.fetch(work, &snapshot).await?;
    let view = work.daemon.layers.view(&snapshot)?;
    let owned = path.to_owned();
    let data = tokio::task::spawn_blocking(move || {
        // The tree of a client may change once the snapshot is dropped.
        let _held = snapshot;
        read(&view, &owned)
    });
    Ok(data.await?.with_context(|| path.to_owned())?)
}

fn read(view: &View, path: &str) -> anyhow::Result<Option<Vec<u8>>> {
    let file = match view.open(path) {
        Ok(file) => file,
        Err(FsError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // One byte more than is accepted, so that the parser sees that it is too much.
    let mut data = Vec::new();
    file.take(MOST_BYTES as u64 + 1).read_to_end(&mut data)?;
    Ok(Some(data))
}

/// Reads the Dockerfile.
pub(super) async fn dockerfile(
    work: &Assignment,
    options: &Options,
    inputs: &BTreeMap<String, Option<Edge>>,
) -> Result<Loaded, SolveError> {
    let context = given_context(work, options, inputs).await?;
    let filename = context.as_ref().and_then(|given| given.filename.as_ref());
    let name = &filename.unwrap_or(&options.filename).clone();
    // The name is accepted in lower case, too.
    let (directory, base) = name.rsplit_once('/').unwrap_or(("", name));
    let lower = (base == "Dockerfile").then(|| match directory {
        "" => base.to_lowercase(),
        directory => format!("{directory}/{}", base.to_lowercase()),
    });
    let ignore_name = format!("{name}{IGNORE_FILE}");

    let is_local = options.is_dockerfile_source_given;
    let input = inputs.get(&options.dockerfile_source).filter(|_| !is_local);
    let from_context = options.remote_context.as_ref().and(context.as_ref());
    let from_context = from_context.filter(|_| !is_local).map(|given| &given.files);
    let edge = if let Some(files) = from_context.or(input) {
        files.clone()
    } else {
        let mut follow = vec![name.clone(), ignore_name.clone()];
        follow.extend(lower.clone());
        let local = LocalSource {
            name: &options.dockerfile_source,
            step: format!("[internal] load build definition from {name}"),
            hint: options.dockerfile_source.clone(),
            follow: &follow,
            is_small: true,
            ..LocalSource::default()
        };
        Some(local.vertex(work, options)?.output(0))
    };
    let (mut data, mut ignore) = (None, None);
    if let Some(edge) = &edge {
        data = read_file(work, edge, name).await?;
        if data.is_none()
            && let Some(lower) = &lower
        {
            data = read_file(work, edge, lower).await?;
        }
        ignore = read_file(work, edge, &ignore_name).await?.map(|ignore| (ignore_name, ignore));
    }
    let data = data.with_context(|| {
        format!("failed to read dockerfile: open {name}: no such file or directory")
    })?;
    let file = pb::SourceInfo {
        filename: name.clone(),
        data: data.into(),
        definition: edge.as_ref().map(|edge| to_definition(Some(edge))),
        language: "Dockerfile".to_owned(),
    };
    let (parsed, error) = Dockerfile::parse_up_to_error(&file.data);
    let (file, parsed, vertex) = (Arc::new(file), Arc::new(parsed), edge.map(|edge| edge.vertex));
    Ok(Loaded { file, parsed, error, vertex, ignore, context })
}

/// The patterns that keep files of the context with the client.
pub(super) async fn ignore_patterns(
    work: &Assignment,
    options: &Options,
    loaded: &Loaded,
) -> Result<Vec<String>, SolveError> {
    if let Some((name, content)) = &loaded.ignore {
        return patterns(name, content);
    }
    let step = format!("[internal] load {IGNORE_FILE}");
    let hint = format!("{CONTEXT}-{IGNORE_FILE}");
    patterns_of_source(work, options, CONTEXT, step, hint).await
}

/// The patterns of the ignore file that a local source has.
pub(super) async fn patterns_of_source(
    work: &Assignment,
    options: &Options,
    name: &str,
    step: String,
    hint: String,
) -> Result<Vec<String>, SolveError> {
    let follow = [IGNORE_FILE.to_owned()];
    let local =
        LocalSource { name, step, hint, follow: &follow, is_small: true, ..Default::default() };
    let edge = local.vertex(work, options)?.output(0);
    let content = match read_file(work, &edge, IGNORE_FILE).await {
        // Whether the directory is needed shows later: a file may copy nothing from it.
        Err(error) if is_missing(&error) => None,
        content => content?,
    };
    patterns(IGNORE_FILE, &content.unwrap_or_default())
}

/// Whether the client does not serve the directory.
fn is_missing(error: &SolveError) -> bool {
    error.cause().chain().any(|cause| {
        let status = cause.downcast_ref::<Status>();
        let status = status.or_else(|| cause.downcast_ref::<Box<Status>>().map(|status| &**status));
        status.is_some_and(|status| status.code() == Code::NotFound)
    })
}

fn patterns(name: &str, content: &[u8]) -> Result<Vec<String>, SolveError> {
    let patterns = read_ignore_file(content);
    Ok(patterns.with_context(|| format!("failed parsing {name}"))?)
}
