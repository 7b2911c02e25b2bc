//! `SOURCE_DATE_EPOCH`: the time that everything made counts as made at. It is a number, or names a
//! source whose time it is: `context`, a named context, or a stage that is nothing but one ADD.

use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use indexmap::IndexMap;
use kiln_dockerfile::expand::Expander;
use kiln_dockerfile::instruction::{Add, Command, Stage};
use kiln_dockerfile::plan::GlobalArgs;
use kiln_proto::pb::op::Op;
use time::OffsetDateTime;

use super::add;
use super::bases::Root;
use super::contexts;
use super::convert::Conversion;
use super::errors::located;
use super::graph::named;
use super::load::CONTEXT;
use super::options::{NamedEpoch, Options};
use super::remote_source::{self, RemoteSource};
use crate::frontend::metadata::source_time;
use crate::graph::{Edge, Vertex};
use crate::image::Platform;
use crate::solver::SolveError;

const NAME: &str = "SOURCE_DATE_EPOCH";

/// The options with a time in place of a name; none if there is no name to replace.
pub(super) async fn resolve_named(
    conversion: &Conversion<'_>,
) -> Result<Option<Options>, SolveError> {
    let options = conversion.options;
    let file = &conversion.loaded.parsed;
    // What is wrong with the file is said when it is planned.
    if conversion.loaded.error.is_some() {
        return Ok(None);
    }
    let globals = conversion.automatic_args(file);
    let Ok(mut globals) = GlobalArgs::evaluate(file, globals, &options.build_args) else {
        return Ok(None);
    };
    let given = options.build_args.get(NAME).or_else(|| globals.values.get(NAME));
    let Some(name) = given.filter(|text| text.parse::<i64>().is_err()).cloned() else {
        return Ok(None);
    };
    globals.values.shift_remove(NAME);
    let time =
        if name.is_empty() { None } else { time_of(conversion, &globals.values, &name).await? };
    let mut options = options.clone();
    match (time, options.build_args.get_mut(NAME)) {
        (Some(time), Some(given)) => *given = time.to_string(),
        _ => drop(options.build_args.shift_remove(NAME)),
    }
    options.named_epoch = time.map_or(NamedEpoch::Timeless, NamedEpoch::At);
    Ok(Some(options))
}

/// The time, once it is no name any more. The arguments of the Dockerfile say the same.
pub(super) fn take(
    options: &Options,
    globals: &mut GlobalArgs,
) -> anyhow::Result<Option<OffsetDateTime>> {
    match options.named_epoch {
        NamedEpoch::At(time) => {
            if let Some(value) = globals.values.get_mut(NAME) {
                *value = time.to_string();
            }
            return valid(time).map(Some);
        }
        NamedEpoch::Timeless => drop(globals.values.shift_remove(NAME)),
        NamedEpoch::Unnamed => {}
    }
    let given = options.build_args.get(NAME).or_else(|| globals.values.get(NAME));
    let Some(text) = given.filter(|text| !text.is_empty()) else { return Ok(None) };
    let seconds = text.parse().with_context(|| format!("invalid {NAME}: {text:?} is no number"))?;
    valid(seconds).map(Some)
}

fn valid(seconds: i64) -> anyhow::Result<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(seconds)
        .with_context(|| format!("invalid {NAME}: {seconds}"))
}

