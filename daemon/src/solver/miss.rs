//! Why a step was not found in the cache: what differs from an earlier run of it.

use std::collections::{BTreeMap, BTreeSet};

use kiln_cache::{Earlier, InputPart, KeyPart, KeyParts, Link, PartValue, StepId};
use kiln_proto::kiln::{Difference, EarlierRecord, FileChange, FileDifference, Miss, MissReason};

use super::Build;
use super::probe::Recipe;
use crate::graph::Vertex;

/// How many files are named of those that differ.
const MAX_FILES: usize = 100;
/// The name of the part that differs where no named one does.
const DEFINITION: &str = "definition";
/// The name of the part that is an input.
const INPUT: &str = "input";

/// What the keys of `vertex` are made of, as it is recorded.
pub(super) fn parts(build: &Build, vertex: &Vertex, recipe: &Recipe) -> KeyParts {
    let part = |(name, value): (&String, &String)| KeyPart {
        name: name.clone(),
        value: PartValue::of(value),
    };
    let files = recipe.files.iter().cloned().chain(std::iter::repeat(None));
    let inputs = vertex.inputs().iter().zip(files);
    KeyParts::new(
        steps(&build.project, &vertex.name()),
        recipe.map.parts.iter().map(part).collect(),
        inputs.map(|(edge, files)| InputPart { name: edge.vertex.name(), files }).collect(),
    )
}

/// By what a step of that name is known again in a later build of the project: by its words, and by
/// its place where those have changed.
fn steps(project: &str, name: &str) -> Vec<StepId> {
    let numbered = name.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    let Some((place, words)) = numbered else { return vec![StepId::of(&[project, name])] };
    // `linux/amd64 build 3/7`: the stage may get more steps.
    let (place, _) = place.rsplit_once('/').unwrap_or((place, ""));
    let stage = place.trim_end_matches(|c: char| c.is_ascii_digit());
    vec![StepId::of(&[project, stage, words]), StepId::of(&[project, place])]
}

/// Compares a vertex that has no record with the earlier run of it that differs least. Reads the
/// index.
pub(super) fn explain(build: &Build, vertex: &Vertex, recipe: &Recipe) -> anyhow::Result<Miss> {
    let mut miss = Miss { vertex: vertex.digest().to_string(), ..Miss::default() };
    if vertex.meta().ignore_cache {
        miss.set_reason(MissReason::Ignored);
        return Ok(miss);
    }
    let parts = parts(build, vertex, recipe);
    let mut nearest: Option<(Differing, Earlier)> = None;
    for step in &parts.steps {
        for earlier in build.daemon.index.earlier(step)? {
            let differing = Differing::between(&earlier, &parts, recipe);
            if nearest.as_ref().is_none_or(|(least, _)| differing.count() < least.count()) {
                nearest = Some((differing, earlier));
            }
        }
    }
    let Some((differing, earlier)) = nearest else {
        miss.set_reason(MissReason::First);
        return Ok(miss);
    };
    let is_lost = differing.count() == 0;
    miss.set_reason(if is_lost { MissReason::Lost } else { MissReason::Changed });
    miss.differences = differing.parts;
    for position in differing.inputs {
        let mut difference = input_difference(position, &earlier.parts, &parts, vertex);
        let now = parts.inputs.get(position).and_then(|input| input.files.as_ref());
        if let Some(now) = now
            && let Some(before) = build.daemon.index.file_list(&earlier.record.key, position)?
        {
            name_files(&mut difference, now.changes_since(&before));
        }
        miss.differences.push(difference);
    }
    miss.earlier = Some(EarlierRecord {
        key: earlier.record.key.to_string(),
        name: earlier.record.description,
        created_at: Some(earlier.record.created_at.into()),
    });
    Ok(miss)
}

/// What differs between two runs of a step.
#[derive(Debug, PartialEq)]
struct Differing {
    /// Of the op.
    parts: Vec<Difference>,
    /// The positions of the inputs that do.
    inputs: Vec<usize>,
}

impl Differing {
    fn between(earlier: &Earlier, now: &KeyParts, recipe: &Recipe) -> Self {
        let mut parts = part_differences(&earlier.parts.parts, &now.parts);
        let inputs = differing_inputs(&earlier.record.inputs, &recipe.inputs);
        if parts.is_empty() && earlier.record.op != recipe.map.op {
            parts.push(Difference { part: DEFINITION.to_owned(), ..Difference::default() });
        }
        Self { parts, inputs }
    }

