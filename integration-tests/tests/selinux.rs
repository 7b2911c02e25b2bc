//! Steps with the labels that the host's SELinux policy has for containers.

use std::fs;
use std::path::{Path, PathBuf};

use kiln_integration_tests::{Context, World};

/// What the policies of this host name for containers; `None` without SELinux.
fn labels() -> Option<String> {
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        return None;
    }
    let policies = fs::read_dir("/etc/selinux").expect("policies").flatten();
    let contexts = policies.map(|policy| policy.path().join("contexts/lxc_contexts"));
    Some(contexts.filter_map(|path| fs::read_to_string(path).ok()).collect())
}

/// The label that `key` names.
fn label(labels: &str, key: &str) -> String {
    let line = labels.lines().find_map(|line| line.strip_prefix(&format!("{key} = \"")));
    line.expect("a label").trim_end_matches('"').to_owned()
}

/// The files in a directory and below.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn label_of(path: &Path) -> String {
    let mut label = [0; 256];
    let length = rustix::fs::lgetxattr(path, "security.selinux", &mut label[..]).expect("a label");
    String::from_utf8_lossy(&label[..length]).trim_end_matches('\0').to_owned()
}

#[test]
fn steps_are_labelled_as_the_hosts_policy_has_it_or_the_daemon_does_not_start() {
    let mut world = World::start();
    let Some(labels) = labels() else {
        world.daemon.stop();
        world.daemon.label_steps();
        let said = world.daemon.refuses_to_start();
        assert!(said.contains("worker.oci.selinux: this host does not have SELinux"), "{said}");
        return;
    };
    let cache = "--mount=type=cache,target=/cache";
    let context = Context::new().file("f", "").dockerfile(&format!(
        "
        FROM busybox
        RUN {cache} touch /cache/before
        RUN {cache} echo command $(cat /proc/self/attr/current) && touch /cache/after
        RUN mount | sed -n 's/.* on \\(.*\\) type .*[(,]context=\\([^,)]*\\).*/\\1 \\2/p'
        RUN --mount=type=tmpfs,target=/t --mount=type=secret,id=s --mount=target=/src \
            touch /t/f /dev/shm/f && cat /run/secrets/s /src/f
        RUN --security=insecure echo insecure $(cat /proc/self/attr/current)
        "
    ));
    let build = |world: &World| {
        let build = world.build(&context).args(["--allow", "security.insecure", "--no-cache"]);
        build.args(["--secret", "id=s,env=SECRET"]).env("SECRET", "said\n").succeeds()
    };
    // What is there already when the labels come.
    build(&world);
    world.daemon.stop();
    world.daemon.label_steps();
    world.daemon.start_again();
    let built = build(&world);
    let (process, file) = (label(&labels, "process"), label(&labels, "file"));
    built.says(&format!("command {process}"));
    for place in ["/", "/dev", "/dev/pts", "/dev/shm"] {
        built.says(&format!("{place} {file}"));
    }
    let own = fs::read_to_string(format!("/proc/{}/attr/current", world.daemon.id()));
    let own = own.expect("the daemon's label");
    built.says(&format!("insecure {}", own.trim_end_matches('\0'))).says("said");
    let cached = files(&world.daemon.root().join("cachemounts"));
    assert_eq!(cached.len(), 2, "{cached:?}");
    let layers = files(&world.daemon.root().join("snapshots"));
    // Those that were made later have the user who made them, which policies for containers ignore.
    let without_user = |label: &str| label.split_once(':').map(|(_, rest)| rest.to_owned());
    for path in cached.into_iter().chain(layers) {
        assert_eq!(without_user(&label_of(&path)), without_user(&file), "{}", path.display());
    }
}
