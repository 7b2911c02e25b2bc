//! The root file system and the mounts in it.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;

use common::{Bench, bind, has_users, tree};
use kiln_executor::{Device, ExecutorError, ExitStatus, Inert, InvalidSpec, Mount, OverlayUpper};

#[tokio::test]
async fn the_upper_directory_has_what_the_command_wrote_and_nothing_else() {
    let bench = Bench::new();
    let spec =
        bench.spec("echo x > /etc/new; rm /etc/passwd; mkdir /dir; echo y > /tmp/y; rm /tmp/y");
    let upper = spec.rootfs.upper.clone();
    bench.run(spec).await.unwrap();
    assert_eq!(tree(&upper), ["dir", "etc", "etc/new", "etc/passwd", "tmp"]);
    assert_eq!(fs::read_to_string(upper.join("etc/new")).unwrap(), "x\n");
    assert_eq!(fs::metadata(upper.join("etc/passwd")).unwrap().rdev(), 0, "a whiteout");
    assert!(!bench.base().join("etc/new").exists());
}

#[tokio::test]
async fn many_layers_are_joined_bottom_first() {
    let bench = Bench::new();
    let mut spec = bench.spec("cat /which; ls /layers | wc -l");
    for number in 0..130 {
        // Names as long as a deep root directory makes them.
        let layer = bench.make_dir(&format!("layer-{number}-{}", "x".repeat(100)));
        fs::write(layer.join("which"), format!("{number}\n")).unwrap();
        fs::create_dir(layer.join("layers")).unwrap();
        fs::write(layer.join(format!("layers/{number}")), "").unwrap();
        spec.rootfs.lower.push(layer);
    }
    assert_eq!(bench.run(spec).await.unwrap().stdout, "129\n130\n");
}

#[tokio::test]
async fn layers_with_long_or_odd_paths_are_joined() {
    let bench = Bench::new();
    let mut spec = bench.spec("cat /a /b && echo x > /new");
    let long = bench.make_dir(&format!("{0}/{0}/colon:comma,", "l".repeat(200)));
    fs::write(long.join("a"), "a\n").unwrap();
    let odd = bench.make_dir("back\\slash:and,more");
    fs::write(odd.join("b"), "b\n").unwrap();
    spec.rootfs.lower.extend([long, odd]);
    spec.rootfs.upper = bench.make_dir("up\\per:,");
    spec.rootfs.work = bench.make_dir("wo\\rk:,");
    let upper = spec.rootfs.upper.clone();
    assert_eq!(bench.run(spec).await.unwrap().stdout, "a\nb\n");
    assert_eq!(tree(&upper), ["new"]);
}

#[tokio::test]
async fn a_root_without_layers_is_refused() {
    let bench = Bench::new();
    let mut spec = bench.spec("true");
    spec.rootfs.lower.clear();
    let error = bench.run(spec).await.unwrap_err();
    assert!(matches!(error, ExecutorError::InvalidSpec { reason: InvalidSpec::NoLayers(_), .. }));
}

#[tokio::test]
async fn a_missing_layer_is_named() {
    let bench = Bench::new();
    let mut spec = bench.spec("true");
    spec.rootfs.lower.push(PathBuf::from("/missing/layer"));
    let message = bench.run(spec).await.unwrap_err().to_string();
    assert!(message.contains("/missing/layer"), "{message}");
}

#[tokio::test]
async fn binds_of_directories_and_files_are_writable_or_not() {
    let bench = Bench::new();
    let dir = bench.make_dir("cache");
    fs::write(dir.join("file"), "content\n").unwrap();
    let read_only = |source: PathBuf, target: &str| Mount::Bind {
        source,
        subpath: None,
        target: target.into(),
        read_only: true,
        recursive: true,
        inert: Inert::default(),
    };
    let mut spec = bench.spec(
        "cat /ro/file /f; echo new > /rw/new; ! touch /ro/x 2>/dev/null && ! echo x 2>/dev/null > /f",
    );
    spec.mounts = vec![
        bind(dir.clone(), "/rw"),
        read_only(dir.clone(), "/ro"),
        read_only(dir.join("file"), "/f"),
    ];
    let outcome = bench.run(spec).await.unwrap();
    assert_eq!(outcome.stdout, "content\ncontent\n");
    assert_eq!(outcome.exit.status, ExitStatus::Code(0), "{outcome:?}");
    assert_eq!(tree(&dir), ["file", "new"]);
}

