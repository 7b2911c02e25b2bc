//! Disks that change what was written to them, and people who touch the daemon's files: nothing
//! wrong is built from it, the daemon starts, and `kilnd check` tells.

use std::fs;
use std::path::{Path, PathBuf};

use kiln_integration_tests::{Context, Repository, State, WebServer, World, unpack_archive};
use serde_json::json;

/// A context whose image has a layer of the daemon's own with a large file.
fn context() -> Context {
    Context::new()
        .dockerfile("FROM busybox\nCOPY data /data\nRUN sed s/a/b/ /data > /made")
        .file("data", "a\n".repeat(40_000))
}

/// The files below `folder` whose contents have `needle`.
fn files_with(folder: &Path, needle: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("folder of the daemon").flatten() {
        let (path, kind) = (entry.path(), entry.file_type().expect("type"));
        if kind.is_dir() {
            found.extend(files_with(&path, needle));
        } else if kind.is_file() {
            let content = fs::read(&path).expect("file of the daemon");
            let mut windows = content.windows(needle.len().max(1));
            if needle.is_empty() || windows.any(|window| window == needle) {
                found.push(path);
            }
        }
    }
    found
}

/// Changes one bit in the middle of a file, in place as a disk does: every link to it has it.
fn flip(path: &Path) {
    let mut content = fs::read(path).expect("file of the daemon");
    let middle = content.len() / 2;
    content[middle] ^= 4;
    fs::write(path, content).expect("file of the daemon");
}

/// The paths in a folder.
fn files_in(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).expect("folder of the daemon").flatten().map(|file| file.path())
}

/// The files of blobs, without those of the history.
fn blobs(world: &World, at_least: u64) -> Vec<PathBuf> {
    let blobs = fs::read_dir(world.daemon.root().join("blobs/sha256")).expect("blobs").flatten();
    let blobs = blobs.filter(|blob| blob.metadata().expect("blob").len() >= at_least);
    blobs.map(|blob| blob.path()).collect()
}

#[test]
fn nothing_is_wrong_with_what_builds_leave() {
    let mut world = World::start();
    let context = context();
    context.write(
        "Dockerfile",
        "FROM busybox AS a\nRUN --mount=type=cache,target=/k echo x > /k/x; echo a > /a\n\
         FROM busybox\nCOPY --link --from=a /a /\nCOPY data /\nRUN cat /data > /b; rm /a\n",
    );
    world.pushed("sound:1", world.build(&context));
    let in_use = world.daemon.check(&[]);
    assert_eq!(in_use.code, Some(1), "{}", in_use.text);
    assert!(in_use.log.contains("is in use by another daemon"), "{}", in_use.log);
    world.daemon.stop();
    world.daemon.check(&[]).is_clean();
    let json = world.daemon.check(&["--json"]);
    json.is_clean();
    let report: serde_json::Value = serde_json::from_str(&json.text).expect("JSON");
    assert_eq!(report["findings"], json!([]));
    assert!(report["checked"]["layers"].as_u64() > Some(4), "{report}");

    // The repair of nothing drops nothing.
    world.daemon.check(&["--repair"]).is_clean();
    world.daemon.start_again();
    let build = world.build(&context).succeeds();
    assert_eq!(build.ran(), <[&str; 0]>::default());
}

#[test]
fn a_changed_blob_is_made_again_before_it_gets_into_a_registry() {
    let world = World::start();
    let context = context();
    let (_, first) = world.pushed("first:1", world.build(&context));
    let changed = blobs(&world, 1);
    assert!(changed.len() > 5);
    changed.iter().for_each(|blob| flip(blob));
    // Another repository, which has none of it. The base's own layer comes from its registry.
    let (build, second) = world.pushed("second:1", world.build(&context));
    assert_eq!(build.ran(), <[&str; 0]>::default());
    assert_eq!(second.contents(), first.contents());
    assert_eq!(second.diff_ids(), first.diff_ids());
    assert!(world.daemon.log().contains("is damaged"), "{}", world.daemon.log());
}

#[test]
fn a_changed_blob_is_made_again_before_it_gets_into_an_archive() {
    let world = World::start();
    let context = context();
    let folder = Context::new();
    let archive = |name: &str| {
        let path = folder.path().join(name);
        let output = format!("type=oci,dest={}", path.display());
        world.build(&context).args(["--output", &output]).succeeds();
        unpack_archive(&fs::read(path).expect("archive"))
    };
    let first = archive("first.tar");
    blobs(&world, 1).iter().for_each(|blob| flip(blob));
    assert_eq!(archive("second.tar"), first);
}

