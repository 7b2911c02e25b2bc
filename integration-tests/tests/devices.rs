//! `RUN --device`: devices of the host, as files describe them.

use kiln_integration_tests::{Context, State, World, dedent, mounts_below, processes_with, worker};

/// A world whose devices are described by these files.
fn world(specs: &[(&str, &str)]) -> (World, Context) {
    describe(World::start(), specs)
}

fn describe(mut world: World, specs: &[(&str, &str)]) -> (World, Context) {
    let folder = specs.iter().fold(Context::new(), |folder, (name, spec)| folder.file(name, spec));
    let directory = folder.path().display();
    let cdi = format!("[cdi]\nspecDirs = [\"{directory}\"]\nautoAllowed = [\"free.com/env\"]\n");
    world.daemon.configure(&cdi);
    (world, folder)
}

/// What a step with `flags` writes.
#[track_caller]
fn said(world: &World, flags: &str, allow: &[&str], script: &str) -> Vec<String> {
    let context = Context::new().dockerfile(&format!("FROM busybox\nRUN {flags} {script}"));
    let allow = allow.iter().flat_map(|what| ["--allow", what]);
    let build = world.build(&context).args(allow).succeeds();
    let step = build.progress().steps().find(|step| step.name.starts_with("[2/2] RUN")).cloned();
    step.expect("the step").log
}

/// The device that makes loop devices, which no step may open otherwise.
fn loop_device(folder: &str) -> String {
    format!(
        "
        cdiVersion: 0.7.0
        kind: vendor.com/loop
        annotations: {{org.mobyproject.buildkit.device.class: loop}}
        containerEdits: {{env: [COMMON=yes, PATH=/bin:/of/device]}}
        devices:
        - name: main
          containerEdits:
            env: [WHICH=main]
            deviceNodes:
            - {{path: /dev/given/main, hostPath: /dev/loop-control, permissions: r, fileMode: 0640, gid: 4242}}
            mounts:
            - {{hostPath: {folder}/library, containerPath: /library, options: [ro, nosuid, rbind]}}
            additionalGids: [4242]
        - name: other
          containerEdits: {{env: [WHICH=other]}}
        "
    )
}

#[tokio::test]
async fn a_step_gets_all_that_is_described_of_a_device() {
    let (world, folder) = world(&[("library/file", "of the driver\n")]);
    folder.write("loop.yaml", dedent(&loop_device(&folder.path().display().to_string())));
    let script = "echo $COMMON $WHICH $PATH; test -c /dev/given/main && echo there; \
                  cat /library/*; id -G; \
                  echo x > /dev/given/main || touch /library/x || mknod /mem c 1 1 && head -c 1 /mem || echo refused";
    let flags = "--device=vendor.com/loop=main,required";
    let lines = said(&world, flags, &["device=vendor.com/loop=main"], script);
    let lines: Vec<_> =
        lines.iter().filter(|line| !line.contains("can't") && !line.contains(": ")).collect();
    assert_eq!(lines, ["yes main /bin:/of/device", "there", "of the driver", "0 4242", "refused"]);
    // By class, and in the place of a name that the file of this build gives it.
    assert_eq!(said(&world, "--device=loop", &["device"], "echo $WHICH")[0], "other");
    let alias = ["device=vendor.com/loop=other,alias=mine"];
    assert_eq!(
        said(&world, "--device=mine", &alias, "echo $WHICH $PATH")[0],
        "other /bin:/of/device"
    );
    // A step that does not ask has none of it.
    assert_eq!(
        said(&world, "", &["device"], "echo $WHICH-$COMMON; ls /dev/given 2>/dev/null | wc -l")
            .last()
            .expect("a line"),
        "0"
    );

    let devices = worker(&world.daemon).await.cdi_devices;
    let names: Vec<_> = devices.iter().map(|device| device.name.as_str()).collect();
    assert_eq!(names, ["vendor.com/loop=main", "vendor.com/loop=other"]);
    assert_eq!(devices[0].annotations["org.mobyproject.buildkit.device.class"], "loop");
}

#[test]
fn a_step_uses_a_node_with_the_mode_and_the_group_that_are_described() {
    // Without root, it is the host's own node, with the owner and the mode that it has there.
    let (world, folder) = describe(World::start_with_rights(), &[("library/file", "")]);
    folder.write("loop.yaml", dedent(&loop_device(&folder.path().display().to_string())));
    let script = "ls -ln /dev/given/main | tr -s ' ' | cut -d ' ' -f 1,4; \
                  true < /dev/given/main && echo opened; echo x 2>&1 > /dev/given/main || echo refused";
    let lines = said(&world, "--device=vendor.com/loop=main,required", &["device"], script);
    let lines: Vec<_> = lines.iter().filter(|line| !line.contains("can't")).collect();
    assert_eq!(lines, ["crw-r----- 4242", "opened", "refused"]);
}

