//! The base image that tests build from, made without Kiln.

use std::fs;
use std::process::Command;

use crate::layer::LayerTar;

/// Debian's static busybox with a link for each of its applets, and the few files that programs
/// look for.
pub fn busybox_layer() -> Vec<u8> {
    let program = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| fs::exists(path).unwrap_or(false))
        .expect("busybox is missing: run `make deps`, or install busybox-static");
    let applets = Command::new(program).arg("--list").output().expect("busybox --list").stdout;
    let mut layer = LayerTar::new().dir("bin", 0o755).file(
        "bin/busybox",
        0o755,
        &fs::read(program).expect("busybox"),
    );
    for applet in String::from_utf8_lossy(&applets).lines().filter(|name| *name != "busybox") {
        layer = layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    layer
        .dir("dev", 0o755)
        .dir("etc", 0o755)
        .file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n")
        .file("etc/group", 0o644, b"root:x:0:\nuser:x:1000:\n")
        .dir("proc", 0o755)
        .dir("root", 0o700)
        .dir("sys", 0o755)
        .dir("tmp", 0o1777)
        .finish()
}
