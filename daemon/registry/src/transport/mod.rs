//! HTTP with one host: TLS or plain, redirects, bounded bodies.

mod call;
mod http_client;
mod tls;

pub(crate) use call::{Body, Call, IDLE_TIMEOUT, failed, location, read_limited};
pub(crate) use http_client::Transport;
pub use tls::TlsError;
pub(crate) use tls::Trust;
