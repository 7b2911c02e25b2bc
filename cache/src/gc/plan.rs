//! Which rows go.

use std::{cmp::Reverse, collections::BinaryHeap, time::SystemTime};

use super::{DiskStat, Policy, Usage, UsageId, position_from_end};
use crate::record_type::RecordType;

/// What `policies` remove from `entries`, in the order in which it is to be removed: what builds on
/// something goes before it. The entries are in order of their ids.
///
/// An entry that is in use stays, as does one that another entry which stays builds on.
pub fn plan(
    entries: &[Usage],
    policies: &[Policy],
    disk: DiskStat,
    now: SystemTime,
) -> Vec<UsageId> {
    let mut state = State::new(entries, disk);
    for policy in policies {
        state.apply(policy, now);
    }
    state.victims.into_iter().map(|victim| entries[victim].id).collect()
}

/// What is left while policies are applied; entries go by their position.
struct State<'a> {
    entries: &'a [Usage],
    /// How many times entries that are left name an entry as one they build on.
    children: Vec<u32>,
    removed: Vec<bool>,
    victims: Vec<usize>,
    used: u64,
    disk: DiskStat,
}

impl<'a> State<'a> {
    fn new(entries: &'a [Usage], disk: DiskStat) -> Self {
        let mut children = vec![0; entries.len()];
        for parent in (0..entries.len()).flat_map(|at| parents(entries, at)) {
            children[parent] += 1;
        }
        Self {
            entries,
            children,
            removed: vec![false; entries.len()],
            victims: Vec::new(),
            used: entries.iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.size)),
            disk,
        }
    }

    fn apply(&mut self, policy: &Policy, now: SystemTime) {
        let keep = policy.limits.keep(self.used, self.disk);
        let is_enough = |used| keep.is_some_and(|keep| used <= keep);
        if is_enough(self.used) {
            return;
        }
        let candidates: Vec<_> = (0..self.entries.len())
            .filter(|&at| !self.removed[at] && may_remove(&self.entries[at], policy, now))
            .collect();
        let mut rank = vec![None; self.entries.len()];
        for (order, at) in (0_u32..).zip(least_useful_first(self.entries, candidates)) {
            rank[at] = Some(order);
        }
        let mut free: BinaryHeap<_> = (0..self.entries.len())
            .filter(|&at| self.children[at] == 0)
            .filter_map(|at| rank[at].map(|order| Reverse((order, at))))
            .collect();
        while !is_enough(self.used)
            && let Some(Reverse((_, at))) = free.pop()
        {
            self.remove(at);
            for parent in parents(self.entries, at) {
                self.children[parent] -= 1;
                if self.children[parent] == 0
                    && let Some(order) = rank[parent]
                {
                    free.push(Reverse((order, parent)));
                }
            }
        }
    }

    fn remove(&mut self, at: usize) {
        let size = self.entries[at].size;
        self.removed[at] = true;
        self.victims.push(at);
        self.used = self.used.saturating_sub(size);
        self.disk.free = self.disk.free.saturating_add(size);
    }
}

/// Positions of what the entry at a position builds on, which is before it.
fn parents(entries: &[Usage], at: usize) -> impl Iterator<Item = usize> {
    let (below, entry) = (&entries[..at], &entries[at]);
    entry.parents.iter().filter_map(|&parent| position_from_end(below, parent))
}

fn may_remove(entry: &Usage, policy: &Policy, now: SystemTime) -> bool {
    if entry.in_use {
        return false;
    }
    let is_special =
        entry.shared || matches!(entry.record_type, RecordType::Internal | RecordType::Frontend);
    if is_special && !policy.all {
        return false;
    }
    // What was never used since it was made has been idle since then.
    let idle_since = entry.last_used_at.unwrap_or(entry.created_at);
    let idle = now.duration_since(idle_since).unwrap_or_default();
    if !policy.keep_duration.is_zero() && idle < policy.keep_duration {
        return false;
    }
    policy.filters.is_empty() || policy.filters.iter().any(|filter| filter.matches(entry))
}

/// Orders `candidates` by how long ago and how seldom they were used, both weighing the same: by the
/// sum of their places in either order.
fn least_useful_first(entries: &[Usage], candidates: Vec<usize>) -> Vec<usize> {
    let age = places(&candidates, |at| entries[at].last_used_at.unwrap_or(entries[at].created_at));
    let uses = places(&candidates, |at| entries[at].usage_count);
    // Compared as fractions of the highest places, without fractions.
    let weights = age.of.iter().zip(&uses.of).map(|(age_at, uses_at)| {
        u64::from(*age_at) * u64::from(uses.count) + u64::from(*uses_at) * u64::from(age.count)
    });
    let mut weighed: Vec<_> = weights.zip(candidates).collect();
    weighed.sort_unstable_by_key(|&(weight, at)| (weight, entries[at].created_at, at));
    weighed.into_iter().map(|(_, at)| at).collect()
}