#[test]
fn what_was_made_for_devices_is_not_in_the_image() {
    let (world, folder) = world(&[("library/file", "")]);
    folder.write("loop.yaml", dedent(&loop_device(&folder.path().display().to_string())));
    let context =
        Context::new().dockerfile("FROM busybox\nRUN --device=vendor.com/loop=main touch /made");
    let (_, image) = world.pushed("made:latest", world.build(&context).args(["--allow", "device"]));
    assert_eq!(image.top(), ["made"]);
}

const FREE: &str = r#"{
    "cdiVersion": "0.6.0", "kind": "free.com/env",
    "devices": [{"name": "a", "containerEdits": {"env": ["WHICH=free"]}}]
}"#;

#[test]
fn a_device_has_to_be_allowed_unless_the_daemon_or_its_file_says_so() {
    let annotated = FREE.replace("free.com", "open.com").replace(
        "\"devices\"",
        "\"annotations\": {\"org.mobyproject.buildkit.device.autoallow\": \"true\"}, \"devices\"",
    );
    let closed = FREE.replace("free.com", "closed.com");
    let (world, _folder) =
        world(&[("free.json", FREE), ("open.json", &annotated), ("closed.json", &closed)]);
    assert_eq!(said(&world, "--device=free.com/env=a", &[], "echo $WHICH"), ["free"]);
    assert_eq!(said(&world, "--device=open.com/env", &[], "echo $WHICH"), ["free"]);
    let fails = |device: &str, allow: &str| {
        let context =
            Context::new().dockerfile(&format!("FROM busybox\nRUN --device={device} echo x"));
        world.build(&context).args(["--allow", allow]).fails()
    };
    let refused = "device closed.com/env=a is requested by the build but not allowed";
    fails("closed.com/env=a", "device=free.com/env=a").says(refused);
    fails("closed.com/env=*", "network.host").says(refused);
    fails("closed.com/env=b,required", "device")
        .says("required device \"closed.com/env=b\" is not registered");
    said(&world, "--device=closed.com/env=b", &[], "echo without");
}

#[test]
fn a_device_that_needs_more_than_there_is_is_refused_by_name() {
    let hook = r#"{"hooks": [{"hookName": "createContainer", "path": "/usr/bin/first"},
                             {"hookName": "poststop", "path": "/usr/bin/hook"}]}"#;
    let fifo = r#"{"deviceNodes": [{"path": "/dev/x", "type": "p"}]}"#;
    let gone = r#"{"deviceNodes": [{"path": "/dev/kiln-no-such-device"}]}"#;
    let spec = format!(
        r#"{{"cdiVersion": "0.6.0", "kind": "free.com/env", "devices": [
            {{"name": "hook", "containerEdits": {hook}}}, {{"name": "fifo", "containerEdits": {fifo}}},
            {{"name": "gone", "containerEdits": {gone}}}]}}"#
    );
    let (world, _folder) = world(&[("spec.json", &spec)]);
    for (name, reason) in [
        ("hook", "device free.com/env=hook needs the hook poststop (/usr/bin/hook)"),
        ("fifo", "device free.com/env=fifo: node /dev/x: type \"p\" is not supported"),
        ("gone", "device free.com/env=gone: node /dev/kiln-no-such-device: No such file"),
    ] {
        let run = format!("FROM busybox\nRUN --device=free.com/env={name} echo x");
        world.build(&Context::new().dockerfile(&run)).fails().says(reason);
    }
}

/// A world with a device of which every hook of `hooks` runs a script of that name with two arguments, for
/// at most `timeout` seconds.
fn world_with_hooks(
    timeout: u32,
    hooks: &[(&str, &str)],
    scripts: &[(&str, &str)],
) -> (World, Context) {
    let (world, folder) = world(scripts);
    let path = folder.path().display();
    let hooks = hooks.iter().map(|(kind, script)| {
        format!(
            "{{hookName: {kind}, path: /bin/sh, args: [hook, -e, {path}/{script}, one, two], \
             env: ['PATH=/usr/sbin:/usr/bin:/sbin:/bin', MARK=set], timeout: {timeout}}}"
        )
    });
    let hooks = hooks.collect::<Vec<_>>().join(", ");
    folder.write(
        "hooks.yaml",
        dedent(&format!(
            "
            cdiVersion: 0.6.0
            kind: free.com/env
            devices:
            - name: a
              containerEdits: {{hooks: [{hooks}]}}
            "
        )),
    );
    (world, folder)
}

