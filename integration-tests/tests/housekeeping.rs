//! `kiln du`, `kiln prune`, `kiln info`.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use kiln_integration_tests::{Context, Daemon, Registry, SmallDisk, State, World};
use kiln_proto::control::control_client::ControlClient;
use kiln_proto::control::{DiskUsageRequest, PruneRequest};

#[test]
fn du_lists_what_is_kept_and_prune_all_empties_it() {
    let world = World::start();
    let context = Context::new()
        .dockerfile("FROM busybox\nCOPY file /\nRUN --mount=type=cache,target=/c echo x > /c/x")
        .file("file", vec![9; 3 << 20]);
    world.build(&context).succeeds();
    let before = world.kiln().arg("du").succeeds().text();
    assert!(before.contains("Total:"), "{before}");

    let pruned = world.kiln().args(["prune", "--all", "--force"]).succeeds().text();
    assert!(pruned.contains("Total:"), "{pruned}");
    let after = world.kiln().arg("du").succeeds().text();
    assert!(after.contains("Total:") && after.contains("0B"), "{after}");

    let build = world.build(&context).succeeds();
    build.step_is("COPY file /", &State::Done);
}

#[test]
fn what_was_built_right_before_is_pruned() {
    let world = World::start();
    // The more steps, the longer its record is in the making.
    let copies: Vec<_> = (0..150).map(|n| format!("COPY file /{n}")).collect();
    let dockerfile = format!("FROM scratch\n{}", copies.join("\n"));
    let context = Context::new().file("file", "").dockerfile(&dockerfile);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let address = format!("unix:{}", world.daemon.socket().display());
    let control = runtime.block_on(ControlClient::connect(address)).expect("a connection");
    for _ in 0..3 {
        world.build(&context).succeeds();
        let mut control = control.clone();
        let left = runtime.block_on(async {
            let all = PruneRequest { all: true, ..PruneRequest::default() };
            let mut pruned = control.prune(all).await.expect("a prune").into_inner();
            while pruned.message().await.expect("what is pruned").is_some() {}
            let usage = control.disk_usage(DiskUsageRequest::default()).await;
            usage.expect("usage").into_inner().record
        });
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn prune_takes_filters() {
    let world = World::start();
    let context = Context::new()
        .dockerfile("FROM busybox\nRUN echo step\nRUN --mount=type=cache,target=/c echo x > /c/x");
    world.build(&context).succeeds();
    world.kiln().args(["prune", "--force", "--filter", "type=exec.cachemount"]).succeeds();
    context.write_dockerfile(
        "FROM busybox\nRUN echo step\nRUN --mount=type=cache,target=/c ls -A /c; echo listed",
    );
    let build = world.build(&context).succeeds();
    build.step_is("RUN echo step", &State::Cached);
    assert_eq!(
        build.step("RUN --mount=type=cache,target=/c ls -A /c; echo listed").log,
        ["listed"]
    );
}

#[test]
fn prune_asks_before_it_removes_anything() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nRUN echo step");
    world.build(&context).succeeds();
    world.kiln().args(["prune", "--all"]).stdin("n\n").run();
    world.build(&context).succeeds().step_is("RUN echo step", &State::Cached);
}

#[test]
fn info_tells_what_the_daemon_is() {
    let world = World::start();
    let info = world.kiln().arg("info").succeeds().text();
    assert!(info.contains("linux/"), "{info}");
}

#[test]
fn du_takes_filters_and_templates() {
    let world = World::start();
    let context =
        Context::new().dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c echo step");
    world.build(&context).succeeds();
    let du = |args: &[&str]| world.kiln().arg("du").args(args).succeeds().text();
    let types = |filter| du(&["--format={{.Type}}", "--filter", filter]);
    assert_eq!(types("type=exec.cachemount"), "exec.cachemount\n");
    assert_eq!(types("description~=echo"), "regular\n");
    assert!(!types("until=24h").contains("exec.cachemount"), "it was used just now");
    let table = du(&["--format", r"table {{.Type}}\t{{.Mutable}}", "--filter=id=index"]);
    assert_eq!(table, "TYPE       MUTABLE\ninternal   true\n");
    let json = du(&["--format=json", "--filter=type=exec.cachemount"]);
    let record: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&record["Mutable"], &record["Reclaimable"]), (&true.into(), &true.into()));
    world.kiln().args(["du", "--format={{.Nothing}}"]).fails().says(".Nothing");
}

