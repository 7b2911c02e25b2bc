//! The steps of a build, and the lines that they were written in.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kiln_proto::pb;
use prost::Message as _;
use serde::Serialize;
use serde_json::Value;

use super::go_op;
use super::usage::ResourceUsage;
use crate::graph::{Edge, Vertex, VertexDigest, from_definition, go_json};

/// Attributes of sources that are of one build only.
const OF_ONE_BUILD: [&str; 3] = ["local.session", "local.unique", "oci.session"];

/// The steps of a result and their sources.
pub(super) struct BuildConfig {
    pub(super) steps: Steps,
    pub(super) source: Option<StepSource>,
}

/// The steps that a result takes, each after all that it needs.
pub(super) struct Steps {
    pub(super) vertices: Vec<Arc<Vertex>>,
    numbers: HashMap<VertexDigest, usize>,
    result: pb::Op,
}

/// Steps as predicates have them.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct BuildSteps {
    #[serde(rename = "llbDefinition", skip_serializing_if = "Vec::is_empty")]
    definition: Vec<Step>,
    /// The names of steps, by the digests that progress knows them by.
    #[serde(rename = "digestMapping", skip_serializing_if = "BTreeMap::is_empty")]
    names: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize)]
struct Step {
    id: String,
    op: Value,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<String>,
    #[serde(rename = "resourceUsage", skip_serializing_if = "Option::is_none")]
    usage: Option<ResourceUsage>,
}

/// Texts that steps were made from, and where in them.
#[derive(Clone, Debug, Serialize)]
pub(super) struct StepSource {
    locations: BTreeMap<String, Locations>,
    infos: Vec<SourceInfo>,
}

#[derive(Clone, Debug, Serialize)]
struct Locations {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    locations: Vec<go_json::Location>,
}

#[derive(Clone, Debug, Serialize)]
struct SourceInfo {
    #[serde(skip_serializing_if = "String::is_empty")]
    filename: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    language: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    data: String,
    /// How it was loaded.
    #[serde(flatten)]
    steps: BuildSteps,
}

impl BuildConfig {
    pub(super) fn of(edge: &Edge) -> anyhow::Result<Self> {
        let steps = Steps::of(edge)?;
        let source = StepSource::of(&steps)?;
        Ok(Self { steps, source })
    }
}

impl Steps {
    fn of(edge: &Edge) -> anyhow::Result<Self> {
        let mut steps = Self {
            vertices: Vec::new(),
            numbers: HashMap::new(),
            // What a definition ends with: the name of its result.
            result: pb::Op {
                inputs: vec![pb::Input {
                    digest: edge.vertex.digest().to_string(),
                    index: i64::try_from(edge.output)?,
                }],
                ..pb::Op::default()
            },
        };
        let mut stack = vec![(&edge.vertex, false)];
        while let Some((vertex, are_inputs_done)) = stack.pop() {
            if steps.numbers.contains_key(&vertex.digest()) {
                continue;
            }
            if are_inputs_done {
                steps.numbers.insert(vertex.digest(), steps.vertices.len());
                steps.vertices.push(vertex.clone());
            } else {
                stack.push((vertex, true));
                stack.extend(vertex.inputs().iter().rev().map(|input| (&input.vertex, false)));
            }
        }
        Ok(steps)
    }

    /// The steps that a definition has; none if it is none.
    fn of_definition(definition: &pb::Definition) -> Option<Self> {
        Self::of(&from_definition(definition).ok()??).ok()
    }

    /// The name of a step's output.
    pub(super) fn output_name(&self, vertex: VertexDigest, output: usize) -> Option<String> {
        Some(format!("{}:{output}", step_name(*self.numbers.get(&vertex)?)))
    }
}

fn step_name(number: usize) -> String {
    format!("step{number}")
}

impl From<&Steps> for BuildSteps {
    fn from(steps: &Steps) -> Self {
        let mut all = Self::default();
        for (number, vertex) in steps.vertices.iter().enumerate() {
            let inputs = vertex
                .inputs()
                .iter()
                .filter_map(|input| steps.output_name(input.vertex.digest(), input.output));
            let step = Step {
                id: step_name(number),
                op: op(vertex),
                inputs: inputs.collect(),
                usage: None,
            };
            all.names.insert(vertex.digest().to_string(), step.id.clone());
            all.definition.push(step);
        }
        let (id, bytes) = (step_name(steps.vertices.len()), steps.result.encode_to_vec());
        all.names.insert(kiln_cache::Digest::of(bytes).to_string(), id.clone());
        let inputs = steps.result.inputs.iter().filter_map(|input| {
            let name = all.names.get(&input.digest)?;
            Some(format!("{name}:{}", input.index))
        });
        let inputs = inputs.collect();
        all.definition.push(Step { id, op: go_op::op(&pb::Op::default()), inputs, usage: None });
        all
    }
}