/// Finds the root of the container as the state and the bundle have it.
const FIND_ROOT: &str = r#"
    state=$(cat)
    field() { sed "s/.*\"$1\":\"\([^\"]*\)\".*/\1/"; }
    bundle=$(echo "$state" | field bundle)
    root=$(sed 's/.*"root":{"path":"\([^"]*\)".*/\1/' "$bundle/config.json")
"#;

#[test]
fn hooks_of_a_device_change_what_the_step_sees() {
    let script = format!(
        r#"{FIND_ROOT}
        pid=$(echo "$state" | sed 's/.*"pid":\([0-9]*\).*/\1/')
        grep -q '"args":\["/bin/sh","-c","cat /said' "$bundle/config.json"
        echo "$* $MARK $(echo "$state" | field status) ${{pid:+with a pid}}" >> "$root/said"
        ln -sf target "$root/usr/link"
        busybox mount -t tmpfs none "$root/mnt"
        echo inside > "$root/mnt/file"
        "#
    );
    let (world, folder) = world_with_hooks(
        60,
        &[("createContainer", "hook.sh"), ("prestart", "other.sh"), ("createRuntime", "other.sh")],
        &[
            ("hook.sh", &script),
            ("other.sh", &format!("{FIND_ROOT}\necho \"other $1\" >> \"$root/said\"\n")),
        ],
    );
    let run = "cat /said /mnt/file; readlink /usr/link; id -u > /usr/ran";
    let dockerfile =
        format!("FROM busybox\nRUN mkdir -p /mnt /usr\nRUN --device=free.com/env=a {run}");
    let context = Context::new().dockerfile(&dockerfile);
    let (build, image) = world.pushed("hooks:latest", world.build(&context));
    assert_eq!(
        build.step(&format!("RUN --device=free.com/env=a {run}")).log,
        ["other one", "other one", "one two set creating with a pid", "inside", "target"]
    );
    // What is mounted is not in the image, and what is made belongs to the image's root.
    assert_eq!(image.top(), ["said", "usr/link", "usr/ran"]);
    let link = image.file("usr/link");
    assert_eq!((link.uid, link.gid), (0, 0));
    assert_eq!(mounts_below(world.daemon.root()), <[&str; 0]>::default());

    // A step is what it was, whatever the hooks of its devices are.
    folder.write("hook.sh", "exit 1");
    world
        .build(&context)
        .succeeds()
        .step_is(&format!("RUN --device=free.com/env=a {run}"), &State::Cached);
}

#[test]
fn a_hook_that_fails_fails_the_step_and_says_why() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let script = "echo loading; echo 'no driver here' >&2; exit 7";
        let (world, folder) = world_with_hooks(60, &[(kind, "hook.sh")], &[("hook.sh", script)]);
        let file = folder.at("hooks.yaml");
        let context = Context::new().dockerfile("FROM busybox\nRUN --device=free.com/env=a echo x");
        world
            .build(&context)
            .fails()
            .says(&format!("{kind} hook /bin/sh of {} exited with code 7", file.display()))
            .says("loading\nno driver here");
    }
}

#[test]
fn a_hook_that_hangs_is_killed_when_its_time_is_over() {
    for (kind, mark) in
        [("prestart", "918351"), ("createRuntime", "918352"), ("createContainer", "918353")]
    {
        let script = format!("echo waiting; (setsid sleep {mark} &); sleep {mark}");
        let (world, _folder) = world_with_hooks(1, &[(kind, "hook.sh")], &[("hook.sh", &script)]);
        let context = Context::new().dockerfile("FROM busybox\nRUN --device=free.com/env=a echo x");
        let build = world.build(&context).fails();
        build.says("took longer than its timeout and was killed: waiting");
        assert!(processes_with(mark).is_empty(), "{kind}");
    }
}

#[tokio::test]
async fn there_are_no_devices_where_they_are_disabled() {
    let mut world = World::start();
    world.daemon.configure("[cdi]\ndisabled = true\n");
    assert!(worker(&world.daemon).await.cdi_devices.is_empty());
    let context = Context::new().dockerfile("FROM busybox\nRUN --device=a.com/b,required echo x");
    world.build(&context).args(["--allow", "device"]).fails().says("cdi.disabled");
}
