//! COPY and ADD.

use std::io::Write;

use kiln_integration_tests::{Context, Kind, LayerTar, World};

#[test]
fn a_copied_file_belongs_to_root_or_to_whom_chown_names() {
    let world = World::start();
    let context = Context::new()
        .dockerfile(
            "
            FROM busybox
            COPY file /root-owned
            COPY --chown=user file /by-name
            COPY --chown=user:root file /with-group
            COPY --chown=12:34 file /by-number
            ",
        )
        .file("file", "");
    let image = world.image(&context);
    for (path, owner) in [
        ("root-owned", (0, 0)),
        ("by-name", (1000, 1000)),
        ("with-group", (1000, 0)),
        ("by-number", (12, 34)),
    ] {
        let file = image.file(path);
        assert_eq!((file.uid, file.gid), owner, "{path}");
    }
}

#[test]
fn a_copied_file_keeps_its_mode_or_gets_that_of_chmod() {
    let world = World::start();
    let context = Context::new()
        .dockerfile(
            "
            FROM busybox
            COPY tool /kept
            COPY --chmod=600 tool /octal
            COPY --chmod=u=rw,go=r tool /symbolic
            ",
        )
        .file("tool", "")
        .mode("tool", 0o751);
    let image = world.image(&context);
    for (path, mode) in [("kept", 0o751), ("octal", 0o600), ("symbolic", 0o644)] {
        assert_eq!(image.file(path).mode, mode, "{path}");
    }
}

#[test]
fn destinations_follow_the_rules_of_the_reference() {
    let world = World::start();
    let context = Context::new()
        .dockerfile(
            "
            FROM busybox
            WORKDIR /work
            COPY one.txt renamed.txt
            COPY one.txt folder/
            COPY one.txt two.txt relative/
            COPY dir /copied
            COPY dir/ /slash/
            COPY *.txt /wild/
            COPY d?r/[i]nner /class/
            ",
        )
        .file("one.txt", "1")
        .file("two.txt", "2")
        .file("dir/inner", "i");
    let image = world.image(&context);
    for path in [
        "work/renamed.txt",
        "work/folder/one.txt",
        "work/relative/two.txt",
        "copied/inner",
        "slash/inner",
        "wild/one.txt",
        "wild/two.txt",
        "class/inner",
    ] {
        assert_eq!(image.file(path).kind, Kind::File, "{path}");
    }
    assert!(!image.has("copied/dir"));
}

#[test]
fn a_link_in_a_folder_is_copied_and_a_link_in_the_destination_is_followed_inside_the_image() {
    let world = World::start();
    let context = Context::new()
        .dockerfile(
            "
            FROM busybox
            RUN mkdir /real && ln -s /real /alias
            COPY dir /alias/
            ",
        )
        .file("dir/file", "f")
        .symlink("dir/link", "file");
    let image = world.image(&context);
    assert_eq!(image.file("real/file").text(), "f");
    assert_eq!(image.file("real/link").link, "file");
    assert_eq!(image.file("alias").kind, Kind::Symlink);
}

#[test]
fn a_linked_layer_is_whole_wherever_it_is_used_also_over_the_same_files() {
    let world = World::start();
    let context = Context::new().file("file", "linked");
    context.write_dockerfile("FROM busybox\nCOPY file /dir/file\nCOPY --link file /dir/file");
    let image = world.image(&context);
    assert_eq!(image.top(), ["dir/file"]);
    context.write_dockerfile("FROM scratch\nCOPY file /dir/file");
    assert_eq!(world.image(&context).file("dir/file").text(), "linked");
}

#[test]
fn what_is_removed_from_below_linked_layers_is_gone() {
    let world = World::start();
    let context = Context::new().file("a", "").file("b", "").dockerfile(
        "
        FROM busybox
        RUN echo x > /below
        COPY --link a /
        COPY --link b /
        RUN rm /below /a && echo y > /above
        ",
    );
    let image = world.image(&context);
    assert!(image.has("b") && image.has("above"));
    assert!(!image.has("below") && !image.has("a"));
    let unpacked = world.pushed("again:latest", world.build(&context)).1;
    assert_eq!(unpacked.diff_ids(), image.diff_ids());
}

#[test]
fn copy_link_makes_a_layer_that_does_not_depend_on_those_below() {
    let world = World::start();
    let context = Context::new()
        .dockerfile("FROM busybox\nRUN echo 1 > /below\nCOPY --link file /dir/file")
        .file("file", "linked");
    let (_, first) = world.pushed("link", world.build(&context));
    context.write_dockerfile("FROM busybox\nRUN echo 2 > /below\nCOPY --link file /dir/file");
    let (_, second) = world.pushed("link", world.build(&context));
    assert_eq!(first.layers.last(), second.layers.last());
    assert_eq!(second.file("dir/file").text(), "linked");
    assert_eq!(second.file("below").text(), "2\n");
}