async fn time_of(
    conversion: &Conversion<'_>,
    globals: &IndexMap<String, String>,
    name: &str,
) -> Result<Option<i64>, SolveError> {
    let work = conversion.work;
    if name == CONTEXT {
        let files = conversion.loaded.context.as_ref().and_then(|given| given.files.as_ref());
        let Some(source) = files.and_then(only_source) else { return Ok(None) };
        return source_time(work, &source, "[internal] resolve main build context metadata").await;
    }
    let host = Platform::host();
    let platform = conversion.platform.unwrap_or(&host);
    if let Some(key) = contexts::find(conversion.options, name, platform) {
        let context = contexts::load(conversion, &key, platform).await?;
        let Root::Edge(files) = context.root else { return Ok(None) };
        let Some(source) = only_source(&files) else { return Ok(None) };
        let step = format!("[internal] resolve {NAME} named context {name}");
        return source_time(work, &source, &step).await;
    }
    let file = &conversion.loaded.parsed;
    let is_meant = |stage: &&Stage| {
        stage.name.as_deref().is_some_and(|stage| stage.eq_ignore_ascii_case(name))
    };
    let Some(stage) = file.stages.iter().find(is_meant) else {
        return Err(anyhow!("invalid {NAME}: {name}").into());
    };
    let expander = Expander::new(file.directives.escape);
    let source = source_of_stage(stage, globals, &conversion.options.build_args, &expander)
        .map_err(|error| located(&conversion.loaded.file, stage.location, error))?;
    let step = format!("[internal] resolve {NAME} source stage {name}");
    source_time(work, &source, &step).await
}

/// The source that files come from; none if they come from several, or from none.
fn only_source(files: &Edge) -> Option<Arc<Vertex>> {
    let mut found: Option<Arc<Vertex>> = None;
    let mut pending = vec![files.vertex.clone()];
    while let Some(vertex) = pending.pop() {
        if matches!(vertex.op(), Op::Source(_)) {
            if found.as_ref().is_some_and(|known| known.digest() != vertex.digest()) {
                return None;
            }
            found = Some(vertex);
        } else {
            pending.extend(vertex.inputs().iter().map(|edge| edge.vertex.clone()));
        }
    }
    found
}

/// The source of a stage that has one ADD from elsewhere and, besides arguments, nothing else.
fn source_of_stage(
    stage: &Stage,
    globals: &IndexMap<String, String>,
    build_args: &IndexMap<String, String>,
    expander: &Expander,
) -> anyhow::Result<Arc<Vertex>> {
    if expander.expand(&stage.base, globals)?.text != "scratch" {
        bail!("{NAME} stage must use FROM scratch");
    }
    let mut env = globals.clone();
    let mut source = None;
    for instruction in &stage.instructions {
        match &instruction.command {
            Command::Arg(args) => {
                for arg in args {
                    let value = match (build_args.get(&arg.name), &arg.default) {
                        (Some(given), _) => given.clone(),
                        (None, Some(default)) => expander.expand(default, &env)?.text,
                        (None, None) => continue,
                    };
                    env.insert(arg.name.clone(), value);
                }
            }
            Command::Add(add) if source.is_none() => source = Some(source_of(add, &env, expander)?),
            Command::Add(_) => bail!("{NAME} stage must contain exactly one remote ADD"),
            _ => bail!(
                "{NAME} stage does not meet source-only requirements: unsupported {} instruction",
                instruction.source.split_whitespace().next().unwrap_or_default()
            ),
        }
    }
    source.with_context(|| format!("{NAME} stage must contain exactly one remote ADD"))
}

fn source_of(
    add: &Add,
    env: &IndexMap<String, String>,
    expander: &Expander,
) -> anyhow::Result<Arc<Vertex>> {
    let ([source], []) = (add.transfer.sources.as_slice(), add.transfer.files.as_slice()) else {
        bail!("{NAME} stage must contain exactly one remote ADD source");
    };
    let text = expander.expand(source, env)?.text;
    let checksum = match &add.checksum {
        Some(word) => Some(expander.expand(word, env)?.text).filter(|text| !text.is_empty()),
        None => None,
    };
    match RemoteSource::parse(&text)? {
        Some(RemoteSource::Http(url)) => {
            let name = remote_source::file_name(&url);
            Ok(remote_source::http(&url, &name, checksum.as_deref(), named("")))
        }
        Some(RemoteSource::Git(mut git)) => {
            add::apply(&mut git, add.keep_git_dir, checksum.as_deref())?;
            Ok(remote_source::git(&git, named("")))
        }
        None => bail!("{NAME} stage source must be a single HTTP(S) or Git ADD"),
    }
}
