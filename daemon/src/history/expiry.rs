//! Which records are kept.

use std::time::{Duration, SystemTime};

use kiln_proto::control::BuildHistoryRecord;

use super::History;

/// How much history is kept. A record goes when it is both too old and one too many; never if it is
/// pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expiry {
    pub(crate) max_age: Duration,
    pub(crate) max_entries: usize,
}

impl Default for Expiry {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(48 * 3600), max_entries: 50 }
    }
}

impl Expiry {
    /// The references of the records that are to go.
    fn expired(&self, mut records: Vec<BuildHistoryRecord>, now: SystemTime) -> Vec<String> {
        let ended = |record: &BuildHistoryRecord| {
            let time = record.completed_at.and_then(|time| SystemTime::try_from(time).ok());
            time.unwrap_or(SystemTime::UNIX_EPOCH)
        };
        records.retain(|record| !record.pinned);
        records.sort_by_key(|record| std::cmp::Reverse(ended(record)));
        let is_old = |record: &BuildHistoryRecord| {
            now.duration_since(ended(record)).is_ok_and(|age| age > self.max_age)
        };
        let surplus = records.into_iter().skip(self.max_entries);
        surplus.filter(is_old).map(|record| record.r#ref).collect()
    }
}

impl History {
    /// Removes what is too old and too much. Blocks.
    pub(crate) fn expire(&self) -> anyhow::Result<()> {
        let expired = self.expiry.expired(self.store.records()?, SystemTime::now());
        if expired.is_empty() {
            return Ok(());
        }
        for reference in &expired {
            self.remove(reference)?;
        }
        self.store.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_goes_when_it_is_old_and_one_too_many() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let record = |name: &str, hours: u64, pinned| BuildHistoryRecord {
            r#ref: name.to_owned(),
            completed_at: Some((now - Duration::from_secs(hours * 3600)).into()),
            pinned,
            ..BuildHistoryRecord::default()
        };
        let records = vec![
            record("older", 60, false),
            record("pinned", 90, true),
            record("old", 50, false),
            record("new", 1, false),
        ];
        let expired = |max_entries| {
            let expiry = Expiry { max_entries, ..Expiry::default() };
            expiry.expired(records.clone(), now)
        };
        assert_eq!(expired(3), [""; 0]);
        assert_eq!(expired(2), ["older"]);
        assert_eq!(expired(0), ["old", "older"]);
    }
}
