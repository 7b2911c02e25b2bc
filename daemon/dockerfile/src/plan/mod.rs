//! Stages: what they start from, what they use, which of them a target needs.
//!
//! Everything here is decided from the Dockerfile, the build's arguments and the names of the
//! contexts that replace stages. Images are not looked at, so their ONBUILD triggers are added
//! later, by [`Plan::add_instructions`].

mod args;
mod context_paths;
mod cycle;
mod stages;

pub use args::{DeclaredArg, GlobalArgs, PlatformArgs, automatic_args};
pub use context_paths::ContextPaths;
pub use stages::{Base, Plan, PlannedStage, Reference, Use};
