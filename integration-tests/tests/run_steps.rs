//! What the process of a RUN step finds around itself.

use std::fs;

use kiln_integration_tests::{Context, Signal, State, World};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::Value;

/// Runs `script` as a step that must succeed and returns what it says.
fn said(world: &World, script: &str) -> Vec<String> {
    let context = Context::new().dockerfile(&format!("FROM busybox\nRUN {script}"));
    let build = world.build(&context).succeeds();
    let step = build.progress().steps().find(|step| step.name.starts_with("[2/2] RUN")).cloned();
    step.unwrap_or_else(|| panic!("no step in this log:\n{}", build.stderr)).log
}

#[test]
fn proc_sys_and_dev_are_those_of_a_container() {
    let world = World::start();
    for node in ["null", "zero", "full", "random", "urandom", "tty"] {
        assert_eq!(said(&world, &format!("test -c /dev/{node} && echo yes")), ["yes"], "{node}");
    }
    assert_eq!(
        said(&world, "for l in fd stdin stdout stderr; do readlink /dev/$l; done"),
        ["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"]
    );
    assert_eq!(
        said(&world, "echo x > /dev/null; touch /dev/shm/x; test -e /dev/pts/ptmx && echo ok"),
        ["ok"]
    );
}

#[test]
fn the_kernels_own_files_are_masked_or_read_only() {
    let world = World::start();
    assert_eq!(said(&world, "cat /proc/kcore 2>/dev/null | wc -c"), ["0"]);
    assert_eq!(
        said(&world, "ls -A /proc/acpi /sys/firmware 2>/dev/null | grep -v : | wc -w"),
        ["0"]
    );
    assert_eq!(said(&world, "touch /sys/x 2>/dev/null || echo refused"), ["refused"]);
    assert_eq!(
        said(&world, "{ echo 1 > /proc/sys/kernel/panic; } 2>/dev/null || echo refused"),
        ["refused"]
    );
}

#[test]
fn a_step_has_dockers_default_capabilities_and_a_seccomp_filter() {
    let world = World::start();
    assert_eq!(said(&world, "grep CapEff /proc/self/status"), ["CapEff:\t00000000a80425fb"]);
    assert_eq!(said(&world, "grep CapBnd /proc/self/status"), ["CapBnd:\t00000000a80425fb"]);
    assert_eq!(said(&world, "grep Seccomp: /proc/self/status"), ["Seccomp:\t2"]);
    assert_eq!(said(&world, "mount -t tmpfs x /mnt 2>/dev/null || echo refused"), ["refused"]);
    assert_eq!(said(&world, "unshare -r true 2>/dev/null || echo refused"), ["refused"]);
}

#[test]
fn processes_of_the_host_and_of_other_steps_are_unseen() {
    let world = World::start();
    assert_eq!(said(&world, "ps | grep -c '[k]ilnd' || true"), ["0"]);
    assert_eq!(
        said(&world, "kill -0 2 2>/dev/null; kill -9 -1 2>/dev/null; echo survived"),
        ["survived"]
    );
}

#[test]
fn a_step_ends_with_its_command_whatever_it_has_left_running() {
    let world = World::start();
    assert_eq!(said(&world, "sleep 7301.5 & echo done"), ["done"]);
}

#[test]
fn orphans_are_reaped() {
    let world = World::start();
    let script = "(sleep 0.1 & ) ; (sleep 0.1 & ) ; sleep 0.5; grep -c 'State:.Z' /proc/[0-9]*/status \
                  | grep -vc ':0' || true";
    assert_eq!(said(&world, script), ["0"]);
}

#[test]
fn the_daemon_may_open_many_files_and_a_step_those_that_the_daemon_was_started_with() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(512);
    setrlimit(Resource::Nofile, limit).expect("a lower limit");
    let world = World::start();
    assert_eq!(said(&world, "ulimit -Sn"), ["512"]);
    let limits = fs::read_to_string(format!("/proc/{}/limits", world.daemon.id()));
    let limits = limits.expect("the limits of the daemon");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect(&limits);
    let values: Vec<_> = files.split_whitespace().skip(3).take(2).collect();
    assert_eq!(values[0], values[1], "{files}");
}

