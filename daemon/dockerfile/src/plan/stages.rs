use std::collections::HashMap;

use indexmap::IndexSet;

use super::{GlobalArgs, cycle};
use crate::dockerfile::Dockerfile;
use crate::error::ErrorKind;
use crate::expand::{Expander, Expansion, NoVariables};
use crate::instruction::{Command, Instruction, Stage};
use crate::lint::{self, Linter};
use crate::suggest;
use crate::{Location, ParseError};

/// The name of the image that has nothing in it.
const SCRATCH: &str = "scratch";

/// The stages of a Dockerfile and what they need from each other.
#[derive(Clone, Debug)]
pub struct Plan {
    stages: Vec<PlannedStage>,
    by_name: HashMap<String, usize>,
    escape: char,
}

/// A stage, as far as it is known before anything is built.
#[derive(Clone, Debug)]
pub struct PlannedStage {
    /// Its name in the names of steps: its own, or `stage-<index>`; empty if it is the only one
    /// and uses no other image either.
    pub display_name: String,
    /// What it starts from.
    pub base: Base,
    /// `--platform`, expanded.
    pub platform: Option<Expansion>,
    /// The global arguments that its FROM used.
    pub used_args: IndexSet<String>,
    /// What its instructions read, other than the build context, in order.
    pub uses: Vec<Use>,
    location: Location,
    name: Option<String>,
}

/// What a stage starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// An earlier stage.
    Stage(usize),
    /// An image or a named context, its variables replaced.
    Image(String),
    /// The named context that has the stage's own name: none of its instructions count.
    Replaced,
}

/// What `COPY --from` or a mount's `from` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// Nothing.
    Scratch,
    /// A stage.
    Stage(usize),
    /// An image or a named context.
    Image(String),
}

/// An instruction that reads something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// What it reads.
    pub reference: Reference,
    /// The instruction's lines.
    pub location: Location,
    /// Whether it mounts what it reads, and does not copy from it.
    pub is_mount: bool,
}

impl Plan {
    /// Resolves every stage's base and uses. `is_replaced` says which stages a named context
    /// takes the place of.
    ///
    /// # Errors
    /// A FROM that cannot be expanded, a `--from` that names no stage by its index or has
    /// variables, and stages that need themselves.
    pub fn new(
        file: &Dockerfile,
        globals: &GlobalArgs,
        is_replaced: impl Fn(&str) -> bool,
        linter: &mut Linter,
    ) -> Result<Self, ParseError> {
        let escape = file.directives.escape;
        let mut plan = Self { stages: Vec::new(), by_name: HashMap::new(), escape };
        for stage in &file.stages {
            plan.add_stage(stage, globals, &is_replaced, linter)?;
        }
        // Every mount counts, because a mount without `from` may yet turn out to need an image.
        let mut sources = plan.stages.len();
        for (index, stage) in file.stages.iter().enumerate() {
            plan.add_uses(index, &stage.instructions)?;
            sources += stage.instructions.iter().map(other_sources).sum::<usize>();
        }
        cycle::check(&plan.stages)?;
        if sources == 1 {
            plan.stages[0].display_name.clear();
        }
        Ok(plan)
    }

    fn add_stage(
        &mut self,
        stage: &Stage,
        globals: &GlobalArgs,
        is_replaced: &impl Fn(&str) -> bool,
        linter: &mut Linter,
    ) -> Result<(), ParseError> {
        let expander = Expander::new(self.escape);
        let located = |kind: ErrorKind| ParseError::new(kind, stage.location);
        let base = expander.expand(&stage.base, &globals.values);
        let base = base.map_err(|error| located(error.into()))?;
        lint::undefined_args(linter, stage, &base.unset, globals);
        if base.text.is_empty() {
            return Err(located(ErrorKind::BlankBase { written: stage.base.clone() }));
        }
        let mut used_args = base.used;

        let mut platform = None;
        if let Some(written) = &stage.platform {
            let expansion =
                expander.expand(written, &globals.values).map_err(|error| located(error.into()))?;
            lint::undefined_args(linter, stage, &expansion.unset, globals);
            lint::redundant_platform(linter, stage, &expansion, &globals.values);
            if expansion.text.is_empty() {
                let suggestion = expansion.unset.iter().find_map(|name| {
                    suggest::closest(name, globals.values.keys().map(String::as_str))
                });
                return Err(located(ErrorKind::BlankPlatform {
                    written: written.clone(),
                    suggestion: suggestion.map(str::to_owned),
                }));
            }
            used_args.extend(expansion.used.iter().cloned());
            platform = Some(expansion);
        }

        let index = self.stages.len();
        let base = if stage.name.as_deref().is_some_and(is_replaced) {
            Base::Replaced
        } else if let Some(stage) = self.by_name.get(&base.text) {
            Base::Stage(*stage)
        } else if base.text == SCRATCH {
            Base::Scratch
        } else {
            Base::Image(base.text)
        };
        self.stages.push(PlannedStage {
            display_name: stage.name.clone().unwrap_or_else(|| format!("stage-{index}")),
            base,
            platform,
            used_args,
            uses: Vec::new(),
            location: stage.location,
            name: stage.name.clone(),
        });
        if let Some(name) = &stage.name {
            self.by_name.insert(name.clone(), index);
        }
        Ok(())
    }