#[test]
fn a_layer_whose_files_have_changed_is_not_packed_once_more_but_made_again() {
    let mut world = World::start();
    let context = context();
    let (_, first) = world.pushed("first:1", world.build(&context));
    let made = files_with(&world.daemon.root().join("snapshots"), b"b\nb\n");
    assert_eq!(made.len(), 1, "{made:?}");
    flip(&made[0]);
    // The blobs are as they were, and no need to pack anything again.
    let (_, second) = world.pushed("second:1", world.build(&context));
    assert_eq!(second.digest, first.digest);
    // Without them it is packed again.
    world.daemon.stop();
    blobs(&world, 1).iter().for_each(|blob| fs::remove_file(blob).expect("blob"));
    world.daemon.start_again();
    let (build, third) = world.pushed("third:1", world.build(&context));
    assert_eq!(third.contents(), first.contents());
    assert!(build.stderr.contains("RUN sed"), "{}", build.stderr);
    assert!(world.daemon.log().contains("files of a layer have changed"), "{}", world.daemon.log());
    world.build(&context).succeeds().step_is("RUN sed s/a/b/ /data > /made", &State::Cached);
}

#[test]
fn a_changed_copy_of_a_repository_is_fetched_again() {
    let mut world = World::start();
    let repository = Repository::new(Context::new().file("file", "content\n".repeat(1000)));
    let server = WebServer::start();
    server.folder("/project.git", repository.git_dir(), None);
    let url = server.url("/project.git");
    let context = Context::new().dockerfile(&format!("FROM busybox\nADD {url} /project"));
    let first = world.image(&context).file("project/file").text();
    let checkouts = ["--filter", "type=source.git.checkout"];
    world.kiln().args(["prune", "--all", "--force"]).args(checkouts).succeeds();
    let copies = world.daemon.root().join("repositories");
    let objects = files_with(&copies, b"").into_iter().filter(|path| {
        let path = path.to_string_lossy();
        path.contains("/objects/") && !path.ends_with(".idx") && !path.ends_with(".rev")
    });
    let objects: Vec<_> = objects.collect();
    assert!(!objects.is_empty());
    objects.iter().for_each(|object| flip(object));
    world.daemon.stop();
    world.daemon.check(&[]).finds(&["directory ", "is not sound"]);
    world.daemon.start_again();
    // Another step, which needs the files once more.
    context.write_dockerfile(&format!("FROM busybox\nADD {url} /again"));
    assert_eq!(world.image(&context).file("again/file").text(), first);
    assert!(world.daemon.log().contains("copy of a repository"), "{}", world.daemon.log());
}

#[test]
fn check_finds_changed_blobs_layers_and_sources_and_drops_them() {
    let mut world = World::start();
    let context = context();
    let (_, first) = world.pushed("first:1", world.build(&context));
    world.daemon.stop();
    let root = world.daemon.root().to_owned();
    // Not that of the base, with which its layer is compared.
    let small = blobs(&world, 100).into_iter().min_by_key(|blob| fs::metadata(blob).unwrap().len());
    flip(&small.expect("a blob"));
    world.daemon.check(&[]).finds(&["blob sha256:", "has the content of"]);

    // The layer of COPY shares its file with the client's tree.
    let data = files_with(&root.join("snapshots"), b"a\na\na\na\n");
    flip(&data[0]);
    world.daemon.check(&[]).finds(&["layer ", "packs to sha256:"]);
    world.daemon.check(&[]).finds(&["directory ", "has another data"]);
    let base = root.join("snapshots");
    let base = files_with(&base, b"BusyBox v").into_iter().next().expect("busybox");
    flip(&base);
    world.daemon.check(&[]).finds(&["layer ", "is not what its blob"]);

    let repaired = world.daemon.check(&["--repair"]);
    repaired.is_clean();
    assert!(repaired.text.contains("dropped"), "{}", repaired.text);
    world.daemon.check(&[]).is_clean();
    world.daemon.start_again();
    let (build, second) = world.pushed("second:1", world.build(&context));
    assert_eq!(second.contents(), first.contents());
    assert_eq!(build.ran().len(), 2, "{}", build.stderr);
}

