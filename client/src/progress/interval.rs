//! When a step ran. A step may run several times, and a group's members at the same time.

use super::time::{ClockOffset, Time};

/// From a start to a stop, or until now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) start: Time,
    pub(crate) stop: Option<Time>,
}

impl Interval {
    /// Seconds from start to stop, or until `now`.
    pub(crate) fn seconds(self, now: Time) -> f64 {
        self.stop.unwrap_or(now).seconds_since(self.start)
    }

    pub(crate) fn plus(self, offset: ClockOffset) -> Self {
        Self { start: self.start.plus(offset), stop: self.stop.map(|stop| stop.plus(offset)) }
    }
}

/// Combines intervals that overlap; the result is in order.
pub(crate) fn merge(intervals: impl IntoIterator<Item = Interval>) -> Vec<Interval> {
    let mut sorted: Vec<Interval> = intervals.into_iter().collect();
    sorted.sort_by_key(|interval| interval.start);
    let mut merged: Vec<Interval> = Vec::new();
    for next in sorted {
        match merged.last_mut() {
            Some(last) if last.stop.is_none_or(|stop| stop >= next.start) => {
                last.stop = last.stop.zip(next.stop).map(|(a, b)| a.max(b));
            }
            _ => merged.push(next),
        }
    }
    merged
}

/// Seconds that intervals take together.
pub(crate) fn seconds(intervals: &[Interval], now: Time) -> f64 {
    intervals.iter().map(|interval| interval.seconds(now)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_types::Timestamp;

    fn at(seconds: i64) -> Time {
        Time::from(&Timestamp { seconds, nanos: 0 })
    }

    fn interval(start: i64, stop: impl Into<Option<i64>>) -> Interval {
        Interval { start: at(start), stop: stop.into().map(at) }
    }

    #[test]
    fn intervals_that_overlap_are_one() {
        for (given, expected) in [
            (vec![], vec![]),
            (vec![interval(3, 4), interval(1, 2)], vec![interval(1, 2), interval(3, 4)]),
            (vec![interval(1, 3), interval(2, 4)], vec![interval(1, 4)]),
            (vec![interval(1, 9), interval(2, 4)], vec![interval(1, 9)]),
            (vec![interval(1, 2), interval(2, 4)], vec![interval(1, 4)]),
            (vec![interval(1, None), interval(2, 4)], vec![interval(1, None)]),
            (vec![interval(1, 3), interval(2, None)], vec![interval(1, None)]),
        ] {
            assert_eq!(merge(given.clone()), expected, "{given:?}");
        }
    }

    #[test]
    fn gaps_do_not_count() {
        let merged = merge([interval(1, 2), interval(5, 7)]);
        assert!((seconds(&merged, at(100)) - 3.0).abs() < 1e-9);
    }
}
