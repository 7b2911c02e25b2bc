//! What this crate says about layers, checked against the kernel's overlayfs.
//!
//! Needs root: the overlays are mounted in a mount namespace of their own.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use kiln_snapshotter::apply::apply;
use kiln_snapshotter::diff::{DiffOptions, diff};
use kiln_snapshotter::{FileKind, LayerDir, LayerId, Overlay, Rootfs, Snapshotter, View};

/// Steps as of a Dockerfile, each run in the tree that those before left.
const STEPS: &[&str] = &[
    "mkdir -p etc usr/lib/deep/er var/log; echo 1 > etc/passwd; echo lib > usr/lib/a; \
     ln -s usr/lib lib; echo x > usr/lib/deep/er/x; ln etc/passwd etc/hard; mknod null c 1 3; \
     mkfifo pipe; chmod 4755 usr/lib/a; chown 7:8 usr/lib/a",
    "rm etc/hard; echo 2 >> etc/passwd; rm -r usr/lib/deep; echo new > lib/b",
    "mkdir -p usr/lib/deep/other; chmod 700 usr; rm lib; mkdir lib; echo y > lib/y; rm pipe",
    "mv usr/lib/deep usr/lib/moved; rm -r var; echo file > var; ln usr/lib/a usr/lib/hard",
    "rm var; mkdir var; rm -rf etc; mkdir etc; touch etc/only; chown -R 5:6 usr/lib",
    "rm -rf usr lib; mkdir usr; echo back > usr/lib; chmod 755 var; touch -d @5 var",
    "chmod 755 var; rm etc/only; touch etc/only; rm etc/only",
];

const FIND: &str = r"find . -mindepth 1 -printf '%P %y %m %U %G %l\n' | LC_ALL=C sort";

/// Runs a script in the mounted stack and returns what it prints.
fn run(scratch: &Path, rootfs: &Rootfs, script: &str) -> String {
    // Topmost first is how the option wants it; two is the least without an upper.
    let empty = ["empty-a", "empty-b"].map(|name| scratch.join(name));
    let lower: Vec<_> =
        rootfs.lower.iter().rev().chain(&empty).map(|path| path.display().to_string()).collect();
    let upper = match (&rootfs.upper, &rootfs.work) {
        (Some(upper), Some(work)) => {
            format!(",upperdir={},workdir={}", upper.display(), work.display())
        }
        _ => String::new(),
    };
    let options = format!(
        "index=off,metacopy=off,redirect_dir=off,xino=off,lowerdir={}{upper}",
        lower.join(":")
    );
    let target = scratch.join("mnt");
    let script = format!(
        "set -e; mount -t overlay overlay -o '{options}' '{0}'; cd '{0}'; {script}",
        target.display()
    );
    let output = Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn describe(view: &View) -> String {
    let mut lines: Vec<String> = view
        .walk("")
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let metadata = entry.metadata();
            let kind = match metadata.kind {
                FileKind::File => 'f',
                FileKind::Directory => 'd',
                FileKind::Symlink => 'l',
                FileKind::CharDevice => 'c',
                FileKind::BlockDevice => 'b',
                FileKind::Fifo => 'p',
                FileKind::Socket => 's',
            };
            let link = match metadata.kind {
                FileKind::Symlink => entry.read_link().unwrap().into_string().unwrap(),
                _ => String::new(),
            };
            let (path, mode) = (entry.path().display(), metadata.mode);
            format!("{path} {kind} {mode:o} {} {} {link}\n", metadata.uid, metadata.gid)
        })
        .collect();
    lines.sort();
    lines.concat()
}

#[test]
fn the_kernel_and_this_crate_see_the_same_trees() {
    let scratch = tempfile::tempdir().unwrap();
    for dir in ["mnt", "empty-a", "empty-b", "layers", "copies"] {
        std::fs::create_dir(scratch.path().join(dir)).unwrap();
    }
    let layers = Overlay::open(scratch.path().join("layers")).unwrap();
    let copies = Overlay::open(scratch.path().join("copies")).unwrap();
    let (mut stack, mut copied): (Vec<LayerDir>, Vec<LayerDir>) = (Vec::new(), Vec::new());
    for (id, script) in (0..).map(LayerId).zip(STEPS) {
        let ids: Vec<LayerId> = stack.iter().map(LayerDir::id).collect();
        let lower = View::of_layers(&stack).unwrap();
        let layer = layers.create(id).unwrap();
        let rootfs = layers.mount(&ids, Some(id)).unwrap();
        let kernel = run(scratch.path(), &rootfs, &format!("{script}; {FIND}"));
        stack.push(layer);
        let view = View::of_layers(&stack).unwrap();
        assert_eq!(describe(&view), kernel, "after: {script}");

        // Packed and unpacked, the layer shows the same, to the kernel too.
        let mut stream = Vec::new();
        diff(&stack[stack.len() - 1], Some(&lower), &mut stream, &DiffOptions::default()).unwrap();
        let copy = copies.create(id).unwrap();
        apply(stream.as_slice(), &copy, Some(&View::of_layers(&copied).unwrap())).unwrap();
        copied.push(copy);
        assert_eq!(describe(&View::of_layers(&copied).unwrap()), kernel, "{script}");
        let ids: Vec<LayerId> = copied.iter().map(LayerDir::id).collect();
        let rootfs = copies.mount(&ids, None).unwrap();
        assert_eq!(run(scratch.path(), &rootfs, FIND), kernel, "unpacked, after: {script}");
    }
}

#[test]
fn a_new_directory_hides_nothing_when_layers_are_merged() {
    let scratch = tempfile::tempdir().unwrap();
    for dir in ["mnt", "empty-a", "empty-b", "layers"] {
        std::fs::create_dir(scratch.path().join(dir)).unwrap();
    }
    let layers = Overlay::open(scratch.path().join("layers")).unwrap();
    let base = layers.create(LayerId(0)).unwrap();
    let made: Vec<LayerDir> = [1, 2]
        .map(LayerId)
        .into_iter()
        .map(|id| {
            let layer = layers.create(id).unwrap();
            let rootfs = layers.mount(&[base.id()], Some(id)).unwrap();
            run(scratch.path(), &rootfs, &format!("mkdir -p app/lib; touch app/lib/{id}"));
            layer
        })
        .collect();
    let merged = View::of_layers(&[vec![base], made].concat()).unwrap();
    let names: Vec<_> =
        merged.read_dir("app/lib").unwrap().iter().map(|entry| entry.path().to_owned()).collect();
    assert_eq!(names, ["app/lib/1", "app/lib/2"].map(std::path::PathBuf::from));
}
