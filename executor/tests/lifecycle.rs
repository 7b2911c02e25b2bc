//! Nothing is left of a step, however it ends; limits hold and use is counted.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Bench, all_cgroups, cgroups, eventually, pipes, processes, read};
use kiln_executor::{ExecutorError, ExitStatus, Rlimit, RlimitResource};

#[tokio::test]
async fn dropping_a_running_step_leaves_nothing() {
    let bench = Bench::new();
    let mounts = || fs::read_to_string("/proc/self/mounts").unwrap();
    let before = mounts();
    for mark in ["91801", "91802"] {
        let script = format!("(setsid sleep {mark} &); (sleep {mark} &); exec sleep {mark}");
        let (running, stdout) = bench.start(bench.spec(&script)).await;
        eventually("the step runs", || processes(mark) == 3).await;
        drop(running);
        eventually("no process is left", || processes(mark) == 0).await;
        assert_eq!(read(stdout), "");
        eventually("no cgroup is left", || cgroups(&bench.cgroup_parent) == 0).await;
    }
    assert_eq!(mounts(), before);
}

#[tokio::test]
async fn a_step_dropped_at_once_leaves_nothing() {
    let bench = Bench::new();
    for delay in 0..10 {
        let (running, _stdout) = bench.start(bench.spec("exec sleep 91803")).await;
        tokio::time::sleep(Duration::from_micros(delay * 300)).await;
        drop(running);
    }
    eventually("no process is left", || processes("91803") == 0).await;
    eventually("no cgroup is left", || cgroups(&bench.cgroup_parent) == 0).await;
}

#[tokio::test]
async fn a_finished_step_leaves_no_cgroup() {
    let bench = Bench::new();
    for _ in 0..5 {
        bench.output("true").await;
    }
    eventually("no cgroup is left", || cgroups(&bench.cgroup_parent) == 0).await;
}

#[tokio::test]
async fn an_executor_leaves_no_cgroup() {
    let bench = Bench::new();
    for _ in 0..5 {
        bench.output("true").await;
    }
    let parent = bench.cgroup_parent.clone();
    drop(bench);
    assert_eq!(all_cgroups(&parent), 0);
}

#[tokio::test]
async fn a_step_that_could_not_start_leaves_no_cgroup() {
    let bench = Bench::new();
    bench.run(bench.command(&["nope"])).await.unwrap_err();
    let mut spec = bench.spec("true");
    spec.rootfs.lower.push("/missing".into());
    bench.run(spec).await.unwrap_err();
    eventually("no cgroup is left", || cgroups(&bench.cgroup_parent) == 0).await;
}

#[tokio::test]
async fn the_end_of_the_executor_is_the_end_of_its_steps() {
    let bench = Bench::new();
    let (running, _stdout) = bench.start(bench.spec("exec sleep 91804")).await;
    eventually("the step runs", || processes("91804") == 1).await;
    // As when the daemon dies: no destructor runs, the descriptors close.
    drop(running);
    drop(bench);
    eventually("no process is left", || processes("91804") == 0).await;
}

#[tokio::test]
async fn steps_run_at_the_same_time() {
    let bench = Bench::new();
    let started = Instant::now();
    let mut steps = Vec::new();
    for _ in 0..8 {
        steps.push(bench.start(bench.spec("sleep 0.3")).await);
    }
    for (mut running, _stdout) in steps {
        assert_eq!(running.wait().await.unwrap().status, ExitStatus::Code(0));
    }
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test]
async fn waiting_can_be_given_up_and_taken_up_again() {
    let bench = Bench::new();
    let (mut running, _stdout) = bench.start(bench.spec("sleep 0.1; exit 5")).await;
    let given_up = tokio::time::timeout(Duration::from_millis(10), running.wait()).await;
    assert!(given_up.is_err());
    assert_eq!(running.wait().await.unwrap().status, ExitStatus::Code(5));
}

