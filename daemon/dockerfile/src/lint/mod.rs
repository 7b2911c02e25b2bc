//! Lint: advice on Dockerfiles that build all the same.
//!
//! Rules that need nothing but the file are checked by [`check_source`] and [`check_whole`]. The
//! others are checked while stages are evaluated, by [`StageLint`] and the functions beside it,
//! because they look at words whose variables are replaced. All of them report to a [`Linter`],
//! which knows what the `check` directive and the comments of single instructions switch off.

mod from;
mod linter;
mod options;
mod rule;
mod source;
mod stage;
mod variable;

pub use from::{constant_platform, default_args, redundant_platform, undefined_args};
pub use linter::{LintFailure, Linter, Warning};
pub use options::{LintOptions, OptionsError};
pub use rule::Rule;
pub use source::{check_source, check_whole};
pub use stage::{StageLint, base_platform, ignored_file};
pub use variable::undefined_variables;
