//! A root file system with busybox, and steps that run in it.
#![allow(dead_code, unreachable_pub, reason = "each test file takes what it needs")]

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kiln_executor::{
    Executor, ExecutorConfig, ExecutorError, Exit, Inert, Mount, ProcessIo, ProcessSpec, Rootfs,
    Running, UserNamespaceConfig, fork_zygote,
};
use tempfile::TempDir;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// An executor with a cgroup of its own, and a directory with a busybox layer.
pub struct Bench {
    pub executor: Executor,
    pub cgroup_parent: String,
    pub dir: TempDir,
}

/// What a step printed and how it ended.
#[derive(Debug)]
pub struct Outcome {
    pub stdout: String,
    pub stderr: String,
    pub exit: Exit,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(ExecutorConfig::default())
    }

    /// With this configuration but for the cgroup.
    pub fn with(config: ExecutorConfig) -> Self {
        let zygote = fork_zygote().unwrap();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cgroup_parent = format!("kiln-test-{}-{number}", std::process::id());
        let dir = tempfile::tempdir().unwrap();
        let user_namespace =
            config.user_namespace.or_else(|| has_users().then(|| users(dir.path())));
        let config =
            ExecutorConfig { cgroup_parent: cgroup_parent.clone(), user_namespace, ..config };
        let executor = Executor::new(zygote, config).unwrap();
        make_base(&dir.path().join("base"));
        Self { executor, cgroup_parent, dir }
    }

    pub fn base(&self) -> PathBuf {
        self.dir.path().join("base")
    }

    /// A step that runs `script` in a shell, on the base layer and a fresh upper directory.
    pub fn spec(&self, script: &str) -> ProcessSpec {
        self.command(&["/bin/sh", "-c", script])
    }

    pub fn command(&self, args: &[&str]) -> ProcessSpec {
        let id = format!("step-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let (upper, work) =
            (self.make_dir(&format!("{id}/upper")), self.make_dir(&format!("{id}/work")));
        let rootfs = Rootfs { lower: vec![self.base()], upper, work };
        ProcessSpec {
            env: vec!["PATH=/usr/bin:/bin".into()],
            hostname: "buildkitsandbox".into(),
            ..ProcessSpec::new(id, rootfs, args.iter().map(OsString::from).collect())
        }
    }

    pub fn make_dir(&self, name: &str) -> PathBuf {
        let dir = self.dir.path().join(name);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// Runs a step to its end.
    pub async fn run(&self, spec: ProcessSpec) -> Result<Outcome, ExecutorError> {
        let (io, stdout, stderr) = pipes();
        let mut running = self.executor.run(spec, io).await?;
        let read = tokio::task::spawn_blocking(move || (read(stdout), read(stderr)));
        let exit = running.wait().await?;
        let (stdout, stderr) = read.await.unwrap();
        Ok(Outcome { stdout, stderr, exit })
    }

    /// Runs a script and returns what it printed; panics unless it succeeds.
    pub async fn output(&self, script: &str) -> String {
        let outcome = self.run(self.spec(script)).await.unwrap();
        assert_eq!(outcome.exit.status, kiln_executor::ExitStatus::Code(0), "{outcome:?}");
        outcome.stdout
    }

    pub async fn start(&self, spec: ProcessSpec) -> (Running, std::fs::File) {
        let (io, stdout, _) = pipes();
        (self.executor.run(spec, io).await.unwrap(), stdout)
    }
}

/// Whether steps have a user namespace, in which nobody can make devices, also if a test does not say
/// so: with `KILN_TEST_USER_NAMESPACES=1`.
pub fn has_users() -> bool {
    std::env::var_os("KILN_TEST_USER_NAMESPACES").is_some_and(|value| value == "1")
}

/// The user namespace of steps whose layers are in `dir`.
pub fn users(dir: &Path) -> UserNamespaceConfig {
    let ids = "300000:65536".parse().unwrap();
    UserNamespaceConfig { ids, directory: dir.to_owned(), scratch: dir.join("scratch") }
}

/// Streams for a step and the ends to read them from.
pub fn pipes() -> (ProcessIo, fs::File, fs::File) {
    let (stdout, stdout_write) = std::io::pipe().unwrap();
    let (stderr, stderr_write) = std::io::pipe().unwrap();
    let io = ProcessIo { stdin: None, stdout: stdout_write.into(), stderr: stderr_write.into() };
    (io, OwnedFd::from(stdout).into(), OwnedFd::from(stderr).into())
}

pub fn read(mut file: fs::File) -> String {
    let mut content = Vec::new();
    file.read_to_end(&mut content).unwrap();
    String::from_utf8_lossy(&content).into_owned()
}

/// Every path below `dir`, sorted.
pub fn tree(dir: &Path) -> Vec<String> {
    fn walk(dir: &Path, prefix: &str, paths: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &format!("{path}/"), paths);
            }
            paths.push(path);
        }
    }
    let mut paths = Vec::new();
    walk(dir, "", &mut paths);
    paths.sort();
    paths
}

fn make_base(base: &Path) {
    for dir in ["bin", "dev", "proc", "sys", "etc", "tmp", "root"] {
        fs::create_dir_all(base.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", base.join("bin/busybox")).unwrap();
    let applets = "sh cat echo ls id hostname mount umount unshare sleep true false kill ps touch \
                   mkdir mknod ln rm stat grep ip head dd wc tty stty readlink chown printf env seq cut \
                   ping nc nslookup sed timeout test ulimit nproc date setsid chroot sort";
    for applet in applets.split_whitespace() {
        symlink("busybox", base.join("bin").join(applet)).unwrap();
    }
    fs::write(base.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
}

pub fn bind(source: PathBuf, target: &str) -> Mount {
    Mount::Bind {
        source,
        subpath: None,
        target: target.into(),
        read_only: false,
        recursive: true,
        inert: Inert::default(),
    }
}

/// Processes whose command line contains `mark`.
pub fn processes(mark: &str) -> usize {
    let has_mark = |pid: &Path| {
        fs::read(pid.join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(mark))
    };
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter(|entry| has_mark(&entry.as_ref().unwrap().path())).count()
}

/// Groups of steps below a parent, over all hierarchies; those kept ready for the next do not count.
pub fn cgroups(parent: &str) -> usize {
    fn leaves(dir: &Path) -> usize {
        let Ok(entries) = fs::read_dir(dir) else { return 0 };
        let entries = entries.flatten().filter(|entry| entry.path().is_dir());
        let is_used = |dir: &Path| {
            let name = dir.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with("step-")
                || fs::read(dir.join("cgroup.procs")).is_ok_and(|p| !p.is_empty())
        };
        entries.map(|entry| usize::from(is_used(&entry.path())) + leaves(&entry.path())).sum()
    }
    hierarchies().iter().map(|root| leaves(&root.join(parent))).sum()
}

/// What may be the root of a hierarchy: of version 2 where there is no other, or of one of several.
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let below = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    std::iter::once(root.to_owned()).chain(below).collect()
}

/// All groups that an executor has made below its parent.
pub fn all_cgroups(parent: &str) -> usize {
    let hierarchies = hierarchies();
    let dirs = hierarchies.iter().map(|root| root.join(parent).join("sandbox"));
    dirs.filter_map(|dir| {
        Some(fs::read_dir(dir).ok()?.flatten().filter(|e| e.path().is_dir()).count())
    })
    .sum()
}

/// How many hierarchies of control groups have groups of steps.
pub fn hierarchies_with(parent: &str) -> usize {
    hierarchies().iter().filter(|root| root.join(parent).exists()).count()
}

pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
