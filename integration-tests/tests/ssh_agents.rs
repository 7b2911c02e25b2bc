//! Steps that use the ssh agent of whoever builds.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use kiln_integration_tests::{Context, State, World};

/// "Which keys are there?" in the agent protocol.
const REQUEST: &[u8] = &[0, 0, 0, 1, 11];
/// "Add this key", which steps are not to do.
const ADD: &[u8] = &[0, 0, 0, 1, 17];
/// "None."
const ANSWER: [u8; 9] = [0, 0, 0, 5, 12, 0, 0, 0, 0];

/// An agent without keys.
fn agent(socket: &Path) {
    let listener = UnixListener::bind(socket).expect("socket of an agent");
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.expect("connection");
            std::thread::spawn(move || {
                let mut request = [0; REQUEST.len()];
                while connection.read_exact(&mut request).is_ok() {
                    assert_eq!(request, REQUEST);
                    connection.write_all(&ANSWER).expect("answer");
                }
            });
        }
    });
}

/// A directory with this very program and the libraries it needs, to be mounted into a step.
fn tools() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temporary folder");
    let test = std::env::current_exe().expect("path of this test");
    std::fs::copy(&test, dir.path().join("test")).expect("copy of this test");
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    for path in maps.lines().filter_map(|line| line.split_whitespace().nth(5)) {
        let path = Path::new(path);
        let name = path.file_name().unwrap_or_default();
        if name.to_string_lossy().contains(".so") {
            std::fs::copy(path, dir.path().join(name)).expect("copy of a library");
            if name.to_string_lossy().starts_with("ld-") {
                std::fs::copy(path, dir.path().join("ld")).expect("copy of the linker");
            }
        }
    }
    dir
}

/// The command by which a step asks its agent; see [`inside_a_step`].
const ASK: &str = "/tools/ld --library-path /tools /tools/test --ignored --nocapture inside_a_step";

#[test]
#[ignore = "runs inside of a step"]
fn inside_a_step() {
    let socket = std::env::var("SSH_AUTH_SOCK").unwrap();
    for _ in 0..2 {
        let mut agent = UnixStream::connect(&socket).unwrap();
        let mut answer = [0; ANSWER.len()];
        agent.write_all(REQUEST).unwrap();
        agent.read_exact(&mut answer).unwrap();
        println!("the agent answers {answer:?}");
        let mut answer = [0; 5];
        agent.write_all(ADD).unwrap();
        agent.read_exact(&mut answer).unwrap();
        println!("the agent refuses {answer:?}");
    }
}

#[test]
fn a_step_can_ask_the_agent_that_it_mounts() {
    let (world, tools, home) = (World::start(), tools(), tempfile::tempdir().unwrap());
    let socket = home.path().join("agent");
    agent(&socket);
    let context = Context::new().dockerfile(&format!(
        "
        FROM busybox
        RUN --mount=type=ssh,uid=1000,mode=0700 stat -c 'socket %u %a %F' $SSH_AUTH_SOCK
        RUN --mount=type=ssh,id=other --mount=from=tools,target=/tools {ASK}
        RUN echo \"socket is ${{SSH_AUTH_SOCK:-gone}}\" && test ! -e /run
        "
    ));
    let build = world
        .build(&context)
        .args(["--ssh", &format!("default={}", socket.display())])
        .args(["--ssh", &format!("other={}", socket.display())])
        .args(["--build-context", &format!("tools={}", tools.path().display())])
        .succeeds();
    let answers =
        [format!("the agent answers {ANSWER:?}"), "the agent refuses [0, 0, 0, 1, 5]".into()];
    let log = build
        .step(&format!("RUN --mount=type=ssh,id=other --mount=from=tools,target=/tools {ASK}"))
        .log;
    let said: Vec<_> = log.iter().filter(|line| line.starts_with("the agent")).collect();
    assert_eq!(said, [&answers[0], &answers[1], &answers[0], &answers[1]]);
    build.says("socket 1000 700 socket").says("socket is gone");
}

#[test]
fn a_step_without_its_agent_fails_only_if_it_requires_one() {
    let world = World::start();
    let step = |options: &str| {
        Context::new().dockerfile(&format!(
            "FROM busybox\nRUN --mount=type=ssh{options} test ! -e /run/buildkit/ssh_agent.0"
        ))
    };
    world.build(&step("")).succeeds();
    world
        .build(&step(",required=true"))
        .fails()
        .says("no SSH key \"default\" forwarded from the client: give it with --ssh");
}

#[test]
fn which_agent_is_used_is_not_in_the_key() {
    let (world, home) = (World::start(), tempfile::tempdir().unwrap());
    let socket = home.path().join("agent");
    agent(&socket);
    let context = Context::new().dockerfile("FROM busybox\nRUN --mount=type=ssh true");
    world.build(&context).succeeds();
    let again = world.build(&context).args(["--ssh", &format!("default={}", socket.display())]);
    again.succeeds().step_is("RUN --mount=type=ssh true", &State::Cached);
}
