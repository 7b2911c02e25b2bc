//! The database's shape: column families, options, schema version.
//!
//! Options are chosen for a daemon that is idle most of its life: a small block cache, small write
//! buffers, two background threads. Point lookups take microseconds regardless, because what is
//! looked up is in a filter or in the page cache.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRecoveryMode, LogLevel, Options,
};

use super::{
    IndexError,
    db::{Batch, Db},
    error::{self, Result},
};

/// The schema that this program writes.
///
/// A change of any row's encoding, or of what a family holds, is a new number and a step in
/// [`migrate`]. The number itself is stored in [`Family::Meta`] and never changes its place.
const VERSION: u32 = 3;
const VERSION_KEY: &[u8] = b"schema";

/// What is read of the index and may be wanted again, in bytes.
pub(super) const CACHE: usize = 8 << 20;

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
    /// Files that keys of inputs stood for, by primary key and position; see [`crate::FileList`].
    FileLists,
    /// Primary keys of the newest records of each step, in one row: rows of their own, made and
    /// deleted at one place time and again, would make it slow to read.
    Steps,
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
    pub(super) const ALL: [Self; 15] = [
        Self::Meta,
        Self::Records,
        Self::Aliases,
        Self::Parts,
        Self::FileLists,
        Self::Steps,
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
            Self::FileLists => "file-lists",
            Self::Steps => "steps",
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
    let cache = Cache::new_lru_cache(CACHE);
    let families = Family::ALL
        .map(|family| ColumnFamilyDescriptor::new(family.name(), family_options(&cache)));
    let damaged = |source| IndexError::DatabaseDamaged { path: path.to_owned(), source };
    let mark = damage_mark(path);
    // Without the file that names its parts, RocksDB would take what is there for the remains of
    // another database, and mix them with a new one.
    if mark.exists() || (is_begun(path) && !path.join("CURRENT").exists()) {
        return Err(damaged(None));
    }
    let opened = match DB::open_cf_descriptors(&database_options(), path, families) {
        Ok(opened) => opened,
        Err(error) if error::is_damage(&error) => return Err(damaged(Some(error))),
        Err(source) => {
            if let Some(found) = newer_version(path) {
                let path = path.to_owned();
                return Err(IndexError::NewerSchema { path, found, known: VERSION });
            }
            return Err(IndexError::Open { path: path.to_owned(), source });
        }
    };
    let db = Db::new(opened, cache, mark);
    match db.get_raw(Family::Meta, VERSION_KEY)?.map(|bytes| decode_version(&bytes)).transpose()? {
        Some(found) if found > VERSION => {
            return Err(IndexError::NewerSchema { path: path.to_owned(), found, known: VERSION });
        }
        Some(found) => migrate(&db, found)?,
        None => write_version(&db)?,
    }
    Ok(db)
}

/// The file beside the database that says that it is damaged.
pub(super) fn damage_mark(path: &Path) -> PathBuf {
    path.with_extension("damaged")
}

/// Whether there is something of a database.
fn is_begun(path: &Path) -> bool {
    let Ok(mut files) = fs::read_dir(path) else { return false };
    files.any(|file| {
        let name = file.map(|file| file.file_name()).unwrap_or_default();
        let name = name.to_string_lossy();
        name.starts_with("MANIFEST-") || name.ends_with(".sst") || name.ends_with(".log")
    })
}

/// The schema of a database that this program cannot open because it has families that are not
/// known yet.
fn newer_version(path: &Path) -> Option<u32> {
    let db = DB::open_for_read_only(&Options::default(), path, false).ok()?;
    let version = decode_version(&db.get(VERSION_KEY).ok()??).ok()?;
    (version > VERSION).then_some(version)
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
    // Builds wait for the lock that is held while a collection writes: let it wait neither for the
    // disk nor until the many small files that it leaves, some of each family, are merged.
    options.set_max_write_buffer_number(6);
    options.set_level_zero_slowdown_writes_trigger(64);
    options.set_level_zero_stop_writes_trigger(96);
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

/// Rewrites an index of schema `found` step by step.
fn migrate(db: &Db, found: u32) -> Result<()> {
    if found == VERSION {
        return Ok(());
    }
    tracing::info!(found, VERSION, "bringing the index to a newer schema");
    // Nothing but explanations is lost with what is dropped here.
    if found < 2 {
        // Parts were lists of names and values.
        drop_rows(db, Family::Parts)?;
    }
    if found < 3 {
        // Each record of a step had a row.
        drop_rows(db, Family::Steps)?;
    }
    write_version(db)
}

fn drop_rows(db: &Db, family: Family) -> Result<()> {
    let mut batch = Batch::new(db);
    for row in db.scan_raw(family, &[]) {
        batch.delete(family, &row?.0);
    }
    batch.write()
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
            assert!(
                matches!(error, IndexError::NewerSchema { found: 9, known: VERSION, .. }),
                "{error}"
            );
        }
    }

    #[test]
    fn an_index_of_the_first_version_keeps_all_but_explanations() {
        let directory = tempfile::tempdir().unwrap();
        {
            let db = open(directory.path()).unwrap();
            let mut batch = Batch::new(&db);
            batch.put_raw(Family::Meta, VERSION_KEY, &1u32.to_le_bytes());
            batch.put_raw(Family::Parts, b"key", b"\x01as they once were");
            batch.put_raw(Family::Steps, b"a step and a key", b"\x01and when");
            batch.put_raw(Family::Records, b"key", b"a record");
            batch.write().unwrap();
        }
        let db = open(directory.path()).unwrap();
        assert_eq!(db.get_raw(Family::Parts, b"key").unwrap(), None);
        assert_eq!(db.get_raw(Family::Steps, b"a step and a key").unwrap(), None);
        assert_eq!(db.get_raw(Family::Records, b"key").unwrap().unwrap(), b"a record");
        let version = db.get_raw(Family::Meta, VERSION_KEY).unwrap().unwrap();
        assert_eq!(decode_version(&version).unwrap(), VERSION);
    }

    #[test]
    fn an_index_with_families_that_are_not_known_yet_is_one_of_a_newer_version() {
        let directory = tempfile::tempdir().unwrap();
        {
            let db = open(directory.path()).unwrap();
            let mut batch = Batch::new(&db);
            batch.put_raw(Family::Meta, VERSION_KEY, &9u32.to_le_bytes());
            batch.write().unwrap();
        }
        let options = database_options();
        let names = DB::list_cf(&options, directory.path()).unwrap();
        let mut rocks = DB::open_cf(&options, directory.path(), names).unwrap();
        rocks.create_cf("of tomorrow", &options).unwrap();
        drop(rocks);
        let error = open(directory.path()).err().unwrap();
        assert!(matches!(error, IndexError::NewerSchema { found: 9, .. }), "{error}");
    }

    #[test]
    fn a_directory_that_cannot_be_an_index_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = open(file.path()).err().unwrap();
        assert!(error.to_string().contains(&file.path().display().to_string()), "{error}");
    }
}
