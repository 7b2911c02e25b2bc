//! Programs of the host that take part in setting a step up.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use common::{Bench, cgroups, eventually, pipes, processes, tree};
use kiln_executor::{ExecutorError, Hook, HookEnd, HookKind};

const KINDS: [HookKind; 3] =
    [HookKind::Prestart, HookKind::CreateRuntime, HookKind::CreateContainer];

/// A hook that is a shell script, which has the state in `$state` and the root in `$root`.
fn hook(kind: HookKind, script: &str) -> Hook {
    let script = format!(
        "state=$(cat); bundle=$(echo \"$state\" | sed 's/.*\"bundle\":\"\\([^\"]*\\)\".*/\\1/'); \
         root=$(sed 's/.*\"root\":{{\"path\":\"\\([^\"]*\\)\".*/\\1/' $bundle/config.json); {script}"
    );
    Hook {
        kind,
        path: "/bin/sh".into(),
        args: vec!["hook".into(), "-ec".into(), script, "first".into(), "second".into()],
        env: vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".into(), "MARK=of the hook".into()],
        timeout: None,
        declared_in: "/etc/cdi/vendor.yaml".into(),
    }
}

fn failure(error: ExecutorError) -> (HookEnd, String) {
    match error {
        ExecutorError::Hook { end, output, .. } => (end, output),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn hooks_see_the_state_and_change_the_root_in_the_order_of_their_kinds() {
    let bench = Bench::new();
    let mut spec = bench.spec("cat /said; cat /mnt/inside; readlink /link; ls /");
    let script = r#"echo "$0 $1 $MARK $(ls /proc/self/fd | wc -l)" >> $root/said"#;
    spec.hooks = KINDS
        .into_iter()
        .rev()
        .map(|kind| hook(kind, &format!("echo {kind} >> $root/said; {script}")))
        .collect();
    spec.hooks.push(hook(
        HookKind::CreateContainer,
        "test $(pwd -P) = $root; mkdir $root/mnt; busybox mount -t tmpfs none $root/mnt; \
         echo mounted > $root/mnt/inside; ln -s target $root/link; test -e $root/proc/1/status; \
         case $state in *'\"status\":\"creating\",\"pid\":1,'*) ;; *) exit 9 ;; esac",
    ));
    spec.hooks.push(hook(
        HookKind::CreateRuntime,
        "pid=$(echo \"$state\" | sed 's/.*\"pid\":\\([0-9]*\\),.*/\\1/'); \
         test $(cat /proc/$pid/comm) = kiln-init; test $(pwd -P) = $bundle; \
         test $(readlink /proc/$pid/ns/mnt) = $(readlink /proc/self/ns/mnt); \
         test $(readlink /proc/$pid/ns/pid) != $(readlink /proc/self/ns/pid); \
         case $state in *\"$(basename $(dirname $bundle))\"*) ;; *) exit 9 ;; esac",
    ));
    let upper = spec.rootfs.upper.clone();
    let outcome = bench.run(spec).await.unwrap();
    // Standard input, output and error, and the directory that is read.
    let said = "first second of the hook 4";
    assert_eq!(
        outcome.stdout,
        format!(
            "prestart\n{said}\ncreateRuntime\n{said}\ncreateContainer\n{said}\nmounted\ntarget\n\
             bin\ndev\netc\nlink\nmnt\nproc\nroot\nsaid\nsys\ntmp\n"
        ),
        "{outcome:?}"
    );
    // What is mounted is not in the layer, and what is made belongs to the step's root.
    assert_eq!(tree(&upper), ["link", "mnt", "said"]);
    assert_eq!(fs::metadata(upper.join("said")).unwrap().uid(), 0);
}

#[tokio::test]
async fn hooks_of_the_container_are_in_the_group_of_the_step() {
    let bench = Bench::new();
    let mut spec = bench.spec("cat /groups");
    spec.hooks = vec![hook(HookKind::CreateContainer, "cat /proc/self/cgroup > $root/groups")];
    let groups = bench.run(spec).await.unwrap().stdout;
    assert!(groups.contains(&bench.cgroup_parent), "{groups}");
    let mut spec = bench.spec("cat /groups");
    spec.hooks =
        KINDS[..2].iter().map(|kind| hook(*kind, "cat /proc/self/cgroup > $root/groups")).collect();
    let groups = bench.run(spec).await.unwrap().stdout;
    assert!(!groups.is_empty() && !groups.contains(&bench.cgroup_parent), "{groups}");
}

#[tokio::test]
async fn a_hook_that_fails_keeps_the_step_from_running() {
    let bench = Bench::new();
    for kind in KINDS {
        let mut spec = bench.spec("touch /ran");
        spec.hooks = vec![
            hook(kind, "touch $root/made; seq 2000; echo the reason >&2; exit 3"),
            hook(kind, "touch $root/later"),
        ];
        let upper = spec.rootfs.upper.clone();
        let error = bench.run(spec).await.unwrap_err();
        let expected = format!("{kind} hook /bin/sh of /etc/cdi/vendor.yaml exited with code 3: ");
        assert!(error.to_string().starts_with(&expected), "{error}");
        let (end, output) = failure(error);
        assert_eq!(end, HookEnd::Code(3));
        assert!(output.ends_with("1999\n2000\nthe reason"), "{output}");
        assert!(output.len() < 5000 && output.split('\n').all(|line| line.len() > 3), "{output}");
        assert!(tree(&upper).contains(&"made".to_owned()));
        assert!(!tree(&upper).iter().any(|name| name == "ran" || name == "later"));
    }
    eventually("no cgroup is left", || cgroups(&bench.cgroup_parent) == 0).await;
}

#[tokio::test]
async fn what_keeps_a_hook_from_being_executed_is_told() {
    let bench = Bench::new();
    for kind in KINDS {
        for (path, reason) in [("/no/such/hook", libc::ENOENT), ("/etc/passwd", libc::EACCES)] {
            let mut spec = bench.spec("true");
            spec.hooks = vec![Hook { path: path.into(), args: Vec::new(), ..hook(kind, "") }];
            let (end, output) = failure(bench.run(spec).await.unwrap_err());
            assert_eq!((end, output.as_str()), (HookEnd::NotExecuted(reason), ""), "{kind}");
        }
        let mut spec = bench.spec("true");
        spec.hooks = vec![hook(kind, "kill -9 $$")];
        assert_eq!(failure(bench.run(spec).await.unwrap_err()).0, HookEnd::Signal(9));
        let mut spec = bench.spec("true");
        spec.hooks = vec![Hook { path: "relative".into(), ..hook(kind, "") }];
        let error = bench.run(spec).await.unwrap_err();
        assert!(matches!(error, ExecutorError::InvalidSpec { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_hook_that_takes_too_long_is_killed_with_all_that_it_has_started() {
    let bench = Bench::new();
    for (kind, mark) in KINDS.into_iter().zip(["91811", "91812", "91813"]) {
        let mut spec = bench.spec("touch /ran");
        let script =
            format!("setsid sleep {mark} & (setsid sleep {mark} &); echo begun; sleep {mark}");
        spec.hooks =
            vec![Hook { timeout: Some(Duration::from_millis(300)), ..hook(kind, &script) }];
        let started = Instant::now();
        let (end, output) = failure(bench.run(spec).await.unwrap_err());
        assert_eq!((end, output.as_str()), (HookEnd::TimedOut, "begun"), "{kind}");
        assert!(started.elapsed() > Duration::from_millis(300));
        assert_eq!(processes(mark), 0, "{kind}");
    }
}

#[tokio::test]
async fn what_a_hook_leaves_running_ends_with_it() {
    let bench = Bench::new();
    for (kind, mark) in KINDS.into_iter().zip(["91814", "91815", "91816"]) {
        let mut spec = bench.spec("ps; exec true");
        // With its output open, too.
        spec.hooks =
            vec![hook(kind, &format!("setsid sleep {mark} & (setsid sleep {mark} &); exit 0"))];
        let outcome = bench.run(spec).await.unwrap();
        assert!(!outcome.stdout.contains("sleep"), "{outcome:?}");
        assert_eq!(processes(mark), 0, "{kind}");
    }
}

#[tokio::test]
async fn a_step_given_up_while_a_hook_runs_leaves_nothing() {
    let bench = Bench::new();
    let mounts = || fs::read_to_string("/proc/self/mounts").unwrap();
    let before = mounts();
    for (kind, mark) in KINDS.into_iter().zip(["91817", "91818", "91819"]) {
        let mut spec = bench.spec("true");
        spec.hooks = vec![hook(kind, &format!("setsid sleep {mark} & sleep {mark}"))];
        let work = spec.rootfs.work.clone();
        let (io, _stdout, _stderr) = pipes();
        tokio::select! {
            started = bench.executor.run(spec, io) => panic!("{started:?}"),
            () = eventually("the hook runs", || processes(mark) >= 2) => {}
        }
        eventually("no process is left", || processes(mark) == 0).await;
        assert_eq!(tree(&work).iter().filter(|path| path.contains("config.json")).count(), 0);
    }
    eventually("no cgroup is left", || cgroups(&bench.cgroup_parent) == 0).await;
    assert_eq!(mounts(), before);
}

#[tokio::test]
async fn the_end_of_the_daemon_is_the_end_of_hooks() {
    for (kind, mark) in KINDS.into_iter().zip(["91820", "91821", "91822"]) {
        let bench = Bench::new();
        let mut spec = bench.spec("true");
        spec.hooks = vec![hook(kind, &format!("setsid sleep {mark} & sleep {mark}"))];
        let (io, _stdout, _stderr) = pipes();
        tokio::select! {
            started = bench.executor.run(spec, io) => panic!("{started:?}"),
            () = eventually("the hook runs", || processes(mark) >= 2) => {}
        }
        // As when the daemon dies: its descriptors close.
        drop(bench);
        eventually("no process is left", || processes(mark) == 0).await;
    }
}

#[tokio::test]
async fn the_step_has_nothing_of_where_its_hooks_ran() {
    let bench = Bench::new();
    let secret = bench.dir.path().join("of-the-host");
    fs::write(&secret, "").unwrap();
    let script = format!(
        "cut -d ' ' -f 5 /proc/self/mountinfo | sort -u;          cd / && for i in 1 2 3 4 5 6 7 8; do cd ..; done; ls -d .{secret} 2>&1;          ls /proc/1/fd 2>/dev/null; touch /x 2>&1",
        secret = secret.display()
    );
    let mut with = bench.spec(&script);
    with.read_only_root = true;
    let mut without = with.clone();
    let other = bench.spec("");
    without.rootfs = other.rootfs;
    with.hooks = KINDS.into_iter().map(|kind| hook(kind, "echo x > $root/etc/made")).collect();
    let (with, without) = (bench.run(with).await.unwrap(), bench.run(without).await.unwrap());
    assert_eq!(with.stdout, without.stdout);
    assert!(with.stdout.contains("Read-only file system"), "{}", with.stdout);
}
