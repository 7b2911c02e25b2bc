//! From a cache config to keys and results. The config comes from anybody.

use std::{
    collections::{HashMap, HashSet},
    time::SystemTime,
};

use time::OffsetDateTime;

use super::{
    config::{CacheConfig, CacheInput, CacheLayer, CacheRecord},
    export::ExportRecord,
};
use crate::{
    descriptor::Descriptor,
    digest::Digest,
    key::{CacheKey, Link, OutputDigest, Selector},
};

/// How many combinations of alternative links of one record are turned into keys. With more, some
/// keys are not found.
const MAX_COMBINATIONS: usize = 256;
/// How many keys one cache may have: 32 bytes each, and as much again for where they lead.
const MAX_KEYS: usize = 4_000_000;
/// How many layers a result may have. The kernel's own limit on a stack is lower.
const MAX_CHAIN: usize = 2_000;

/// A cache that was imported: results by key, none of them fetched.
#[derive(Clone, Debug)]
pub struct ImportedCache {
    config: CacheConfig,
    blobs: HashMap<Digest, Descriptor>,
    /// The primary key of each record.
    primary: Vec<CacheKey>,
    /// Positions of records by every key.
    records: HashMap<CacheKey, usize>,
}

/// A result that an imported cache has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImportedHit {
    /// The key that dependants' keys are made from.
    pub key: CacheKey,
    /// For each input, the links under which it is known; those that `key` is made from are first.
    pub inputs: Vec<Vec<Link>>,
    /// The blobs of the result, bottom first.
    pub blobs: Vec<Descriptor>,
    /// When the result was made; not before 1970.
    pub created_at: OffsetDateTime,
}

/// Why a cache cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A manifest or config is not what it should be.
    #[error("the cache's {what} is not valid")]
    Json {
        /// Which of them.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// A manifest is neither of the forms that hold a cache.
    #[error("the cache's manifest is neither an index nor an image manifest")]
    NoManifest,
    /// A record is linked to one that is not there.
    #[error("record {record} of the cache is linked to record {link}, of {count}")]
    NoRecord {
        /// The position of the record.
        record: usize,
        /// The position that it is linked to.
        link: i64,
        /// How many records there are.
        count: usize,
    },
    /// A record has an input that is linked to nothing.
    #[error("record {record} of the cache has an input without links")]
    EmptyInput {
        /// The position of the record.
        record: usize,
    },
    /// Records are linked in a circle.
    #[error("record {record} of the cache is linked to itself")]
    Circle {
        /// The position of one of them.
        record: usize,
    },
    /// A record or layer refers to a layer that is not there.
    #[error("the cache has no layer {layer}, of {count}")]
    NoLayer {
        /// The position that is referred to.
        layer: i64,
        /// How many layers there are.
        count: usize,
    },
    /// There are more keys than this program is willing to hold.
    #[error("the cache has more than {MAX_KEYS} keys")]
    TooManyKeys,
}

impl ImportedCache {
    /// Reads a config. `blobs` are what the manifest beside it says there is; a result of which a
    /// blob is missing is no result.
    pub fn parse(config: &[u8], blobs: &[Descriptor]) -> Result<Self, ImportError> {
        let config: CacheConfig = serde_json::from_slice(config)
            .map_err(|source| ImportError::Json { what: "config", source })?;
        Self::new(config, blobs)
    }

    /// Reads a config whose layers say themselves what their blobs are, for there is no manifest
    /// beside it.
    pub fn parse_annotated(config: &[u8]) -> Result<Self, ImportError> {
        let config: CacheConfig = serde_json::from_slice(config)
            .map_err(|source| ImportError::Json { what: "config", source })?;
        let blobs: Vec<_> = config.layers.iter().filter_map(CacheLayer::descriptor).collect();
        Self::new(config, &blobs)
    }

    /// Takes a config that was read otherwise.
    pub fn new(config: CacheConfig, blobs: &[Descriptor]) -> Result<Self, ImportError> {
        check_layers(&config)?;
        let order = inputs_first(&config.records)?;
        let mut imported = Self {
            primary: config.records.iter().map(|record| CacheKey::new(record.digest)).collect(),
            blobs: blobs.iter().map(|blob| (blob.digest, blob.clone())).collect(),
            records: HashMap::with_capacity(config.records.len()),
            config,
        };
        for record in order {
            imported.add_keys(record)?;
        }
        Ok(imported)
    }

