//! A client of the OCI distribution protocol: resolves references, pulls manifests and blobs,
//! pushes them.
//!
//! What it promises:
//! - a manifest that it returns has the digest that was asked for, and is no larger than
//!   [`MAX_MANIFEST_SIZE`];
//! - a blob's stream yields exactly the descriptor's size or an error, and survives connections
//!   that are cut; its digest is checked by [`BlobStream::verified`] or by the caller;
//! - credentials and tokens go to the host that they are for, never to where it redirects, and no
//!   error message carries them;
//! - nothing that a registry sends (challenges, sizes, redirects, error bodies) is trusted.
//!
//! Addresses that descriptors name by themselves (`urls`, "foreign layers") are never followed.
//!
//! ```
//! use kiln_registry::ImageRef;
//!
//! let image: ImageRef = "busybox".parse()?;
//! assert_eq!(image.to_string(), "docker.io/library/busybox:latest");
//! assert_eq!(image.familiar(), "busybox:latest");
//! assert_eq!(image.wire_host(), "registry-1.docker.io");
//! # Ok::<(), kiln_registry::RefError>(())
//! ```
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use kiln_registry::{Client, RegistryConfig};
//!
//! let client = Client::new(RegistryConfig::default());
//! let image = "localhost:5000/app:1.2".parse()?;
//! let (descriptor, manifest) = client.resolve(&image).await?;
//! println!("{} is {} bytes of {}", descriptor.digest(), manifest.len(), descriptor.media_type());
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod grammar;
mod reference;

pub mod media;

mod config;
mod error;
mod registry_error;

mod auth;
mod transport;

mod client;
mod endpoint;
mod purpose;
mod request;
mod retry;
mod turns;

mod blob;
mod digest;
mod manifest;
mod push;
mod referrers;
mod upload;

pub use auth::{Authenticator, AuthenticatorError, Credentials, Token, TokenRequest};
pub use blob::BlobStream;
pub use client::Client;
pub use config::{DEFAULT_MAX_CONCURRENCY, HostConfig, KeyPair, RegistryConfig};
pub use digest::{VerifiedStream, sha256};
pub use error::{Action, Error, Malformed};
pub use manifest::MAX_MANIFEST_SIZE;
pub use oci_spec::image::{Descriptor, Digest, MediaType};
pub use push::BlobPush;
pub use reference::{ImageRef, RefError, RefProblem};
pub use registry_error::{RegistryError, RegistryErrors};
pub use transport::TlsError;
