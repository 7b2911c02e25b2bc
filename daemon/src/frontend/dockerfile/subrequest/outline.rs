//! What the target can be given.

use kiln_dockerfile::lint::Linter;
use serde::Serialize;

use super::Answer;
use super::table::table;
use crate::frontend::dockerfile::convert::Conversion;
use crate::frontend::dockerfile::errors::lines;
use crate::frontend::dockerfile::outline::{Grant, Outline};
use crate::frontend::dockerfile::{convert_quietly, lint_options, warnings};
use crate::graph::go_json::{self, Location};
use crate::solver::SolveError;

#[derive(Serialize)]
struct Listed<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<Arg<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<Granted<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh: Vec<Granted<'a>>,
    sources: [String; 1],
}

#[derive(Serialize)]
struct Arg<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    value: &'a str,
    location: Location,
}

#[derive(Serialize)]
struct Granted<'a> {
    name: &'a str,
    #[serde(rename = "required", skip_serializing_if = "std::ops::Not::not")]
    is_required: bool,
    location: Location,
}

pub(super) async fn answer(conversion: &Conversion<'_>) -> Result<Answer, SolveError> {
    let loaded = conversion.loaded;
    let mut linter = Linter::new(lint_options(conversion.options, loaded)?);
    let converted = convert_quietly(conversion, &mut linter).await;
    warnings::send(conversion.work, loaded, linter.warnings());
    let outline = converted?.outline;
    let file = &loaded.file;
    let location = |at| Location::new(&lines(file, at).ranges);
    let granted = |(name, grant)| {
        let (name, grant): (&String, &Grant) = (name, grant);
        Granted { name, is_required: grant.is_required, location: location(grant.location) }
    };
    let Outline { name, description, args, secrets, agents } = &outline;
    let listed = Listed {
        name: name.as_deref().unwrap_or_default(),
        description: description.as_deref().unwrap_or_default(),
        args: args
            .iter()
            .map(|arg| Arg {
                name: &arg.name,
                description: arg.description.as_deref().unwrap_or_default(),
                value: arg.value.as_deref().unwrap_or_default(),
                location: location(arg.location),
            })
            .collect(),
        secrets: secrets.iter().map(|(name, grant)| granted((name, grant))).collect(),
        ssh: agents.iter().map(|(name, grant)| granted((name, grant))).collect(),
        sources: [go_json::bytes(&file.data)],
    };
    Ok(Answer::new(&listed, listed.text())?)
}

impl Listed<'_> {
    fn text(&self) -> String {
        let mut tables = Vec::new();
        if !self.name.is_empty() || !self.description.is_empty() {
            let name = if self.name.is_empty() { "(default)" } else { self.name };
            let mut rows = vec![["TARGET:", name]];
            if !self.description.is_empty() {
                rows.push(["DESCRIPTION:", self.description]);
            }
            tables.push(table(1, &rows));
        }
        if !self.args.is_empty() {
            let mut rows = vec![["BUILD ARG", "VALUE", "DESCRIPTION"]];
            rows.extend(self.args.iter().map(|arg| [arg.name, arg.value, arg.description]));
            tables.push(table(3, &rows));
        }
        for (title, granted) in [("SECRET", &self.secrets), ("SSH", &self.ssh)] {
            if granted.is_empty() {
                continue;
            }
            let mut rows = vec![[title, "REQUIRED"]];
            let mark = |granted: &Granted<'_>| if granted.is_required { "true" } else { "" };
            rows.extend(granted.iter().map(|granted| [granted.name, mark(granted)]));
            tables.push(table(3, &rows));
        }
        tables.into_iter().map(|table| table + "\n").collect()
    }
}
