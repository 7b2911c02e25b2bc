//! When the daemon is killed, nothing of it stays, and the next one finds a clean host.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::{env, fs};

use common::{Bench, all_cgroups, eventually, processes};
use kiln_executor::{Executor, ExecutorConfig, fork_zygote};

const MARK: &str = "91901";
const ROLE: &str = "KILN_TEST_DAEMON";

/// Starts this test again in the role of the daemon; returns it and its cgroup.
fn start_daemon(test: &str, dir: &std::path::Path) -> (Child, String) {
    let mut daemon = Command::new(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(ROLE, "1")
        .env("TMPDIR", dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(daemon.stdout.take().unwrap()).lines().map(Result::unwrap);
    let cgroup = lines.find_map(|line| Some(line.split_once("cgroup=")?.1.to_owned())).unwrap();
    (daemon, cgroup)
}

/// Runs a step until somebody kills this process.
async fn be_daemon() -> ! {
    let bench = Bench::new();
    let script = format!("(setsid sleep {MARK} &); exec sleep {MARK}");
    let (_running, _stdout) = bench.start(bench.spec(&script)).await;
    println!("cgroup={}", bench.cgroup_parent);
    std::future::pending().await
}

#[tokio::test]
async fn killing_the_daemon_leaves_no_process_and_the_next_one_no_cgroup() {
    if env::var_os(ROLE).is_some() {
        be_daemon().await;
    }
    let dir = tempfile::tempdir().unwrap();
    let test = "killing_the_daemon_leaves_no_process_and_the_next_one_no_cgroup";
    let (mut daemon, cgroup_parent) = start_daemon(test, dir.path());
    eventually("the step runs", || processes(MARK) == 2).await;
    let pid = daemon.id();
    let zygotes = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flat_map(|task| {
        let children = fs::read_to_string(task.unwrap().path().join("children")).unwrap();
        children.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    });
    let zygotes: Vec<String> = zygotes.collect();
    assert_eq!(zygotes.len(), 1);

    daemon.kill().unwrap();
    daemon.wait().unwrap();
    eventually("no process is left", || processes(MARK) == 0).await;
    let zygote = format!("/proc/{}", zygotes[0]);
    eventually("no zygote is left", || fs::metadata(&zygote).is_err()).await;

    let left = all_cgroups(&cgroup_parent);
    assert_ne!(left, 0, "nobody could remove them yet");
    let config =
        ExecutorConfig { cgroup_parent: cgroup_parent.clone(), ..ExecutorConfig::default() };
    let next = Executor::new(fork_zygote().unwrap(), config).unwrap();
    drop(next);
    assert_eq!(all_cgroups(&cgroup_parent), 0);
}