#[test]
fn check_finds_what_was_removed_and_drops_what_needs_it() {
    let mut world = World::start();
    let context = context();
    let first = world.image(&context);
    world.daemon.stop();
    let root = world.daemon.root().to_owned();
    let made = files_with(&root.join("snapshots"), b"b\nb\n");
    let layer = made[0].ancestors().nth(2).expect("directory of the layer").to_owned();
    fs::remove_dir_all(&layer).expect("layer");
    fs::remove_file(&blobs(&world, 10_000)[0]).expect("blob");
    fs::create_dir(root.join("snapshots/99999")).expect("directory");
    let found = world.daemon.check(&[]);
    let id = layer.file_name().and_then(|name| name.to_str()).expect("a number");
    found.finds(&[&format!("layer {id} is not on the disk")]);
    found.finds(&["blob sha256:", "is not on the disk"]);
    found.finds(&["belong to nothing"]);
    world.daemon.check(&["--repair"]).is_clean();
    assert!(!root.join("snapshots/99999").exists());
    world.daemon.check(&[]).is_clean();
    world.daemon.start_again();
    assert_eq!(world.image(&context).contents(), first.contents());
}

#[test]
fn a_daemon_starts_whatever_has_happened_to_its_index() {
    let mut world = World::start();
    let context = context();
    let first = world.image(&context);
    world.daemon.stop();
    // Twice, for what was written by the first has become a table by then.
    world.daemon.start_again();
    let index = world.daemon.root().join("index");
    for (what, harm) in HARM {
        world.image(&context);
        world.daemon.stop();
        let victims: Vec<_> = files_in(&index)
            .filter(|path| {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                name.contains(what) && fs::metadata(path).is_ok_and(|file| file.len() > 0)
            })
            .collect();
        assert!(!victims.is_empty(), "the index has no {what}");
        victims.iter().for_each(|file| harm(file));
        world.daemon.start_again();
        let image = world.image(&context);
        assert_eq!(image.contents(), first.contents(), "{what}");
        world.daemon.stop();
        world.daemon.check(&[]).is_clean();
        world.daemon.start_again();
    }
}

type Harm = fn(&Path);

/// What is done to which files of the index.
const HARM: [(&str, Harm); 9] = [
    (".sst", flip),
    (".sst", truncate),
    (".sst", remove),
    ("MANIFEST", flip),
    ("MANIFEST", remove),
    ("CURRENT", truncate),
    ("CURRENT", remove),
    (".log", flip),
    (".log", remove),
];

fn truncate(path: &Path) {
    let content = fs::read(path).expect("file of the index");
    fs::write(path, &content[..content.len() / 2]).expect("file of the index");
}

fn remove(path: &Path) {
    fs::remove_file(path).expect("file of the index");
}

#[test]
fn an_index_that_turns_out_to_be_damaged_ends_the_daemon_and_the_next_begins_anew() {
    let mut world = World::start();
    let context = context();
    let first = world.image(&context);
    // What was written is in tables after a restart.
    world.daemon.stop();
    world.daemon.start_again();
    let index = world.daemon.root().join("index");
    for table in
        files_in(&index).filter(|path| path.extension().is_some_and(|ending| ending == "sst"))
    {
        let length = fs::metadata(&table).expect("table").len();
        fs::write(&table, vec![0; length as usize]).expect("table");
    }
    // Whether it is found out by this build depends on what is in memory; nothing wrong is built.
    let build = world.build(&context).run();
    if !world.daemon.log().contains("the index of the cache is damaged") {
        assert_eq!(build.code, Some(0), "{}", build.stderr);
        return;
    }
    assert!(!world.daemon.ends(), "it ends with an error, to be started again");
    world.daemon.check(&[]).finds(&["index", "is damaged"]);
    world.daemon.start_again();
    assert_eq!(world.image(&context).contents(), first.contents());
}

#[test]
fn check_does_not_make_a_root() {
    let world = World::start();
    let nowhere = world.daemon.root().join("nowhere");
    let mut command = std::process::Command::new(kiln_integration_tests::kilnd());
    let output = command.args(["check", "--root"]).arg(&nowhere).output().expect("kilnd check");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("has no index: nothing was built there"), "{said}");
    assert!(!nowhere.exists());
}