#[tokio::test]
async fn part_of_a_source_is_resolved_inside_it() {
    let bench = Bench::new();
    let source = bench.make_dir("source/sub/dir");
    fs::write(source.join("file"), "inside\n").unwrap();
    symlink("/sub/dir", bench.dir.path().join("source/link")).unwrap();
    let mut spec = bench.spec("cat /m/file");
    spec.mounts = vec![Mount::Bind {
        source: bench.dir.path().join("source"),
        subpath: Some("/link".into()),
        target: "/m".into(),
        read_only: true,
        recursive: false,
        inert: Inert::default(),
    }];
    assert_eq!(bench.run(spec).await.unwrap().stdout, "inside\n");
}

#[tokio::test]
async fn an_overlay_mount_discards_or_keeps_what_is_written() {
    let bench = Bench::new();
    let (one, two) = (bench.make_dir("one/sub"), bench.make_dir("two/sub"));
    fs::write(one.join("a"), "1\n").unwrap();
    fs::write(two.join("b"), "2\n").unwrap();
    let (upper, work) = (bench.make_dir("o-upper"), bench.make_dir("o-work"));
    let lower = vec![bench.dir.path().join("one"), bench.dir.path().join("two")];
    let mut spec =
        bench.spec("cat /m/sub/a /m/sub/b /part/a /single/a; echo x > /m/new; ! touch /part/x");
    let mount = |lower: Vec<PathBuf>, upper, subpath: Option<&str>, target: &str| Mount::Overlay {
        lower,
        upper,
        subpath: subpath.map(Into::into),
        target: target.into(),
        read_only: false,
    };
    spec.mounts = vec![
        mount(lower.clone(), Some(OverlayUpper { upper: upper.clone(), work }), None, "/m"),
        mount(lower.clone(), None, Some("sub"), "/part"),
        mount(lower[..1].to_vec(), None, Some("sub"), "/single"),
    ];
    let outcome = bench.run(spec).await.unwrap();
    assert_eq!(outcome.stdout, "1\n2\n1\n1\n", "{outcome:?}");
    assert_eq!(outcome.exit.status, ExitStatus::Code(0));
    assert_eq!(tree(&upper), ["new"]);
}

#[tokio::test]
async fn a_tmpfs_has_the_size_and_mode_asked_for() {
    let bench = Bench::new();
    let mut spec = bench.spec(
        "stat -c %a /t; dd if=/dev/zero of=/t/x bs=1024 count=100 2>/dev/null; stat -c %s /t/x",
    );
    spec.mounts = vec![Mount::Tmpfs { target: "/t".into(), size: Some(65536), mode: 0o1777 }];
    assert_eq!(bench.run(spec).await.unwrap().stdout, "1777\n65536\n");
}

#[tokio::test]
async fn files_in_memory_are_read_only_and_owned_as_asked() {
    let bench = Bench::new();
    let mut spec = bench.spec(
        "cat /etc/resolv.conf /run/secrets/key; stat -c '%a %u %g' /run/secrets/key; \
         ! echo x > /run/secrets/key; ! rm /run/secrets/key",
    );
    let file = |content: &str, target: &str, mode| Mount::File {
        content: content.into(),
        target: target.into(),
        mode,
        uid: 7,
        gid: 8,
    };
    spec.mounts = vec![
        file("nameserver 192.0.2.1\n", "/etc/resolv.conf", 0o644),
        file("hush\n", "/run/secrets/key", 0o400),
    ];
    let upper = spec.rootfs.upper.clone();
    let outcome = bench.run(spec).await.unwrap();
    assert_eq!(outcome.stdout, "nameserver 192.0.2.1\nhush\n400 7 8\n", "{outcome:?}");
    assert_eq!(outcome.exit.status, ExitStatus::Code(0));
    assert_eq!(tree(&upper), [""; 0]);
}

