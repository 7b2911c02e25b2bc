//! Names of layers: by number here, by content in OCI's terms.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, digest_newtype};

/// A layer that this machine knows: the number of its row, and of its directory.
///
/// Numbers grow and a layer only builds on lower ones, so the graph of layers has no cycles.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LayerId(pub u64);

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "layer {}", self.0)
    }
}

digest_newtype! {
    /// A layer's uncompressed digest: sha256 of its tar stream (OCI image spec, "rootfs.diff_ids").
    DiffId
}

digest_newtype! {
    /// The digest of a stack of layers (OCI image spec, "Layer ChainID").
    ChainId
}

impl ChainId {
    /// The chain of `diff_ids`, bottom first; `None` if there are none.
    pub fn of(diff_ids: &[DiffId]) -> Option<Self> {
        let (bottom, above) = diff_ids.split_first()?;
        Some(above.iter().fold(Self(*bottom.digest()), |chain, diff_id| chain.push(diff_id)))
    }

    /// The chain of this one with `diff_id` on top.
    pub fn push(&self, diff_id: &DiffId) -> Self {
        Self(Digest::of(format!("{self} {diff_id}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_folds_the_diff_ids_bottom_first() {
        let [a, b, c] = ["a", "b", "c"].map(|name| DiffId::new(Digest::of(name)));
        assert_eq!(ChainId::of(&[]), None);
        assert_eq!(ChainId::of(&[a]).unwrap().digest(), a.digest());
        let ab = Digest::of(format!("{a} {b}"));
        assert_eq!(ChainId::of(&[a, b]).unwrap().digest(), &ab);
        assert_eq!(ChainId::of(&[a, b, c]).unwrap().digest(), &Digest::of(format!("{ab} {c}")));
    }
}