    fn count(&self) -> usize {
        self.parts.len() + self.inputs.len()
    }
}

fn part_differences(before: &[KeyPart], now: &[KeyPart]) -> Vec<Difference> {
    let by_name = |parts: &'_ [KeyPart]| -> BTreeMap<String, PartValue> {
        parts.iter().map(|part| (part.name.clone(), part.value.clone())).collect()
    };
    let (before, now) = (by_name(before), by_name(now));
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let differing = names.into_iter().filter(|name| before.get(*name) != now.get(*name));
    let differences = differing.map(|name| Difference {
        part: name.clone(),
        before: before.get(name).map(text),
        now: now.get(name).map(text),
        ..Difference::default()
    });
    differences.collect()
}

fn text(value: &PartValue) -> String {
    match value {
        PartValue::Text(text) => text.clone(),
        PartValue::Fingerprint(bytes) => format!("#{:016x}", u64::from_be_bytes(*bytes)),
    }
}

/// The inputs that are not known under a common link.
fn differing_inputs(before: &[Vec<Link>], now: &[Vec<Link>]) -> Vec<usize> {
    let none = Vec::new();
    let differs = |position: &usize| {
        let (before, now) = (before.get(*position), now.get(*position));
        let (before, now) = (before.unwrap_or(&none), now.unwrap_or(&none));
        !before.iter().any(|link| now.contains(link))
    };
    (0..before.len().max(now.len())).filter(differs).collect()
}

fn input_difference(
    position: usize,
    before: &KeyParts,
    now: &KeyParts,
    vertex: &Vertex,
) -> Difference {
    let name = |parts: &KeyParts| parts.inputs.get(position).map(|input| input.name.clone());
    let source = vertex.inputs().get(position).map(|edge| edge.vertex.digest().to_string());
    Difference {
        part: INPUT.to_owned(),
        before: name(before),
        now: name(now),
        vertex: source.unwrap_or_default(),
        ..Difference::default()
    }
}

fn name_files(difference: &mut Difference, changes: Vec<(Vec<u8>, kiln_cache::FileChange)>) {
    difference.file_count = changes.len() as i64;
    let file = |(path, change): (Vec<u8>, kiln_cache::FileChange)| {
        let path = String::from_utf8_lossy(&path).into_owned();
        let change = match change {
            kiln_cache::FileChange::Added => FileChange::Added,
            kiln_cache::FileChange::Removed => FileChange::Removed,
            kiln_cache::FileChange::Content => FileChange::Content,
            kiln_cache::FileChange::Metadata => FileChange::Metadata,
        };
        FileDifference { path, change: change.into() }
    };
    difference.files = changes.into_iter().take(MAX_FILES).map(file).collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_known_again_by_its_words_or_by_its_place() {
        let shared = |one: &str, other: &str| {
            let other = steps("p", other);
            steps("p", one).into_iter().filter(|step| other.contains(step)).count()
        };
        for (one, other, expected) in [
            ("[build 2/3] RUN make", "[build 2/3] RUN make", 2),
            ("[build 2/3] RUN make", "[build 3/4] RUN make", 1),
            ("[build 2/3] RUN make", "[build 2/4] RUN make all", 1),
            ("[build 2/3] RUN make", "[build 12/14] RUN make all", 0),
            ("[build 2/3] RUN make", "[test 2/3] RUN make", 0),
            ("[2/3] RUN make", "[3/3] RUN make", 1),
            ("[linux/amd64 2/3] RUN make", "[linux/arm64 2/3] RUN make", 0),
            ("no place", "no place", 1),
            ("no place", "another", 0),
        ] {
            assert_eq!(shared(one, other), expected, "{one} and {other}");
        }
        assert!(!steps("p", "x").contains(&steps("q", "x")[0]));
    }

    #[test]
    fn parts_that_came_went_or_changed_are_named() {
        let part = |name: &str, value: &str| KeyPart {
            name: name.to_owned(),
            value: PartValue::of(value),
        };
        let before = [part("command", "make"), part("env A", "1"), part("user", "")];
        let now = [part("command", "make"), part("env A", "2"), part("env B", "3")];
        let found: Vec<_> = part_differences(&before, &now)
            .into_iter()
            .map(|difference| (difference.part, difference.before, difference.now))
            .collect();
        let text = |text: &str| Some(text.to_owned());
        let expected = [
            ("env A".to_owned(), text("1"), text("2")),
            ("env B".to_owned(), None, text("3")),
            ("user".to_owned(), text(""), None),
        ];
        assert_eq!(found, expected);
    }
}
