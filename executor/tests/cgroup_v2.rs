//! Control groups of version 2. On a host that has both, version 1 is hidden from the test.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::Path;
use std::process::Command;
use std::{env, fs};

use common::{Bench, cgroups, eventually, has_users};
use kiln_executor::{Device, ExecutorError, ExitStatus, Hook, HookKind, Mount};

const ROLE: &str = "KILN_TEST_HIDDEN_V1";

/// Whether only version 2 is mounted. If not, runs a test of this file again where that is so.
fn is_hidden(test: &str) -> bool {
    if env::var_os(ROLE).is_some() {
        return true;
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let v1 = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let point = fields.next()?;
        (fields.next()? == "cgroup").then_some(point)
    });
    let points = v1.collect::<Vec<_>>().join(" ");
    if points.is_empty() {
        return true;
    }
    let script = format!(r#"umount {points} && exec "$0" {test} --exact --nocapture"#);
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .arg(env::current_exe().unwrap())
        .env(ROLE, "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    false
}

#[tokio::test]
async fn a_step_is_in_a_group_of_its_own_and_sees_it_as_the_root() {
    if !is_hidden("a_step_is_in_a_group_of_its_own_and_sees_it_as_the_root") {
        return;
    }
    let bench = Bench::new();
    let seen = bench.output("cat /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs").await;
    assert!(seen.ends_with("0::/\n2\n"), "the command and nothing else: {seen}");
    let outcome = bench.run(bench.spec("echo 1 > /sys/fs/cgroup/cgroup.freeze")).await.unwrap();
    assert_eq!(outcome.exit.status, ExitStatus::Code(1), "it is read-only");
    let usage = bench.run(bench.spec("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")).await;
    assert!(!usage.unwrap().exit.usage.cpu_user.is_zero());
    eventually("no cgroup is left", || cgroups(&bench.cgroup_parent) == 0).await;
}

#[tokio::test]
async fn hooks_of_the_container_are_in_the_group_of_the_step() {
    if !is_hidden("hooks_of_the_container_are_in_the_group_of_the_step") {
        return;
    }
    let bench = Bench::new();
    for (kind, is_in) in [(HookKind::CreateContainer, true), (HookKind::CreateRuntime, false)] {
        let mut spec = bench.spec("cat /group");
        // Its working directory has the root, or is it.
        let script = "cat /proc/self/cgroup > $(test -d rootfs && echo rootfs || echo .)/group";
        spec.hooks = vec![Hook {
            kind,
            path: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            env: vec!["PATH=/usr/bin:/bin".into()],
            timeout: None,
            declared_in: "/etc/cdi/vendor.yaml".into(),
        }];
        let group = bench.run(spec).await.unwrap().stdout;
        assert_eq!(group.contains(&bench.cgroup_parent), is_in, "{kind}: {group}");
    }
    eventually("no cgroup is left", || cgroups(&bench.cgroup_parent) == 0).await;
}

#[tokio::test]
async fn devices_are_guarded() {
    if !is_hidden("devices_are_guarded") {
        return;
    }
    let bench = Bench::new();
    if !has_users() {
        bench.output("mknod /null c 1 3 && echo x > /null && mknod /disk b 254 0").await;
    }
    for script in
        ["mknod /disk b 253 0 && head -c 1 /disk", "mknod /kmsg c 1 11 && head -c 1 /kmsg"]
    {
        let outcome = bench.run(bench.spec(script)).await.unwrap();
        assert_eq!(outcome.exit.status, ExitStatus::Code(1), "{outcome:?}");
        assert!(outcome.stderr.contains("not permitted"), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_device_that_is_given_can_be_used_and_others_cannot() {
    if !is_hidden("a_device_that_is_given_can_be_used_and_others_cannot") {
        return;
    }
    let bench = Bench::new();
    let script = "true < /dev/given && echo opened; echo x > /dev/given; \
                  mknod /mem c 1 1 && head -c 1 /mem; echo x > /dev/null && echo null";
    let mut spec = bench.spec(&format!("({script}) 2>&1"));
    spec.mounts = vec![Mount::Device {
        source: "/dev/loop-control".into(),
        device: Device { is_block: false, major: 10, minor: 237, read: true, write: false },
        target: "/dev/given".into(),
        mode: 0o666,
        uid: 0,
        gid: 0,
    }];
    let outcome = bench.run(spec).await.unwrap();
    let refused = if has_users() { "mknod" } else { "head" };
    let expected = format!(
        "opened\n/bin/sh: can't create /dev/given: Operation not permitted\n\
         {refused}: /mem: Operation not permitted\nnull\n"
    );
    assert_eq!(outcome.stdout, expected);
}

#[tokio::test]
async fn a_limit_without_its_controller_is_refused_by_name() {
    if !is_hidden("a_limit_without_its_controller_is_refused_by_name") {
        return;
    }
    // Where the tree is the only one, it is all there is at that place.
    let is_offered = ["unified/cgroup.controllers", "cgroup.controllers"].iter().any(|name| {
        let controllers = fs::read_to_string(Path::new("/sys/fs/cgroup").join(name));
        controllers.is_ok_and(|list| list.contains("pids"))
    });
    if is_offered {
        return;
    }
    let bench = Bench::new();
    let mut spec = bench.spec("true");
    spec.limits.pids = Some(10);
    let error = bench.run(spec).await.unwrap_err();
    assert!(matches!(error, ExecutorError::MissingController { controller: "pids", .. }));
    assert!(error.to_string().contains("limiting processes needs the cgroup controller pids"));
}

#[tokio::test]
async fn a_dropped_step_leaves_no_group() {
    if !is_hidden("a_dropped_step_leaves_no_group") {
        return;
    }
    let bench = Bench::new();
    let (running, _stdout) = bench.start(bench.spec("exec sleep 91902")).await;
    drop(running);
    eventually("no cgroup is left", || cgroups(&bench.cgroup_parent) == 0).await;
}
