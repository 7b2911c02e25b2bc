//! What may go when space is short: policies in BuildKit's vocabulary, as pure functions.
//!
//! [`plan`] decides from a list of [`Usage`] rows and knows nothing of disks or databases; the
//! [index](crate::Index) makes the rows and carries the plan out.
//!
//! Policies are applied in their order, each to what the ones before left. A policy removes
//!
//! - everything that it may remove, if it names no space;
//! - the least recently and least often used first, until the limits hold, if it does.
//!
//! It may remove what matches its filters and has not been used for its `keep_duration`, but never
//! what is in use or what something else that stays builds on; and internal data, frontends and
//! layers of named images only with `all`.

mod filter;
mod plan;
mod policy;
mod space;
mod usage;

pub use filter::Filter;
pub use plan::plan;
pub use policy::{Limits, Policy, default_policies, is_within};
pub use space::{DiskStat, InvalidSpace, Space};
pub(crate) use usage::position_from_end;
pub use usage::{Usage, UsageId};
