//! Cache keys: how the key of a step follows from its op and its inputs' keys.
//!
//! This is the one definition of keys. The solver computes them from graphs, an imported cache
//! manifest is turned into them record by record, and both must agree to the last bit.
//!
//! A **definition key** is made of an op, the output wanted of it, and one [`Link`] for each input:
//! the input's key, and which part of the input matters. A **content key** stands for files however
//! they came about. Both have the same type and may be mixed as inputs of further keys.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hasher, digest_newtype};

digest_newtype! {
    /// What a result is found under.
    CacheKey
}

/// Which part of an input matters to a step, where it is not the whole: an opaque text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Selector(String);

impl Selector {
    /// The whole input matters.
    pub const WHOLE: Self = Self(String::new());

    /// The part that `name` stands for; an empty name is the whole.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Whether the whole input matters.
    pub fn is_whole(&self) -> bool {
        self.0.is_empty()
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// One input of a key: a key of the input, and which part of it matters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Link {
    /// A key of the input.
    pub key: CacheKey,
    /// The part that matters.
    pub selector: Selector,
}

impl Link {
    /// The whole of the input that is known by `key`.
    pub const fn whole(key: CacheKey) -> Self {
        Self { key, selector: Selector::WHOLE }
    }
}

/// An op's digest bound to one of the op's outputs; what BuildKit's cache manifest calls the
/// `digest` of a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct OutputDigest(pub(crate) Digest);

impl OutputDigest {
    /// BuildKit's formula, so that keys can agree where ops do.
    pub(crate) fn new(op: &Digest, output: i64) -> Self {
        Self(Digest::of(format!("{op}@{output}")))
    }

    /// The key of this output when the inputs are `links`.
    pub(crate) fn key<'a>(&self, links: impl ExactSizeIterator<Item = &'a Link>) -> CacheKey {
        if links.len() == 0 {
            return CacheKey::new(self.0);
        }
        let mut hasher = Hasher::new();
        hasher.update(b"kiln.key.v1\0");
        hasher.update(self.0.as_bytes());
        hasher.update((links.len() as u64).to_le_bytes());
        for link in links {
            hasher.update(link.key.digest().as_bytes());
            hasher.update((link.selector.0.len() as u64).to_le_bytes());
            hasher.update(&link.selector.0);
        }
        CacheKey::new(hasher.finish())
    }
}

/// The definition key of `output` of the op with digest `op`, given one link per input, in order.
///
/// The op's digest must cover all of the op that can change its result but its inputs.
pub fn key_of(op: &Digest, output: u32, inputs: &[Link]) -> CacheKey {
    OutputDigest::new(op, i64::from(output)).key(inputs.iter())
}

/// The key of files whose content digest is `content`, wherever they come from.
pub fn content_key(content: &Digest) -> CacheKey {
    // BuildKit gives content the output index -1; ours never collides with an op's output.
    OutputDigest::new(content, -1).key([].iter())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn digest(name: &str) -> Digest {
        Digest::of(name)
    }

    #[test]
    fn a_source_has_the_key_that_buildkit_gives_it() {
        let op = digest("op");
        assert_eq!(*key_of(&op, 0, &[]).digest(), Digest::of(format!("{op}@0")));
        assert_eq!(*content_key(&op).digest(), Digest::of(format!("{op}@-1")));
    }

    #[test]
    fn a_key_changes_with_each_of_its_parts() {
        let (a, b) = (CacheKey::new(digest("a")), CacheKey::new(digest("b")));
        let part = |key, name: &str| Link { key, selector: Selector::new(name) };
        let keys = [
            key_of(&digest("op"), 0, &[]),
            key_of(&digest("op"), 1, &[]),
            key_of(&digest("other"), 0, &[]),
            key_of(&digest("op"), 0, &[Link::whole(a)]),
            key_of(&digest("op"), 0, &[Link::whole(b)]),
            key_of(&digest("op"), 0, &[part(a, "x")]),
            key_of(&digest("op"), 0, &[Link::whole(a), Link::whole(b)]),
            key_of(&digest("op"), 0, &[Link::whole(b), Link::whole(a)]),
            key_of(&digest("op"), 0, &[part(a, "x"), Link::whole(b)]),
            key_of(&digest("op"), 0, &[Link::whole(a), part(b, "x")]),
            content_key(&digest("op")),
        ];
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
    }

    /// Keys are stored on disk and in registries: a change of this value loses everybody's cache.
    #[test]
    fn the_formula_does_not_change() {
        let link = Link { key: CacheKey::new(digest("input")), selector: Selector::new("src") };
        assert_eq!(
            key_of(&digest("op"), 0, &[link]).to_string(),
            "sha256:a67d0d52c04ad0acde58e570690ab0c9e0702603cdc33c59b4dcd43cd8b3c004"
        );
    }
}
