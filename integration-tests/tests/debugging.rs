//! Looking into a step that has failed.

use std::collections::BTreeSet;

use kiln_integration_tests::{
    AtTerminal, Context, GatewayBuild, Invocation, Signal, World, chain, image_op, mounts_below,
    processes_with,
};
use kiln_proto::errdefs::Solve;
use kiln_proto::{detail, pb};
use tonic::Status;

/// The layers that the daemon has on its disk.
fn layers(world: &World) -> BTreeSet<String> {
    let entries = std::fs::read_dir(world.daemon.root().join("snapshots")).expect("layers");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    names.map(|name| name.to_string_lossy().into_owned()).collect()
}

/// A build that opens a shell when a step fails.
fn with_shell(build: Invocation) -> Invocation {
    build.arg("--on-error=shell")
}

/// Waits for the shell's prompt, and lets it say what a command prints. Words of the command itself,
/// which the terminal echoes, do not count.
#[track_caller]
fn says(terminal: &mut AtTerminal, command: &str, output: &str) {
    terminal.types(&format!("{command} | sed 's/^/<<</; s/$/>>>/'\n"));
    terminal.until(&format!("<<<{output}>>>"));
}

#[test]
fn a_shell_opens_where_a_command_failed_with_all_that_it_had() {
    let world = World::start();
    let context = Context::new()
        .dockerfile(
            r"
            FROM busybox
            ENV COLOR=green
            WORKDIR /work
            USER user
            RUN --mount=type=cache,target=/cache,uid=1000 \
                --mount=type=secret,id=key,uid=1000 \
                --mount=type=secret,id=key,env=KEY \
                --mount=type=bind,target=/context,rw \
                --mount=type=tmpfs,target=/scratch \
                --network=none \
                echo cached > /cache/f; echo written > /tmp/f; echo bound > /context/open/g; exit 9
            ",
        )
        .file("own", "of the context\n")
        .dir("open")
        .mode("open", 0o777);
    let secret = Context::new().file("key", "hush");
    let build = world.build(&context);
    let flag = format!("id=key,src={}", secret.at("key").display());
    let mut terminal = with_shell(build).args(["--secret", &flag]).at_terminal();
    terminal.until("ERROR: failed to build").until("exit code: 9").until("This is /bin/sh where");
    terminal.until("$ ");
    for (command, output) in [
        ("cat /tmp/f", "written"),
        ("cat /cache/f", "cached"),
        ("cat /context/open/g", "bound"),
        ("cat /context/own", "of the context"),
        ("cat /run/secrets/key", "hush"),
        ("echo $KEY", "hush"),
        ("echo $COLOR", "green"),
        ("pwd", "/work"),
        ("id -un", "user"),
        ("grep -c /scratch /proc/mounts", "1"),
        ("ls /sys/class/net", "lo"),
    ] {
        says(&mut terminal, command, output);
    }
    terminal.types("exit 3\n");
    let (code, screen) = terminal.finish();
    assert_eq!(code, Some(1));
    assert_eq!(screen.matches("ERROR: failed to build").count(), 1, "{screen}");
    assert!(screen.contains(">>> RUN --mount=type=cache"), "{screen}");
}

#[test]
fn keys_and_sizes_of_the_terminal_are_the_shells() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nRUN false");
    let mut terminal = with_shell(world.build(&context)).at_terminal();
    terminal.until("# ");
    assert!(!terminal.is_cooked());
    // While a process executes another program, it has no command line to be found by.
    terminal.types("sh -c \"echo rea''dy; sleep 7405.5; :\"\n").until("ready");
    let sleeping = || !processes_with("7405.5").is_empty();
    assert!(sleeping());
    // Ctrl-c.
    terminal.types("\x03");
    says(&mut terminal, "echo awake", "awake");
    assert!(!sleeping());
    terminal.resizes(33, 77);
    says(&mut terminal, "until stty size | grep '33 77'; do sleep 0.01; done", "33 77");
    terminal.types("exit\n");
    assert_eq!(terminal.finish().0, Some(1));
}

