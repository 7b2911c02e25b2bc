//! Filters on records, by fields and by time.
//!
//! A filter is a line of comma-separated selectors. Those of containerd's syntax know the fields
//! `ref`, `status` (`running`, `completed`, `error`, `canceled`) and `repository`; those of time are
//! `startedAt`, `completedAt` and `duration` with `>`, `>=`, `<` or `<=` and a time (RFC 3339), or a
//! duration, which for times means so long ago.

use std::time::{Duration, SystemTime};

use kiln_cache::filter::{Field, InvalidFilter, Selection};
use kiln_proto::control::BuildHistoryRecord;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::config::parse_duration;
use crate::ops::source::git::GitRef;
use crate::solver::CANCELED;

/// A request for records that makes no sense.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidHistoryFilter {
    #[error(transparent)]
    Selector(#[from] InvalidFilter),
    #[error("history filter {0:?}: {1}")]
    Fields(String, kiln_dockerfile::CsvError),
    #[error("history filter {filter:?}: {value:?} is neither a time (RFC 3339) nor a duration")]
    Time { filter: String, value: String },
    #[error("invalid limit {0}")]
    Limit(i32),
}

#[derive(Clone, Copy, Debug)]
enum RecordField {
    Ref,
    Status,
    Repository,
}

impl Field for RecordField {
    const ALL: &'static str = "ref, status, repository, startedAt, completedAt and duration";

    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "ref" => Self::Ref,
            "status" => Self::Status,
            "repository" => Self::Repository,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ref => "ref",
            Self::Status => "status",
            Self::Repository => "repository",
        }
    }
}

impl RecordField {
    fn of(self, record: &BuildHistoryRecord) -> Option<String> {
        match self {
            Self::Ref => Some(record.r#ref.clone()),
            Self::Status => Some(status(record).to_owned()),
            Self::Repository => {
                let attrs = &record.frontend_attrs;
                let context = || GitRef::parse(attrs.get("context")?).ok()??.remote.into();
                attrs.get("vcs:source").cloned().or_else(context)
            }
        }
    }
}

fn status(record: &BuildHistoryRecord) -> &'static str {
    match &record.error {
        _ if record.completed_at.is_none() => "running",
        None => "completed",
        Some(error) if error.message.contains(CANCELED) => "canceled",
        Some(_) => "error",
    }
}

/// A bound on a time or on a duration.
#[derive(Clone, Copy, Debug)]
struct Bound {
    quantity: Quantity,
    is_lower: bool,
    is_strict: bool,
    /// Seconds since 1970, or nanoseconds of a duration.
    limit: i128,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantity {
    StartedAt,
    CompletedAt,
    Duration,
}

impl Bound {
    /// Reads a bound; none if the text is a selector of another kind.
    fn parse(text: &str, now: SystemTime) -> Result<Option<Self>, InvalidHistoryFilter> {
        let Some((name, rest)) = text.find(['<', '>']).map(|at| text.split_at(at)) else {
            return Ok(None);
        };
        let quantity = match name {
            "startedAt" => Quantity::StartedAt,
            "completedAt" => Quantity::CompletedAt,
            "duration" => Quantity::Duration,
            _ => return Ok(None),
        };
        let is_lower = rest.starts_with('>');
        let value = rest[1..].strip_prefix('=');
        let (is_strict, value) = (value.is_none(), value.unwrap_or(&rest[1..]));
        let invalid =
            || InvalidHistoryFilter::Time { filter: text.to_owned(), value: value.to_owned() };
        let limit = match (quantity, parse_duration(value).filter(|_| !value.is_empty())) {
            (Quantity::Duration, duration) => duration.ok_or_else(invalid)?.as_nanos() as i128,
            (_, Some(age)) => seconds(now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH)),
            (_, None) => OffsetDateTime::parse(value, &Rfc3339)
                .map_err(|_| invalid())?
                .unix_timestamp()
                .into(),
        };
        Ok(Some(Self { quantity, is_lower, is_strict, limit }))
    }

    fn holds(&self, record: &BuildHistoryRecord) -> bool {
        let time = |time: Option<prost_types::Timestamp>| SystemTime::try_from(time?).ok();
        let (started, completed) = (time(record.created_at), time(record.completed_at));
        let value = match self.quantity {
            Quantity::StartedAt => started.map(seconds),
            Quantity::CompletedAt => completed.map(seconds),
            Quantity::Duration => started.zip(completed).map(|(started, completed)| {
                completed.duration_since(started).unwrap_or_default().as_nanos() as i128
            }),
        };
        let order = value.unwrap_or(0).cmp(&self.limit);
        if order.is_eq() { !self.is_strict } else { order.is_gt() == self.is_lower }
    }
}