/// The place of each candidate in an order, equal ones sharing a place.
struct Places {
    of: Vec<u32>,
    count: u32,
}

fn places<T: Ord + Copy>(candidates: &[usize], value: impl Fn(usize) -> T) -> Places {
    let mut ordered: Vec<_> = candidates.iter().map(|&at| value(at)).zip(0..).collect();
    ordered.sort_unstable();
    let mut of = vec![0; candidates.len()];
    let mut count = 0;
    let mut last = None;
    for (value, candidate) in ordered {
        let candidate: usize = candidate;
        if last != Some(value) {
            count += 1;
            last = Some(value);
        }
        of[candidate] = count;
    }
    Places { of, count }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        gc::{Limits, Space},
        layer::LayerId,
    };

    const DISK: DiskStat = DiskStat { total: 10_000, free: 5_000 };

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn id(number: u64) -> UsageId {
        UsageId::Layer(LayerId(number))
    }

    fn entry(number: u64, parents: &[u64], size: u64, last_used: u64) -> Usage {
        Usage {
            id: id(number),
            parents: parents.iter().copied().map(id).collect(),
            in_use: false,
            shared: false,
            mutable: false,
            size,
            created_at: at(0),
            last_used_at: Some(at(last_used)),
            usage_count: 1,
            description: String::new(),
            record_type: RecordType::Regular,
        }
    }

    fn max_used(bytes: u64) -> Policy {
        let limits = Limits { max_used_space: Space::Bytes(bytes), ..Limits::default() };
        Policy { limits, ..Policy::default() }
    }

    fn planned(entries: &[Usage], policy: Policy) -> Vec<u64> {
        plan(entries, &[policy], DISK, at(1000))
            .into_iter()
            .map(|id| match id {
                UsageId::Layer(LayerId(number)) => number,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn without_limits_everything_unused_goes_children_first() {
        let entries = [entry(1, &[], 1, 9), entry(2, &[1], 1, 5), entry(3, &[2], 1, 7)];
        assert_eq!(planned(&entries, Policy::default()), [3, 2, 1]);
    }

    #[test]
    fn what_is_in_use_stays_with_all_below_it() {
        let mut entries = [entry(1, &[], 1, 1), entry(2, &[1], 1, 1), entry(3, &[1], 1, 1)];
        entries[1].in_use = true;
        assert_eq!(planned(&entries, Policy::default()), [3]);
    }

    #[test]
    fn with_a_limit_the_longest_unused_goes_until_it_holds() {
        let entries = [entry(1, &[], 10, 30), entry(2, &[], 10, 10), entry(3, &[], 10, 20)];
        assert_eq!(planned(&entries, max_used(20)), [2]);
        assert_eq!(planned(&entries, max_used(19)), [2, 3]);
        assert_eq!(planned(&entries, max_used(30)), [] as [u64; 0]);
    }

    #[test]
    fn what_is_used_often_outlives_what_was_used_a_little_later() {
        let mut entries = [entry(1, &[], 10, 10), entry(2, &[], 10, 11), entry(3, &[], 10, 12)];
        entries[0].usage_count = 100;
        entries[2].usage_count = 50;
        assert_eq!(planned(&entries, max_used(20)), [2]);
    }

    #[test]
    fn what_was_used_lately_stays() {
        let entries = [entry(1, &[], 1, 100), entry(2, &[], 1, 990)];
        let policy = Policy { keep_duration: Duration::from_secs(50), ..Policy::default() };
        assert_eq!(planned(&entries, policy), [1]);
    }

    #[test]
    fn something_new_that_was_never_used_counts_as_used_when_it_was_made() {
        let mut entries = [entry(1, &[], 1, 0)];
        entries[0].last_used_at = None;
        entries[0].created_at = at(990);
        let policy = Policy { keep_duration: Duration::from_secs(50), ..Policy::default() };
        assert_eq!(planned(&entries, policy), [] as [u64; 0]);
    }

    #[test]
    fn internal_frontend_and_shared_data_goes_only_with_all() {
        let mut entries = [1, 2, 3, 4].map(|number| entry(number, &[], 1, 1));
        entries[0].record_type = RecordType::Internal;
        entries[1].record_type = RecordType::Frontend;
        entries[2].shared = true;
        assert_eq!(planned(&entries, Policy::default()), [4]);
        assert_eq!(planned(&entries, Policy { all: true, ..Policy::default() }).len(), 4);
    }

    #[test]
    fn a_filter_selects_and_any_of_several_does() {
        let mut entries = [1, 2, 3].map(|number| entry(number, &[], 1, 1));
        entries[0].record_type = RecordType::CacheMount;
        entries[1].description = "keep me not".to_owned();
        let filters = ["type==exec.cachemount", "description~=not"];
        let filters = filters.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(planned(&entries, Policy { filters, ..Policy::default() }), [1, 2]);
    }

    #[test]
    fn a_full_disk_is_freed_by_as_much_as_is_missing() {
        let entries = [entry(1, &[], 100, 1), entry(2, &[], 100, 2), entry(3, &[], 100, 3)];
        let limits = Limits { min_free_space: Space::Bytes(5_150), ..Limits::default() };
        let policy = Policy { limits, ..Policy::default() };
        assert_eq!(planned(&entries, policy.clone()), [1, 2]);
        // A second policy sees what the first one freed.
        assert_eq!(plan(&entries, &[policy.clone(), policy], DISK, at(1000)).len(), 2);
    }

    fn usages() -> impl Strategy<Value = Vec<Usage>> {
        let one = (
            proptest::collection::vec(any::<proptest::sample::Index>(), 0..4),
            0_u64..100,
            0_u64..1_000,
            0_u64..5,
            proptest::bool::weighted(0.1),
            proptest::bool::weighted(0.2),
            0_usize..3,
        );
        proptest::collection::vec(one, 0..40).prop_map(|rows| {
            rows.into_iter()
                .enumerate()
                .map(|(number, (parents, size, last_used, count, in_use, shared, kind))| {
                    let parents: Vec<_> = parents
                        .iter()
                        .filter(|_| number > 0)
                        .map(|parent| parent.index(number.max(1)) as u64)
                        .collect();
                    let mut entry = entry(number as u64, &parents, size, last_used);
                    entry.usage_count = count;
                    entry.in_use = in_use;
                    entry.shared = shared;
                    entry.record_type =
                        [RecordType::Regular, RecordType::Internal, RecordType::CacheMount][kind];
                    entry
                })
                .collect()
        })
    }

    fn policies() -> impl Strategy<Value = Vec<Policy>> {
        let one = (any::<bool>(), any::<bool>(), 0_u64..600, [0_u64..2000, 0..2000, 0..8000]);
        proptest::collection::vec(one, 1..4).prop_map(|rows| {
            rows.into_iter()
                .map(|(all, filtered, keep, [reserved, max_used, min_free])| Policy {
                    all,
                    filters: filtered
                        .then(|| "type==regular".parse().unwrap())
                        .into_iter()
                        .collect(),
                    keep_duration: Duration::from_secs(keep),
                    limits: Limits {
                        reserved_space: Space::Bytes(reserved),
                        max_used_space: Space::Bytes(max_used),
                        min_free_space: Space::Bytes(min_free),
                    },
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn nothing_that_stays_loses_what_it_builds_on(
            entries in usages(),
            policies in policies(),
        ) {
            let victims = plan(&entries, &policies, DISK, at(1000));
            let gone: HashSet<_> = victims.iter().copied().collect();
            prop_assert_eq!(gone.len(), victims.len(), "nothing goes twice");
            for entry in &entries {
                if gone.contains(&entry.id) {
                    prop_assert!(!entry.in_use);
                } else {
                    prop_assert!(entry.parents.iter().all(|parent| !gone.contains(parent)));
                }
            }
            // At no point of the order, either.
            let mut left: HashSet<_> = entries.iter().map(|entry| entry.id).collect();
            for victim in &victims {
                left.remove(victim);
                let orphan = entries.iter().find(|entry| {
                    left.contains(&entry.id) && entry.parents.contains(victim)
                });
                prop_assert!(orphan.is_none());
            }
        }

        #[test]
        fn a_limit_holds_or_nothing_more_may_go(entries in usages(), limit in 1_u64..2000) {
            let policy = Policy { all: true, ..max_used(limit) };
            let gone: HashSet<_> =
                plan(&entries, &[policy], DISK, at(1000)).into_iter().collect();
            let left: Vec<_> =
                entries.iter().filter(|entry| !gone.contains(&entry.id)).cloned().collect();
            let used: u64 = left.iter().map(|entry| entry.size).sum();
            if used > limit {
                let everything = Policy { all: true, ..Policy::default() };
                prop_assert!(plan(&left, &[everything], DISK, at(1000)).is_empty());
            }
        }
    }
}
