//! RUN: one process on a root file system and further mounts.

mod caches;
mod entitlements;
mod key;
mod mounts;
mod network;
mod output;
mod run;

pub(super) use entitlements::require as require_entitlements;
pub(super) use key::cache_map;
pub(super) use run::execute;
