//! Records of the daemon's cache, as text.

use crate::progress::Time;
use crate::units::{duration, short_bytes};
use kiln_proto::control::UsageRecord;
use serde_json::{Value, json};
use std::fmt::Write as _;

const ID: usize = 44;
const RECLAIMABLE: usize = 15;
const SIZE: usize = 15;

pub(super) fn header() -> String {
    columns("ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED")
}

/// One line; a star marks what can change, and sizes that are counted elsewhere too.
pub(super) fn row(record: &UsageRecord) -> String {
    let star = |is_starred: bool| if is_starred { "*" } else { "" };
    columns(
        &format!("{}{}", record.id, star(record.mutable)),
        if record.in_use { "false" } else { "true" },
        &format!("{}{}", short_bytes(record.size), star(record.shared)),
        &last_used(record).unwrap_or_default(),
    )
}

fn columns(id: &str, reclaimable: &str, size: &str, last_used: &str) -> String {
    let line = format!("{id:ID$}{reclaimable:RECLAIMABLE$}{size:SIZE$}{last_used}");
    line.trim_end().to_owned()
}

fn last_used(record: &UsageRecord) -> Option<String> {
    let used = Time::from(record.last_used_at.as_ref()?);
    Some(format!("{} ago", duration(Time::now().seconds_since(used))))
}

/// All that is known of a record.
pub(super) fn pretty(record: &UsageRecord) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(text, "{key:13} {value}");
    };
    line("ID:", &record.id);
    if !record.parents.is_empty() {
        line("Parents:", "");
        record.parents.iter().for_each(|parent| line(&format!(" - {parent}"), ""));
    }
    if let Some(created) = &record.created_at {
        line("Created at:", &Time::from(created).as_in_go());
    }
    line("Mutable:", &record.mutable.to_string());
    line("Reclaimable:", &(!record.in_use).to_string());
    line("Shared:", &record.shared.to_string());
    line("Size:", &short_bytes(record.size));
    if !record.description.is_empty() {
        line("Description:", &record.description);
    }
    line("Usage count:", &record.usage_count.to_string());
    if let Some(last_used) = last_used(record) {
        line("Last used:", &last_used);
    }
    if !record.record_type.is_empty() {
        line("Type:", &record.record_type);
    }
    text.lines().map(str::trim_end).fold(String::new(), |text, line| text + line + "\n")
}

/// A record as an object, with the members that docker's clients give it.
pub(super) fn json(record: &UsageRecord) -> Value {
    let created = record.created_at.as_ref().map(|time| Time::from(time).as_in_go());
    // Go's empty list.
    let parents = Some(&record.parents).filter(|parents| !parents.is_empty());
    json!({
        "CreatedAt": created.unwrap_or_default(),
        "Description": record.description,
        "ID": record.id,
        "LastUsedAt": last_used(record).unwrap_or_default(),
        "Mutable": record.mutable,
        "Parents": parents,
        "Reclaimable": !record.in_use,
        "Shared": record.shared,
        "Size": short_bytes(record.size),
        "Type": record.record_type,
        "UsageCount": record.usage_count,
    })
}

/// What all records come to.
pub(super) fn summary(records: &[UsageRecord]) -> String {
    let sum = |counts: &dyn Fn(&UsageRecord) -> bool| {
        records
            .iter()
            .filter(|record| record.size > 0 && counts(record))
            .fold(0_i64, |sum, record| sum.saturating_add(record.size))
    };
    let total = sum(&|_| true);
    let shared = sum(&|record| record.shared);
    let mut lines = Vec::new();
    if shared > 0 {
        lines.push(("Shared:", shared));
        lines.push(("Private:", total - shared));
    }
    lines.push(("Reclaimable:", sum(&|record| !record.in_use)));
    lines.push(("Total:", total));
    lines.iter().fold(String::new(), |text, (key, size)| {
        text + &format!("{key:15} {}\n", short_bytes(*size))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, size: i64) -> UsageRecord {
        UsageRecord { id: id.to_owned(), size, ..UsageRecord::default() }
    }

    #[test]
    fn records_are_rows_and_a_sum() {
        let shared = UsageRecord { shared: true, ..record("shared", 2_000_000) };
        let mount = UsageRecord { mutable: true, in_use: true, ..record("mount", 500) };
        let broken = record("broken", -1);
        let records = [shared, mount, broken];
        let rows: Vec<_> = records.iter().map(row).collect();
        insta::assert_snapshot!(
            format!("{}\n{}\n{}", header(), rows.join("\n"), summary(&records)),
            @r"
        ID                                          RECLAIMABLE    SIZE           LAST ACCESSED
        shared                                      true           2MB*
        mount*                                      false          500B
        broken                                      true           -1B
        Shared:         2MB
        Private:        500B
        Reclaimable:    2MB
        Total:          2.001MB
        "
        );
    }

    #[test]
    fn all_that_is_known_of_a_record_can_be_shown() {
        let record = UsageRecord {
            parents: vec!["p1".to_owned(), "p2".to_owned()],
            description: "a step".to_owned(),
            record_type: "regular".to_owned(),
            usage_count: 3,
            created_at: Some(prost_types::Timestamp { seconds: 0, nanos: 0 }),
            ..record("x", 1)
        };
        insta::assert_snapshot!(pretty(&record), @r"
        ID:           x
        Parents:
         - p1
         - p2
        Created at:   1970-01-01 00:00:00 +0000 UTC
        Mutable:      false
        Reclaimable:  true
        Shared:       false
        Size:         1B
        Description:  a step
        Usage count:  3
        Type:         regular
        ");
    }
}
