//! The session: one connection inside `Control.Session`, on which the client serves and the
//! daemon calls.
//!
//! ```text
//! client                                                  daemon
//!   services ── HTTP/2 server ═╗                    ╔═ HTTP/2 client ── Channel
//!                              ╚═ chunks of bytes ══╝
//!                                 Control.Session
//! ```
//!
//! The client calls [`serve`] with its services, the daemon [`accept`] with the call's request.
//! Either end's [`Tunnel`] is bounded in both directions, and dropping one ends the other.

mod client;
mod daemon;
mod info;
pub mod methods;
mod tunnel;

pub use client::{ServeError, serve};
pub use daemon::{AcceptError, Accepted, accept};
pub use info::{BadInfo, SessionInfo};
pub use tunnel::{Outgoing, Tunnel};

/// The largest message that either end of the wire takes.
///
/// BuildKit's daemon and clients set the same, but a session's services only take gRPC's default
/// of 4 MiB: keep what is sent to them below [`MAX_SESSION_MESSAGE`].
pub const MAX_MESSAGE: usize = 16 << 20;

/// The largest message that a session's services can be sent.
pub const MAX_SESSION_MESSAGE: usize = 4 << 20;

/// How much one stream may have in flight. HTTP/2's default of 64 KiB would make a transfer wait
/// for a window update at every turn.
pub const STREAM_WINDOW: u32 = 8 << 20;

/// How much all streams of a connection may have in flight.
pub const CONNECTION_WINDOW: u32 = 16 << 20;

/// The largest frame to take from the other end.
pub const MAX_FRAME: u32 = 1 << 20;

/// How large the metadata of a call, or the details of its error, may be: the paths that a build reads
/// are in the one, its Dockerfile is in the other. It is what gRPC takes in Go, and far more than is
/// sent; HTTP/2's libraries here take 16 KiB if nothing is said.
pub const MAX_METADATA: u32 = 16 << 20;

#[cfg(test)]
mod tests;
