//! BuildKit's wire, and the pure logic that both of its ends share.
//!
//! The types and services are generated from the `.proto` files of this crate; modules are named by
//! what they are for, one to a package of the wire.

mod wire;

pub use wire::containerd::services::content::v1 as content;
pub use wire::errdefs;
pub use wire::google::rpc;
pub use wire::moby::buildkit::secrets::v1 as secrets;
pub use wire::moby::buildkit::v1 as control;
pub use wire::moby::buildkit::v1::apicaps;
pub use wire::moby::buildkit::v1::frontend as gateway;
pub use wire::moby::buildkit::v1::sourcepolicy;
pub use wire::moby::buildkit::v1::types;
pub use wire::moby::exporter::v1 as exporter;
pub use wire::moby::filesync::v1 as filesync;
pub use wire::moby::sshforward::v1 as ssh;
pub use wire::moby::upload::v1 as upload;
pub use wire::pb;
pub use wire::stack;

pub mod file_send;
pub mod fsutil;
pub mod header;
pub mod pattern;
pub mod session;

/// Registry credentials that stay with the client.
///
/// On the wire they share a package with [`filesync`].
pub mod auth {
    pub use crate::wire::moby::filesync::v1::{
        CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse,
        GetTokenAuthorityRequest, GetTokenAuthorityResponse, VerifyTokenAuthorityRequest,
        VerifyTokenAuthorityResponse, auth_client, auth_server,
    };
}
