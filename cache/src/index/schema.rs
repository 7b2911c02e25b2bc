//! The database's shape: column families, options, schema version.
//!
//! Options are chosen for a daemon that is idle most of its life: a small block cache, small write
//! buffers, two background threads. Point lookups take microseconds regardless, because what is
//! looked up is in a filter or in the page cache.

use std::path::Path;

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRecoveryMode, LogLevel, Options,
};

use super::{
    IndexError,
    db::{Batch, Db},
    error::Result,
};

/// The schema that this program writes.
///
/// A change of any row's encoding, or of what a family holds, is a new number and a step in
/// [`migrate`]. The number itself is stored in [`Family::Meta`] and never changes its place.
const VERSION: u32 = 1;
const VERSION_KEY: &[u8] = b"schema";

/// Column families, one for each concern.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Family {
    /// Single values: schema version, boot id, id counter.
    Meta,
    /// Cache records by primary key.
    Records,
    /// Primary keys by other keys.
    Aliases,
    /// What keys were made of, by primary key; apart because only explanations read it.
    Parts,
    /// Layers by number.
    Layers,
    /// Opaque data of layers, by number and kind.
    LayerData,
    /// Reverse references; see [`super::links`].
    Links,
    /// Blobs in the content store by digest.
    Blobs,
    /// Mutable directories by number.
    Dirs,
    /// The local image store: images by name.
    Images,
    /// Build history by reference.
    History,
    /// Last use and number of uses, by number of layer or directory.
    Uses,
    /// What would not survive a loss of power.
    Volatile,
}

impl Family {
    pub(super) const ALL: [Self; 13] = [
        Self::Meta,
        Self::Records,
        Self::Aliases,
        Self::Parts,
        Self::Layers,
        Self::LayerData,
        Self::Links,
        Self::Blobs,
        Self::Dirs,
        Self::Images,
        Self::History,
        Self::Uses,
        Self::Volatile,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            // RocksDB insists on a family of this name.
            Self::Meta => "default",
            Self::Records => "records",
            Self::Aliases => "aliases",
            Self::Parts => "parts",
            Self::Layers => "layers",
            Self::LayerData => "layer-data",
            Self::Links => "links",
            Self::Blobs => "blobs",
            Self::Dirs => "dirs",
            Self::Images => "images",
            Self::History => "history",
            Self::Uses => "uses",
            Self::Volatile => "volatile",
        }
    }
}

/// Opens the database at `path`, makes it if there is none, and brings it to the schema of today.
pub(super) fn open(path: &Path) -> Result<Db> {
    let cache = Cache::new_lru_cache(8 << 20);
    let families = Family::ALL
        .map(|family| ColumnFamilyDescriptor::new(family.name(), family_options(&cache)));
    let opened = DB::open_cf_descriptors(&database_options(), path, families)
        .map_err(|source| IndexError::Open { path: path.to_owned(), source })?;
    let db = Db::new(opened);
    match db.get_raw(Family::Meta, VERSION_KEY)?.map(|bytes| decode_version(&bytes)).transpose()? {
        Some(found) if found > VERSION => {
            return Err(IndexError::NewerSchema { path: path.to_owned(), found, known: VERSION });
        }
        Some(found) => migrate(&db, found)?,
        None => write_version(&db)?,
    }
    Ok(db)
}

fn database_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // A crash may lose the newest writes, but never one family's and not another's.
    options.set_atomic_flush(true);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_db_write_buffer_size(4 << 20);
    options.set_max_total_wal_size(32 << 20);
    options.set_max_background_jobs(2);
    options.set_max_open_files(256);
    // Reads of every table's properties, of which nothing here makes use.
    options.set_skip_stats_update_on_db_open(true);
    options.set_max_manifest_file_size(4 << 20);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_log_level(LogLevel::Warn);
    // Statistics would wake an idle daemon for nothing.
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

fn family_options(cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    // A big table's index and filter have the size of the cache. In parts, a lookup needs but one.
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_top_level_index_and_filter(true);
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_bloom_filter(10.0, false);
    table.set_block_size(8 << 10);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(4 << 20);
    // Builds wait for the lock that is held while a collection writes: let it not wait for the disk.
    options.set_max_write_buffer_number(6);
    // Buffers grow by this much: with a default of half a megabyte, empty families would cost seven.
    options.set_arena_block_size(64 << 10);
    options.set_compression_type(DBCompressionType::Lz4);
    // After a collection, walks would step over each row that was deleted, and its space would stay
    // taken, until newer rows happen to be merged with it.
    options.add_compact_on_deletion_collector_factory(4096, 2048, 0.5);
    options
}

fn decode_version(bytes: &[u8]) -> Result<u32> {
    bytes.try_into().map(u32::from_le_bytes).map_err(|_| IndexError::Damaged {
        family: Family::Meta.name(),
        key: hex::encode(VERSION_KEY),
    })
}

/// Rewrites an index of schema `found` step by step. There is only one schema so far.
fn migrate(db: &Db, found: u32) -> Result<()> {
    if found == VERSION {
        return Ok(());
    }
    tracing::info!(found, VERSION, "bringing the index to a newer schema");
    write_version(db)
}

fn write_version(db: &Db) -> Result<()> {
    let mut batch = Batch::new(db);
    batch.put_raw(Family::Meta, VERSION_KEY, &VERSION.to_le_bytes());
    batch.write_synced()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_of_a_newer_version_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        {
            let db = open(directory.path()).unwrap();
            let mut batch = Batch::new(&db);
            batch.put_raw(Family::Meta, VERSION_KEY, &9u32.to_le_bytes());
            batch.write().unwrap();
        }
        for _ in 0..2 {
            let error = open(directory.path()).err().unwrap();
            assert!(matches!(error, IndexError::NewerSchema { found: 9, known: 1, .. }), "{error}");
        }
    }

    #[test]
    fn a_directory_that_cannot_be_an_index_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = open(file.path()).err().unwrap();
        assert!(error.to_string().contains(&file.path().display().to_string()), "{error}");
    }
}
