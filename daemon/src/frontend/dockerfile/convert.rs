//! From the parsed Dockerfile to a graph and an image config, for one platform.

use std::sync::Arc;

use anyhow::Context as _;
use indexmap::IndexMap;
use kiln_dockerfile::instruction::{Command, Instruction, parse_trigger};
use kiln_dockerfile::lint::{Linter, check_source, check_whole, constant_platform, default_args};
use kiln_dockerfile::plan::{Base, GlobalArgs, Plan, PlatformArgs, Reference, automatic_args};
use kiln_dockerfile::{Dockerfile, Location, ParseError, closest};
use kiln_proto::pattern::Matcher;
use kiln_registry::ImageRef;
use time::OffsetDateTime;

use super::bases::{BaseKey, Bases};
use super::contexts::{self, Sources, UsedPaths};
use super::epoch;
use super::errors::{located, parse_error, plan_error};
use super::evaluate::Evaluation;
use super::image::Image;
use super::load::{CONTEXT, Loaded, ignore_patterns};
use super::options::Options;
use super::outline::Outline;
use crate::attestation::Scanned;
use crate::frontend::{Assignment, Request};
use crate::graph::{Edge, unify};
use crate::image::{InvalidPlatform, Platform};
use crate::solver::SolveError;

/// The conversion of a Dockerfile for one platform.
#[derive(Clone, Copy)]
pub(super) struct Conversion<'a> {
    pub(super) work: &'a Assignment,
    pub(super) options: &'a Options,
    pub(super) request: &'a Request,
    pub(super) loaded: &'a Loaded,
    /// The platform asked for; without one, the base image's counts.
    pub(super) platform: Option<&'a Platform>,
    pub(super) scope: Scope,
}

/// Which stages are evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Those that the target needs.
    Target,
    /// All of them.
    File,
}

/// What a Dockerfile is for one platform.
pub(super) struct Converted {
    pub(super) root: Option<Edge>,
    pub(super) image: Image,
    pub(super) base_config: Option<Vec<u8>>,
    pub(super) epoch: Option<i64>,
    pub(super) outline: Outline,
    /// What is looked at for an SBOM of the target.
    pub(super) scanned: Scanned,
}

/// What stages are planned from.
pub(super) struct Planned {
    pub(super) file: Arc<Dockerfile>,
    pub(super) globals: GlobalArgs,
    pub(super) plan: Plan,
    pub(super) target: usize,
    scope: Scope,
    pub(super) platform: Platform,
    /// Triggers of the stages' bases.
    pub(super) triggers: Vec<Option<Vec<Instruction>>>,
    pub(super) epoch: Option<OffsetDateTime>,
}

impl Planned {
    /// The stages that are evaluated, in order.
    pub(super) fn reachable(&self) -> Result<Vec<usize>, ParseError> {
        match self.scope {
            Scope::Target => self.plan.reachable([self.target]),
            Scope::File => self.plan.reachable(0..self.file.stages.len()),
        }
    }
}

