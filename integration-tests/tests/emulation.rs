//! Steps for other architectures than the host's.

use std::fs;
use std::path::Path;
use std::process::Command;

use kiln_integration_tests::{Context, LayerTar, World, worker};
use serde_json::json;

const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

/// The start of a program for LoongArch, which no other test has to do with.
const FOREIGN: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x02\x01";

/// The kernel's file system of emulators, in its place for as long as this lives.
struct Binfmt {
    is_mounted_here: bool,
}

impl Binfmt {
    fn mount() -> Self {
        let is_mounted_here = !Path::new(BINFMT).join("register").exists();
        if is_mounted_here {
            let mut mount = Command::new("mount");
            let mount = mount.args(["-t", "binfmt_misc", "binfmt_misc", BINFMT]).status();
            assert!(mount.expect("mount").success());
        }
        Self { is_mounted_here }
    }

    /// Registers an emulator for programs that begin as [`FOREIGN`].
    fn register<'a>(&'a self, emulator: &Path, flags: &str) -> Registered<'a> {
        let escape = |byte: &u8| format!("\\x{byte:02x}");
        let magic: String = FOREIGN.iter().map(escape).collect();
        let name = format!("kiln-test-{}", std::process::id());
        let line = format!(":{name}:M::{magic}::{}:{flags}", emulator.display());
        fs::write(format!("{BINFMT}/register"), line).expect("an emulator is registered");
        Registered { name, _binfmt: self }
    }
}

impl Drop for Binfmt {
    fn drop(&mut self) {
        if self.is_mounted_here {
            let _ = Command::new("umount").arg(BINFMT).status();
        }
    }
}

/// An emulator that is registered for as long as this lives.
struct Registered<'a> {
    name: String,
    _binfmt: &'a Binfmt,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let _ = fs::write(format!("{BINFMT}/{}", self.name), "-1");
    }
}

async fn has_platform(world: &World) -> bool {
    let platforms = worker(&world.daemon).await.platforms;
    platforms.iter().any(|platform| platform.architecture == "loong64")
}

/// The emulator is a busybox by the name of echo: it says which program it was to run, and with what.
#[tokio::test]
async fn an_emulator_is_found_when_it_is_registered_and_runs_steps() {
    // Before the daemon starts: a user's has a mount namespace of its own.
    let binfmt = Binfmt::mount();
    let world = World::start();
    let program = LayerTar::new().file("bin/foreign", 0o755, FOREIGN).finish();
    let config = json!({"os": "linux", "architecture": "loong64"});
    world.registry.push("my/foreign:latest", &[program], &config);
    let context = Context::new().dockerfile(
        "FROM --platform=linux/loong64 my/foreign\nRUN [\"/bin/foreign\", \"to\", \"you\"]",
    );
    let build = || world.build(&context).arg("--no-cache");

    assert!(!has_platform(&world).await);
    build().fails().says("without an emulator for it");

    let folder = Context::new();
    let emulator = folder.at("echo");
    let busybox =
        ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    fs::copy(busybox.expect("busybox"), &emulator).expect("a copy of busybox");

    let registered = binfmt.register(&emulator, "F");
    assert!(has_platform(&world).await);
    build().succeeds().says("/bin/foreign to you");
    drop(registered);
    assert!(!has_platform(&world).await);

    // Without the flag, the kernel looks for the emulator in the image.
    let registered = binfmt.register(&emulator, "");
    assert!(!has_platform(&world).await);
    build().fails().says("without the flag F (fix binary)");
    drop(registered);
}

#[tokio::test]
async fn the_platforms_of_the_host_and_of_the_configuration_are_listed() {
    let mut world = World::start();
    let names = |platforms: Vec<kiln_proto::pb::Platform>| {
        let name = |platform: kiln_proto::pb::Platform| {
            let variant = if platform.variant.is_empty() {
                String::new()
            } else {
                format!("/{}", platform.variant)
            };
            format!("{}/{}{variant}", platform.os, platform.architecture)
        };
        platforms.into_iter().map(name).collect::<Vec<_>>()
    };
    let found = names(worker(&world.daemon).await.platforms);
    let host = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
    assert_eq!(found[0], host);
    let flags = fs::read_to_string("/proc/cpuinfo").expect("what the CPU has");
    let is_v3 = flags.contains(" avx2 ") && flags.contains(" bmi2 ") && flags.contains(" fma ");
    assert_eq!(found.contains(&"linux/amd64/v3".to_owned()), is_v3, "{found:?}");

    world.daemon.configure_worker("platforms = [\"linux/s390x\"]");
    let configured = names(worker(&world.daemon).await.platforms);
    assert_eq!(configured[..2], ["linux/s390x", host]);
}
