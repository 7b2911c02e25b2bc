//! How the index does with many records. `curve` prints what it costs from a thousand to a million:
//!
//! ```text
//! cargo test --release -p kiln-cache --test scale -- --ignored --nocapture
//! ```
#![expect(clippy::unwrap_used, reason = "what fails here is a failed test")]

use std::{
    cell::Cell,
    fs,
    io::Write as _,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant, SystemTime},
};

use kiln_cache::{
    CacheKey, ChainId, ContentStore, Descriptor, Digest, DirKind, HistoryEntry, ImageRow, Index,
    IndexError, InputPart, KeyPart, KeyParts, LayerId, LayerRow, Link, OnDisk, PartValue, Record,
    RecordType, StepId,
    gc::{DiskStat, Limits, Policy, Space, default_policies},
    key_of,
};

/// Steps of a build, each on top of the one before.
const STEPS: usize = 10;
/// Every such layer was packed into a blob.
const PACKED: usize = 10;
/// What a layer takes up.
const LAYER_SIZE: u64 = 1 << 20;
const DISK: DiskStat = DiskStat { total: 1 << 50, free: 1 << 49 };

/// A state directory as so many steps leave it.
struct Cache {
    root: tempfile::TempDir,
    records: usize,
    /// How long opening the index, listing what is on the disk and comparing took at the last start.
    started: Cell<(Duration, Duration, Duration)>,
}

impl Cache {
    fn fill(records: usize) -> Self {
        let root = tempfile::tempdir().unwrap();
        let cache = Self { root, records, started: Cell::default() };
        fs::create_dir(cache.layers()).unwrap();
        let index = cache.open();
        let content = cache.content();
        let mut below = Vec::new();
        for number in 0..records {
            if number.is_multiple_of(STEPS) {
                below.clear();
            }
            let layer = index.alloc_layer().unwrap();
            // Stands for the layer's directory: all that the start looks at is its name.
            fs::File::create(cache.layers().join(layer.to_string())).unwrap();
            let mut row = LayerRow::new(layer, below.last().copied().into_iter().collect());
            row.size = LAYER_SIZE;
            row.description = description(number);
            row.chain = Some(ChainId::new(Digest::of(format!("chain {number}"))));
            let packed = (number.is_multiple_of(PACKED)).then(|| {
                let mut ingest = content.ingest().unwrap();
                write!(ingest, "blob {number}").unwrap();
                index.commit_blob(ingest, None).unwrap()
            });
            row.blobs.extend(packed.as_ref().map(|blob| {
                Descriptor::new("application/vnd.oci.image.layer.v1.tar+gzip", blob.row.digest, 12)
            }));
            below.push(layer);
            let record = Record {
                key: key(number),
                op: op(number),
                output: 0,
                inputs: vec![vec![input(number), Link::whole(other_key(number, "input"))]],
                result: below.clone(),
                description: description(number),
                record_type: RecordType::Regular,
                created_at: SystemTime::now(),
                duration: Some(Duration::from_secs(3)),
            };
            let parts = ["arg VERSION", "env PATH", "command"].map(|name| KeyPart {
                name: name.to_owned(),
                value: PartValue::of(&format!("{name} {number}")),
            });
            let parts = KeyParts::new(
                vec![StepId::of(&[&description(number)]), StepId::of(&["[build 4/10]"])],
                parts.into(),
                vec![InputPart { name: description(number), files: None }],
            );
            let aliases = [other_key(number, "content"), other_key(number, "remote")];
            drop(index.save(record, &parts, &aliases, &[row]).unwrap());
            index
                .put_layer_data(layer, "digests", format!("{number}").repeat(50).as_bytes())
                .unwrap();
            if number % 1000 == 999 {
                Self::add_owners(&index, &content, number, &below);
                index.mark_durable(index.begin_durable().unwrap()).unwrap();
                index.touch(below.iter().copied());
                index.flush_touches().unwrap();
            }
        }
        cache
    }

