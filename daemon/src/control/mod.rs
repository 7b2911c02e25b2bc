//! gRPC services: they translate, and decide nothing.

mod error;
mod service;
mod solve;
mod usage;

pub(crate) use error::to_status;
pub(crate) use service::ControlService;
