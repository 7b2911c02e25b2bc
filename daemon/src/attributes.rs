//! Attributes of exporters and caches: read by name, and none may be left over.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};

use crate::compression::Format;

/// The attributes of one exporter or cache that were not read yet.
pub(crate) struct Attributes {
    /// Whose they are, for messages.
    owner: String,
    left: BTreeMap<String, String>,
}

impl Attributes {
    pub(crate) fn new(owner: impl Into<String>, given: &BTreeMap<String, String>) -> Self {
        Self { owner: owner.into(), left: given.clone() }
    }

    /// The value of an attribute, if it was given.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        self.left.remove(name)
    }

    /// All attributes whose names begin with `prefix`.
    pub(crate) fn take_all(&mut self, prefix: &str) -> BTreeMap<String, String> {
        self.left.extract_if(.., |name, _| name.starts_with(prefix)).collect()
    }

    /// Has attributes that were taken read by somebody else.
    pub(crate) fn give_back(&mut self, attributes: BTreeMap<String, String>) {
        self.left.extend(attributes);
    }

    /// A switch; one without a value is on.
    pub(crate) fn flag(&mut self, name: &str, default: bool) -> anyhow::Result<bool> {
        match self.left.remove(name).as_deref() {
            None => Ok(default),
            Some("") => Ok(true),
            Some(text) => boolean(text)
                .with_context(|| format!("{}: {name}={text:?} is not a boolean", self.owner)),
        }
    }

    /// How layers are to be compressed.
    pub(crate) fn compression(&mut self) -> anyhow::Result<Format> {
        let level = match self.take("compression-level") {
            Some(text) => {
                let level = text.parse();
                Some(level.with_context(|| format!("invalid compression-level {text:?}"))?)
            }
            None => None,
        };
        Format::parse(self.take("compression").as_deref(), level)
    }

    /// Refuses what nobody read. An empty value, or a switch that is off, asks for nothing, whatever
    /// its name means.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        let asks = |value: &str| !matches!(value, "" | "false");
        match self.left.into_iter().find(|(_, value)| asks(value)) {
            None => Ok(()),
            Some((name, value)) => {
                bail!("{}: attribute {name}={value:?} is not supported", self.owner)
            }
        }
    }
}
/// A boolean as Go's `strconv.ParseBool` reads it, which is how clients write them.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
