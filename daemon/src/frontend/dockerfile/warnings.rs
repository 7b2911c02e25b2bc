//! Findings of the lint rules, as progress shows them.

use std::sync::Arc;

use kiln_dockerfile::lint::Warning;
use kiln_proto::control::VertexWarning;

use super::errors::lines;
use super::load::Loaded;
use crate::solver::Build;

/// What all warnings of a build may have of the Dockerfile together. Each has the whole of it, and
/// clients take messages of a few megabytes.
const MOST_TEXT: usize = 4 << 20;

/// Shows `warnings` at the step that loaded the Dockerfile.
pub(super) fn send(build: &Arc<Build>, loaded: &Loaded, warnings: &[Warning]) {
    let Some(vertex) = &loaded.vertex else { return };
    let progress = build.progress.vertex(vertex);
    let texts = MOST_TEXT / loaded.file.data.len().max(1);
    for (index, warning) in warnings.iter().enumerate() {
        progress.warn(to_message(loaded, warning, index < texts));
    }
}

fn to_message(loaded: &Loaded, warning: &Warning, has_text: bool) -> VertexWarning {
    let (rule, line) = (warning.rule, warning.location.start);
    let file = &loaded.file;
    VertexWarning {
        vertex: String::new(),
        level: 1,
        short: format!("{rule}: {} (line {line})", warning.detail).into(),
        detail: vec![rule.description().into()],
        url: rule.url(),
        info: has_text.then(|| (**file).clone()),
        ranges: lines(file, warning.location).ranges,
    }
}
