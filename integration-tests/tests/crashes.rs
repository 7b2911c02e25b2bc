//! Daemons that are killed at any moment, many times over.
//!
//! `KILN_CRASH_ROUNDS` says how often, `KILN_CRASH_SEED` repeats a run that failed.

use std::path::Path;
use std::time::Duration;

use kiln_integration_tests::{Context, World, mounts_below, work_directories};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// More points than a start, a build and a prune of these tests pass.
const POINTS: u32 = 160;
/// Longer than a build of these tests takes, in milliseconds.
const BUILD: u64 = 900;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// A build that has what commits something: a context, steps, a cache mount, a copy from a stage.
fn context() -> Context {
    Context::new().dockerfile(
        "
        FROM busybox AS tools
        ARG ROUND
        RUN --mount=type=cache,target=/k echo $ROUND >> /k/log; echo tool $ROUND > /tool
        FROM busybox
        COPY data /data
        RUN wc -c < /data > /size
        COPY --link --from=tools /tool /tool
        RUN cat /tool /size > /both
        ",
    )
}

#[test]
fn no_kill_leaves_anything_wrong_behind() {
    let rounds = number("KILN_CRASH_ROUNDS", 40);
    let seed = number("KILN_CRASH_SEED", u64::from(std::process::id()));
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::start();
    let context = context();
    context.write("data", "first");
    world.build(&context).args(["--build-arg", "ROUND=0"]).succeeds();
    world.daemon.stop();
    let (mut at_points, mut at_moments, mut finished) = (0, 0, 0);
    for round in 0..rounds {
        // What is new and what was built before, mixed.
        let variant = random.random_range(0..6u32);
        let data = "x".repeat(1 << random.random_range(4..18));
        if random.random_bool(0.7) {
            context.write("data", &data);
        }
        let by_point = random.random_bool(0.6);
        let started = if by_point {
            let point = random.random_range(1..POINTS);
            world.daemon.starts_with_fault(&format!("kill:{point}"))
        } else {
            world.daemon.start_again();
            true
        };
        if started {
            let argument = format!("ROUND={variant}");
            let name = world.registry.reference(&format!("crash/{variant}:1"));
            let build = world.build(&context);
            let mut build = build.args(["--build-arg", &argument, "--push", "-t", &name]).start();
            if !by_point {
                build.ends_within(Duration::from_millis(random.random_range(0..BUILD)));
                world.daemon.kill();
            }
            let outcome = build.finish();
            if outcome.code == Some(0) {
                finished += 1;
                let size = std::fs::metadata(context.path().join("data")).expect("data").len();
                let image = world.registry.image(&format!("crash/{variant}:1"));
                let expected = format!("tool {variant}\n{size}\n");
                assert_eq!(image.file("both").text(), expected, "round {round}");
            }
            if by_point && world.daemon.goes_on() {
                if random.random_bool(0.3) {
                    world.kiln().args(["prune", "--all", "--force"]).run();
                }
                if world.daemon.goes_on() {
                    world.daemon.kill();
                } else {
                    at_points += 1;
                }
            } else if by_point {
                at_points += 1;
            } else {
                at_moments += 1;
            }
        } else {
            at_points += 1;
        }
        let checked = world.daemon.check(&[]);
        assert_eq!(checked.code, Some(0), "round {round}: {}\n{}", checked.text, checked.log);
    }
    eprintln!("killed at points {at_points}, at moments {at_moments}; {finished} builds finished");
    world.daemon.start_again();
    let last = world.build(&context).args(["--build-arg", "ROUND=last"]);
    let (_, image) = world.pushed("crash/last:1", last);
    assert!(image.file("both").text().starts_with("tool last\n"));
    world.daemon.stop();
    assert_eq!(work_directories(world.daemon.root()), <[&Path; 0]>::default());
    world.daemon.start_again();
    world.daemon.forget_builds();
    world.kiln().args(["prune", "--all", "--force"]).succeeds();
    world.daemon.stop();
    for kind in ["snapshots", "blobs/sha256", "tmp", "sources", "cachemounts"] {
        let folder = world.daemon.root().join(kind);
        let left: Vec<_> = std::fs::read_dir(&folder).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{} has {left:?} after everything was pruned", folder.display());
    }
    assert_eq!(mounts_below(world.daemon.root()), <[&str; 0]>::default());
    world.daemon.check(&[]).is_clean();
}
