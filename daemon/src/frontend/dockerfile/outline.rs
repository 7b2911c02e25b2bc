//! What a target can be given by whoever builds it: build arguments, secrets and ssh agents.

use indexmap::{IndexMap, IndexSet};
use kiln_dockerfile::Location;
use kiln_dockerfile::instruction::{ArgDefinition, Mount, MountKind};
use kiln_dockerfile::plan::{Base, Reference};

use super::convert::Planned;
use super::stage::Stage;

/// What one stage asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Needs {
    /// Arguments that it declares itself.
    args: IndexMap<String, Arg>,
    /// Names of arguments that it uses, its own and global ones.
    used: IndexSet<String>,
    secrets: IndexMap<String, Grant>,
    agents: IndexMap<String, Grant>,
}

/// A build argument.
#[derive(Clone, Debug)]
pub(super) struct Arg {
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) value: Option<String>,
    pub(super) location: Location,
}

/// A secret or an ssh agent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grant {
    pub(super) is_required: bool,
    pub(super) location: Location,
}

impl Needs {
    /// Those of a stage whose FROM uses these global arguments.
    pub(super) fn of_from(used: IndexSet<String>) -> Self {
        Self { used, ..Self::default() }
    }

    /// Notes an ARG that was evaluated to `value`; one that takes over the value of a global
    /// argument stays that argument.
    pub(super) fn arg(
        &mut self,
        definition: &ArgDefinition,
        value: Option<&str>,
        location: Location,
        is_global: bool,
    ) {
        let ArgDefinition { name, description, .. } = definition;
        self.used.insert(name.clone());
        if is_global {
            return;
        }
        let (description, value) = (description.clone(), value.map(str::to_owned));
        let arg = Arg { name: name.clone(), description, value, location };
        self.args.insert(name.clone(), arg);
    }

    /// Notes a mount that the client has to grant. The first of each name counts.
    pub(super) fn mount(&mut self, mount: &Mount, location: Location) {
        let (grants, id, is_required) = match &mount.kind {
            MountKind::Secret(secret) => (&mut self.secrets, &secret.id, secret.required),
            MountKind::Ssh(ssh) => (&mut self.agents, &ssh.id, ssh.required),
            _ => return,
        };
        grants.entry(id.clone()).or_insert(Grant { is_required, location });
    }
}

/// What a target asks for, with all stages that it needs; in the order of the file.
#[derive(Clone, Debug, Default)]
pub(super) struct Outline {
    /// The target's name, if it has one.
    pub(super) name: Option<String>,
    pub(super) description: Option<String>,
    pub(super) args: Vec<Arg>,
    pub(super) secrets: Vec<(String, Grant)>,
    pub(super) agents: Vec<(String, Grant)>,
}

impl Outline {
    /// The outline of the target that was planned, whose stages have been evaluated.
    pub(super) fn new(planned: &Planned, stages: &[Option<Stage>]) -> Self {
        let written = planned.file.stages.get(planned.target);
        let mut args = IndexMap::new();
        let mut secrets = IndexMap::new();
        let mut agents = IndexMap::new();
        for index in nearest_first(planned) {
            let Some(stage) = stages.get(index).and_then(Option::as_ref) else { continue };
            let needs = &stage.needs;
            for arg in used_args(planned, needs) {
                args.entry(arg.name.clone()).or_insert(arg);
            }
            for (all, some) in [(&mut secrets, &needs.secrets), (&mut agents, &needs.agents)] {
                for (id, grant) in some {
                    all.entry(id.clone()).or_insert(*grant);
                }
            }
        }
        args.sort_by(|_, a: &Arg, _, b| a.location.start.cmp(&b.location.start));
        let in_order = |mut grants: IndexMap<String, Grant>| {
            grants.sort_by(|_, a, _, b| a.location.start.cmp(&b.location.start));
            grants.into_iter().collect()
        };
        Self {
            name: written.and_then(|stage| stage.name.clone()),
            description: written.and_then(|stage| stage.description.clone()),
            args: args.into_values().collect(),
            secrets: in_order(secrets),
            agents: in_order(agents),
        }
    }
}

/// The target and what it needs, so that where several stages ask for the same, the one nearest
/// to the target comes first.
fn nearest_first(planned: &Planned) -> Vec<usize> {
    let mut seen = IndexSet::new();
    let mut pending = vec![planned.target];
    while let Some(index) = pending.pop() {
        let Some(stage) = planned.plan.stages().get(index) else { continue };
        if !seen.insert(index) {
            continue;
        }
        pending.extend(stage.uses.iter().rev().filter_map(|used| match used.reference {
            Reference::Stage(stage) => Some(stage),
            _ => None,
        }));
        if let Base::Stage(base) = stage.base {
            pending.push(base);
        }
    }
    seen.into_iter().collect()
}

/// The arguments that a stage uses, and the global ones that those were made of.
fn used_args(planned: &Planned, needs: &Needs) -> Vec<Arg> {
    let mut names = needs.used.clone();
    let mut args = Vec::new();
    let mut next = 0;
    while let Some(name) = names.get_index(next).cloned() {
        next += 1;
        if let Some(own) = needs.args.get(&name) {
            args.push(own.clone());
        } else if let Some(global) = planned.globals.declared.get(&name) {
            names.extend(global.uses.iter().cloned());
            args.push(Arg {
                name,
                description: global.definition.description.clone(),
                value: global.value.clone(),
                location: global.location,
            });
        }
    }
    args
}
