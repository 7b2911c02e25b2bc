//! Evaluates the stages that a target needs, in order.

use indexmap::{IndexMap, IndexSet};
use kiln_dockerfile::expand::{ExpandError, Expander};
use kiln_dockerfile::instruction::{Command, Instruction};
use kiln_dockerfile::lint::{self, Linter};
use kiln_dockerfile::plan::{Base, Reference};
use kiln_proto::pattern::Matcher;

use super::bases::{self, BaseKey, Bases, Root};
use super::contexts::{Sources, UsedPaths};
use super::convert::{Conversion, Planned};
use super::errors::{lines, located, plan_error};
use super::graph::named;
use super::image::Image;
use super::names::{StepNames, uppercase_keyword};
use super::outline::{Needs, Outline};
use super::scans::{is_about_scans, scanned};
use super::stage::Stage;
use crate::attestation::Scanned;
use crate::graph::{Edge, VertexMeta};
use crate::solver::SolveError;

/// The evaluation of a Dockerfile.
pub(super) struct Evaluation<'a> {
    pub(super) conversion: &'a Conversion<'a>,
    pub(super) planned: &'a Planned,
    bases: &'a Bases,
    pub(super) sources: &'a Sources,
    pub(super) ignored: &'a Matcher,
    pub(super) linter: &'a mut Linter,
    pub(super) expander: Expander,
    /// The stages evaluated so far.
    stages: Vec<Option<Stage>>,
    pub(super) used: UsedPaths,
}

/// What an evaluation came to.
pub(super) struct Evaluated {
    /// The target.
    pub(super) stage: Stage,
    pub(super) used: UsedPaths,
    pub(super) outline: Outline,
    pub(super) scanned: Scanned,
}

impl<'a> Evaluation<'a> {
    pub(super) fn new(
        conversion: &'a Conversion<'a>,
        planned: &'a Planned,
        bases: &'a Bases,
        sources: &'a Sources,
        ignored: &'a Matcher,
        linter: &'a mut Linter,
    ) -> Self {
        Self {
            conversion,
            planned,
            bases,
            sources,
            ignored,
            linter,
            expander: Expander::new(planned.file.directives.escape),
            stages: vec![None; planned.file.stages.len()],
            used: UsedPaths::default(),
        }
    }

    pub(super) fn run(mut self) -> Result<Evaluated, SolveError> {
        let planned = self.planned;
        let reachable = planned
            .reachable()
            .map_err(|error| plan_error(&self.conversion.loaded.file, &error))?;
        for index in reachable {
            let stage = self.stage(index)?;
            self.stages[index] = Some(stage);
        }
        let outline = Outline::new(planned, &self.stages);
        let scanned = scanned(planned, &self.stages, self.sources.context.as_ref());
        let stage = self.stages[planned.target].take();
        let stage = stage.ok_or_else(|| anyhow::anyhow!("the target stage was not evaluated"))?;
        self.mark_used(stage.local.as_deref(), "/");
        Ok(Evaluated { stage, used: self.used, outline, scanned })
    }

    fn stage(&mut self, index: usize) -> Result<Stage, SolveError> {
        let planned = self.planned;
        let file = &self.conversion.loaded.file;
        let written = &planned.file.stages[index];
        let mut stage = self.start(index)?;
        if planned.plan.stages()[index].base == Base::Replaced {
            return Ok(stage);
        }
        stage.start();
        stage.needs = Needs::of_from(planned.plan.stages()[index].used_args.clone());
        stage.ignore_cache =
            self.conversion.options.is_uncached(written.name.as_deref().unwrap_or_default());
        let triggers = planned.triggers[index].as_deref().unwrap_or_default();
        let triggers = triggers.iter().map(|instruction| (true, instruction));
        let own = written.instructions.iter().map(|instruction| (false, instruction));
        for (is_trigger, instruction) in triggers.chain(own) {
            stage.names.is_trigger = is_trigger;
            self.instruction(&mut stage, instruction)
                .map_err(|error| located(file, instruction.location, error))?;
        }
        Ok(stage)
    }

