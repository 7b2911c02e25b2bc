//! Containers that frontends run processes in.

use kiln_integration_tests::{GatewayBuild, World, processes_with};
use kiln_proto::gateway::exec_message::Input;
use kiln_proto::gateway::{
    ReadDirRequest, ReadFileRequest, ReleaseContainerRequest, ResizeMessage, SignalMessage,
};
use tonic::Code;

/// A build with a container `c` on busybox.
async fn build_with_container(world: &World) -> GatewayBuild {
    let mut build = GatewayBuild::start(&world.daemon, "containers").await;
    build.container("c", "docker.io/library/busybox:latest").await;
    build
}

#[tokio::test]
async fn a_process_is_fed_and_heard_and_its_exit_code_told() {
    let world = World::start();
    let mut build = build_with_container(&world).await;
    let shell = build.shell("c", "cat; echo wrong >&2; exit 3", false).await;
    shell.write("some input\n").await;
    shell.close().await;
    let (code, output) = shell.exit().await;
    assert_eq!(code, 3);
    assert!(output.contains("some input\n") && output.contains("wrong\n"), "{output}");
    build.end().await;
}

#[tokio::test]
async fn a_shell_at_a_terminal_knows_its_size() {
    let world = World::start();
    let mut build = build_with_container(&world).await;
    let wait = "until [ \"$(stty size)\" = '33 77' ]; do sleep 0.01; done";
    let mut shell = build.shell("c", &format!("tty -s && echo here; {wait}; exit 5"), true).await;
    shell.until("here").await;
    shell.send(Input::Resize(ResizeMessage { rows: 33, cols: 77 })).await;
    assert_eq!(shell.exit().await.0, 5);
    build.end().await;
}

#[tokio::test]
async fn a_signal_reaches_the_process() {
    let world = World::start();
    let mut build = build_with_container(&world).await;
    let command = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done";
    let mut shell = build.shell("c", command, false).await;
    shell.until("ready").await;
    shell.send(Input::Signal(SignalMessage { name: "TERM".to_owned() })).await;
    assert_eq!(shell.exit().await.0, 7);
    build.end().await;
}

#[tokio::test]
async fn a_frontend_hears_of_the_outputs_that_it_asked_for_and_of_no_others() {
    let world = World::start();
    let mut build = build_with_container(&world).await;
    let mut first = build.shell("c", "echo up; read x", false).await;
    first.until("up").await;
    for fds in [&[][..], &[0], &[1], &[0, 2]] {
        let args = ["sh", "-c", "echo out; echo err >&2"];
        let process = build.process("c", &args, false, fds).await.end().await;
        let outputs: Vec<u32> = fds.iter().copied().filter(|&fd| fd > 0).collect();
        assert_eq!(process.ended, outputs);
        let expected = if fds.contains(&1) { "out\n" } else { "" };
        assert_eq!(process.output, if fds.contains(&2) { "err\n" } else { expected });
    }
    first.close().await;
    first.exit().await;
    build.end().await;
}

#[tokio::test]
async fn a_process_that_was_killed_has_the_exit_code_that_a_shell_would_tell() {
    let world = World::start();
    let mut build = build_with_container(&world).await;
    let killed = build.shell("c", "kill -9 $$", false).await.end().await;
    assert_eq!(killed.exit.code, 137);
    assert!(killed.error().contains("exit code: 137"), "{killed:?}");
    build.end().await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_the_error_of_its_process_alone() {
    let world = World::start();
    let mut build = build_with_container(&world).await;
    let mut first = build.shell("c", "echo up; read x; exit 4", false).await;
    first.until("up").await;
    let missing = build.process("c", &["/no/such/program"], false, &[0, 1, 2]).await.end().await;
    assert!(missing.exit.code != 0 && missing.error().contains("/no/such/program"), "{missing:?}");
    let nowhere = build.shell("d", "true", false).await.end().await;
    assert!(nowhere.exit.code != 0 && nowhere.error().contains("never made"), "{nowhere:?}");
    first.close().await;
    assert_eq!(first.exit().await.0, 4);
    build.end().await;
}

#[tokio::test]
async fn processes_of_a_container_share_its_files_which_can_be_read_meanwhile() {
    let world = World::start();
    let mut build = build_with_container(&world).await;
    let mut first = build.shell("c", "mkdir /d; echo x > /d/f; echo made; read x", false).await;
    first.until("made").await;
    let second = build.shell("c", "cat /d/f; echo y > /d/g", false).await;
    assert_eq!(second.exit().await, (0, "x\n".to_owned()));

    let read = ReadFileRequest {
        r#ref: "c".to_owned(),
        file_path: "/d/g".to_owned(),
        ..Default::default()
    };
    let read = build.request(read);
    let read = build.bridge.read_file_container(read).await.unwrap().into_inner();
    assert_eq!(read.data, "y\n");
    let list =
        ReadDirRequest { r#ref: "c".to_owned(), dir_path: "/d".to_owned(), ..Default::default() };
    let list = build.request(list);
    let list = build.bridge.read_dir_container(list).await.unwrap().into_inner();
    let names: Vec<_> = list.entries.into_iter().map(|entry| entry.path).collect();
    assert_eq!(names, ["f", "g"]);
    first.close().await;
    first.exit().await;
    build.end().await;
}

#[tokio::test]
async fn a_released_container_ends_with_all_its_processes() {
    let world = World::start();
    let mut build = build_with_container(&world).await;
    let mut first = build.shell("c", "echo up; sleep 7403.5", false).await;
    first.until("up").await;
    let mut second = build.shell("c", "echo up; sleep 7403.6", false).await;
    second.until("up").await;
    let release = |build: &GatewayBuild| {
        build.request(ReleaseContainerRequest { container_id: "c".to_owned() })
    };
    let request = release(&build);
    build.bridge.release_container(request).await.unwrap();
    for process in [first.end().await, second.end().await] {
        assert_ne!(process.exit.code, 0);
        assert!(process.error().contains("context canceled"), "{process:?}");
    }
    assert!(processes_with("7403.").is_empty());
    let request = release(&build);
    let error = build.bridge.release_container(request).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    build.end().await;
}

#[tokio::test]
async fn what_a_build_left_running_ends_with_it() {
    let world = World::start();
    let mut build = build_with_container(&world).await;
    let mut shell = build.shell("c", "echo up; sleep 7404.5", false).await;
    shell.until("up").await;
    build.end().await;
    assert_ne!(shell.exit().await.0, 0);
    assert!(processes_with("7404.5").is_empty());
}
