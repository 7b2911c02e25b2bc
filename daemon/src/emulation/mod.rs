//! Which platforms steps can be run for here: the host's own, and those whose programs the kernel
//! hands to an emulator (binfmt_misc).
//!
//! It is found out by trying: a tiny program of each architecture is run as a step, so that an
//! emulator counts only if it works in a root file system that does not have it.

mod program;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::future::join_all;
use kiln_executor::{Executor, ExitStatus, ProcessIo, ProcessSpec, Rootfs};
use rustix::fs::{Mode, OFlags, open};
use tokio::sync::Mutex;

use crate::image::Platform;
use program::ARCHITECTURES;

/// Where the kernel shows what is registered, if that is mounted.
const REGISTERED: &str = "/proc/sys/fs/binfmt_misc";

/// How long an answer holds where it cannot be seen what is registered.
const FRESH: Duration = Duration::from_secs(20);

/// What has been found out.
#[derive(Debug, Default)]
pub(crate) struct Emulation(Mutex<Option<Found>>);

#[derive(Debug)]
struct Found {
    platforms: Vec<Platform>,
    registered: Option<BTreeMap<String, Vec<u8>>>,
    at: Instant,
}

impl Emulation {
    /// The platforms, the host's own first. Tries them anew if something else is registered than the
    /// last time.
    pub(crate) async fn platforms(&self, executor: &Executor, tmp: &Path) -> Vec<Platform> {
        let mut found = self.0.lock().await;
        let registered = registered();
        if let Some(found) = &*found
            && found.registered == registered
            && (registered.is_some() || found.at.elapsed() < FRESH)
        {
            return found.platforms.clone();
        }
        let platforms = detect(executor, tmp).await;
        let platforms = platforms.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot find out which platforms are emulated");
            own()
        });
        *found = Some(Found { platforms: platforms.clone(), registered, at: Instant::now() });
        platforms
    }
}

/// What is registered, by name; `None` if that cannot be seen.
fn registered() -> Option<BTreeMap<String, Vec<u8>>> {
    let entries = std::fs::read_dir(REGISTERED).ok()?.flatten();
    // The file that registers can be written only.
    let read = entries.filter_map(|entry| {
        Some((entry.file_name().into_string().ok()?, std::fs::read(entry.path()).ok()?))
    });
    let registered: BTreeMap<_, _> = read.collect();
    (!registered.is_empty()).then_some(registered)
}

/// The platforms of the host's own architecture.
fn own() -> Vec<Platform> {
    let host = Platform::host();
    let newer =
        cpu_variants().iter().map(|variant| Platform::new("linux", &host.architecture, variant));
    let newer: Vec<_> = newer.collect();
    [vec![host], newer].concat()
}

/// The levels of x86-64 that the CPU has besides the first.
#[cfg(target_arch = "x86_64")]
fn cpu_variants() -> &'static [&'static str] {
    use std::arch::is_x86_feature_detected as has;
    let v2 = has!("cmpxchg16b")
        && has!("popcnt")
        && has!("sse3")
        && has!("ssse3")
        && has!("sse4.1")
        && has!("sse4.2");
    let v3 = v2
        && has!("avx")
        && has!("avx2")
        && has!("bmi1")
        && has!("bmi2")
        && has!("f16c")
        && has!("fma")
        && has!("lzcnt")
        && has!("movbe")
        && has!("xsave");
    let v4 = v3
        && has!("avx512f")
        && has!("avx512bw")
        && has!("avx512cd")
        && has!("avx512dq")
        && has!("avx512vl");
    match (v2, v3, v4) {
        (_, _, true) => &["v2", "v3", "v4"],
        (_, true, _) => &["v2", "v3"],
        (true, ..) => &["v2"],
        _ => &[],
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_variants() -> &'static [&'static str] {
    &[]
}

async fn detect(executor: &Executor, tmp: &Path) -> anyhow::Result<Vec<Platform>> {
    let folder = tempfile::tempdir_in(tmp).context("cannot make a folder")?;
    let mut platforms = own();
    let tries = ARCHITECTURES.iter().map(|architecture| async {
        let works = works(executor, &folder.path().join(architecture.name), architecture).await;
        works.unwrap_or_else(|error| {
            tracing::debug!(architecture = architecture.name, error = %format!("{error:#}"),
                "programs of this architecture do not run");
            false
        })
    });
    for (architecture, works) in ARCHITECTURES.iter().zip(join_all(tries).await) {
        for variant in architecture.variants.iter().filter(|_| works) {
            let platform = Platform::new("linux", architecture.name, variant);
            if !platforms.contains(&platform) {
                platforms.push(platform);
            }
        }
    }
    Ok(platforms)
}

/// Whether the program of an architecture runs, as a step with nothing but it.
async fn works(
    executor: &Executor,
    folder: &Path,
    architecture: &program::Architecture,
) -> anyhow::Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| folder.join(name));
    for dir in [&lower, &upper, &work] {
        std::fs::create_dir_all(dir)?;
    }
    for dir in ["dev", "proc", "sys"] {
        std::fs::create_dir(lower.join(dir))?;
    }
    let program = lower.join("check");
    std::fs::write(&program, architecture.program())?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    let null = || open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let id = format!("emulation-{}", architecture.name);
    let rootfs = Rootfs { lower: vec![lower], upper, work };
    let spec = ProcessSpec::new(id, rootfs, vec!["/check".into()]);
    let io = ProcessIo { stdin: None, stdout: null()?, stderr: null()? };
    let exit = executor.run(spec, io).await?.wait().await?;
    Ok(exit.status == ExitStatus::Code(0))
}
