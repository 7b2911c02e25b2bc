//! BuildKit's wire, and the pure logic that both of its ends share.
//!
//! The types and services are generated from the `.proto` files of this crate; modules are named by
//! what they are for, one to a package of the wire. Beside them is what both ends must do alike:
//! the connection inside a [`session`], the copy of a file tree ([`fsutil`]), path patterns
//! ([`mod@pattern`]), metadata ([`header`]) and the details of errors ([`detail`]).
//!
//! ```
//! use kiln_proto::pattern::Matcher;
//! use kiln_proto::{detail, errdefs};
//!
//! let ignored = Matcher::new(&["**/*.o", "!keep"])?;
//! assert!(ignored.matches("src/main.o"));
//!
//! let vertex = errdefs::Vertex { digest: "sha256:12".into() };
//! let status = detail::status(tonic::Code::Unknown, "make failed", vec![detail::pack(&vertex)]);
//! assert_eq!(detail::find(&status), Some(vertex));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod wire;

pub use wire::containerd::services::content::v1 as content;
pub use wire::errdefs;
pub use wire::google::rpc;
pub use wire::kiln::v1 as kiln;
pub use wire::moby::buildkit::secrets::v1 as secrets;
pub use wire::moby::buildkit::v1 as control;
pub use wire::moby::buildkit::v1::apicaps;
pub use wire::moby::buildkit::v1::frontend as gateway;
pub use wire::moby::buildkit::v1::sourcepolicy;
pub use wire::moby::buildkit::v1::sourcepolicy::policysession;
pub use wire::moby::buildkit::v1::types;
pub use wire::moby::exporter::v1 as exporter;
pub use wire::moby::filesync::v1 as filesync;
pub use wire::moby::sshforward::v1 as ssh;
pub use wire::moby::upload::v1 as upload;
pub use wire::opentelemetry::proto::collector::trace::v1 as trace;
pub use wire::pb;
pub use wire::stack;

pub mod detail;
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