    /// An image with a name, an entry of the history and a cache mount.
    fn add_owners(index: &Index, content: &ContentStore, number: usize, layers: &[LayerId]) {
        let mut ingest = content.ingest().unwrap();
        write!(ingest, "manifest {number}").unwrap();
        let blob = index.commit_blob(ingest, None).unwrap();
        let image = ImageRow {
            target: Descriptor::new("manifest", blob.row.digest, blob.row.size),
            blobs: vec![blob.row.digest],
            layers: layers.to_vec(),
            is_pushed: false,
            updated_at: SystemTime::now(),
        };
        index.put_image(&format!("docker.io/library/image{number}:latest"), &image).unwrap();
        let entry = HistoryEntry { data: vec![7; 2000], blobs: vec![blob.row.digest] };
        index.put_history(&format!("build-{number}"), &entry).unwrap();
        let made = |_| Ok::<_, IndexError>(());
        let name = format!("mount {number}");
        drop(index.create_dir(DirKind::CacheMount, &name, "mount", made).unwrap());
    }

    fn open(&self) -> Index {
        Index::open(self.root.path().join("index")).unwrap()
    }

    fn content(&self) -> ContentStore {
        ContentStore::open(self.root.path()).unwrap()
    }

    fn layers(&self) -> std::path::PathBuf {
        self.root.path().join("snapshots")
    }

    /// What a daemon does before it is ready.
    fn start(&self) -> Index {
        let (opened, index) = timed(|| self.open());
        let began = Instant::now();
        let names = fs::read_dir(self.layers()).unwrap();
        let number = |entry: fs::DirEntry| entry.file_name().to_str().unwrap().parse().unwrap();
        let layers = names.map(|entry| LayerId(number(entry.unwrap()))).collect();
        let dirs = index.unmeasured_dirs().unwrap().into_iter().map(|dir| dir.id).collect();
        let on_disk = OnDisk { layers, dirs, blobs: self.content().list().unwrap() };
        let listed = began.elapsed();
        let (reconciled, garbage) = timed(|| index.reconcile(&on_disk, "boot").unwrap());
        self.started.set((opened, listed, reconciled));
        assert!(garbage.layers.is_empty() && garbage.blobs.is_empty(), "all is as it was");
        index
    }

    /// What the index takes up, in bytes.
    fn index_size(&self) -> u64 {
        let files = fs::read_dir(self.root.path().join("index")).unwrap();
        // Some go meanwhile.
        files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum()
    }

    /// The daemon's own rules, made to remove a tenth.
    fn policies(&self) -> Vec<Policy> {
        let size = LAYER_SIZE * self.records as u64;
        let max_used_space = Space::Bytes(size - size / 10);
        default_policies(Limits { max_used_space, ..Limits::default() }, DISK)
    }
}

fn description(number: usize) -> String {
    format!("[build 4/10] RUN make --jobs=4 VERSION={number} all install")
}

fn op(number: usize) -> Digest {
    Digest::of(format!("op {number}"))
}

fn input(number: usize) -> Link {
    Link::whole(if number.is_multiple_of(STEPS) {
        other_key(number, "base")
    } else {
        key(number - 1)
    })
}

fn key(number: usize) -> CacheKey {
    // Not made of the whole chain: a lookup does not care.
    key_of(&op(number), 0, &[])
}

fn other_key(number: usize, kind: &str) -> CacheKey {
    CacheKey::new(Digest::of(format!("{kind} {number}")))
}

/// How long `work` keeps this thread busy, whatever else goes on on the machine.
fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let now = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
    };
    let start = now();
    let done = work();
    (now().saturating_sub(start), done)
}

/// Times of single lookups all over the index, the longest last; every second is a miss.
fn lookups(index: &Index, records: usize) -> Vec<Duration> {
    let mut times: Vec<_> = (0..2000)
        .map(|sample| {
            let number = sample * 7919 % records;
            let (key, is_hit) = match sample % 4 {
                0 => (key(number), true),
                1 => (other_key(number, "content"), true),
                _ => (other_key(number, "missing"), false),
            };
            let (time, found) = timed(|| index.lookup(&[key]).unwrap());
            assert_eq!(found.is_some(), is_hit);
            time
        })
        .collect();
    times.sort_unstable();
    times
}

/// A field of `/proc/self/status`, in megabytes.
fn memory(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Makes `VmHWM` start again from what is used now.
fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}

