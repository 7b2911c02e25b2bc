//! Servers to talk with, and content to move.

mod debian;
mod keys;
mod scripted;

use kiln_registry::{Client, Descriptor, ImageRef, MediaType, RegistryConfig, sha256};

pub(crate) use debian::Debian;
pub(crate) use keys::Keys;
pub(crate) use scripted::{Reply, Request, Scripted};

/// A client without configuration and credentials.
pub(crate) fn client() -> Client {
    Client::new(RegistryConfig::default())
}

pub(crate) fn image(text: &str) -> ImageRef {
    text.parse().unwrap()
}

/// The descriptor of `content` as a layer.
pub(crate) fn layer(content: &[u8]) -> Descriptor {
    Descriptor::new(MediaType::ImageLayer, content.len() as u64, sha256(content))
}

/// The descriptor of `content` as an image manifest.
pub(crate) fn manifest(content: &[u8]) -> Descriptor {
    Descriptor::new(MediaType::ImageManifest, content.len() as u64, sha256(content))
}

/// `size` bytes that do not repeat soon.
pub(crate) fn noise(size: usize) -> Vec<u8> {
    let mut state = 1_u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(size)
    .collect()
}
