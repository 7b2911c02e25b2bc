//! What the index promises, seen from outside.

use std::{io::Write, time::SystemTime};

use super::*;
use crate::{
    content::{Blob, ContentStore},
    descriptor::Descriptor,
    digest::Digest,
    gc::{DiskStat, Policy, UsageId},
    key::{CacheKey, key_of},
    layer::LayerId,
    record_type::RecordType,
};

mod check;
mod parts;
mod records;
mod removal;
mod start;

const DISK: DiskStat = DiskStat { total: 1 << 40, free: 1 << 39 };

struct Fixture {
    root: tempfile::TempDir,
    index: Index,
    store: ContentStore,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let index = Index::open(root.path().join("index")).unwrap();
        let store = ContentStore::open(root.path()).unwrap();
        index.reconcile(&OnDisk::default(), "boot-1").unwrap();
        Self { root, index, store }
    }

    /// What a new process finds.
    fn reopen(self) -> Self {
        let Self { root, index, store } = self;
        drop(index);
        let index = Index::open(root.path().join("index")).unwrap();
        Self { root, index, store }
    }

    fn blob(&self, content: &str) -> Hit<Blob> {
        let mut ingest = self.store.ingest().unwrap();
        ingest.write_all(content.as_bytes()).unwrap();
        self.index.commit_blob(ingest, None).unwrap()
    }

    fn dir(&self, kind: DirKind, name: &str, description: &str) -> Hit<DirRow> {
        self.index.create_dir(kind, name, description, |_| Ok::<_, IndexError>(())).unwrap()
    }

    /// Saves a step on top of `below`; returns its layer.
    fn step(&self, name: &str, below: &[LayerId]) -> LayerId {
        let layer = self.index.alloc_layer().unwrap();
        let row = LayerRow::new(layer, below.last().copied().into_iter().collect());
        let result = [below, &[layer]].concat();
        drop(self.index.save(record(name, result), &KeyParts::default(), &[], &[row]).unwrap());
        layer
    }

    fn hit(&self, key: &CacheKey) -> Option<Record> {
        self.index.lookup(&[*key]).unwrap().map(|hit| hit.row)
    }

    fn prune_all(&self) -> Removed {
        let everything = Policy { all: true, ..Policy::default() };
        self.index.prune(&[everything], DISK).unwrap()
    }

    /// Removes layers by a collection that has read what goes with them before `change`; those that
    /// are gone.
    fn remove_after(&self, victims: &[LayerId], change: impl FnOnce()) -> Vec<LayerId> {
        let victims: Vec<_> = victims.iter().copied().map(UsageId::Layer).collect();
        let removed = self.index.collect(|| {
            let owned = self.index.owned(&victims)?;
            change();
            self.index.remove(&victims, owned)
        });
        removed.unwrap().layers
    }

    fn reconcile(&self, layers: &[LayerId], boot_id: &str) -> Reconciled {
        let blobs = self.store.list().unwrap();
        let on_disk = OnDisk { layers: layers.to_vec(), dirs: Vec::new(), blobs };
        self.index.reconcile(&on_disk, boot_id).unwrap()
    }

    fn make_durable(&self) {
        let group = self.index.begin_durable().unwrap();
        self.index.mark_durable(group).unwrap();
    }
}

fn op(name: &str) -> Digest {
    Digest::of(name)
}

fn key(name: &str) -> CacheKey {
    key_of(&op(name), 0, &[])
}

fn record(name: &str, result: Vec<LayerId>) -> Record {
    Record {
        key: key(name),
        op: op(name),
        output: 0,
        inputs: Vec::new(),
        result,
        description: name.to_owned(),
        record_type: RecordType::Regular,
        created_at: SystemTime::now(),
        duration: None,
    }
}

fn image(target: &Blob, blobs: &[&Blob], layers: &[LayerId]) -> ImageRow {
    ImageRow {
        target: Descriptor::new("manifest", target.digest, target.size),
        blobs: blobs.iter().map(|blob| blob.digest).collect(),
        layers: layers.to_vec(),
        is_pushed: false,
        updated_at: SystemTime::now(),
    }
}
