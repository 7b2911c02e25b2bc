//! Images, archives and contexts that try to reach outside. Whether each is refused or contained is
//! the daemon's choice; that nothing outside changes, and that it goes on working, is not.

use std::path::Path;

use kiln_integration_tests::{Context, LayerTar, World, busybox_layer};
use serde_json::json;
use tar::EntryType;

/// Tars whose entries would write `target`, an absolute path outside, if they were unpacked by
/// joining strings.
fn hostile_tars(target: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let target = target.to_str().expect("a path in UTF-8");
    let folder = target.rsplit_once('/').expect("an absolute path").0;
    let up = format!("{}{}", "../".repeat(16), target.trim_start_matches('/'));
    let file = |name: &str| LayerTar::new().entry(name, EntryType::Regular, 0o644, b"pwned", "");
    vec![
        ("dots", file(&up).finish()),
        ("dots in the middle", file(&format!("usr/../{up}")).finish()),
        ("absolute", file(target).finish()),
        (
            "through a symbolic link",
            LayerTar::new()
                .symlink("exit", folder)
                .entry("exit/pwned", EntryType::Regular, 0o644, b"pwned", "")
                .finish(),
        ),
        (
            "through a link to a link",
            LayerTar::new()
                .symlink("a", "b")
                .symlink("b", folder)
                .entry("a/pwned", EntryType::Regular, 0o644, b"pwned", "")
                .finish(),
        ),
        (
            "onto a symbolic link",
            LayerTar::new()
                .symlink("exit", target)
                .entry("exit", EntryType::Regular, 0o644, b"pwned", "")
                .finish(),
        ),
        (
            "a hard link to a file outside",
            LayerTar::new()
                .entry("stolen", EntryType::Link, 0o644, b"", &format!("{folder}/victim"))
                .entry("stolen", EntryType::Regular, 0o644, b"pwned", "")
                .finish(),
        ),
        (
            "a hard link by dots",
            LayerTar::new()
                .entry("stolen", EntryType::Link, 0o644, b"", &up.replace("pwned", "victim"))
                .finish(),
        ),
        (
            "a folder in place of a link",
            LayerTar::new()
                .symlink("exit", folder)
                .dir("exit", 0o777)
                .entry("exit/pwned", EntryType::Regular, 0o644, b"pwned", "")
                .finish(),
        ),
    ]
}

struct Outside {
    folder: Context,
}

impl Outside {
    fn new() -> Self {
        Self { folder: Context::new().file("victim", "untouched") }
    }

    fn target(&self) -> std::path::PathBuf {
        self.folder.at("pwned")
    }

    #[track_caller]
    fn is_untouched(&self, case: &str) {
        assert!(!self.target().exists(), "{case}: a file was written outside");
        assert_eq!(self.folder.read("victim"), "untouched", "{case}");
        let entries = std::fs::read_dir(self.folder.path()).expect("folder").count();
        assert_eq!(entries, 1, "{case}");
    }
}

fn config() -> serde_json::Value {
    json!({"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"]}})
}

#[test]
fn a_hostile_image_touches_nothing_outside() {
    let world = World::start();
    let outside = Outside::new();
    for (number, (case, layer)) in hostile_tars(&outside.target()).into_iter().enumerate() {
        let name = format!("library/hostile{number}:latest");
        world.registry.push(&name, &[busybox_layer(), layer], &config());
        let context =
            Context::new().dockerfile(&format!("FROM hostile{number}\nRUN echo x > /exit || true"));
        let build = world.build(&context).run();
        assert!(!build.stderr.contains("panic"), "{case}: {}", build.stderr);
        outside.is_untouched(case);
        assert!(world.daemon.is_alive(), "{case}");
    }
}

#[test]
fn a_hostile_archive_touches_nothing_outside() {
    let world = World::start();
    let outside = Outside::new();
    for (case, archive) in hostile_tars(&outside.target()) {
        let context = Context::new()
            .dockerfile("FROM busybox\nADD archive.tar /sub/\nRUN true")
            .file("archive.tar", archive);
        let build = world.build(&context).run();
        assert!(!build.stderr.contains("panic"), "{case}: {}", build.stderr);
        outside.is_untouched(case);
        assert!(world.daemon.is_alive(), "{case}");
    }
}

#[test]
fn a_hostile_context_touches_nothing_outside() {
    let world = World::start();
    let outside = Outside::new();
    for (case, tar) in hostile_tars(&outside.target()) {
        let mut tar = tar;
        // The end of a tar is two empty blocks; the Dockerfile goes before them.
        tar.truncate(tar.len() - 1024);
        tar.extend(
            LayerTar::new().file("Dockerfile", 0o644, b"FROM busybox\nCOPY . /c\n").finish(),
        );
        let build = world.kiln().args(["build", "--progress=plain", "-"]).stdin(tar).run();
        assert!(!build.stderr.contains("panic"), "{case}: {}", build.stderr);
        outside.is_untouched(case);
        assert!(world.daemon.is_alive(), "{case}");
    }
}

#[test]
fn links_of_an_image_lead_nowhere_outside() {
    let world = World::start();
    let outside = Outside::new();
    let folder = outside.folder.path().display();
    let context = Context::new()
        .dockerfile(&format!(
            "
            FROM busybox AS trap
            RUN ln -s {folder} /exit && ln -s {folder}/victim /victim
            COPY file /exit/pwned
            COPY file /victim
            WORKDIR /exit/folder
            FROM busybox
            COPY --from=trap /victim /stolen
            RUN cat /stolen
            "
        ))
        .file("file", "harmless\n");
    let build = world.build(&context).run();
    outside.is_untouched("links");
    assert!(!build.stderr.contains("untouched"), "{}", build.stderr);
    assert!(world.daemon.is_alive());
}

#[test]
fn whiteouts_remove_nothing_outside_of_the_layer_below() {
    let world = World::start();
    for (number, name) in
        [".wh...", ".wh..", ".wh.", "etc/.wh...", ".wh..wh..", "etc/.wh..wh..plnk"]
            .iter()
            .enumerate()
    {
        let layer = LayerTar::new().file(name, 0o644, b"").finish();
        let image = format!("library/whiteout{number}:latest");
        world.registry.push(&image, &[busybox_layer(), layer], &config());
        let context =
            Context::new().dockerfile(&format!("FROM whiteout{number}\nRUN cat /etc/passwd"));
        world.build(&context).run();
        assert!(world.daemon.is_alive(), "{name}");
    }
    let context = Context::new().dockerfile("FROM busybox\nRUN cat /etc/passwd");
    world.build(&context).succeeds();
}

#[test]
fn a_header_that_lies_about_sizes_is_an_error() {
    let world = World::start();
    let sound = LayerTar::new().file("file", 0o644, &[7; 4096]).finish();
    let mut cut = sound.clone();
    cut.truncate(1024);
    let mut huge = sound.clone();
    // 8 GiB - 1 in octal; the checksum is made to fit.
    huge[124..136].copy_from_slice(b"77777777777\0");
    let sum = huge[..512]
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum::<u32>();
    huge[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    for (number, (case, layer)) in
        [("cut short", cut), ("a size beyond the end", huge), ("noise", vec![0xaa; 4096])]
            .into_iter()
            .enumerate()
    {
        let name = format!("library/lie{number}:latest");
        world.registry.push(&name, &[busybox_layer(), layer], &config());
        let context = Context::new().dockerfile(&format!("FROM lie{number}\nRUN true"));
        let build = world.build(&context).run();
        assert_ne!(build.code, Some(0), "{case}: {}", build.stderr);
        assert!(world.daemon.is_alive(), "{case}");
    }
}
