//! Steps with rights beyond the usual.

use kiln_proto::pb;

use crate::devices::DeviceError;
use crate::solver::{Build, NotEntitled};

/// A step asks for what it may not have, or for a device that there is not.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error(transparent)]
    NotEntitled(#[from] NotEntitled),
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Fails unless the build has every right that the step asks for.
pub(crate) fn require(build: &Build, exec: &pb::ExecOp) -> Result<(), Refused> {
    if exec.network() == pb::NetMode::Host {
        build.require_entitlement("network.host")?;
    }
    if exec.security() == pb::SecurityMode::Insecure {
        build.require_entitlement("security.insecure")?;
    }
    build.daemon.config.devices.resolve(&exec.cdi_devices, &build.device_grants())?;
    Ok(())
}