#[test]
fn standard_input_is_empty() {
    let world = World::start();
    assert_eq!(said(&world, "cat; echo end"), ["end"]);
}

#[test]
fn the_environment_is_that_of_the_image_and_the_dockerfile() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox
        ENV FROM_ENV=1
        ARG FROM_ARG=2
        RUN env | grep -v -e PWD -e SHLVL | sort
        ",
    );
    let build = world.build(&context).succeeds();
    let log = build.step("RUN env | grep -v -e PWD -e SHLVL | sort").log;
    assert_eq!(log, ["FROM_ARG=2", "FROM_ENV=1", "HOME=/root", "PATH=/bin"]);
}

#[test]
fn an_image_without_a_path_gets_the_usual_one() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox AS files
        FROM scratch
        COPY --from=files / /
        RUN env | grep ^PATH
        ",
    );
    let build = world.build(&context).succeeds();
    let usual = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(build.step("RUN env | grep ^PATH").log, [usual]);
}

#[test]
fn the_user_and_the_folder_are_those_of_the_dockerfile() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox
        WORKDIR /srv/app
        USER user
        RUN id -u; id -g; pwd; echo $HOME
        USER 1234:4321
        RUN id -u; id -g
        ",
    );
    let build = world.build(&context).succeeds();
    assert_eq!(
        build.step("RUN id -u; id -g; pwd; echo $HOME").log,
        ["1000", "1000", "/srv/app", "/"]
    );
    assert_eq!(build.step("RUN id -u; id -g").log, ["1234", "4321"]);
}

#[test]
fn the_network_can_be_shut() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nRUN --network=none ls /sys/class/net");
    let build = world.build(&context).succeeds();
    assert_eq!(build.step("RUN --network=none ls /sys/class/net").log, ["lo"]);
}

#[test]
fn names_resolve_by_files_that_are_not_part_of_the_image() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "FROM busybox\nRUN test -s /etc/resolv.conf && grep localhost /etc/hosts && hostname",
    );
    let (build, image) = world.pushed("names", world.build(&context));
    build.says("buildkitsandbox");
    // The mount points may be in the layer; the host's own settings may not.
    for path in ["etc/resolv.conf", "etc/hosts"] {
        if let Some(file) = image.files().get(path) {
            assert_eq!(file.text(), "", "{path}");
        }
    }
}

#[test]
fn output_without_an_end_of_line_is_shown_while_the_step_runs() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nRUN printf abc; sleep 7302.5");
    let build = world.kiln().args(["build", "--progress=rawjson"]).arg(context.path()).start();
    build.until("\"YWJj\"");
    build.signal(Signal::INT);
    build.finish();
}

#[test]
fn what_a_step_removes_and_replaces_is_gone_from_the_image() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox
        RUN mkdir -p /d/sub && echo 1 > /d/sub/one && echo 2 > /d/two && echo 3 > /three
        RUN rm -r /d && mkdir /d && echo new > /d/new && rm /three && mkdir /three
        RUN rm /etc/group
        ",
    );
    let image = world.image(&context);
    let files = image.files();
    let below: Vec<_> = files.keys().filter(|path| path.starts_with("d/")).collect();
    assert_eq!(below, ["d/new"]);
    assert!(files.contains_key("three") && !files.contains_key("etc/group"));
    assert_eq!(image.top().iter().filter(|path| path.contains("group")).count(), 1);
}

