//! RUN: one process on a root file system and further mounts.

mod caches;
mod canonical;
mod container;
mod entitlements;
mod key;
mod mounts;
mod network;
mod output;
mod process;
mod run;
mod terminal;

pub(crate) use container::{Container, ContainerProcess, Streams, streams};
pub(crate) use entitlements::Refused;
pub(super) use entitlements::require as require_entitlements;
pub(super) use key::{cache_map, description};
pub(super) use run::execute;
