//! Rows of disk usage.

use std::{fmt, time::SystemTime};

use crate::{index::DirId, layer::LayerId, record_type::RecordType};

/// What a row of disk usage is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum UsageId {
    /// A layer.
    Layer(LayerId),
    /// A mutable directory.
    Dir(DirId),
    /// Blobs that belong to no layer: manifests, configs, and what named images hold.
    Content,
    /// The index's database.
    Index,
}

impl fmt::Display for UsageId {
    /// Numbers have one length, so that a pattern that matches one of them matches no other.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer(LayerId(number)) | Self::Dir(DirId(number)) => write!(f, "{number:012x}"),
            Self::Content => f.write_str("content"),
            Self::Index => f.write_str("index"),
        }
    }
}

/// Where `id` is among rows in order of ids. Quick if it is near the last of them, as what something
/// builds on is near it.
pub(crate) fn position_from_end(rows: &[Usage], id: UsageId) -> Option<usize> {
    let mut near = 1;
    while rows.len().checked_sub(near).is_some_and(|at| rows[at].id > id) {
        near *= 2;
    }
    let start = rows.len().saturating_sub(near);
    let found = rows[start..].binary_search_by_key(&id, |row| row.id).ok()?;
    Some(start + found)
}

/// One row of disk usage, as BuildKit's clients show it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Usage {
    /// What it is about.
    pub id: UsageId,
    /// What it builds on, and keeps.
    pub parents: Vec<UsageId>,
    /// Whether a running build holds it, directly or through something that builds on it.
    pub in_use: bool,
    /// Whether a named image holds it, too.
    pub shared: bool,
    /// Whether it is written in place.
    pub mutable: bool,
    /// What it takes up, in bytes. All rows together are what the disk shows.
    pub size: u64,
    /// When it was made.
    pub created_at: SystemTime,
    /// When it was last used, if ever since it was made.
    pub last_used_at: Option<SystemTime>,
    /// How often it was used.
    pub usage_count: u64,
    /// What people see of it.
    pub description: String,
    /// What kind of thing it is.
    pub record_type: RecordType,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_among_however_many_if_it_is_there() {
        let row = |number| Usage {
            id: UsageId::Layer(LayerId(number)),
            parents: Vec::new(),
            in_use: false,
            shared: false,
            mutable: false,
            size: 0,
            created_at: SystemTime::UNIX_EPOCH,
            last_used_at: None,
            usage_count: 0,
            description: String::new(),
            record_type: RecordType::Regular,
        };
        for count in 0..40 {
            let rows: Vec<_> = (0..count).map(|at| row(2 * at + 1)).collect();
            for number in 0..2 * count + 2 {
                let id = UsageId::Layer(LayerId(number));
                let found = rows.iter().position(|row| row.id == id);
                assert_eq!(position_from_end(&rows, id), found, "{number} of {count}");
            }
        }
    }
}
