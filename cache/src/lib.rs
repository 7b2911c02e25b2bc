//! Content store, RocksDB index, garbage collection and remote cache manifests.
