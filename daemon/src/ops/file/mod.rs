//! COPY, ADD and WORKDIR: copies, new files and directories, removals.

mod actions;
mod archive;
mod canonical;
mod key;
mod wildcard;

pub(super) use actions::execute;
pub(super) use key::cache_map;
pub(super) use wildcard::has_wildcards;