    /// The result under the first of `keys` that has one.
    pub fn lookup(&self, keys: &[CacheKey]) -> Option<ImportedHit> {
        keys.iter().find_map(|key| {
            let record = *self.records.get(key)?;
            let (blobs, created_at) = self.newest_result(&self.config.records[record])?;
            let inputs = self.links(&self.config.records[record]);
            Some(ImportedHit { key: self.primary[record], inputs, blobs, created_at })
        })
    }

    /// The key that this cache makes dependants' keys from, if it knows `key`, whether or not it
    /// has a result for it: with `mode=min` most records have none.
    pub fn primary(&self, key: &CacheKey) -> Option<CacheKey> {
        self.records.get(key).map(|&record| self.primary[record])
    }

    /// What the cache says of the step that `key` is one of the keys of, for others to be told: none
    /// if it does not know how the key comes about.
    pub fn record(&self, key: &CacheKey) -> Option<ExportRecord> {
        let at = *self.records.get(key)?;
        let record = &self.config.records[at];
        // A record without inputs is a key, and nothing more can be said of it.
        (!record.inputs.is_empty()).then(|| ExportRecord {
            key: self.primary[at],
            digest: OutputDigest(record.digest),
            inputs: self.links(record),
            created_at: SystemTime::UNIX_EPOCH,
        })
    }

    /// All keys, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &CacheKey> {
        self.records.keys()
    }

    /// Computes the keys of a record whose inputs have theirs.
    fn add_keys(&mut self, position: usize) -> Result<(), ImportError> {
        let record = &self.config.records[position];
        let digest = OutputDigest(record.digest);
        let links = self.links(record);
        let has_result = self.newest_result(record).is_some();
        for (nth, choice) in Combinations::of(&links).enumerate() {
            let key = digest.key(choice.iter().zip(&links).map(|(&at, links)| &links[at]));
            if nth == 0 {
                self.primary[position] = key;
            }
            if has_result || !self.records.contains_key(&key) {
                self.records.insert(key, position);
            }
            if self.records.len() > MAX_KEYS {
                return Err(ImportError::TooManyKeys);
            }
        }
        Ok(())
    }

    /// The links of a record whose inputs have their keys, each once.
    fn links(&self, record: &CacheRecord) -> Vec<Vec<Link>> {
        let links = |links: &Vec<CacheInput>| {
            let mut known = HashSet::new();
            let links = links.iter().map(|link| Link {
                key: self.primary[link.link_index as usize],
                selector: Selector::new(&link.selector),
            });
            links.filter(|link| known.insert(link.clone())).collect()
        };
        record.inputs.iter().map(links).collect()
    }

    fn newest_result(&self, record: &CacheRecord) -> Option<(Vec<Descriptor>, OffsetDateTime)> {
        let stacked = record
            .results
            .iter()
            .filter_map(|result| Some((self.stack(result.layer_index)?, result.created_at)));
        let chained = record
            .chains
            .iter()
            .filter_map(|result| Some((self.chain(&result.layer_indexes)?, result.created_at)));
        // BuildKit writes the year 1 where it knows no time.
        let known = |(blobs, created_at): (_, OffsetDateTime)| {
            (blobs, created_at.max(OffsetDateTime::UNIX_EPOCH))
        };
        stacked.chain(chained).map(known).max_by_key(|(_, created_at)| *created_at)
    }

    /// The blobs of a layer and all below it, bottom first.
    fn stack(&self, top: i64) -> Option<Vec<Descriptor>> {
        let mut blobs = Vec::new();
        let mut position = top;
        while position != -1 {
            // A circle of layers ends here as well.
            if blobs.len() == MAX_CHAIN {
                return None;
            }
            let layer = self.layer(position)?;
            blobs.push(self.blobs.get(&layer.blob)?.clone());
            position = layer.parent_index;
        }
        blobs.reverse();
        Some(blobs)
    }

    fn chain(&self, positions: &[i64]) -> Option<Vec<Descriptor>> {
        if positions.is_empty() || positions.len() > MAX_CHAIN {
            return None;
        }
        positions.iter().map(|&at| self.blobs.get(&self.layer(at)?.blob).cloned()).collect()
    }

    fn layer(&self, position: i64) -> Option<&CacheLayer> {
        self.config.layers.get(usize::try_from(position).ok()?)
    }
}

