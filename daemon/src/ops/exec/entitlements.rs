//! Steps with rights beyond the usual.

use kiln_proto::pb;

use crate::solver::{Build, NotEntitled};

/// Fails unless the build has every right that the step asks for.
pub(crate) fn require(build: &Build, exec: &pb::ExecOp) -> Result<(), NotEntitled> {
    if exec.network() == pb::NetMode::Host {
        build.require_entitlement("network.host")?;
    }
    if exec.security() == pb::SecurityMode::Insecure {
        build.require_entitlement("security.insecure")?;
    }
    Ok(())
}
