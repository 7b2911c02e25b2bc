//! The built-in Dockerfile frontend: from a Dockerfile to the build graph.
//!
//! Everything that needs the client or a registry comes first: the Dockerfile, the ignore file
//! and the configs of base images. Then the stages are evaluated, without I/O, into vertices.

mod add;
mod bases;
mod contexts;
mod convert;
mod copy;
mod epoch;
mod errors;
mod evaluate;
mod graph;
mod history;
mod image;
mod instructions;
mod limits;
mod load;
mod mounts;
mod names;
mod options;
mod paths;
mod remote;
mod remote_source;
mod run;
mod stage;
mod warnings;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use futures::FutureExt as _;
use kiln_dockerfile::lint::{LintOptions, Linter};
use kiln_dockerfile::{Directive, Dockerfile, detect_syntax};
use serde_json::json;

use super::{FrontendRequest, FrontendResult, Refs};
use crate::image::Platform;
use crate::solver::{Build, SolveError};
use convert::{Conversion, Converted};
use errors::{NotSupported, lines};
use load::Loaded;
use options::Options;

/// Builds what the options of `request` ask for.
pub(crate) async fn solve(
    build: &Arc<Build>,
    request: FrontendRequest,
) -> Result<FrontendResult, SolveError> {
    let options = Options::parse(&request.options)?;
    if let Some(kind) = &options.subrequest {
        return Err(NotSupported(format!("the request {kind:?}")).into());
    }
    let loaded = load::dockerfile(build, &options, &request.inputs).await?;
    check_syntax(&options, &loaded)?;
    let mut linter = Linter::new(lint_options(&options, &loaded)?);
    let result = convert_all(build, &options, &request, &loaded, &mut linter).await;
    warnings::send(build, &loaded, linter.warnings());
    let converted = result?;
    if let Some(failure) = linter.failure() {
        return Err(failure.into());
    }
    finish(&options, converted)
}

/// A frontend in an image, which this daemon does not run.
#[derive(Debug, thiserror::Error)]
#[error(
    "the frontend {0} cannot be used: this daemon has its own Dockerfile frontend, which stands \
     for docker/dockerfile and docker/dockerfile-upstream, and runs no others"
)]
struct ForeignSyntax(String);

fn check_syntax(options: &Options, loaded: &Loaded) -> Result<(), SolveError> {
    if options.is_forwarded {
        return Ok(());
    }
    if let Some(syntax) = &options.syntax {
        let source = syntax.split_whitespace().next().unwrap_or_default();
        let foreign = !super::is_official(source);
        return if foreign { Err(ForeignSyntax(source.to_owned()).into()) } else { Ok(()) };
    }
    match detect_syntax(&loaded.file.data) {
        Some(directive) if !super::is_official(directive.first_word()) => {
            let error = ForeignSyntax(directive.first_word().to_owned());
            Err(SolveError::in_source(lines(&loaded.file, directive.location), error))
        }
        _ => Ok(()),
    }
}

/// The options of the build argument, or else of the `check` directive.
fn lint_options(options: &Options, loaded: &Loaded) -> anyhow::Result<LintOptions> {
    if let Some(text) = &options.check {
        let parsed = LintOptions::parse(text);
        return parsed.context("failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK");
    }
    let (file, _) = Dockerfile::parse_up_to_error(&loaded.file.data);
    let text = file.directives.check.as_ref().map_or("", Directive::first_word);
    LintOptions::parse(text).context("failed to parse check options")
}

/// Converts the Dockerfile for each platform; findings are reported for the first one.
async fn convert_all(
    build: &Arc<Build>,
    options: &Options,
    request: &FrontendRequest,
    loaded: &Loaded,
    linter: &mut Linter,
) -> Result<Vec<(Platform, Converted)>, SolveError> {
    let conversion = |platform| Conversion { build, options, request, loaded, platform };
    if options.platforms.is_empty() {
        let converted = conversion(None).run(linter).boxed().await?;
        return Ok(vec![(Platform::host(), converted)]);
    }
    let mut all = Vec::new();
    for (index, platform) in options.platforms.iter().enumerate() {
        let mut unheard = Linter::default();
        let linter = if index == 0 { &mut *linter } else { &mut unheard };
        let converted = conversion(Some(platform)).run(linter).boxed().await?;
        all.push((platform.clone(), converted));
    }
    Ok(all)
}

/// The result as exporters read it.
fn finish(
    options: &Options,
    converted: Vec<(Platform, Converted)>,
) -> Result<FrontendResult, SolveError> {
    let mut metadata = BTreeMap::new();
    let mut declared = Vec::new();
    let mut many = BTreeMap::new();
    let mut single = None;
    for (platform, converted) in converted {
        let id = platform.to_string();
        let suffix = if options.multi_platform { format!("/{id}") } else { String::new() };
        let mut set = |key: &str, value: Vec<u8>| {
            metadata.insert(format!("{key}{suffix}"), Bytes::from(value));
        };
        set("containerimage.config", serde_json::to_vec(&converted.image)?);
        if let Some(base) = converted.base_config {
            set("containerimage.base.config", base);
        }
        if let Some(epoch) = converted.epoch {
            set("source.date.epoch", epoch.to_string().into_bytes());
        }
        declared.push(json!({ "ID": id, "Platform": platform }));
        many.insert(id, converted.root.clone());
        single = converted.root;
    }
    let platforms = serde_json::to_vec(&json!({ "Platforms": declared }))?;
    metadata.insert("refs.platforms".to_owned(), platforms.into());
    let refs = if options.multi_platform { Refs::Many(many) } else { Refs::Single(single) };
    Ok(FrontendResult { refs, metadata })
}