    /// The stage before its first instruction.
    fn start(&mut self, index: usize) -> Result<Stage, SolveError> {
        let planned = self.planned;
        let (plan, written) = (&planned.plan.stages()[index], &planned.file.stages[index]);
        let triggers = planned.triggers[index].as_deref().unwrap_or_default();
        let is_step = |instruction: &&Instruction| {
            let command = &instruction.command;
            matches!(
                command,
                Command::Add(_) | Command::Copy(_) | Command::Run(_) | Command::Workdir(_)
            )
        };
        let steps = written.instructions.iter().filter(is_step).count() + triggers.len();
        let has_base = matches!(plan.base, Base::Image(_));
        let shown = |platform: &crate::image::Platform| {
            self.conversion.options.multi_platform.then(|| platform.clone())
        };
        let names = |platform: &crate::image::Platform| {
            StepNames::new(&plan.display_name, shown(platform), steps + usize::from(has_base))
        };
        if let Base::Stage(base) = plan.base {
            let base = self.stages[base].as_ref();
            let mut stage = base
                .map(Stage::inherit)
                .ok_or_else(|| anyhow::anyhow!("base stage was not evaluated"))?;
            stage.names = names(&stage.platform);
            return Ok(stage);
        }
        let Some(key) = self.conversion.base_key(planned, index)? else {
            let platform = planned.platform.clone();
            let mut stage = Stage::new(Image::empty(&platform), platform);
            stage.names = names(&stage.platform);
            return Ok(stage);
        };
        let base = self.bases.get(&key)?;
        let mut stage = Stage::new(base.image.clone(), base.platform.clone());
        stage.names = names(&stage.platform);
        stage.base_config.clone_from(&base.config);
        // Triggers are instructions of this stage now.
        stage.image.config.on_build.clear();
        if let Root::Image(reference) = &base.root {
            let name = stage.names.next(&format!("FROM {reference}"), &IndexMap::new());
            let meta = VertexMeta {
                name,
                locations: vec![lines(&self.conversion.loaded.file, written.location)],
                description: [(
                    "com.docker.dockerfile.v1.command".to_owned(),
                    written.source.clone(),
                )]
                .into(),
                ..VertexMeta::default()
            };
            let options = self.conversion.options;
            stage.root = Some(bases::image_source(options, reference, &base.platform, meta));
            self.check_platform(&key, written.location, &base.image);
        } else {
            (stage.root, stage.local) = self.base_root(base)?;
        }
        Ok(stage)
    }

    fn check_platform(&mut self, key: &BaseKey, at: kiln_dockerfile::Location, image: &Image) {
        let (expected, actual) = (&key.platform, image.platform());
        if (&expected.os, &expected.architecture) != (&actual.os, &actual.architecture) {
            let (expected, actual) = (expected.to_string(), actual.to_string());
            lint::base_platform(self.linter, at, &key.name, &expected, &actual);
        }
    }

    /// The files of a base, and which directory of the client they are.
    fn base_root(&self, base: &bases::Base) -> anyhow::Result<(Option<Edge>, Option<String>)> {
        Ok(match &base.root {
            Root::Scratch => (None, None),
            Root::Edge(edge) => (Some(edge.clone()), None),
            Root::Image(reference) => {
                let meta = named(format!("FROM {reference}"));
                let options = self.conversion.options;
                (Some(bases::image_source(options, reference, &base.platform, meta)), None)
            }
            Root::Local(key) => {
                let edge = self.sources.locals.get(key);
                let edge = edge.ok_or_else(|| anyhow::anyhow!("context {key} was not loaded"))?;
                (Some(edge.clone()), Some(key.clone()))
            }
        })
    }

    /// The files that `reference` names, and which directory of the client they are.
    pub(super) fn files_of(
        &self,
        reference: Reference,
    ) -> anyhow::Result<(Option<Edge>, Option<String>)> {
        match reference {
            Reference::Scratch => Ok((None, None)),
            Reference::Stage(index) => {
                let stage = self.stages.get(index).and_then(Option::as_ref);
                let stage = stage.ok_or_else(|| anyhow::anyhow!("stage was not evaluated"))?;
                Ok((stage.root.clone(), stage.local.clone()))
            }
            Reference::Image(name) => {
                let platform = self.planned.platform.clone();
                self.base_root(self.bases.get(&BaseKey { name, platform, replaces: false })?)
            }
        }
    }

    /// Notes that `path` of a named context is read.
    pub(super) fn mark_used(&mut self, local: Option<&str>, path: &str) {
        if let Some(key) = local {
            self.used.locals.entry(key.to_owned()).or_default().add(path);
        }
    }

    /// Replaces the variables in a word of `instruction`.
    pub(super) fn expand(
        &mut self,
        stage: &Stage,
        instruction: &Instruction,
        word: &str,
    ) -> Result<String, ExpandError> {
        let expansion = self.expander.expand(word, &stage.env)?;
        self.check_variables(stage, instruction, &expansion.unset);
        Ok(expansion.text)
    }

    /// The same in several words.
    pub(super) fn expand_all(
        &mut self,
        stage: &Stage,
        instruction: &Instruction,
        words: &[String],
    ) -> Result<Vec<String>, ExpandError> {
        words.iter().map(|word| self.expand(stage, instruction, word)).collect()
    }

    /// Reports variables that are not set.
    pub(super) fn check_variables(
        &mut self,
        stage: &Stage,
        instruction: &Instruction,
        unset: &IndexSet<String>,
    ) {
        if unset.is_empty() {
            return;
        }
        let known: Vec<&str> = stage.env.keys().map(String::as_str).collect();
        let unset = unset.iter().map(String::as_str);
        let is_declared = |name: &str| stage.is_declared(name) || is_about_scans(name);
        lint::undefined_variables(self.linter, instruction, unset, is_declared, &known);
    }

    /// The instruction as steps show it, with its variables replaced.
    pub(super) fn shown(&self, stage: &Stage, instruction: &Instruction) -> String {
        let text = self.expander.word(&instruction.source, &stage.env);
        uppercase_keyword(&text.unwrap_or_else(|_| instruction.source.clone()))
    }
}
