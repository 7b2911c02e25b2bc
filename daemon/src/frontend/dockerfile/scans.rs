//! What an SBOM of the target looks at besides: stages that it needs, and the build context, if
//! the Dockerfile asks for that.

use super::convert::Planned;
use super::stage::Stage;
use crate::attestation::Scanned;
use crate::attributes::boolean;
use crate::graph::Edge;

/// Arguments of the Dockerfile that ask for it: a boolean, or the names of stages.
const CONTEXT: &str = "BUILDKIT_SBOM_SCAN_CONTEXT";
const STAGE: &str = "BUILDKIT_SBOM_SCAN_STAGE";

/// Build arguments that are about scanners and no variables of steps.
pub(super) fn is_about_scans(name: &str) -> bool {
    matches!(name, CONTEXT | STAGE)
}

/// What is looked at for an SBOM of the target of `planned`, of whose stages all that it needs are
/// evaluated.
pub(super) fn scanned(
    planned: &Planned,
    stages: &[Option<Stage>],
    context: Option<&Edge>,
) -> Scanned {
    let mut scanned = Scanned::default();
    for (index, stage) in stages.iter().enumerate() {
        let Some(stage) = stage else { continue };
        let name = &planned.plan.stages()[index].display_name;
        if index == planned.target {
            scanned.target.clone_from(&stage.root);
            scanned.ignore_cache |= stage.ignore_cache;
            if is_on(planned, stage, name, CONTEXT) {
                scanned.extras.insert("context".to_owned(), context.cloned());
            }
        } else if is_on(planned, stage, name, STAGE) {
            scanned.extras.insert(name.clone(), stage.root.clone());
            scanned.ignore_cache |= stage.ignore_cache;
        }
    }
    scanned
}

/// Whether an argument is on for the stage `name`: the stage's own word counts before that of the
/// whole file.
fn is_on(planned: &Planned, stage: &Stage, name: &str, argument: &str) -> bool {
    let own = stage
        .args
        .iter()
        .rev()
        .find_map(|(declared, value)| if declared == argument { value.as_ref() } else { None });
    let value = own.or_else(|| planned.globals.values.get(argument));
    value.is_some_and(|value| {
        boolean(value) == Some(true) || value.split(',').any(|stage| stage == name)
    })
}