#[test]
fn a_layer_has_what_its_step_changed_and_nothing_else() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox
        RUN mkdir /made && echo 1 > /made/file && ln -s file /made/link && mkfifo /made/pipe
        RUN chmod 600 /made/file
        ",
    );
    let image = world.image(&context);
    assert_eq!(image.layers[1].paths(), ["made/file", "made/link", "made/pipe"]);
    assert_eq!(image.layers[2].paths(), ["made/file"]);
    assert_eq!(image.file("made/file").mode, 0o600);
}

#[test]
fn steps_with_the_same_text_in_other_folders_are_other_steps() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox
        WORKDIR /one
        RUN pwd
        WORKDIR /two
        RUN pwd; true
        ",
    );
    world.build(&context).succeeds();
    context.write_dockerfile("FROM busybox\nWORKDIR /three\nRUN pwd");
    let build = world.build(&context).succeeds();
    build.step_is("RUN pwd", &State::Done);
    assert_eq!(build.step("RUN pwd").log, ["/three"]);
}

#[test]
fn a_step_sees_each_variable_once_and_a_secret_before_all_others() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox
        ENV TOKEN=image http_proxy=image
        RUN --mount=type=secret,id=given,env=TOKEN --mount=type=secret,id=none,env=NONE \\
            env | grep -e TOKEN -e NONE -e http_proxy | sort && echo end
        ",
    );
    let build = world.build(&context).args(["--secret", "id=given,env=GIVEN"]);
    let build = build.args(["--build-arg", "http_proxy=client"]).env("GIVEN", "secret");
    let progress = build.succeeds().progress();
    let step = progress.steps().find(|step| step.name.contains("env | grep")).expect("a step");
    let said: Vec<&str> = step.log.iter().map(String::as_str).collect();
    assert_eq!(said, ["NONE=", "TOKEN=secret", "http_proxy=client", "end"]);
}

#[test]
fn a_step_that_lacks_its_source_is_the_one_that_fails() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nCOPY none /");
    let outcome = world.build(&context).fails();
    outcome.says("[2/2] COPY none /").says("ERROR: failed to calculate checksum of ref");
}

#[test]
fn what_cannot_be_run_is_said_of_the_command() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nRUN [\"none\", \"x\"]");
    let failed = "process \"none x\" did not complete successfully: exec: \"none\"";
    world.build(&context).fails().says(failed);
}

#[test]
fn a_step_that_needs_more_memory_than_it_may_have_says_so() {
    // Without root, limits of memory take a control group that somebody delegates.
    let world = World::start_with_rights();
    let context =
        Context::new().dockerfile("FROM busybox\nRUN head -c 300m /dev/zero | tail > /dev/null");
    let build = world.build(&context).args(["--resource", "memory=32m"]);
    build.args(["--resource", "memory-swap=32m"]).fails().says("killed for using more memory");
}

#[test]
fn what_each_step_used_is_in_the_progress() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox
        RUN i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 0.05
        RUN head -c 30000000 /dev/zero | sort > /dev/null; exit 3
        ",
    );
    let usages = || {
        let build = world.kiln().args(["build", "--progress=rawjson"]).arg(context.path());
        let lines = build.fails().stderr;
        let updates = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let all: Vec<Value> =
            updates.flat_map(|it| it["usages"].as_array().cloned().unwrap_or_default()).collect();
        all
    };
    let number = |usage: &Value, key: &str| usage[key].as_u64().expect("a number");
    let first = usages();
    assert_eq!(first.len(), 2, "{first:?}");
    assert_ne!(first[0]["vertex"], first[1]["vertex"]);
    let busy = number(&first[0], "cpuUser") + number(&first[0], "cpuSystem");
    assert!(busy > 10_000_000, "{first:?}");
    assert!(number(&first[0], "wall") > 50_000_000, "{first:?}");
    assert!(number(&first[1], "peakMemory") > 20_000_000, "{first:?}");
    // The first is cached now, and has not run.
    let second = usages();
    assert_eq!(second.len(), 1, "{second:?}");
    assert_eq!(second[0]["vertex"], first[1]["vertex"]);
}
