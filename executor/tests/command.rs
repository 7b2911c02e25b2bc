//! The command: its output, exit, environment and how it is found.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::Read;

use common::{Bench, pipes, read};
use kiln_executor::{ExecutorError, ExitStatus, User};

#[tokio::test]
async fn output_arrives_live_and_without_a_newline() {
    let bench = Bench::new();
    let (mut running, mut stdout) = bench.start(bench.spec("printf hello; sleep 60")).await;
    let mut buffer = [0; 5];
    tokio::task::spawn_blocking(move || {
        stdout.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"hello");
    })
    .await
    .unwrap();
    running.kill();
    assert_eq!(running.wait().await.unwrap().status, ExitStatus::Signal(libc::SIGKILL));
}

#[tokio::test]
async fn streams_are_kept_apart() {
    let bench = Bench::new();
    let outcome = bench.run(bench.spec("echo out; echo err >&2; cat")).await.unwrap();
    assert_eq!((&*outcome.stdout, &*outcome.stderr), ("out\n", "err\n"));
}

#[tokio::test]
async fn exit_codes_and_signals_are_reported() {
    let bench = Bench::new();
    for (script, status) in [
        ("true", ExitStatus::Code(0)),
        ("exit 7", ExitStatus::Code(7)),
        ("exit 255", ExitStatus::Code(255)),
        ("kill -9 $$", ExitStatus::Signal(libc::SIGKILL)),
        ("kill -TERM $$", ExitStatus::Signal(libc::SIGTERM)),
    ] {
        let outcome = bench.run(bench.spec(script)).await.unwrap();
        assert_eq!(outcome.exit.status, status, "{script}");
    }
}

#[tokio::test]
async fn a_signal_reaches_the_command() {
    let bench = Bench::new();
    let script = "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.01; done";
    let (mut running, mut stdout) = bench.start(bench.spec(script)).await;
    let stdout = tokio::task::spawn_blocking(move || {
        let mut ready = [0; 6];
        stdout.read_exact(&mut ready).unwrap();
        stdout
    })
    .await
    .unwrap();
    running.signal(libc::SIGTERM);
    assert_eq!(running.wait().await.unwrap().status, ExitStatus::Code(3));
    assert_eq!(read(stdout), "caught\n");
}

#[tokio::test]
async fn orphans_are_reaped_and_killed_with_the_command() {
    let bench = Bench::new();
    // An orphan that ends leaves no zombie behind, and one that does not end is no reason to wait.
    let script =
        "(sleep 0 &); (setsid sleep 1000 &); sleep 0.2; ps -o stat,args | grep -c '^Z'; true";
    let outcome = bench.run(bench.spec(script)).await.unwrap();
    assert_eq!(outcome.stdout, "0\n");
    assert_eq!(outcome.exit.status, ExitStatus::Code(0));
}

#[tokio::test]
async fn the_environment_is_exactly_what_was_given() {
    let bench = Bench::new();
    let mut spec = bench.command(&["env"]);
    spec.env = vec!["PATH=/bin".into(), "A=b c".into()];
    assert_eq!(bench.run(spec).await.unwrap().stdout, "PATH=/bin\nA=b c\n");
}

#[tokio::test]
async fn a_command_that_does_not_exist_says_so() {
    let bench = Bench::new();
    for (command, message) in [
        ("nope", r#"exec: "nope": executable file not found in $PATH"#),
        ("/bin/nope", r#"exec: "/bin/nope": no such file or directory"#),
    ] {
        let error = bench.run(bench.command(&[command])).await.unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(error.exit_code(), Some(127));
    }
}

#[tokio::test]
async fn a_command_that_cannot_be_executed_says_why() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    let write = |name: &str, content: &str, mode| {
        let path = bench.base().join("bin").join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    write("no-format", "echo hello", 0o755);
    write("no-permission", "#!/bin/sh\n", 0o644);
    write("no-interpreter", "#!/bin/missing\n", 0o755);
    for (command, errno) in [
        ("no-format", libc::ENOEXEC),
        ("no-permission", libc::EACCES),
        ("no-interpreter", libc::ENOENT),
        ("/bin/no-interpreter", libc::ENOENT),
    ] {
        match bench.run(bench.command(&[command])).await.unwrap_err() {
            ExecutorError::NotExecutable { source, .. } => {
                assert_eq!(source.raw_os_error(), Some(errno), "{command}");
            }
            other => panic!("{command}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn the_working_directory_is_entered_or_named() {
    let bench = Bench::new();
    let mut spec = bench.spec("pwd");
    spec.cwd = "/etc".into();
    assert_eq!(bench.run(spec).await.unwrap().stdout, "/etc\n");
    let mut spec = bench.spec("pwd");
    spec.cwd = "/missing".into();
    let error = bench.run(spec).await.unwrap_err();
    assert!(matches!(error, ExecutorError::WorkingDirectory { .. }), "{error:?}");
}

#[tokio::test]
async fn the_user_and_groups_are_taken_on() {
    let bench = Bench::new();
    let mut spec = bench.spec("id -u; id -g; id -G; echo x > /dev/stderr; umask");
    spec.user = User { uid: 1000, gid: 1001, additional_gids: vec![5, 6] };
    let outcome = bench.run(spec).await.unwrap();
    assert_eq!(outcome.stdout, "1000\n1001\n1001 5 6\n0022\n");
    assert_eq!(outcome.stderr, "x\n");
}

#[tokio::test]
async fn a_further_process_joins_a_running_step() {
    let bench = Bench::new();
    let (mut running, _stdout) = bench.start(bench.spec("echo here > /tmp/x; sleep 100")).await;
    let (io, stdout, stderr) = pipes();
    let exec = kiln_executor::ExecSpec {
        args: [
            "/bin/sh",
            "-c",
            "until cat /tmp/x; do sleep 0.01; done 2>/dev/null; hostname; exit 4",
        ]
        .map(Into::into)
        .to_vec(),
        env: vec!["PATH=/bin".into()],
        cwd: "/".into(),
        user: User::default(),
        tty: false,
    };
    let mut further = running.handle().exec(exec, io).await.unwrap();
    assert_eq!(further.wait().await.unwrap().status, ExitStatus::Code(4));
    assert_eq!((read(stdout), read(stderr)), ("here\nbuildkitsandbox\n".into(), String::new()));
    running.kill();
    running.wait().await.unwrap();
}