fn seconds(time: SystemTime) -> i128 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i128::from(since.as_secs())
}

struct Filter {
    bounds: Vec<Bound>,
    fields: Selection<RecordField>,
}

impl Filter {
    fn parse(text: &str, now: SystemTime) -> Result<Self, InvalidHistoryFilter> {
        let parts = if text.is_empty() {
            Vec::new()
        } else {
            kiln_dockerfile::csv_fields(text)
                .map_err(|error| InvalidHistoryFilter::Fields(text.to_owned(), error))?
        };
        let (mut bounds, mut fields) = (Vec::new(), Vec::new());
        for part in parts {
            match Bound::parse(&part, now)? {
                Some(bound) => bounds.push(bound),
                None => fields.push(part),
            }
        }
        Ok(Self { bounds, fields: fields.join(",").parse()? })
    }

    fn matches(&self, record: &BuildHistoryRecord) -> bool {
        self.bounds.iter().all(|bound| bound.holds(record))
            && self.fields.matches(|field| field.of(record))
    }
}

/// The records that any of `filters` selects, the newest first and no more than `limit` if there is
/// a limit.
pub(super) fn apply(
    mut records: Vec<BuildHistoryRecord>,
    filters: &[String],
    limit: i32,
) -> Result<Vec<BuildHistoryRecord>, InvalidHistoryFilter> {
    let now = SystemTime::now();
    let filters: Vec<Filter> =
        filters.iter().map(|filter| Filter::parse(filter, now)).collect::<Result<_, _>>()?;
    if !filters.is_empty() {
        records.retain(|record| filters.iter().any(|filter| filter.matches(record)));
    }
    let limit = usize::try_from(limit).map_err(|_| InvalidHistoryFilter::Limit(limit))?;
    if limit > 0 {
        let started = |record: &BuildHistoryRecord| {
            record.created_at.map_or((0, 0), |time| (time.seconds, time.nanos))
        };
        records.sort_by_key(|record| std::cmp::Reverse(started(record)));
        records.truncate(limit);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use kiln_proto::rpc;

    use super::*;

    fn record(name: &str, started: u64, seconds: u64, error: Option<&str>) -> BuildHistoryRecord {
        let at = |seconds| Some((SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).into());
        let failure = |message: &str| rpc::Status {
            code: 2,
            message: message.to_owned(),
            details: Vec::new(),
        };
        BuildHistoryRecord {
            r#ref: name.to_owned(),
            created_at: at(started),
            completed_at: at(started + seconds),
            error: error.map(failure),
            frontend_attrs: [("context".to_owned(), "https://host/a.git#main".to_owned())].into(),
            ..BuildHistoryRecord::default()
        }
    }

    #[test]
    fn a_filter_selects_by_fields_and_times() {
        let records = || {
            vec![
                record("good", 100, 60, None),
                record("bad", 200, 5, Some("exit code: 1")),
                record("gone", 300, 1, Some("x: context canceled")),
            ]
        };
        let table: [(&[&str], i32, &[&str]); 11] = [
            (&[], 0, &["good", "bad", "gone"]),
            (&[], 2, &["gone", "bad"]),
            (&["status==error"], 0, &["bad"]),
            (&["status==canceled", "status==completed"], 0, &["good", "gone"]),
            (&["ref~=^g,status!=completed"], 0, &["gone"]),
            (&["duration>5s"], 0, &["good"]),
            (&["duration>=5s,status==error"], 0, &["bad"]),
            (&["startedAt<1970-01-01T00:03:20Z"], 0, &["good"]),
            (&["startedAt<=1970-01-01T00:03:20Z"], 0, &["good", "bad"]),
            (&["completedAt>1h"], 0, &[]),
            (&["repository==https://host/a.git"], 1, &["gone"]),
        ];
        for (filters, limit, expected) in table {
            let filters: Vec<String> = filters.iter().map(|text| (*text).to_owned()).collect();
            let found = apply(records(), &filters, limit).unwrap();
            let names: Vec<&str> = found.iter().map(|record| &*record.r#ref).collect();
            assert_eq!(names, expected, "{filters:?}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for filter in ["bogus==1", "status=error", "startedAt>noon", "duration<", "\"a"] {
            assert!(apply(Vec::new(), &[filter.to_owned()], 0).is_err(), "{filter}");
        }
        assert!(apply(Vec::new(), &[], -1).is_err());
    }
}
