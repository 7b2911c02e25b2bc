//! Where results come from: what was asked for, and what from outside went in (SLSA provenance).
//!
//! All of it is told from the graph, and from what each [source](Pins) turned out to be in this
//! build, never from what ran: a build that found everything in the cache has the same provenance
//! as the one that filled it. A build whose provenance nobody asks for keeps the digests of its
//! sources, and does nothing else.

mod build_config;
mod capture;
mod environment;
mod go_op;
mod options;
mod pins;
mod predicate;
mod producers;
mod purl;
mod request;
mod slsa02;
mod sources;
mod step_layers;
mod usage;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use time::OffsetDateTime;

use crate::frontend::{FrontendResult, Ref, Refs};
use crate::image::Platform;
use crate::solver::Build;
use build_config::BuildConfig;
use capture::Capture;
use predicate::Predicate;
use usage::ResourceUsage;

pub(crate) use environment::Environment;
pub(crate) use options::{InvalidOption, ProvenanceOptions};
pub(crate) use pins::Pins;
pub(crate) use producers::Producers;
pub(crate) use purl::{Kind as PurlKind, image_purl};
pub(crate) use sources::ImageSource;

use options::{Mode, Version};

/// Where one file system of a result comes from, ready to be written down.
#[derive(Debug)]
pub(crate) struct Provenance {
    options: ProvenanceOptions,
    predicate: Predicate,
    of: Ref,
}

/// Why the files of a client's directory are not known: they have no name that others could have
/// them by.
pub(crate) const LOCAL_SOURCE: &str = "local_source";

/// A build asked for provenance that knows of everything that went in, which this one's does not.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.message())]
pub(crate) struct IncompleteMaterials {
    /// Directories of the client, which have no digest.
    pub(crate) locals: Vec<String>,
}

impl IncompleteMaterials {
    fn message(&self) -> String {
        let mut message = "provenance materials are incomplete\n\nThe build requested complete \
                           provenance materials, but not all dependencies could be captured."
            .to_owned();
        if !self.locals.is_empty() {
            message += "\n\nUncaptured local sources:";
        }
        for local in &self.locals {
            message += &format!("\n  - {local}\n    reason: {LOCAL_SOURCE}");
        }
        message
    }
}

/// The provenance of each of a result's file systems, by platform id. Scratch comes from nowhere.
/// The result has to be solved: what is not known of a source by then counts as unknown.
pub(crate) fn of_result(
    build: &Build,
    result: &FrontendResult,
    platforms: &[(String, Platform)],
    options: &ProvenanceOptions,
) -> Result<BTreeMap<String, Arc<Provenance>>, IncompleteMaterials> {
    let mut all = BTreeMap::new();
    for (id, _) in platforms {
        let Some(of) = result.refs.of_platform(id) else { continue };
        let capture = Capture::of_answer(build, of, result, id, platforms);
        if options.complete_materials && capture.is_incomplete() {
            let locals = capture.sources.locals.iter().map(|name| match name.as_str() {
                "" => "<unnamed>".to_owned(),
                name => name.to_owned(),
            });
            return Err(IncompleteMaterials { locals: locals.collect() });
        }
        let predicate = Predicate::new(build, &capture, options);
        let (options, of) = (options.clone(), of.clone());
        all.insert(id.clone(), Arc::new(Provenance { options, predicate, of }));
    }
    Ok(all)
}

/// The provenance of a result for the record of its build, of which the client may have `wanted`
/// another form; by platform id where there are several.
pub(crate) fn for_record(
    build: &Build,
    result: &FrontendResult,
    wanted: Option<&ProvenanceOptions>,
) -> anyhow::Result<Vec<(Option<String>, Arc<Provenance>)>> {
    let options = ProvenanceOptions::of_record(wanted);
    let all = of_result(build, result, &result.platforms()?, &options)?;
    let is_single = matches!(result.refs, Refs::Single(_));
    Ok(all.into_iter().map(|(id, one)| ((!is_single).then_some(id), one)).collect())
}

impl Provenance {
    /// What kind of predicate it is written as.
    pub(crate) fn predicate_type(&self) -> &'static str {
        self.options.version.predicate_type()
    }

    /// The name of the file that it is exported to.
    pub(crate) fn filename(&self) -> &str {
        &self.options.filename
    }

    /// Whether only images hold it, and only those in which it is usual.
    pub(crate) fn is_inline_only(&self) -> bool {
        self.options.inline_only
    }

    /// The predicate as JSON. The build counts as finished with the first call of any of its
    /// predicates; layers are told of that have blobs by now.
    pub(crate) fn write(&self, build: &Build) -> anyhow::Result<Vec<u8>> {
        let mut predicate = self.predicate.clone();
        predicate.finish(build.finished_at());
        if self.options.mode == Mode::Max {
            let config = BuildConfig::of(&self.of.edge)?;
            let usage = |step| {
                let usage = self.options.captures_usage.then(|| build.usage(step)).flatten()?;
                Some(ResourceUsage::from(&usage))
            };
            let layers = |steps: &_| step_layers::of_steps(build, steps, self.options.most_layers);
            predicate.add_build_config(config, layers, usage)?;
        }
        Ok(match self.options.version {
            Version::Slsa1 => serde_json::to_vec_pretty(&predicate)?,
            Version::Slsa02 => serde_json::to_vec_pretty(&slsa02::Predicate::from(&predicate))?,
        })
    }
}

/// A time as predicates have it.
fn timestamp(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    time.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}