    /// Adds instructions that a stage's base brings along, and says whether they read anything
    /// that has to be resolved first. [`reachable`](Self::reachable) checks what they read.
    pub fn add_instructions(
        &mut self,
        stage: usize,
        instructions: &[Instruction],
    ) -> Result<bool, ParseError> {
        let before = self.stages.get(stage).map_or(0, |stage| stage.uses.len());
        self.add_uses(stage, instructions)?;
        Ok(self.stages.get(stage).map_or(0, |stage| stage.uses.len()) > before)
    }

    fn add_uses(&mut self, stage: usize, instructions: &[Instruction]) -> Result<(), ParseError> {
        let is_replaced = |stage: &PlannedStage| stage.base == Base::Replaced;
        if self.stages.get(stage).is_none_or(is_replaced) {
            return Ok(());
        }
        for instruction in instructions {
            let location = instruction.location;
            let mut is_mount = false;
            let references = match &instruction.command {
                Command::Copy(copy) => match &copy.from {
                    Some(from) => vec![
                        self.copy_source(from).map_err(|kind| ParseError::new(kind, location))?,
                    ],
                    None => Vec::new(),
                },
                Command::Run(run) => {
                    is_mount = true;
                    let froms = run.mounts.iter().filter_map(|mount| mount.from());
                    froms.map(|from| self.mount_source(from)).collect()
                }
                _ => Vec::new(),
            };
            let uses =
                references.into_iter().map(|reference| Use { reference, location, is_mount });
            self.stages[stage].uses.extend(uses);
        }
        Ok(())
    }

    /// What `COPY --from` names: a stage by name or index, or else an image.
    pub fn copy_source(&self, from: &str) -> Result<Reference, ErrorKind> {
        if Expander::new(self.escape).word(from, &NoVariables)? != from {
            return Err(ErrorKind::VariableFrom);
        }
        let Ok(index) = from.parse::<i64>() else { return Ok(self.mount_source(from)) };
        match usize::try_from(index) {
            Ok(stage) if stage < self.stages.len() => Ok(Reference::Stage(stage)),
            _ => Err(ErrorKind::InvalidStageIndex { index }),
        }
    }

    /// What a mount's `from` names: a stage by name, or else an image.
    pub fn mount_source(&self, from: &str) -> Reference {
        match self.by_name.get(&from.to_lowercase()) {
            Some(stage) => Reference::Stage(*stage),
            None if from == SCRATCH => Reference::Scratch,
            None => Reference::Image(from.to_owned()),
        }
    }

    /// The stages, in order.
    pub fn stages(&self) -> &[PlannedStage] {
        &self.stages
    }

    /// The stage to build: the one named, without regard to case, or the last.
    pub fn target(&self, name: Option<&str>) -> Result<usize, ParseError> {
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Ok(self.stages.len() - 1);
        };
        if let Some(stage) = self.by_name.get(&name.to_lowercase()) {
            return Ok(*stage);
        }
        let names = self.stages.iter().map(PlannedStage::label).filter(|name| !name.is_empty());
        let suggestion = suggest::closest(name, names).map(str::to_owned);
        let kind = ErrorKind::UnknownTarget { target: name.to_owned(), suggestion };
        Err(ParseError::with_locations(kind, Vec::new()))
    }

    /// The stages that `targets` need, themselves included, in the order of the file.
    ///
    /// # Errors
    /// One of them uses a stage that comes after it.
    pub fn reachable(
        &self,
        targets: impl IntoIterator<Item = usize>,
    ) -> Result<Vec<usize>, ParseError> {
        let mut is_needed = vec![false; self.stages.len()];
        let mut pending: Vec<usize> = targets.into_iter().collect();
        while let Some(index) = pending.pop() {
            let Some(stage) = self.stages.get(index) else { continue };
            if std::mem::replace(&mut is_needed[index], true) {
                continue;
            }
            // A base is always an earlier stage.
            if let Base::Stage(base) = stage.base {
                pending.push(base);
            }
            for used in &stage.uses {
                let Reference::Stage(needed) = used.reference else { continue };
                if needed >= index && self.stages[needed].base != Base::Replaced {
                    let kind = ErrorKind::ForwardReference {
                        stage: stage.display_name.clone(),
                        verb: if used.is_mount { "mount" } else { "copy" },
                        uses: self.stages[needed].display_name.clone(),
                    };
                    return Err(ParseError::new(kind, used.location));
                }
                pending.push(needed);
            }
        }
        Ok((0..self.stages.len()).filter(|index| is_needed[*index]).collect())
    }
}

impl PlannedStage {
    /// The stages it needs, and the lines that say so.
    pub(super) fn needs(&self) -> impl Iterator<Item = (usize, Location)> {
        let base = match self.base {
            Base::Stage(stage) => Some((stage, self.location)),
            _ => None,
        };
        let uses = self.uses.iter().filter_map(|used| match used.reference {
            Reference::Stage(stage) => Some((stage, used.location)),
            _ => None,
        });
        base.into_iter().chain(uses)
    }

    /// Its name for messages.
    pub(super) fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.display_name)
    }
}

/// How many sources besides the stage itself an instruction may read.
fn other_sources(instruction: &Instruction) -> usize {
    match &instruction.command {
        Command::Copy(copy) => usize::from(copy.from.is_some()),
        Command::Run(run) => run.mounts.len(),
        _ => 0,
    }
}