/// Every reference to a layer leads to one.
fn check_layers(config: &CacheConfig) -> Result<(), ImportError> {
    let count = config.layers.len();
    let parents =
        config.layers.iter().map(|layer| layer.parent_index).filter(|&parent| parent != -1);
    let results = config.records.iter().flat_map(|record| {
        let stacked = record.results.iter().map(|result| result.layer_index);
        stacked.chain(record.chains.iter().flat_map(|chain| chain.layer_indexes.iter().copied()))
    });
    for layer in parents.chain(results) {
        if usize::try_from(layer).is_ok_and(|layer| layer < count) {
            continue;
        }
        return Err(ImportError::NoLayer { layer, count });
    }
    Ok(())
}

/// The positions of the records in an order in which inputs come before what is linked to them.
fn inputs_first(records: &[CacheRecord]) -> Result<Vec<usize>, ImportError> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        Open,
        Done,
    }
    let count = records.len();
    let mut states = vec![State::New; count];
    let mut order = Vec::with_capacity(count);
    // Not by recursion: whoever wrote the config would choose its depth.
    let mut stack = Vec::new();
    for start in 0..count {
        stack.push((start, false));
        while let Some((at, is_left)) = stack.pop() {
            if is_left {
                states[at] = State::Done;
                order.push(at);
                continue;
            }
            match states[at] {
                State::Done => continue,
                State::Open => return Err(ImportError::Circle { record: at }),
                State::New => states[at] = State::Open,
            }
            stack.push((at, true));
            for links in &records[at].inputs {
                if links.is_empty() {
                    return Err(ImportError::EmptyInput { record: at });
                }
                for link in links {
                    let no_record =
                        ImportError::NoRecord { record: at, link: link.link_index, count };
                    let input = usize::try_from(link.link_index)
                        .ok()
                        .filter(|&input| input < count)
                        .ok_or(no_record)?;
                    match states[input] {
                        State::Done => {}
                        State::Open => return Err(ImportError::Circle { record: at }),
                        State::New => stack.push((input, false)),
                    }
                }
            }
        }
    }
    Ok(order)
}

/// Choices of one link for each input, the first link of each first.
///
/// Where there are too many, only some are made: all inputs by their first link, all by their
/// second, and so on, which is how definition and content keys come about.
struct Combinations {
    lengths: Vec<usize>,
    next: Option<Vec<usize>>,
    /// Whether only equal places are chosen.
    is_cut: bool,
}

impl Combinations {
    fn of(links: &[Vec<Link>]) -> Self {
        let lengths: Vec<_> = links.iter().map(Vec::len).collect();
        let count = lengths.iter().try_fold(1_usize, |count, &length| count.checked_mul(length));
        let is_cut = count.is_none_or(|count| count > MAX_COMBINATIONS);
        Self { next: Some(vec![0; lengths.len()]), lengths, is_cut }
    }

    fn after(&self, choice: &[usize]) -> Option<Vec<usize>> {
        let mut next = choice.to_vec();
        if self.is_cut {
            for (at, length) in next.iter_mut().zip(&self.lengths) {
                *at = (*at + 1).min(length - 1);
            }
            return (next != choice).then_some(next);
        }
        for (at, length) in next.iter_mut().zip(&self.lengths) {
            *at += 1;
            if *at < *length {
                return Some(next);
            }
            *at = 0;
        }
        None
    }
}

impl Iterator for Combinations {
    type Item = Vec<usize>;

    fn next(&mut self) -> Option<Self::Item> {
        let choice = self.next.take()?;
        self.next = self.after(&choice);
        Some(choice)
    }
}