#[tokio::test]
async fn a_large_file_in_memory_arrives_whole() {
    let bench = Bench::new();
    let mut spec = bench.spec("wc -c < /big");
    let content = vec![b'x'; 3 << 20];
    spec.mounts = vec![Mount::File { content, target: "/big".into(), mode: 0o644, uid: 0, gid: 0 }];
    assert_eq!(bench.run(spec).await.unwrap().stdout.trim(), "3145728");
}

#[tokio::test]
async fn mount_targets_leave_no_trace_in_the_layer() {
    let bench = Bench::new();
    let source = bench.make_dir("source");
    let etc_before = fs::metadata(bench.base().join("etc")).unwrap();
    let mut spec =
        bench.spec("echo x > /etc/deep/down/kept; ls -d /a/b/c /etc/deep/target /root/t");
    spec.mounts = vec![
        bind(source.clone(), "/a/b/c"),
        bind(source.clone(), "/etc/deep/target"),
        bind(source.clone(), "/etc/deep/down/there"),
        bind(source.clone(), "/root/t"),
    ];
    let upper = spec.rootfs.upper.clone();
    let outcome = bench.run(spec).await.unwrap();
    assert_eq!(outcome.exit.status, ExitStatus::Code(0), "{outcome:?}");
    // What the command put next to a target stays, with the directories that it is in.
    assert_eq!(tree(&upper), ["etc", "etc/deep", "etc/deep/down", "etc/deep/down/kept"]);
    let etc_after = fs::metadata(upper.join("etc")).unwrap();
    assert_eq!(etc_after.mtime_nsec(), etc_before.mtime_nsec());
}

