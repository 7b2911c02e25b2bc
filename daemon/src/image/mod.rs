//! Images: platforms, manifests, and where their blobs come from.

mod attestation_chain;
pub(crate) mod manifest;
mod origin;
pub(crate) mod platform;
mod resolve;

pub(crate) use attestation_chain::AttestationChain;
pub(crate) use origin::{BlobReader, LostLayer, Origin, lose, open_at, to_oci};
pub(crate) use platform::{InvalidPlatform, Platform};
pub(crate) use resolve::{Resolve, ResolvedImage, read_by_digest, resolve, unfetched};