#[test]
fn what_a_failed_step_left_is_gone_with_the_build() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nRUN echo x > /big; false");
    world.build(&context).fails();
    let before = layers(&world);
    for end in ["exit\n", ""] {
        let mut terminal = with_shell(world.build(&context)).at_terminal();
        terminal.until("# ");
        says(&mut terminal, "cat /big", "x");
        assert!(layers(&world).len() > before.len(), "nothing is kept");
        if end.is_empty() {
            terminal.signal(Signal::TERM);
            assert_eq!(terminal.finish().0, Some(130));
        } else {
            terminal.types(end);
            assert_eq!(terminal.finish().0, Some(1));
        }
        // The daemon is done with a build that its client gave up when it has done another.
        world.build(&context).fails();
        assert_eq!(layers(&world), before);
        assert_eq!(mounts_below(world.daemon.root()), [""; 0]);
    }
}

#[test]
fn a_copy_of_what_is_not_there_can_be_looked_into() {
    let world = World::start();
    let context = Context::new()
        .dockerfile("FROM busybox\nRUN echo made > /earlier\nCOPY packge.json /app/")
        .file("package.json", "{}\n");
    let mut terminal = with_shell(world.build(&context)).at_terminal();
    terminal.until("packge.json").until("not found").until("# ");
    says(&mut terminal, "cat /earlier", "made");
    // What the client did not send is not there either.
    says(&mut terminal, "ls -d /run/source", "/run/source");
    terminal.types("exit\n");
    assert_eq!(terminal.finish().0, Some(1));
}

#[test]
fn a_copy_that_fails_half_way_is_seen_as_far_as_it_came() {
    let world = World::start();
    let context = Context::new()
        .dockerfile("FROM busybox\nRUN mkdir -p /app/b\nCOPY files /app")
        .file("files/a", "copied\n")
        .file("files/b", "a file where a folder is\n");
    let mut terminal = with_shell(world.build(&context)).at_terminal();
    terminal.until("ERROR").until("# ");
    says(&mut terminal, "cat /app/a", "copied");
    terminal.types("exit\n");
    assert_eq!(terminal.finish().0, Some(1));
}

#[test]
fn a_build_that_succeeds_opens_no_shell() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nRUN echo fine > /f\nCMD [\"x\"]");
    let name = world.registry.reference("test/fine:1");
    let build = with_shell(world.build(&context)).args(["--push", "-t", &name]);
    let (code, screen) = build.at_terminal().finish();
    assert_eq!(code, Some(0), "{screen}");
    assert!(!screen.contains("This is"), "{screen}");
    let (_, plain) = world.pushed("test/fine:2", world.build(&context));
    assert_eq!(world.registry.image("test/fine:1").config, plain.config);
}

#[test]
fn a_program_can_be_named() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nUSER user\nRUN false");
    let run = |flag: &str| world.build(&context).arg(flag).at_terminal().finish();
    let (code, screen) = run("--on-error=/bin/id");
    assert_eq!(code, Some(1));
    assert!(screen.contains("uid=1000(user)"), "{screen}");
    let (code, screen) = run("--on-error=/bin/gdb");
    assert_eq!(code, Some(1));
    assert!(screen.contains("WARNING: --on-error: the step has no /bin/gdb"), "{screen}");
}

#[test]
fn the_shell_is_the_one_of_the_step() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "FROM busybox\nRUN cp /bin/busybox /bash\nSHELL [\"/bash\", \"-c\"]\nRUN false",
    );
    // Busybox goes by its name: as this one it can nothing, but it is what runs.
    let (code, screen) = with_shell(world.build(&context)).at_terminal().finish();
    assert_eq!(code, Some(1));
    assert!(screen.contains("This is /bash where"), "{screen}");
}

#[test]
fn an_image_without_a_shell_is_an_error_that_says_so() {
    let world = World::start();
    for (dockerfile, message) in [
        (
            "FROM busybox AS b\nFROM scratch\nCOPY --from=b /bin/busybox /b\nRUN [\"/b\", \"false\"]",
            "the step has no shell /bin/sh",
        ),
        ("FROM scratch\nCOPY none /", "it starts from scratch, where there is no shell"),
    ] {
        let context = Context::new().dockerfile(dockerfile);
        let (code, screen) = with_shell(world.build(&context)).at_terminal().finish();
        assert_eq!(code, Some(1));
        assert!(screen.contains(message), "{screen}");
    }
}

#[test]
fn a_failure_that_is_not_of_a_step_opens_no_shell() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nRNU false");
    let (code, screen) = with_shell(world.build(&context)).at_terminal().finish();
    assert_eq!(code, Some(1));
    assert!(screen.contains("unknown instruction") && !screen.contains("This is"), "{screen}");
}

