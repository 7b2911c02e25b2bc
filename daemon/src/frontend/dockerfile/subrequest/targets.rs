//! Which stages there are.

use std::sync::Arc;

use kiln_dockerfile::Dockerfile;
use kiln_proto::pb;
use serde::Serialize;

use super::Answer;
use super::table::table;
use crate::frontend::dockerfile::errors::{lines, parse_error};
use crate::graph::go_json::{self, Location};
use crate::solver::SolveError;

#[derive(Serialize)]
struct List<'a> {
    targets: Vec<Target<'a>>,
    sources: [String; 1],
}

#[derive(Serialize)]
struct Target<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(rename = "default", skip_serializing_if = "std::ops::Not::not")]
    is_default: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    base: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    platform: &'a str,
    location: Location,
}

pub(super) fn answer(source: &Arc<pb::SourceInfo>) -> Result<Answer, SolveError> {
    let file = Dockerfile::parse(&source.data).map_err(|error| parse_error(source, &error))?;
    let last = file.stages.len() - 1;
    let targets = file.stages.iter().enumerate().map(|(index, stage)| Target {
        name: stage.name.as_deref().unwrap_or_default(),
        is_default: index == last,
        description: stage.description.as_deref().unwrap_or_default(),
        base: &stage.base,
        platform: stage.platform.as_deref().unwrap_or_default(),
        location: Location::new(&lines(source, stage.location).ranges),
    });
    let targets: Vec<_> = targets.collect();
    let labels: Vec<String> = targets.iter().map(label).collect();
    let mut rows = vec![["TARGET", "DESCRIPTION"]];
    rows.extend(labels.iter().zip(&targets).map(|(label, target)| [label, target.description]));
    let text = table(1, &rows);
    Ok(Answer::new(&List { targets, sources: [go_json::bytes(&source.data)] }, text)?)
}

fn label(target: &Target<'_>) -> String {
    match (target.name, target.is_default) {
        ("", true) => "(default)".to_owned(),
        (name, true) => format!("{name} (default)"),
        (name, false) => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(source: &'static str) -> Result<Answer, SolveError> {
        answer(&Arc::new(pb::SourceInfo { data: source.into(), ..Default::default() }))
    }

    #[test]
    fn stages_are_listed_with_what_they_are_and_start_from() {
        let source = "FROM --platform=$BUILDPLATFORM a AS Build\n\n# run serves it\nFROM build \\\n  AS run\n";
        let answer = ask(source).unwrap();
        assert_eq!(
            answer.text,
            "TARGET        DESCRIPTION\nbuild         \nrun (default) serves it\n"
        );
        let json: serde_json::Value = serde_json::from_slice(&answer.json).unwrap();
        insta::assert_snapshot!(json["targets"], @r#"[{"base":"a","location":{"ranges":[{"end":{"line":1},"start":{"line":1}}]},"name":"build","platform":"$BUILDPLATFORM"},{"base":"build","default":true,"description":"serves it","location":{"ranges":[{"end":{"line":4},"start":{"line":4}},{"end":{"line":5},"start":{"line":5}}]},"name":"run"}]"#);
        assert_eq!(ask("FROM a\n").unwrap().text, "TARGET    DESCRIPTION\n(default) \n");
    }

    #[test]
    fn a_file_that_cannot_be_read_has_no_list() {
        let error = ask("FROM a\nRNU x\n").map(|answer| answer.text).unwrap_err();
        assert_eq!(error.locations().len(), 1);
    }
}
