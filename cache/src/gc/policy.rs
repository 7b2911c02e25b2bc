//! Rules of garbage collection.

use std::time::{Duration, SystemTime};

use super::{Filter, Space, space::DiskStat};

/// One rule; the same as a request to prune.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Whether it applies to internal data, frontends and layers of named images, too.
    pub all: bool,
    /// What it applies to; any of the filters must match. With none it applies to everything.
    pub filters: Vec<Filter>,
    /// What was used within this time stays.
    pub keep_duration: Duration,
    /// How much space the cache may take up.
    pub limits: Limits,
}

impl Policy {
    /// Whether something that was last used then goes, whatever it is and however much space there
    /// is.
    pub(crate) fn is_of_everything(&self, used_at: SystemTime, now: SystemTime) -> bool {
        let idle = now.duration_since(used_at).unwrap_or_default();
        self.all
            && self.filters.is_empty()
            && self.limits == Limits::default()
            && idle >= self.keep_duration
    }
}

/// How much space the cache may take up; zero is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// So much is always left to the cache, whatever the other two say.
    pub reserved_space: Space,
    /// The cache takes up at most so much.
    pub max_used_space: Space,
    /// So much of the disk shall stay free.
    pub min_free_space: Space,
}

impl Limits {
    /// How many bytes the cache may keep when it takes up `used`; `None` if there is no limit and
    /// so nothing needs to be kept.
    pub(super) fn keep(&self, used: u64, disk: DiskStat) -> Option<u64> {
        let [reserved, max_used, min_free] =
            [self.reserved_space, self.max_used_space, self.min_free_space];
        if reserved.is_zero() && max_used.is_zero() && min_free.is_zero() {
            return None;
        }
        let mut keep = None;
        if !max_used.is_zero() {
            keep = Some(max_used.bytes(disk));
        }
        if !min_free.is_zero() {
            let missing = min_free.bytes(disk).saturating_sub(disk.free);
            let left = used.saturating_sub(missing);
            keep = Some(keep.map_or(left, |keep| keep.min(left)));
        }
        Some(keep.unwrap_or(0).max(reserved.bytes(disk)))
    }
}

/// Whether no policy removes anything, whatever there is, when the cache takes up `used`.
pub fn is_within(policies: &[Policy], used: u64, disk: DiskStat) -> bool {
    let mut limits = policies.iter().map(|policy| policy.limits);
    limits.all(|limits| limits.keep(used, disk).is_some_and(|keep| used <= keep))
}

/// The rules of a daemon whose configuration has none, for the limits that it has.
///
/// Limits that are all zero are chosen from the disk: a tenth of it, at most 10 GB, is reserved;
/// the cache takes up at most four fifths, and at most 100 GB; a fifth stays free.
pub fn default_policies(limits: Limits, disk: DiskStat) -> Vec<Policy> {
    const GB: u64 = 1_000_000_000;
    let limits = if limits == Limits::default() {
        Limits {
            reserved_space: Space::Bytes(Space::Percent(10).bytes(disk).min(10 * GB)),
            max_used_space: Space::Bytes(Space::Percent(80).bytes(disk).min(100 * GB)),
            min_free_space: Space::Percent(20),
        }
    } else {
        limits
    };
    let days = |days: u64| Duration::from_secs(days * 24 * 60 * 60);
    vec![
        // What is cheapest to make again goes first.
        Policy {
            filters: Filter::easily_remade(),
            keep_duration: days(2),
            limits: Limits { max_used_space: Space::Bytes(512_000_000), ..Limits::default() },
            ..Policy::default()
        },
        Policy { keep_duration: days(60), limits, ..Policy::default() },
        Policy { limits, ..Policy::default() },
        Policy { all: true, limits, ..Policy::default() },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(reserved: u64, max_used: u64, min_free: u64) -> Limits {
        Limits {
            reserved_space: Space::Bytes(reserved),
            max_used_space: Space::Bytes(max_used),
            min_free_space: Space::Bytes(min_free),
        }
    }

    #[test]
    fn what_may_be_kept_follows_from_all_three_limits() {
        let disk = DiskStat { total: 1000, free: 100 };
        let table = [
            ("no limits", limits(0, 0, 0), None),
            ("a maximum", limits(0, 200, 0), Some(200)),
            ("enough is free", limits(0, 0, 50), Some(500)),
            ("too little is free", limits(0, 0, 300), Some(300)),
            ("the stricter of two", limits(0, 200, 300), Some(200)),
            ("the other stricter of two", limits(0, 400, 300), Some(300)),
            ("no more can be freed than is used", limits(0, 0, 900), Some(0)),
            ("the reserve is kept", limits(250, 200, 900), Some(250)),
            ("a reserve alone", limits(250, 0, 0), Some(250)),
        ];
        for (rule, limits, keep) in table {
            assert_eq!(limits.keep(500, disk), keep, "{rule}");
        }
    }

    #[test]
    fn limits_that_hold_make_a_look_at_the_cache_needless() {
        let disk = DiskStat { total: 1000, free: 100 };
        let policy = |limits| Policy { limits, ..Policy::default() };
        let holds = |policies: &[Policy]| is_within(policies, 500, disk);
        assert!(holds(&[]));
        assert!(holds(&[policy(limits(0, 500, 0)), policy(limits(0, 0, 100))]));
        assert!(!holds(&[policy(limits(0, 500, 0)), policy(limits(0, 499, 0))]));
        assert!(!holds(&[policy(limits(0, 0, 101))]));
        assert!(!holds(&[policy(Limits::default())]), "what is old goes without a limit");
    }

    #[test]
    fn the_defaults_suit_the_disk() {
        let small = DiskStat { total: 20_000_000_000, free: 0 };
        let policies = default_policies(Limits::default(), small);
        assert_eq!(policies.len(), 4);
        assert_eq!(policies[1].limits.reserved_space, Space::Bytes(2_000_000_000));
        assert_eq!(policies[1].limits.max_used_space, Space::Bytes(16_000_000_000));
        let large = DiskStat { total: 2_000_000_000_000, free: 0 };
        let policies = default_policies(Limits::default(), large);
        assert_eq!(policies[1].limits.reserved_space, Space::Bytes(10_000_000_000));
        assert_eq!(policies[1].limits.max_used_space, Space::Bytes(100_000_000_000));
        assert_eq!(default_policies(limits(1, 2, 3), large)[3].limits, limits(1, 2, 3));
    }
}