impl BuildSteps {
    /// Adds what is known of what the steps used.
    pub(super) fn add_usage(
        &mut self,
        steps: &Steps,
        usage: impl Fn(VertexDigest) -> Option<ResourceUsage>,
    ) {
        for (step, vertex) in self.definition.iter_mut().zip(&steps.vertices) {
            step.usage = usage(vertex.digest());
        }
    }
}

/// A vertex's op as it was sent, but for its inputs and for what is of one build only.
fn op(vertex: &Vertex) -> Value {
    // It was decoded when it was sent.
    let mut op = pb::Op::decode(vertex.marshalled().clone()).unwrap_or_default();
    op.inputs.clear();
    if let Some(pb::op::Op::Source(source)) = &mut op.op {
        source.attrs.retain(|name, _| !OF_ONE_BUILD.contains(&name.as_str()));
    }
    go_op::op(&op)
}

impl StepSource {
    /// None if the steps come from no text.
    fn of(steps: &Steps) -> anyhow::Result<Option<Self>> {
        let mut files: Vec<Arc<pb::SourceInfo>> = Vec::new();
        let mut locations = BTreeMap::new();
        for (number, vertex) in steps.vertices.iter().enumerate() {
            let mut of_vertex = Vec::new();
            for location in &vertex.meta().locations {
                let file = &location.file;
                // One text may have come several times, with graphs of several requests.
                let is_same = |known: &Arc<pb::SourceInfo>| {
                    Arc::ptr_eq(known, file)
                        || (&known.filename, &known.data) == (&file.filename, &file.data)
                };
                let index = files.iter().position(is_same).unwrap_or_else(|| {
                    files.push(file.clone());
                    files.len() - 1
                });
                of_vertex.push(go_json::Location::in_text(i32::try_from(index)?, &location.ranges));
            }
            locations.insert(step_name(number), Locations { locations: of_vertex });
        }
        let infos: Vec<SourceInfo> = files.iter().map(|file| SourceInfo::of(file)).collect();
        Ok((!infos.is_empty()).then_some(Self { locations, infos }))
    }
}

impl SourceInfo {
    fn of(info: &pb::SourceInfo) -> Self {
        let steps = info.definition.as_ref().and_then(Steps::of_definition);
        Self {
            filename: info.filename.clone(),
            language: info.language.clone(),
            data: go_json::bytes(&info.data),
            steps: steps.as_ref().map(BuildSteps::from).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::graph::{SourceLocation, VertexMeta, to_definition};

    #[test]
    fn steps_come_after_what_they_need_and_know_their_lines() {
        let file = Arc::new(pb::SourceInfo {
            filename: "Dockerfile".into(),
            data: b"FROM a\n".to_vec().into(),
            ..pb::SourceInfo::default()
        });
        let source = |name: &str, file: &Arc<pb::SourceInfo>| {
            let attrs = [("local.session".to_owned(), "x".to_owned())].into();
            let op = pb::SourceOp { identifier: name.into(), attrs };
            let meta = VertexMeta {
                locations: vec![SourceLocation::lines(file, 1, 1)],
                ..VertexMeta::default()
            };
            Vertex::new(pb::op::Op::Source(op), Vec::new(), None, meta)
        };
        let a = source("local://a", &file);
        // The same text once more.
        let b = source("local://b", &Arc::new((*file).clone()));
        let merge = pb::op::Op::Merge(pb::MergeOp::default());
        let inputs = vec![b.output(0), a.output(0), b.output(0)];
        let top = Vertex::new(merge, inputs, None, VertexMeta::default());
        let config = BuildConfig::of(&top.output(0)).unwrap();
        let steps = serde_json::to_value(BuildSteps::from(&config.steps)).unwrap();
        let definition = &steps["llbDefinition"];
        assert_eq!(
            definition[0],
            json!({ "id": "step0", "op": { "Op": { "source": { "identifier": "local://b" } } } })
        );
        assert_eq!(definition[2]["inputs"], json!(["step0:0", "step1:0", "step0:0"]));
        assert_eq!(
            definition[3],
            json!({ "id": "step3", "op": { "Op": {} }, "inputs": ["step2:0"] })
        );
        let names = &steps["digestMapping"];
        assert_eq!(names[top.digest().to_string()], "step2");
        assert_eq!(names.as_object().unwrap().len(), 4);
        let source = serde_json::to_value(config.source).unwrap();
        assert_eq!(source["infos"], json!([{ "filename": "Dockerfile", "data": "RlJPTSBhCg==" }]));
        assert_eq!(source["locations"]["step2"], json!({}));
        assert_eq!(source["locations"]["step0"], source["locations"]["step1"]);
        let definition = to_definition(Some(&top.output(0)));
        let last = definition.def.last().unwrap();
        assert!(names.get(kiln_cache::Digest::of(last).to_string()).is_some());
    }
}