#[test]
fn a_shell_that_nobody_could_use_is_refused() {
    let world = World::start();
    let context = Context::new().dockerfile("FROM busybox\nRUN false");
    let build = || world.build(&context);
    with_shell(build()).fails().says("have to be a terminal");
    for flag in ["--on-error=bash", "--on-error="] {
        build().arg(flag).fails().says("is not fail, shell or the absolute path of a program");
    }
    let (code, screen) = with_shell(build()).arg("--check").at_terminal().finish();
    assert!(code == Some(1) && screen.contains("no step runs for --call and --check"), "{screen}");
    build().arg("--on-error=fail").fails().says("exit code: 1");
}

/// A command on busybox.
fn command(script: &str, mounts: Vec<pb::Mount>) -> pb::op::Op {
    let meta = pb::Meta {
        args: ["sh", "-c", script].map(str::to_owned).into(),
        cwd: "/".to_owned(),
        ..pb::Meta::default()
    };
    let root = pb::Mount { dest: "/".to_owned(), ..pb::Mount::default() };
    let mounts = [root].into_iter().chain(mounts).collect();
    pb::op::Op::Exec(pb::ExecOp { meta: Some(meta), mounts, ..pb::ExecOp::default() })
}

fn solve_error(status: &Status) -> Solve {
    detail::find(status).unwrap_or_else(|| panic!("no step in {status:?}"))
}

#[tokio::test]
async fn frontends_mount_what_a_step_left_and_what_it_started_from() {
    let world = World::start();
    let mut build = GatewayBuild::start(&world.daemon, "debugging").await;
    let bound = pb::Mount { dest: "/bound".to_owned(), output: -1, ..pb::Mount::default() };
    let failing = command("echo x > /left; rm /etc/group; echo y > /bound/z; exit 3", vec![bound]);
    let graph = chain([image_op("docker.io/library/busybox:latest"), failing]);
    let result = build.solve(graph).await;
    let solve = solve_error(&build.evaluate(&result).await.unwrap_err());
    assert!(matches!(solve.op, Some(pb::Op { op: Some(pb::op::Op::Exec(_)), .. })));
    assert_eq!((solve.input_ids.len(), solve.mount_ids.len()), (2, 2));
    let again = solve_error(&build.evaluate(&result).await.unwrap_err());
    assert_eq!(again, solve);

    let look = "test -e /left; echo left $?; test -e /etc/group; echo group $?; \
                ls /bound/z /bound/bin/sh 2>/dev/null";
    let mounts = |ids: &[String]| {
        let mount = |(dest, id): (&str, &String)| pb::Mount {
            dest: dest.to_owned(),
            result_id: id.clone(),
            ..pb::Mount::default()
        };
        ["/", "/bound"].into_iter().zip(ids).map(mount).collect()
    };
    build.container_on("after", mounts(&solve.mount_ids)).await.unwrap();
    let after = build.shell("after", look, false).await.exit().await;
    assert_eq!(after, (0, "left 0\ngroup 1\n/bound/bin/sh\n/bound/z\n".to_owned()));
    build.container_on("before", mounts(&solve.input_ids)).await.unwrap();
    let (_, before) = build.shell("before", look, false).await.exit().await;
    assert_eq!(before, "left 1\ngroup 0\n/bound/bin/sh\n");

    // What is written in a container is its own.
    for container in ["one", "two"] {
        build.container_on(container, mounts(&solve.mount_ids)).await.unwrap();
        let removed = build.shell(container, "rm /left", false).await.exit().await;
        assert_eq!(removed.0, 0, "{removed:?}");
    }
    build.end().await;

    let mut other = GatewayBuild::start(&world.daemon, "other").await;
    let error = other.container_on("c", mounts(&solve.mount_ids)).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::NotFound);
    other.end().await;
}

#[tokio::test]
async fn who_can_look_into_a_failed_step_keeps_what_it_left_until_the_end_of_the_build() {
    let world = World::start();
    let base = image_op("docker.io/library/busybox:latest");
    let graph = chain([base, command("echo x > /left; exit 3", vec![])]);
    let mut before = None;
    for id in ["first", "second"] {
        let mut build = GatewayBuild::start(&world.daemon, id).await;
        let result = build.solve(graph.clone()).await;
        build.evaluate(&result).await.unwrap_err();
        let meanwhile = layers(&world);
        build.end().await;
        let after = layers(&world);
        assert_eq!(meanwhile.len(), after.len() + 1);
        assert_eq!(before.get_or_insert_with(|| after.clone()), &after);
    }
}
