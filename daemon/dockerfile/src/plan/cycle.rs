//! Stages that need themselves.

use super::stages::PlannedStage;
use crate::Location;
use crate::ParseError;
use crate::error::ErrorKind;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    New,
    Open,
    Done,
}

/// A stage on the way from the one where the search started.
struct Step {
    stage: usize,
    /// What it needs and has not been looked at yet.
    needs: Vec<(usize, Location)>,
    /// The lines by which the next stage on the way is needed.
    by: Location,
}

/// Refuses stages that need themselves, directly or through others.
///
/// The search keeps its own stack: a file can have more stages than a thread has stack for.
pub(super) fn check(stages: &[PlannedStage]) -> Result<(), ParseError> {
    let mut visits = vec![Visit::New; stages.len()];
    for start in 0..stages.len() {
        if visits[start] != Visit::New {
            continue;
        }
        visits[start] = Visit::Open;
        let mut way = vec![enter(stages, start)];
        while let Some(step) = way.last_mut() {
            let Some((next, by)) = step.needs.pop() else {
                visits[step.stage] = Visit::Done;
                way.pop();
                continue;
            };
            step.by = by;
            match visits[next] {
                Visit::Done => {}
                Visit::New => {
                    visits[next] = Visit::Open;
                    way.push(enter(stages, next));
                }
                Visit::Open => {
                    let kind = ErrorKind::Circular { stage: stages[next].label().to_owned() };
                    let circle = way.iter().skip_while(|step| step.stage != next);
                    let locations = circle.map(|step| step.by).collect();
                    return Err(ParseError::with_locations(kind, locations));
                }
            }
        }
    }
    Ok(())
}

fn enter(stages: &[PlannedStage], stage: usize) -> Step {
    let mut needs: Vec<_> = stages[stage].needs().collect();
    needs.reverse();
    Step { stage, needs, by: Location::line(0) }
}
