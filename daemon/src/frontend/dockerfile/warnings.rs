//! Findings of the lint rules, as progress shows them.

use std::sync::Arc;

use kiln_dockerfile::lint::Warning;
use kiln_proto::control::VertexWarning;

use super::errors::lines;
use super::load::Loaded;
use crate::solver::Build;

/// Shows `warnings` at the step that loaded the Dockerfile.
pub(super) fn send(build: &Arc<Build>, loaded: &Loaded, warnings: &[Warning]) {
    let Some(vertex) = &loaded.vertex else { return };
    let progress = build.progress.vertex(vertex);
    for warning in warnings {
        progress.warn(to_message(loaded, warning));
    }
}

fn to_message(loaded: &Loaded, warning: &Warning) -> VertexWarning {
    let (rule, line) = (warning.rule, warning.location.start);
    let file = &loaded.file;
    VertexWarning {
        vertex: String::new(),
        level: 1,
        short: format!("{rule}: {} (line {line})", warning.detail).into(),
        detail: vec![rule.description().into()],
        url: rule.url(),
        info: Some((**file).clone()),
        ranges: lines(file, warning.location).ranges,
    }
}
