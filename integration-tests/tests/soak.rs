//! Many builds that end in every way there is, after which nothing is left of them.
//!
//! `KILN_SOAK_BUILDS` says how many.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kiln_integration_tests::{Context, Daemon, Signal, World, mounts_below, processes_with};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// A word that the processes of the steps can be found by.
const MARK: &str = "7203.75";

/// Memory that a daemon may have more of after many builds than after the first of them: what its
/// allocator keeps, and tables that grow to a limit.
const GROWTH: u64 = 48 << 20;

fn context() -> Context {
    Context::new()
        .dockerfile(
            "
            FROM busybox
            ARG ROUND
            COPY data /data
            RUN --mount=type=cache,target=/k echo $ROUND >> /k/log
            RUN echo started $ROUND; (sleep 7203.75 &); if [ $((ROUND % 3)) = 0 ]; then sleep 7203.75; fi
            RUN cat /data > /copy; [ $((ROUND % 5)) != 0 ]
            ",
        )
        .file("data", vec![7; 1 << 20])
}

/// The control groups of steps, in all hierarchies.
fn control_groups() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut next = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = next.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())) {
            if folder.ends_with("kiln") {
                found.insert(entry.path());
            }
            next.push(entry.path());
        }
    }
    found
}

/// Open files and memory in bytes of a daemon.
fn held(daemon: &Daemon) -> (usize, u64) {
    let process = Path::new("/proc").join(daemon.id().to_string());
    let files = fs::read_dir(process.join("fd")).expect("the daemon's files").count();
    let status = fs::read_to_string(process.join("status")).expect("the daemon's status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    (files, kilobytes << 10)
}

/// Waits until something holds; what is on its way out needs a moment that nothing announces.
#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

/// One build that ends somehow.
fn build(world: &mut World, context: &Context, round: u64, random: &mut StdRng) {
    let argument = format!("ROUND={round}");
    let mut build = world.build(context).args(["--build-arg", &argument]).start();
    let hangs = round.is_multiple_of(3);
    let moment = Duration::from_millis(random.random_range(0..900));
    match random.random_range(0..4) {
        0 => {
            build.ends_within(moment);
            build.signal(Signal::INT);
        }
        1 => {
            build.ends_within(moment);
            build.signal(Signal::KILL);
        }
        _ if hangs => {
            build.until_output(&format!("started {round}"));
            build.signal(Signal::INT);
        }
        _ => {}
    }
    build.finish();
}

#[test]
fn whatever_becomes_of_builds_nothing_is_left_of_them() {
    let builds = std::env::var("KILN_SOAK_BUILDS").map_or(24, |text| text.parse().expect("builds"));
    let mut random = StdRng::seed_from_u64(u64::from(std::process::id()));
    let mut world = World::start();
    let context = context();
    // What is made for the first builds is kept for all others.
    for round in 1..8 {
        build(&mut world, &context, round, &mut random);
    }
    eventually("the processes of all steps have ended", || processes_with(MARK).is_empty());
    let before = held(&world.daemon);
    for round in 0..builds {
        build(&mut world, &context, 100 + round, &mut random);
        if round % 8 == 7 {
            world.kiln().args(["prune", "--all", "--force"]).succeeds();
        }
    }
    eventually("the processes of all steps have ended", || processes_with(MARK).is_empty());
    let root = world.daemon.root().to_owned();
    let is_empty = |folder: &Path| fs::read_dir(folder).expect("folder").next().is_none();
    eventually("there are no temporary files", || is_empty(&root.join("tmp")));
    // Namespaces that are ready for the next steps are kept, up to a limit.
    eventually("the daemon has closed its files", || held(&world.daemon).0 <= before.0 + 16);
    let after = held(&world.daemon);
    eprintln!("{builds} builds: {before:?} files and bytes before, {after:?} after");
    assert!(after.1 < before.1 + GROWTH, "{before:?} became {after:?}");

    // The same with daemons that are killed.
    for round in 0..builds / 4 {
        let argument = format!("ROUND={}", 10_000 + round * 3);
        let mut build = world.build(&context).args(["--build-arg", &argument]).start();
        build.ends_within(Duration::from_millis(random.random_range(0..900)));
        world.daemon.kill();
        build.finish();
        eventually("the killed daemon's steps have ended", || processes_with(MARK).is_empty());
        world.daemon.check(&[]).is_clean();
        world.daemon.start_again();
    }
    world.build(&context).args(["--build-arg", "ROUND=1"]).succeeds();
    let ours = format!("{}-", world.daemon.id());
    world.daemon.stop();
    let left: Vec<_> = control_groups()
        .into_iter()
        .filter(|group| {
            group.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&ours))
        })
        .collect();
    assert_eq!(left, <[PathBuf; 0]>::default());
    assert_eq!(mounts_below(&root), <[&str; 0]>::default());
    world.daemon.check(&[]).is_clean();
}