#[test]
fn files_come_out_of_heredocs() {
    let world = World::start();
    let context = Context::new().dockerfile(
        "
        FROM busybox
        ARG NAME=you
        COPY <<one.txt <<\"two.txt\" /docs/
        hello $NAME
        one.txt
        hello $NAME
        two.txt
        RUN <<EOF
        echo from > /run
        echo heredoc >> /run
        EOF
        RUN cat <<EOF > /piped
        a line
        EOF
        ",
    );
    let image = world.image(&context);
    assert_eq!(image.file("docs/one.txt").text(), "hello you\n");
    assert_eq!(image.file("docs/two.txt").text(), "hello $NAME\n");
    assert_eq!(image.file("run").text(), "from\nheredoc\n");
    assert_eq!(image.file("piped").text(), "a line\n");
}

#[test]
fn add_unpacks_local_archives_and_copy_does_not() {
    let world = World::start();
    let tar = LayerTar::new().dir("pkg", 0o755).file("pkg/file", 0o640, b"packed").finish();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).expect("gzip");
    let context = Context::new()
        .dockerfile(
            "
            FROM scratch
            ADD plain.tar /plain/
            ADD packed.tar.gz /gz/
            ADD packed.tar.zst /zst/
            ADD not-an-archive.tar /as-is/
            COPY plain.tar /copied/
            ",
        )
        .file("plain.tar", &tar)
        .file("packed.tar.gz", gzip.finish().expect("gzip"))
        .file("packed.tar.zst", zstd::encode_all(&tar[..], 0).expect("zstd"))
        .file("not-an-archive.tar", "text");
    let image = world.image(&context);
    for folder in ["plain", "gz", "zst"] {
        let file = image.file(&format!("{folder}/pkg/file"));
        assert_eq!((file.text().as_str(), file.mode), ("packed", 0o640), "{folder}");
    }
    assert_eq!(image.file("as-is/not-an-archive.tar").text(), "text");
    assert!(image.has("copied/plain.tar"));
}

#[test]
fn workdir_makes_its_folder_for_the_user_that_is_set() {
    let world = World::start();
    let context =
        Context::new().dockerfile("FROM busybox\nUSER user\nWORKDIR /home/app\nRUN id -u > uid");
    let image = world.image(&context);
    assert_eq!(image.file("home/app").uid, 1000);
    assert_eq!(image.file("home/app/uid").text(), "1000\n");
}

#[test]
fn a_source_that_is_not_in_the_context_is_an_error_with_its_line() {
    let world = World::start();
    let context = Context::new()
        .dockerfile("FROM busybox\nWORKDIR /app\nCOPY packge.json yarn.lock ./")
        .file("package.json", "{}")
        .file("yarn.lock", "");
    world
        .build(&context)
        .fails()
        .says("packge.json")
        .says(">>> COPY packge.json yarn.lock ./")
        .says("not found");
}

#[test]
fn a_source_outside_of_the_context_is_not_reachable() {
    let world = World::start();
    let context = Context::new()
        .dockerfile("FROM busybox\nCOPY ../../../../../../etc/hostname /leak")
        .symlink("out", "/etc");
    world.build(&context).fails().says("not found");
    context.write_dockerfile("FROM busybox\nCOPY out/hostname /leak");
    world.build(&context).fails().says("not found");
}

#[test]
fn of_two_files_with_one_name_the_one_that_is_copied_last_stays() {
    let world = World::start();
    let context = Context::new().file("base/x", "base\n").file("over/x", "over\n");
    for (sources, winner) in [("base/x over/x", "over\n"), ("over/x base/x", "base\n")] {
        context.write_dockerfile(&format!("FROM busybox\nCOPY {sources} /d/\n"));
        assert_eq!(world.image(&context).file("d/x").text(), winner, "COPY {sources}");
    }
}

#[test]
fn any_number_of_files_is_copied_by_their_names() {
    let world = World::start();
    let names: Vec<String> = (0..1500).map(|n| format!("a-file-with-a-long-name-{n}")).collect();
    let all = names.join(" ");
    let context = names.iter().fold(Context::new(), |context, name| context.file(name, ""));
    let context = context.dockerfile(&format!("FROM busybox\nCOPY {all} /all/"));
    let image = world.image(&context);
    assert!(names.iter().all(|name| image.has(&format!("all/{name}"))));
}

#[test]
fn a_name_that_the_image_does_not_know_is_root_and_the_user_hears_of_it() {
    let world = World::start();
    let context = Context::new()
        .file("f", "")
        .dockerfile("FROM busybox\nCOPY --chown=nobody-knows:them f /f");
    let (build, image) = world.pushed("chown", world.build(&context));
    assert_eq!((image.file("f").uid, image.file("f").gid), (0, 0));
    build.says("user nobody-knows is not known in the image");
    build.says("group them is not known in the image");
}
