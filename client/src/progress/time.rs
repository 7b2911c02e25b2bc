//! Moments as the daemon tells them.

use prost_types::Timestamp;
use std::time::{SystemTime, UNIX_EPOCH};

const NANOSECONDS: i64 = 1_000_000_000;

/// A moment, in nanoseconds since the epoch. Moments that are out of reach are the last or first
/// one that is not: a daemon's clock is foreign input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Time(i64);

impl Time {
    pub(crate) fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    /// Seconds from `earlier` to here, negative if it is later.
    pub(crate) fn seconds_since(self, earlier: Self) -> f64 {
        self.0.saturating_sub(earlier.0) as f64 / NANOSECONDS as f64
    }

    /// What has to be added to `other` to get here.
    pub(crate) fn ahead_of(self, other: Self) -> ClockOffset {
        ClockOffset(self.0.saturating_sub(other.0))
    }

    pub(crate) fn plus(self, offset: ClockOffset) -> Self {
        Self(self.0.saturating_add(offset.0))
    }

    /// As JSON's readers expect it: RFC 3339 in UTC, with as many decimals as it needs.
    pub(crate) fn rfc3339(self) -> String {
        let moment = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0));
        moment
            .ok()
            .and_then(|moment| moment.format(&time::format_description::well_known::Rfc3339).ok())
            .unwrap_or_default()
    }

    /// As Go prints it, and so docker's commands.
    pub(crate) fn as_in_go(self) -> String {
        self.rfc3339().replace('T', " ").replace('Z', " +0000 UTC")
    }
}

impl From<&Timestamp> for Time {
    fn from(timestamp: &Timestamp) -> Self {
        Self(
            timestamp
                .seconds
                .saturating_mul(NANOSECONDS)
                .saturating_add(i64::from(timestamp.nanos)),
        )
    }
}

/// How far the daemon's clock is behind this machine's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ClockOffset(i64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_out_of_reach_is_the_last_one_within() {
        let far = Time::from(&Timestamp { seconds: i64::MAX, nanos: i32::MAX });
        let early = Time::from(&Timestamp { seconds: i64::MIN, nanos: i32::MIN });
        assert!(far.seconds_since(early) > 1e9);
        assert!(!far.rfc3339().is_empty());
        assert!(!early.rfc3339().is_empty());
    }

    #[test]
    fn moments_have_as_many_decimals_as_they_need() {
        for (nanos, expected) in
            [(0, "1970-01-01T00:00:01Z"), (500_000_000, "1970-01-01T00:00:01.5Z")]
        {
            assert_eq!(Time::from(&Timestamp { seconds: 1, nanos }).rfc3339(), expected);
        }
    }
}