#[tokio::test]
async fn running_out_of_memory_is_reported_as_such() {
    let bench = Bench::new();
    let mut spec = bench.spec("dd if=/dev/zero of=/dev/null bs=64M count=1");
    spec.limits.memory = Some(16 << 20);
    spec.limits.memory_swap = Some(16 << 20);
    let outcome = bench.run(spec).await.unwrap();
    assert!(outcome.exit.oom_killed, "{outcome:?}");
    assert_ne!(outcome.exit.status, ExitStatus::Code(0));
    let outcome = bench.run(bench.spec("exit 137")).await.unwrap();
    assert!(!outcome.exit.oom_killed, "not every 137 is one");
}

#[tokio::test]
async fn processes_are_limited() {
    let bench = Bench::new();
    let mut spec = bench.spec("for i in $(seq 20); do sleep 5 & done; true");
    spec.limits.pids = Some(8);
    let outcome = bench.run(spec).await.unwrap();
    assert!(outcome.stderr.contains("fork"), "{outcome:?}");
}

#[tokio::test]
async fn cpu_limits_and_sets_reach_the_step() {
    let bench = Bench::new();
    let mut spec = bench.spec("nproc");
    spec.limits.cpuset_cpus = Some("0".into());
    spec.limits.cpu_shares = Some(512);
    spec.limits.cpu_period = Some(100_000);
    spec.limits.cpu_quota = Some(50_000);
    assert_eq!(bench.run(spec).await.unwrap().stdout, "1\n");
}

#[tokio::test]
async fn a_limit_that_the_kernel_refuses_is_named() {
    let bench = Bench::new();
    let mut spec = bench.spec("true");
    spec.limits.cpuset_cpus = Some("9999".into());
    let error = bench.run(spec).await.unwrap_err();
    assert!(matches!(&error, ExecutorError::Cgroup { path, .. } if path.ends_with("cpuset.cpus")));
}

#[tokio::test]
async fn what_a_step_used_is_counted() {
    let bench = Bench::new();
    let script = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; \
                  dd if=/dev/zero of=/dev/shm/x bs=1M count=20 2>/dev/null";
    let usage = bench.run(bench.spec(script)).await.unwrap().exit.usage;
    assert!(usage.cpu_user + usage.cpu_system > Duration::from_millis(20), "{usage:?}");
    assert!(usage.peak_memory > 20 << 20, "{usage:?}");
    assert!(usage.wall > Duration::from_millis(20), "{usage:?}");
}

#[tokio::test]
async fn process_limits_are_set() {
    let bench = Bench::new();
    let mut spec = bench.spec("ulimit -n; ulimit -Hn; ulimit -c");
    spec.rlimits = vec![
        Rlimit { resource: RlimitResource::Nofile, soft: 100, hard: 200 },
        Rlimit { resource: RlimitResource::Core, soft: 0, hard: 0 },
    ];
    assert_eq!(bench.run(spec).await.unwrap().stdout, "100\n200\n0\n");
}

#[tokio::test]
async fn output_is_complete_when_the_step_has_ended() {
    let bench = Bench::new();
    let (io, stdout, stderr) = pipes();
    let mut running = bench.executor.run(bench.spec("seq 1000; (sleep 9999 &)"), io).await.unwrap();
    running.wait().await.unwrap();
    assert_eq!(read(stdout).lines().count(), 1000);
    assert_eq!(read(stderr), "");
}

#[tokio::test]
async fn a_step_sees_the_limits_it_is_under() {
    let bench = Bench::new();
    let is_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let limit = if is_v2 { "memory.max" } else { "memory/memory.limit_in_bytes" };
    let mut spec = bench.spec(&format!("cat /sys/fs/cgroup/{limit}"));
    spec.limits.memory = Some(64 << 20);
    assert_eq!(bench.run(spec).await.unwrap().stdout, "67108864\n");
    if !is_v2 {
        let mut spec = bench.spec("ls /sys/fs/cgroup");
        spec.limits.memory = Some(64 << 20);
        assert_eq!(bench.run(spec).await.unwrap().stdout, "memory\n", "only what limits");
        assert_eq!(bench.output("ls /sys/fs/cgroup").await, "");
    }
    let mut spec = bench.spec(&format!("echo 1 > /sys/fs/cgroup/{limit}"));
    spec.limits.memory = Some(64 << 20);
    assert_ne!(bench.run(spec).await.unwrap().exit.status, ExitStatus::Code(0));
}
