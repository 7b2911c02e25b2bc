//! The built-in Dockerfile frontend: from a Dockerfile to the build graph.
//!
//! Everything that needs the client or a registry comes first: the Dockerfile, the ignore file
//! and the configs of base images. Then the stages are evaluated, without I/O, into vertices. A
//! sub-request (`requestid`) goes the same way as far as its answer needs.

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
mod outline;
mod paths;
mod remote;
mod remote_source;
mod run;
mod scans;
mod stage;
mod subrequest;
mod warnings;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use futures::FutureExt as _;
use kiln_dockerfile::lint::{LintOptions, Linter};
use kiln_dockerfile::{Directive, detect_syntax};
use serde_json::json;

use super::gateway::external;
use super::{Assignment, FrontendResult, Ref, Refs, Request, is_built_in};
use crate::attestation::Scanner;
use crate::image::Platform;
use crate::solver::SolveError;
use convert::{Conversion, Converted, Scope};
use errors::lines;
use load::Loaded;
use options::{Options, SYNTAX};
use subrequest::Question;

/// Builds, or answers, what the options of `request` ask for.
pub(super) async fn solve(
    work: &Arc<Assignment>,
    request: &Request,
) -> Result<FrontendResult, SolveError> {
    let options = Options::parse(&request.options)?;
    let loaded = load::dockerfile(work, &options, &request.inputs).await?;
    if let Some(answer) = forward(work, &options, request, &loaded).await? {
        return Ok(answer);
    }
    if let Some(name) = &options.subrequest {
        let question = Question::parse(name)?;
        let asked = Conversion {
            work,
            options: &options,
            request,
            loaded: &loaded,
            // What is asked is asked of the file, not of what it is on one platform.
            platform: None,
            scope: question.scope(&options),
        };
        return subrequest::answer(question, &asked).await;
    }
    let mut linter = Linter::new(lint_options(&options, &loaded)?);
    let result = convert_all(work, &options, request, &loaded, &mut linter).await;
    warnings::send(work, &loaded, linter.warnings());
    let converted = result?;
    if let Some(failure) = linter.failure() {
        return Err(failure.into());
    }
    finish(work, &options, converted).await
}

/// Lets another frontend answer, where the client or the file names one.
async fn forward(
    work: &Assignment,
    options: &Options,
    request: &Request,
    loaded: &Loaded,
) -> Result<Option<FrontendResult>, SolveError> {
    if options.is_forwarded {
        return Ok(None);
    }
    let (command, location) = match (&options.syntax, detect_syntax(&loaded.file.data)) {
        (Some(syntax), _) => (syntax.trim().to_owned(), None),
        (None, Some(directive)) => {
            (directive.value.clone(), Some(lines(&loaded.file, directive.location)))
        }
        (None, None) => return Ok(None),
    };
    let source = command.split_whitespace().next().unwrap_or_default().to_owned();
    if is_built_in(&source) {
        return Ok(None);
    }
    let mut request = request.clone();
    request.options.insert("cmdline".to_owned(), command.clone());
    let answer = Box::pin(external::solve(work, &source, request)).await;
    answer.map(Some).map_err(|error| match location {
        _ if !error.locations().is_empty() || error.is_canceled() => error,
        Some(location) => SolveError::in_source(location, error.into_cause()),
        None => {
            let what = format!("failed with {SYNTAX} = {command}");
            error.into_cause().context(what).into()
        }
    })
}

/// The options of the build argument, or else of the `check` directive.
fn lint_options(options: &Options, loaded: &Loaded) -> anyhow::Result<LintOptions> {
    if let Some(given) = &options.check {
        return Ok(given.clone());
    }
    let text = loaded.parsed.directives.check.as_ref().map_or("", Directive::first_word);
    LintOptions::parse(text).context("failed to parse check options")
}

/// Converts the Dockerfile, and fails for findings that are to be errors.
async fn convert_quietly(
    conversion: &Conversion<'_>,
    linter: &mut Linter,
) -> Result<Converted, SolveError> {
    let converted = conversion.run(linter).boxed().await?;
    match linter.failure() {
        Some(failure) => Err(failure.into()),
        None => Ok(converted),
    }
}

/// Converts the Dockerfile for each platform; findings are reported for the first one.
async fn convert_all(
    work: &Assignment,
    options: &Options,
    request: &Request,
    loaded: &Loaded,
    linter: &mut Linter,
) -> Result<Vec<(Platform, Converted)>, SolveError> {
    let scope = Scope::Target;
    let conversion = |platform| Conversion { work, options, request, loaded, platform, scope };
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
async fn finish(
    work: &Arc<Assignment>,
    options: &Options,
    converted: Vec<(Platform, Converted)>,
) -> Result<FrontendResult, SolveError> {
    let scanner = match &options.sbom {
        Some(sbom) => Some(Scanner::new(work, sbom).await?),
        None => None,
    };
    let mut attestations = BTreeMap::new();
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
        if let Some(scanner) = &scanner {
            let attestation = scanner.attestation(&id, &converted.scanned);
            attestations.insert(id.clone(), vec![attestation]);
        }
        single = converted.root.map(|edge| Ref { edge, work: work.clone() });
        many.insert(id, single.clone());
    }
    let platforms = serde_json::to_vec(&json!({ "Platforms": declared }))?;
    metadata.insert("refs.platforms".to_owned(), platforms.into());
    let refs = if options.multi_platform { Refs::Many(many) } else { Refs::Single(single) };
    Ok(FrontendResult { refs, metadata, attestations })
}
