//! gRPC services: they translate, and decide nothing.

mod content;
mod error;
mod history;
mod service;
mod solve;
mod trace;
mod usage;

pub(crate) use content::ContentService;
pub(crate) use error::{to_status, to_status_with};
pub(crate) use service::ControlService;
pub(crate) use trace::TraceReceiver;