impl Conversion<'_> {
    pub(super) async fn run(&self, linter: &mut Linter) -> Result<Converted, SolveError> {
        let options = epoch::resolve_named(self).await?;
        let options = options.as_ref().unwrap_or(self.options);
        Conversion { options, ..*self }.convert(linter).await
    }

    async fn convert(&self, linter: &mut Linter) -> Result<Converted, SolveError> {
        let mut planned = self.plan(linter)?;
        let mut bases = Bases::default();
        let (ignore, ()) =
            futures::future::try_join(self.ignore(), self.resolve(&mut planned, &mut bases))
                .await?;
        let matcher = Matcher::new(&ignore).context("failed parsing .dockerignore")?;

        // What is read of the client's directories is known after all stages are evaluated, and
        // they in turn consist of it: so they are evaluated twice. What is found the first time is
        // found even if that fails.
        let all = Sources::new(self, &ignore, &bases.locals, &UsedPaths::default())?;
        let first = Evaluation::new(self, &planned, &bases, &all, &matcher, linter);
        let used = first.run()?.used;
        let sources = Sources::new(self, &ignore, &bases.locals, &used)?;
        let mut unheard = Linter::default();
        let evaluation = Evaluation::new(self, &planned, &bases, &sources, &matcher, &mut unheard);
        let done = evaluation.run()?;

        let mut image = done.stage.image;
        image.config.labels.extend(self.options.labels.clone());
        if let Some(platform) = self.platform {
            image.set_platform(platform);
        }
        Ok(Converted {
            root: done.stage.root.as_ref().map(unify),
            image,
            base_config: done.stage.base_config,
            epoch: planned.epoch.map(OffsetDateTime::unix_timestamp),
            outline: done.outline,
            scanned: done.scanned,
        })
    }

    async fn ignore(&self) -> Result<Vec<String>, SolveError> {
        // A client that has no files has none to leave out; what needs some says so.
        let has_files = self.options.sessions.contains_key(CONTEXT) || self.work.has_files();
        if self.loaded.context.is_some() || !has_files {
            return Ok(Vec::new());
        }
        ignore_patterns(self.work, self.options, self.loaded).await
    }

    fn plan(&self, linter: &mut Linter) -> Result<Planned, SolveError> {
        let source = &self.loaded.file;
        let file = self.loaded.parsed.clone();
        check_source(&file, linter);
        if let Some(error) = &self.loaded.error {
            return Err(parse_error(source, error));
        }
        check_whole(&file, linter);
        let platform = self.platform.cloned().unwrap_or_else(Platform::host);
        let (build_args, target) = (&self.options.build_args, self.options.target.as_str());
        let automatic = self.automatic_args(&file);
        let is_image = |name: &str| name == "scratch" || name.parse::<ImageRef>().is_ok();
        default_args(linter, &file, &automatic, is_image);
        let mut globals = GlobalArgs::evaluate(&file, automatic, build_args)
            .map_err(|error| plan_error(source, &error))?;
        let epoch = epoch::take(self.options, &mut globals)?;
        let is_replaced = |name: &str| contexts::find(self.options, name, &platform).is_some();
        let plan = Plan::new(&file, &globals, is_replaced, linter)
            .map_err(|error| plan_error(source, &error))?;
        let target = plan.target(Some(target)).map_err(|error| plan_error(source, &error))?;
        let triggers = vec![None; file.stages.len()];
        let scope = self.scope;
        let planned = Planned { file, globals, plan, target, scope, platform, triggers, epoch };
        self.check_platforms(&planned, linter)?;
        Ok(planned)
    }

    /// The arguments that every Dockerfile can use.
    pub(super) fn automatic_args(&self, file: &Dockerfile) -> IndexMap<String, String> {
        let host = Platform::host();
        let platform = self.platform.unwrap_or(&host);
        let (build_args, target) = (&self.options.build_args, self.options.target.as_str());
        let last_name = file.stages.last().and_then(|stage| stage.name.as_deref());
        let target = if target.is_empty() { last_name.unwrap_or_default() } else { target };
        automatic_args(&describe(&host), &describe(platform), target, build_args)
    }

    /// Resolves all images that the target needs. Their triggers may need further ones.
    async fn resolve(&self, planned: &mut Planned, bases: &mut Bases) -> Result<(), SolveError> {
        loop {
            let reachable =
                planned.reachable().map_err(|error| plan_error(&self.loaded.file, &error))?;
            let mut wanted = Vec::new();
            for &index in &reachable {
                let location = planned.file.stages[index].location;
                if let Some(key) = self.base_key(planned, index)? {
                    wanted.push((key, location));
                }
                for used in &planned.plan.stages()[index].uses {
                    if let Reference::Image(name) = &used.reference {
                        let platform = planned.platform.clone();
                        let key = BaseKey { name: name.clone(), platform, replaces: false };
                        wanted.push((key, used.location));
                    }
                }
            }
            let stages = planned.plan.stages().iter().map(|stage| stage.display_name.as_str());
            let stages: Vec<&str> = stages.collect();
            bases.resolve(self, wanted, &stages).await?;
            let mut needs_more = false;
            for index in reachable {
                needs_more |= self.add_triggers(planned, bases, index)?;
            }
            if !needs_more {
                return Ok(());
            }
        }
    }

    /// What the stage `index` starts from, if that is no stage.
    pub(super) fn base_key(
        &self,
        planned: &Planned,
        index: usize,
    ) -> Result<Option<BaseKey>, SolveError> {
        let stage = &planned.plan.stages()[index];
        let (name, replaces) = match &stage.base {
            Base::Image(name) => (name.clone(), false),
            Base::Replaced => (planned.file.stages[index].name.clone().unwrap_or_default(), true),
            Base::Scratch | Base::Stage(_) => return Ok(None),
        };
        let platform = self.stage_platform(planned, index)?;
        Ok(Some(BaseKey { name, platform, replaces }))
    }

    /// Refuses platforms that are none, in stages that are not needed, too.
    fn check_platforms(&self, planned: &Planned, linter: &mut Linter) -> Result<(), SolveError> {
        for (index, (stage, written)) in
            planned.plan.stages().iter().zip(&planned.file.stages).enumerate()
        {
            let Some(expansion) = &stage.platform else { continue };
            let platform = self.stage_platform(planned, index)?;
            let (os, architecture) = (&platform.os, &platform.architecture);
            constant_platform(linter, written, expansion, os, architecture);
        }
        Ok(())
    }

    fn stage_platform(&self, planned: &Planned, index: usize) -> Result<Platform, SolveError> {
        let Some(expansion) = &planned.plan.stages()[index].platform else {
            return Ok(planned.platform.clone());
        };
        expansion.text.parse().map_err(|error: InvalidPlatform| {
            let known = || planned.globals.values.keys().map(String::as_str);
            let meant = expansion.unset.iter().find_map(|name| closest(name, known()));
            let help = meant.map(|meant| format!(" (did you mean {meant}?)")).unwrap_or_default();
            let stage = &planned.file.stages[index];
            let written = stage.platform.as_deref().unwrap_or_default();
            let error = anyhow::anyhow!("failed to parse platform {written}: {error}{help}");
            located(&self.loaded.file, stage.location, error)
        })
    }

    /// Adds the triggers of what stage `index` starts from, once, and says whether they read
    /// something that is not resolved yet.
    fn add_triggers(
        &self,
        planned: &mut Planned,
        bases: &Bases,
        index: usize,
    ) -> Result<bool, SolveError> {
        if planned.triggers[index].is_some() {
            return Ok(false);
        }
        let location: Location = planned.file.stages[index].location;
        let texts: Vec<String> = match &planned.plan.stages()[index].base {
            Base::Scratch | Base::Replaced => Vec::new(),
            Base::Stage(base) => {
                let onbuild = |instruction: &Instruction| match &instruction.command {
                    Command::Onbuild(text) => Some(text.clone()),
                    _ => None,
                };
                planned.file.stages[*base].instructions.iter().filter_map(onbuild).collect()
            }
            Base::Image(_) => match self.base_key(planned, index)? {
                Some(key) => bases.get(&key)?.image.config.on_build.clone(),
                None => Vec::new(),
            },
        };
        let parsed: Result<Vec<_>, _> =
            texts.iter().map(|text| parse_trigger(text, location)).collect();
        let source = &self.loaded.file;
        let instructions = parsed.map_err(|error| parse_error(source, &error))?;
        let added = planned.plan.add_instructions(index, &instructions);
        planned.triggers[index] = Some(instructions);
        added.map_err(|error| plan_error(source, &error))
    }
}

fn describe(platform: &Platform) -> PlatformArgs {
    PlatformArgs {
        platform: platform.to_string(),
        os: platform.os.clone(),
        os_version: platform.os_version.clone(),
        arch: platform.architecture.clone(),
        variant: platform.variant.clone(),
    }
}

/// The proxies that build arguments name, in either case.
pub(super) fn proxies(args: &IndexMap<String, String>) -> Option<kiln_proto::pb::ProxyEnv> {
    let mut proxies = kiln_proto::pb::ProxyEnv::default();
    let mut names: Vec<&String> = args.keys().collect();
    names.sort();
    let mut any = false;
    for name in names {
        let field = match name.to_ascii_lowercase().as_str() {
            "http_proxy" => &mut proxies.http_proxy,
            "https_proxy" => &mut proxies.https_proxy,
            "ftp_proxy" => &mut proxies.ftp_proxy,
            "no_proxy" => &mut proxies.no_proxy,
            "all_proxy" => &mut proxies.all_proxy,
            _ => continue,
        };
        any = true;
        field.clone_from(&args[name]);
    }
    any.then_some(proxies)
}
