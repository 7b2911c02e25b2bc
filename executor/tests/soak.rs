//! Many steps that end in every way there is, after which nothing is left of them.
//!
//! `KILN_SOAK_STEPS` says how many, 400 if not given.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::{
    Bench, all_cgroups, bind, cgroups, eventually, hierarchies_with, pipes, processes, tree,
};
use futures::stream::{self, StreamExt as _};
use kiln_executor::{Network, ProcessSpec, Security};
use nix::sched::{CloneFlags, unshare};
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

/// Word that the steps' processes can be found by.
const MARK: &str = "86399.25";

/// How a step ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// By itself, or with an error.
    Exit,
    /// It is killed while it runs, at any moment.
    Kill(Duration),
    /// Nobody wants it any more, at any moment from the request on.
    Drop(Duration),
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_becomes_of_steps_nothing_is_left_of_them() {
    let seed = std::process::id().into();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let steps = std::env::var("KILN_SOAK_STEPS").map_or(400, |steps| steps.parse().unwrap());
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let bench = Bench::new();
    // What is made for the first steps is kept for all others.
    soak(&bench, 40, &mut random).await;
    settled(&bench).await;
    let before = held();
    let memory = resident();
    let started = Instant::now();
    soak(&bench, steps, &mut random).await;
    let elapsed = started.elapsed();
    settled(&bench).await;
    eventually("every descriptor and mount of theirs is gone", || held() == before).await;
    assert_eq!(processes(MARK), 0);
    println!("{steps} steps in {elapsed:?}; memory {memory} bytes before, {} after", resident());
    assert!(resident() < memory + (32 << 20), "{memory} grew to {}", resident());
}

/// Runs steps, eight at a time.
async fn soak(bench: &Bench, steps: usize, random: &mut StdRng) {
    let plans: Vec<_> = (0..steps).map(|_| plan(bench, random)).collect();
    stream::iter(plans)
        .for_each_concurrent(8, |(spec, end)| async move {
            let (id, upper) = (spec.id.clone(), spec.rootfs.upper.clone());
            run(bench, spec, end).await;
            // What nobody wanted any more may be on its way out still, and its files do not matter.
            if !matches!(end, End::Drop(_)) {
                let files = tree(&upper);
                assert!(files.iter().all(|path| path.starts_with("tmp")), "{files:?} of {end:?}");
                fs::remove_dir_all(bench.dir.path().join(id)).unwrap();
            }
        })
        .await;
}

fn plan(bench: &Bench, random: &mut StdRng) -> (ProcessSpec, End) {
    let script = match random.next_u32() % 4 {
        0 => "true".to_owned(),
        1 => "(sleep 86399.25 &) ; echo x > /tmp/x; exit 3".to_owned(),
        2 => "for i in 1 2 3; do sleep 86399.25 & done; wait".to_owned(),
        _ => "head -c 1000000 /dev/zero > /tmp/big; kill -9 $$".to_owned(),
    };
    let moment = Duration::from_micros(u64::from(random.next_u32() % 8000));
    let end = match random.next_u32() % 3 {
        // One that would never end by itself is not waited for.
        _ if script.contains("wait") => End::Kill(moment),
        0 => End::Exit,
        1 => End::Kill(moment),
        _ => End::Drop(moment),
    };
    let mut spec = bench.spec(&script);
    spec.network = *random_of(random, &[Network::Host, Network::None, Network::Sandbox]);
    spec.security = *random_of(random, &[Security::Sandbox, Security::Insecure]);
    spec.mounts.push(bind(bench.make_dir("bound"), "/mnt/new/bound"));
    (spec, end)
}

fn random_of<'a, T>(random: &mut StdRng, choices: &'a [T]) -> &'a T {
    &choices[random.random_range(0..choices.len())]
}

async fn run(bench: &Bench, spec: ProcessSpec, end: End) {
    // Nobody reads what they say, which is little.
    let (io, _stdout, _stderr) = pipes();
    match end {
        End::Exit => {
            bench.executor.run(spec, io).await.unwrap().wait().await.unwrap();
        }
        End::Kill(moment) => {
            let mut running = bench.executor.run(spec, io).await.unwrap();
            tokio::time::sleep(moment).await;
            running.kill();
            // What was killed before it was the command has no exit.
            let _ = running.wait().await;
        }
        End::Drop(moment) => {
            let whole = async {
                bench.executor.run(spec, io).await.unwrap().wait().await.unwrap();
            };
            let _ = tokio::time::timeout(moment, whole).await;
        }
    }
}

/// Waits until steps that were killed are gone.
async fn settled(bench: &Bench) {
    eventually("every group is gone but two that are ready in each hierarchy", || {
        let parent = &bench.cgroup_parent;
        cgroups(parent) == 0 && all_cgroups(parent) == 2 * hierarchies_with(parent)
    })
    .await;
    eventually("every process ended", || processes(MARK) == 0).await;
}

/// Open descriptors and mounts. Network namespaces are kept for later steps, as many as it takes up
/// to a limit.
fn held() -> (usize, usize) {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    let (networks, others): (Vec<_>, Vec<_>) = descriptors
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .partition(|target| target.to_string_lossy().starts_with("net:"));
    // Those kept for each kind of network, the host's and the router's.
    assert!(networks.len() <= 8 + 8 + 2, "{networks:?}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    (others.len(), mounts)
}

/// Memory of this process, in bytes.
fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