#[tokio::test]
async fn a_target_directory_that_the_command_changed_is_kept() {
    let bench = Bench::new();
    let source = bench.make_dir("source");
    let mut spec = bench.spec("chmod 700 /root");
    spec.mounts = vec![bind(source, "/root/t")];
    let upper = spec.rootfs.upper.clone();
    bench.run(spec).await.unwrap();
    assert_eq!(tree(&upper), ["root"]);
    assert_eq!(fs::metadata(upper.join("root")).unwrap().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn links_in_mount_targets_do_not_lead_out() {
    let bench = Bench::new();
    let source = bench.make_dir("source");
    fs::write(source.join("mark"), "").unwrap();
    let outside = bench.make_dir("outside");
    let layer = bench.make_dir("layer");
    symlink(&outside, layer.join("absolute")).unwrap();
    symlink("../../../../../../../../tmp", layer.join("up")).unwrap();
    symlink("missing/sub", layer.join("dangling")).unwrap();
    symlink("/proc/1/root", layer.join("magic")).unwrap();
    let mut spec = bench.spec("ls -d /tmp/mark /missing/sub/mark; readlink /absolute");
    spec.rootfs.lower.push(layer);
    spec.mounts = vec![
        bind(source.clone(), "/absolute"),
        bind(source.clone(), "/up"),
        bind(source.clone(), "/dangling"),
    ];
    let outcome = bench.run(spec).await.unwrap();
    let link = format!("{}\n", outside.display());
    assert_eq!(outcome.stdout, format!("/missing/sub/mark\n/tmp/mark\n{link}"), "{outcome:?}");
    assert_eq!(tree(&outside), [""; 0]);
}

#[tokio::test]
async fn nothing_is_mounted_into_proc() {
    let bench = Bench::new();
    let source = bench.make_dir("source");
    for target in ["/proc", "/proc/self/attr", "/proc/1/root/tmp", "/proc/sys"] {
        let mut spec = bench.spec("true");
        spec.mounts = vec![bind(source.clone(), target)];
        let error = bench.run(spec).await.unwrap_err();
        assert!(error.to_string().contains(target), "{error}");
    }
}

#[tokio::test]
async fn a_link_in_place_of_proc_is_refused() {
    let bench = Bench::new();
    let layer = bench.make_dir("layer");
    symlink("tmp", layer.join("proc")).unwrap();
    let mut spec = bench.spec("true");
    spec.rootfs.lower.push(layer);
    let error = bench.run(spec).await.unwrap_err();
    assert!(matches!(error, ExecutorError::Setup { .. }), "{error}");
}

#[tokio::test]
async fn mounts_lie_inside_each_other_in_their_order() {
    let bench = Bench::new();
    let source = bench.make_dir("source");
    fs::write(source.join("file"), "").unwrap();
    let mut spec = bench.spec("ls /t /t/in; touch /t/x");
    spec.mounts = vec![
        Mount::Tmpfs { target: "/t".into(), size: None, mode: 0o755 },
        bind(source.clone(), "/t/in"),
    ];
    let upper = spec.rootfs.upper.clone();
    assert_eq!(bench.run(spec).await.unwrap().stdout, "/t:\nin\n\n/t/in:\nfile\n");
    assert_eq!(tree(&upper), [""; 0]);
}

#[tokio::test]
async fn a_read_only_root_keeps_its_other_mounts_writable() {
    let bench = Bench::new();
    let cache = bench.make_dir("cache");
    let mut spec = bench.spec("! touch /x && touch /cache/x /dev/shm/x");
    spec.read_only_root = true;
    spec.mounts = vec![bind(cache.clone(), "/cache")];
    let outcome = bench.run(spec).await.unwrap();
    assert_eq!(outcome.exit.status, ExitStatus::Code(0), "{outcome:?}");
    assert_eq!(tree(&cache), ["x"]);
}

#[tokio::test]
async fn shared_memory_has_the_size_asked_for() {
    let bench = Bench::new();
    let fill = "dd if=/dev/zero of=/dev/shm/x bs=4096 2>/dev/null; stat -c %s /dev/shm/x";
    let mut spec = bench.spec(fill);
    spec.shm_size = Some(1 << 20);
    assert_eq!(bench.run(spec).await.unwrap().stdout, "1048576\n");
    assert_eq!(bench.output(fill).await, "67108864\n");
}

#[tokio::test]
async fn a_device_that_is_given_can_be_used_and_others_cannot() {
    let bench = Bench::new();
    let loop_control = |target: &str| Mount::Device {
        source: "/dev/loop-control".into(),
        device: Device { is_block: false, major: 10, minor: 237, read: true, write: false },
        target: target.into(),
        mode: 0o640,
        uid: 7,
        gid: 8,
    };
    let script = "stat -c '%F %a %u %g' /dev/given /made/given; true < /dev/given && echo opened; \
                  echo x > /dev/given; mknod /mem c 1 1 && head -c 1 /mem";
    let mut spec = bench.spec(&format!("({script}) 2>&1"));
    spec.mounts = vec![loop_control("/dev/given"), loop_control("/made/given")];
    let upper = spec.rootfs.upper.clone();
    let outcome = bench.run(spec).await.unwrap();
    let (refused, made) = if has_users() { ("mknod", vec![]) } else { ("head", vec!["mem"]) };
    let expected = format!(
        "character special file 640 7 8\ncharacter special file 640 7 8\nopened\n\
         /bin/sh: can't create /dev/given: Operation not permitted\n\
         {refused}: /mem: Operation not permitted\n"
    );
    assert_eq!(outcome.stdout, expected);
    // What was made for it to be mounted on is not part of the result.
    assert_eq!(tree(&upper), made);
}