#[test]
fn what_du_lists_adds_up_to_what_the_disk_shows() {
    let mut world = World::start();
    let context = Context::new().file("large", vec![1; 5 << 20]).file("small", "0");
    let check = |world: &World, when: &str| {
        let (listed, there) = (listed(&world.daemon), taken(world.daemon.root()));
        assert!(listed.abs_diff(there) < 512 << 10, "{when}: {listed} listed, {there} there");
        there
    };
    context.write_dockerfile(
        "
        FROM busybox AS one
        RUN dd if=/dev/zero of=/made bs=1M count=3 && ln /made /again
        COPY . /context
        FROM busybox
        COPY --from=one /made /context /
        RUN --mount=type=cache,target=/c dd if=/dev/zero of=/c/x bs=1M count=2
        ",
    );
    let first = world.build(&context).args(["-t", "test"]);
    first.arg("--output=type=oci,dest=/dev/null").succeeds();
    let before = check(&world, "after a build");
    for change in ["1", "2", "3"] {
        context.write("small", change);
        world.build(&context).succeeds();
    }
    let after = check(&world, "after copies of the same files");
    assert!(after < before + (5 << 20), "{before} and {after}: a file is not there once only");
    world.daemon.stop();
    world.daemon.start_again();
    check(&world, "after a start");
    context.write("large", vec![2; 4 << 20]);
    world.build(&context).succeeds();
    check(&world, "after a change");
    world.kiln().args(["prune", "--force", "--max-used-space=20MB"]).succeeds();
    check(&world, "after some of it went");
    // A cache with nothing in it has no rows, but keeps room for what comes.
    world.kiln().args(["prune", "--force", "--all"]).succeeds();
    assert!(taken(world.daemon.root()) < 20 << 20);
}

#[test]
fn a_configured_limit_holds_while_builds_go_on() {
    let mut world = World::start();
    world.daemon.replace_in_configuration("gc = false", "gc = true");
    world.daemon.configure_worker("maxUsedSpace = \"40MB\"\nminFreeSpace = \"1MB\"");
    let limit = 40 << 20;
    let context = Context::new().file("same", vec![3; 2 << 20]);
    for number in 0_u8..12 {
        context.write("different", vec![number; 6 << 20]);
        context.write_dockerfile(&format!("FROM busybox\nCOPY . /\nRUN echo {number}"));
        world.build(&context).succeeds();
        if number % 4 == 3 {
            let root = world.daemon.root();
            within_limit("the disk", || (taken(root) <= limit).then_some(()));
        }
    }
    let again = world.build(&context).succeeds();
    again.step_is("RUN echo 11", &State::Cached);
}

#[test]
fn a_full_disk_is_reported_and_garbage_is_collected_at_once() {
    let registry = Registry::start();
    let disk = SmallDisk::mount(96);
    let mut daemon = Daemon::start_with_root(&disk.path().join("root"), &registry);
    daemon.replace_in_configuration("gc = false", "gc = true");
    // No limit would be reached before the disk is full.
    daemon.configure_worker("maxUsedSpace = \"1TB\"");
    let context = Context::new();
    let fill = |megabytes: u32| {
        let step = format!("RUN dd if=/dev/zero of=/large bs=1M count={megabytes}");
        context.write_dockerfile(&format!("FROM busybox\n{step}\n"));
    };
    fill(50);
    daemon.build(&context).succeeds();
    fill(60);
    daemon.build(&context).fails().says("the disk of the daemon's cache is full");
    within_limit("the build", || (daemon.build(&context).run().code == Some(0)).then_some(()));
}

#[test]
fn the_cache_can_be_pruned_when_others_have_filled_the_disk() {
    let registry = Registry::start();
    let disk = SmallDisk::mount(96);
    let mut daemon = Daemon::start_with_root(&disk.path().join("root"), &registry);
    let context =
        Context::new().dockerfile("FROM busybox\nRUN dd if=/dev/zero of=/large bs=1M count=20");
    daemon.build(&context).succeeds();
    let other = disk.path().join("other");
    // Ends where the disk does.
    let _ = std::fs::write(&other, vec![9; 96 << 20]);
    daemon.kiln().args(["prune", "--all", "--force"]).succeeds();
    std::fs::remove_file(&other).unwrap();
    daemon.build(&context).succeeds();

    let _ = std::fs::write(&other, vec![9; 96 << 20]);
    daemon.stop();
    daemon.start_again();
    daemon.kiln().args(["prune", "--all", "--force"]).succeeds();
}

/// The sum of all that the daemon says it keeps, in bytes.
fn listed(daemon: &Daemon) -> u64 {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        let address = format!("unix:{}", daemon.socket().display());
        let mut control = ControlClient::connect(address).await.expect("a connection");
        let request = DiskUsageRequest::default();
        let records = control.disk_usage(request).await.expect("usage").into_inner().record;
        records.iter().map(|record| u64::try_from(record.size).expect("a size")).sum()
    })
}

/// What a folder takes up on the disk, in bytes, as `du` counts.
fn taken(folder: &Path) -> u64 {
    fn add_up(folder: &Path, known: &mut HashSet<u64>) -> u64 {
        let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
        // What is removed meanwhile takes up nothing.
        let entries = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        entries
            .filter_map(|path| {
                let metadata = path.symlink_metadata().ok()?;
                let own = if known.insert(metadata.ino()) { metadata.blocks() * 512 } else { 0 };
                Some(own + if metadata.is_dir() { add_up(&path, known) } else { 0 })
            })
            .sum()
    }
    add_up(folder, &mut HashSet::new())
}

/// Waits until there is a `look` with a result.
#[track_caller]
fn within_limit<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} is not as it should be");
        std::thread::sleep(Duration::from_millis(100));
    }
}