#[test]
fn many_records_neither_slow_down_the_start_nor_lookups_nor_collections() {
    let records = 20_000;
    let cache = Cache::fill(records);
    let (started, index) = timed(|| cache.start());
    let times = lookups(&index, records);
    let (pruned, removed) = timed(|| index.prune(&cache.policies(), DISK).unwrap());
    assert!(removed.layers.len() >= records / 10);
    let before = cache.index_size();
    let everything = Policy { all: true, ..Policy::default() };
    index.prune(&[everything], DISK).unwrap();
    let (walked, left) = timed(|| index.usage().unwrap().len());
    assert!(left < 50, "only what belongs to no layer is left");
    // Rows that are gone stay on the disk until they are merged, which goes on behind this.
    let deadline = Instant::now() + Duration::from_secs(30);
    while cache.index_size() > before / 2 {
        assert!(Instant::now() < deadline, "{} of {before} bytes are left", cache.index_size());
        std::thread::sleep(Duration::from_millis(100));
    }
    // A hundred times what it takes, and far less than anything that grows with the square.
    for (what, time, limit) in [
        ("start", started, 5_000),
        ("a lookup", times[times.len() / 2], 1),
        ("a collection", pruned, 10_000),
        ("a walk over what is left", walked, 1_000),
    ] {
        assert!(time < Duration::from_millis(limit), "{what} took {time:?}");
    }
}

#[test]
#[ignore = "takes minutes; prints numbers for people"]
fn curve() {
    for records in [1_000, 10_000, 100_000, 1_000_000] {
        if std::env::var("KILN_SCALE").is_ok_and(|most| records > most.parse().unwrap()) {
            break;
        }
        let (filled, cache) = timed(|| Cache::fill(records));
        forget_peak();
        let (started, index) = timed(|| cache.start());
        let start_peak = memory("VmHWM");
        let times = lookups(&index, records);
        let size = cache.index_size() >> 20;
        forget_peak();
        let (du, rows) = timed(|| index.usage().unwrap().len());
        assert!(rows > records);
        let du_peak = memory("VmHWM");
        forget_peak();
        let ((gc, removed), during) = while_builds_look(&index, records, || {
            timed(|| index.prune(&cache.policies(), DISK).unwrap())
        });
        let removed_count = removed.layers.len();
        drop(removed);
        let ((blobs, _), during_blobs) = while_builds_look(&index, records, || {
            timed(|| index.collect_blobs(&cache.content()).unwrap().len())
        });
        let gc_peak = memory("VmHWM");
        let (idle, _) = timed(|| index.prune(&cache.policies(), DISK).unwrap());
        let again = lookups_of_what_is_left(&index, records);
        let (opened, listed, reconciled) = cache.started.get();
        let [median, late, last] = [50, 99, 100].map(|part| times[(times.len() - 1) * part / 100]);
        println!(
            "{records} records: filled in {filled:.1?}, index {size} MB
  start {started:.1?} (open {opened:.1?}, list {listed:.1?}, compare {reconciled:.1?}), \
               peak {start_peak} MB
  lookup {median:.1?}, 99% {late:.1?}, longest {last:.1?}; after the collection {again:.1?}
  du {du:.1?}, peak {du_peak} MB
  collection of {removed_count} layers {gc:.1?}, of their blobs {blobs:.1?}, peak {gc_peak} MB; \
               the longest lookup meanwhile waited {during:.1?} and {during_blobs:.1?}
  collection of nothing {idle:.1?}; index {} MB, RSS {} MB",
            cache.index_size() >> 20,
            memory("VmRSS"),
        );
    }
}

/// Looks things up all the time that `work` takes; returns how long the longest lookup took in all.
fn while_builds_look<T>(index: &Index, records: usize, work: impl FnOnce() -> T) -> (T, Duration) {
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            for number in 0.. {
                let start = Instant::now();
                index.lookup(&[key(number * 7919 % records)]).unwrap();
                longest = longest.max(start.elapsed());
                if is_done.load(Ordering::Relaxed) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            longest
        });
        let done = work();
        is_done.store(true, Ordering::Relaxed);
        (done, looking.join().unwrap())
    })
}

/// The median lookup when a part of the records is gone.
fn lookups_of_what_is_left(index: &Index, records: usize) -> Duration {
    let mut times: Vec<_> = (0..2000)
        .map(|sample| timed(|| index.lookup(&[key(sample * 7919 % records)]).unwrap().is_some()).0)
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}
