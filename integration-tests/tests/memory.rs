//! What a daemon keeps in memory when it has nothing to do.

use std::time::{Duration, Instant};

use kiln_integration_tests::{Context, Daemon, World};

/// By how much an idle daemon may grow, in kilobytes.
const GROWTH: u64 = 20 << 10;

/// Different builds: `KILN_TEST_BUILDS` says how many, if not some.
fn how_many() -> u32 {
    std::env::var("KILN_TEST_BUILDS").map_or(60, |builds| builds.parse().expect("a number"))
}

#[test]
fn memory_comes_back_after_many_different_builds() {
    let world = World::start();
    let context = Context::new().file("same", vec![7; 1 << 20]);
    // Once each way: threads, code and connections are there from then on.
    (0..8).for_each(|number| build(&world, &context, number));
    let before = settled(&world.daemon, 0);
    let builds = how_many();
    for number in 8..8 + builds {
        build(&world, &context, number);
        if number % 100 == 0 {
            let now = resident(&world.daemon);
            // Shown if the test fails, or if somebody wants to see it.
            println!("{number} builds: {before} kB at first, {now} kB now");
        }
    }
    let after = settled(&world.daemon, before + GROWTH);
    println!("{builds} builds: {before} kB before, {after} kB after");
    assert!(after <= before + GROWTH, "{before} kB before {builds} builds, {after} kB after");
}

/// One of several kinds of builds, different from all others in each of its steps.
fn build(world: &World, context: &Context, number: u32) {
    context.write("file", number.to_string().repeat(1000));
    context.write(&format!("dir/{number}"), number.to_string());
    let steps = match number % 4 {
        0 => format!("RUN echo {number} > /made\nRUN cat /made /file"),
        1 => format!(
            "FROM busybox AS other\nCOPY dir /dir\nFROM busybox\nCOPY --from=other /dir /{number}"
        ),
        2 => format!("ENV number={number}\nRUN --mount=type=cache,target=/c echo {number} >> /c/x"),
        _ => format!("RUN seq 2000 && exit {}", number % 3),
    };
    context.write_dockerfile(&format!(
        "FROM busybox\nARG number={number}\nCOPY file same /\nLABEL number={number}\n{steps}\n"
    ));
    let build = world.build(context).args(["-t", &format!("test:{number}")]).run();
    let fails = number % 4 == 3 && !number.is_multiple_of(3);
    assert_eq!(build.code != Some(0), fails, "build {number}:\n{}", build.stderr);
}

/// What the daemon has in memory when it has given back what it does not need, which it does some
/// seconds after its last build; what it has after a while, if that is not less than `enough`.
fn settled(daemon: &Daemon, enough: u64) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let now = resident(daemon);
        if now <= enough || Instant::now() > deadline {
            return now;
        }
        // Nothing tells when memory is given back.
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Its resident memory, in kilobytes.
fn resident(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).expect("status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|size| size.parse().ok()).expect("kilobytes")
}
