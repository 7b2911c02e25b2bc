//! What each instruction is parsed to.

use std::time::Duration;

use kiln_dockerfile::instruction::{
    Command, CommandLine, Device, Instruction, KeyValue, Network, Program, Run, Security, Stage,
    parse_trigger,
};
use kiln_dockerfile::{Dockerfile, Location};

fn parse(source: &str) -> Dockerfile {
    Dockerfile::parse(source.as_bytes()).unwrap_or_else(|error| panic!("{source}: {error}"))
}

/// The only instruction of a stage.
fn instruction(text: &str) -> Instruction {
    let mut stage = parse(&format!("FROM scratch\n{text}")).stages.remove(0);
    assert_eq!(stage.instructions.len(), 1, "{text}");
    stage.instructions.remove(0)
}

fn command(text: &str) -> Command {
    instruction(text).command
}

fn run(text: &str) -> Run {
    match command(text) {
        Command::Run(run) => run,
        other => panic!("{text}: {other:?}"),
    }
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn from_names_a_base_a_platform_and_a_stage() {
    let stage = |text: &str| -> Stage { parse(text).stages.remove(0) };
    let plain = stage("FROM alpine:3.20\n");
    assert_eq!((plain.base.as_str(), plain.name, plain.platform), ("alpine:3.20", None, None));
    let full = stage("# Build compiles\nfrom --platform=$BUILDPLATFORM a:$V as Build\n");
    assert_eq!(full.base, "a:$V");
    assert_eq!(full.name.as_deref(), Some("build"));
    assert_eq!(full.written_name.as_deref(), Some("Build"));
    assert_eq!(full.platform.as_deref(), Some("$BUILDPLATFORM"));
    assert_eq!(full.source, "from --platform=$BUILDPLATFORM a:$V as Build");
    assert_eq!(full.description, None);
    assert_eq!(stage("# b makes it\nFROM a AS b\n").description.as_deref(), Some("makes it"));
    assert_eq!(stage("FROM --platform= a\n").platform, None);
}

#[test]
fn instructions_belong_to_the_stage_above_them() {
    let file = parse("ARG A=1\nARG B C=$A\nFROM x\nRUN a\nRUN b\nFROM y\nRUN c\n");
    assert_eq!(file.global_args.len(), 2);
    assert_eq!(file.global_args[1].definitions[1].default.as_deref(), Some("$A"));
    let sources: Vec<Vec<&str>> = file
        .stages
        .iter()
        .map(|stage| stage.instructions.iter().map(|i| i.source.as_str()).collect())
        .collect();
    assert_eq!(sources, [vec!["RUN a", "RUN b"], vec!["RUN c"]]);
}

#[test]
fn every_instruction_knows_its_lines_and_its_text() {
    let file = parse("FROM x\n\nrun a \\\n  b \n# c\nCOPY <<A <<B /\n1\nA\n2\nB\n");
    let [run, copy] = file.stages[0].instructions.as_slice() else { panic!() };
    assert_eq!((run.location, run.source.as_str()), (Location::new(3, 4), "run a   b"));
    assert_eq!(run.keyword, "run");
    assert_eq!((copy.location, copy.source.as_str()), (Location::new(6, 10), "COPY <<A <<B /"));
    assert_eq!(copy.comments.texts, ["c"]);
}

#[test]
fn commands_have_an_exec_and_a_shell_form() {
    let exec = |words: &[&str]| CommandLine::Exec(strings(words));
    let shell = |text: &str| CommandLine::Shell(text.to_owned());
    let cases = [
        ("CMD [\"a\", \"b c\"]", Command::Cmd(exec(&["a", "b c"]))),
        ("CMD []", Command::Cmd(exec(&[]))),
        ("CMD a  'b'", Command::Cmd(shell("a  'b'"))),
        ("CMD ['a']", Command::Cmd(shell("['a']"))),
        ("CMD", Command::Cmd(shell(""))),
        ("ENTRYPOINT [\"a\"]", Command::Entrypoint(exec(&["a"]))),
        ("ENTRYPOINT a && b", Command::Entrypoint(shell("a && b"))),
        ("SHELL [\"bash\", \"-c\"]", Command::Shell(strings(&["bash", "-c"]))),
    ];
    for (text, expected) in cases {
        assert_eq!(command(text), expected, "{text}");
    }
    assert_eq!(run("RUN [\"a\"]").command, exec(&["a"]));
    assert_eq!(run("RUN --network=none a").command, shell("a"));
}

#[test]
fn run_takes_mounts_network_security_and_devices() {
    let run = run("RUN --mount=type=cache,target=/c --mount=from=b,target=/b --network=host \
                   --security=insecure --device=v/g=0,required make");
    assert_eq!(run.mounts.len(), 2);
    assert_eq!(run.mounts[1].from(), Some("b"));
    assert_eq!((run.network, run.security), (Network::Host, Security::Insecure));
    assert_eq!(run.devices, [Device { name: "v/g=0".to_owned(), required: true }]);
    let plain = self::run("RUN make");
    assert_eq!((plain.network, plain.security), (Network::Default, Security::Sandbox));
}

#[test]
fn mount_options_are_expanded_value_by_value() {
    let run = run("RUN --mount=type=cache,id=$ID,\"target=/a b\" make");
    let mount = run.mounts[0].resolve(|value| Ok(value.replace("$ID", "x,y"))).unwrap();
    assert_eq!(mount.target, "/a b");
    assert!(format!("{mount:?}").contains("id: \"x,y\""), "{mount:?}");
}

#[test]
fn a_heredoc_is_the_script_or_goes_to_the_shell() {
    let shell = |text: &str| Program::Shell(text.to_owned());
    let script = |name: &str, content: &str| Program::Script {
        name: name.to_owned(),
        content: content.to_owned(),
    };
    let cases = [
        ("RUN <<EOF\necho a\necho b\nEOF\n", shell("echo a\necho b\n"), Some("echo a...")),
        ("RUN <<-EOF\n\techo a\n\tEOF\n", shell("echo a\n"), Some("echo a")),
        ("RUN <<X\n#!/bin/py\n1\nX\n", script("X", "#!/bin/py\n1\n"), Some("#!/bin/py...")),
        ("RUN cat <<EOF >x\na\nEOF\n", shell("cat <<EOF >x\na\nEOF"), None),
        ("RUN <<A cat - <<B\n1\nA\n2\nB\n", shell("<<A cat - <<B\n1\nA\n2\nB"), None),
        ("RUN cat <<-'E'\n\ta\n\tE\n", shell("cat <<-'E'\n\ta\nE"), None),
        ("RUN <<EOF\r\na\r\nEOF\r\n", shell("a\r\n"), Some("a")),
        ("RUN echo '<<EOF'", shell("echo '<<EOF'"), None),
        ("RUN [\"echo\", \"<<EOF\"]", Program::Exec(strings(&["echo", "<<EOF"])), None),
    ];
    for (text, program, summary) in cases {
        let run = run(text);
        assert_eq!(run.program(), program, "{text}");
        assert_eq!(run.summary().as_deref(), summary, "{text}");
    }
}

#[test]
fn copy_takes_sources_a_destination_and_flags() {
    let Command::Copy(copy) = command(
        "COPY --from=build --chown=a:$G --chmod=u+x --link --parents --exclude=*.o --exclude=x \
         a $b /c/",
    ) else {
        panic!()
    };
    let transfer = &copy.transfer;
    assert_eq!(transfer.sources, ["a", "$b"]);
    assert_eq!(transfer.destination, "/c/");
    assert_eq!(copy.from.as_deref(), Some("build"));
    assert_eq!(transfer.chown.as_deref(), Some("a:$G"));
    assert_eq!(transfer.chmod.as_deref(), Some("u+x"));
    assert!(transfer.link && copy.parents);
    assert_eq!(transfer.exclude, ["*.o", "x"]);
    let Command::Copy(json) = command("COPY [\"a b\", \"<<c\", \"/d\"]") else { panic!() };
    assert_eq!(json.transfer.sources, ["a b", "<<c"]);
    assert_eq!(json.from, None);
}

#[test]
fn add_takes_flags_of_its_own() {
    let Command::Add(add) = command(
        "ADD --keep-git-dir --checksum=sha256:0 --unpack=false --link=false https://x/y.git /z",
    ) else {
        panic!()
    };
    assert_eq!((add.keep_git_dir, add.unpack), (Some(true), Some(false)));
    assert_eq!(add.checksum.as_deref(), Some("sha256:0"));
    assert!(!add.transfer.link);
    let Command::Add(plain) = command("ADD a /b") else { panic!() };
    assert_eq!((plain.keep_git_dir, plain.unpack, plain.checksum), (None, None, None));
}

#[test]
fn copies_may_bring_their_files_along() {
    let Command::Copy(copy) = command("COPY <<a <<-\"b\" c /d/\n1 $x\na\n\t2\n\tb\n") else {
        panic!()
    };
    let files: Vec<(&str, &str, bool)> = copy
        .transfer
        .files
        .iter()
        .map(|file| (file.name.as_str(), file.content.as_str(), file.expand))
        .collect();
    assert_eq!(files, [("a", "1 $x\n", true), ("b", "2\n", false)]);
    assert_eq!(copy.transfer.sources, ["c"]);
}

/// Key, value, and whether they are in the legacy form.
type Pairs<'a> = &'a [(&'a str, &'a str, bool)];

#[test]
fn env_and_label_take_pairs_or_the_legacy_form() {
    let pairs = |text: &str| -> Vec<(String, String, bool)> {
        let (Command::Env(pairs) | Command::Label(pairs)) = command(text) else { panic!() };
        pairs
            .into_iter()
            .map(|KeyValue { key, value, is_legacy }| (key, value, is_legacy))
            .collect()
    };
    let cases: &[(&str, Pairs<'_>)] = &[
        ("ENV a=b", &[("a", "b", false)]),
        (
            "ENV a=b c='d e' f=\"g h\" i=j\\ k l=",
            &[
                ("a", "b", false),
                ("c", "'d e'", false),
                ("f", "\"g h\"", false),
                ("i", "j\\ k", false),
                ("l", "", false),
            ],
        ),
        ("ENV a  b c = d", &[("a", "b c = d", true)]),
        ("LABEL \"a.b\"=c d=e=f", &[("\"a.b\"", "c", false), ("d", "e=f", false)]),
        ("LABEL a b", &[("a", "b", true)]),
    ];
    for (text, expected) in cases {
        let expected: Vec<_> =
            expected.iter().map(|(k, v, l)| ((*k).to_owned(), (*v).to_owned(), *l)).collect();
        assert_eq!(pairs(text), expected, "{text}");
    }
}

#[test]
fn arg_declares_names_with_or_without_defaults() {
    let Command::Arg(args) = command("# b is for bread\nARG a b=1 c= d=\"x y\"") else { panic!() };
    let found: Vec<_> =
        args.iter().map(|arg| (arg.name.as_str(), arg.default.as_deref())).collect();
    let expected = [("a", None), ("b", Some("1")), ("c", Some("")), ("d", Some("\"x y\""))];
    assert_eq!(found, expected);
    assert_eq!(args[1].description.as_deref(), Some("is for bread"));
    assert_eq!(args[0].description, None);
}

#[test]
fn simple_instructions_hold_their_words() {
    let cases = [
        ("MAINTAINER A B <a@b>", Command::Maintainer("A B <a@b>".to_owned())),
        ("USER $u:g", Command::User("$u:g".to_owned())),
        ("WORKDIR /a b", Command::Workdir("/a b".to_owned())),
        ("STOPSIGNAL SIGINT", Command::StopSignal("SIGINT".to_owned())),
        ("EXPOSE 90 80/udp $p", Command::Expose(strings(&["$p", "80/udp", "90"]))),
        ("VOLUME /a $b", Command::Volume(strings(&["/a", "$b"]))),
        ("VOLUME [\" /a b \"]", Command::Volume(strings(&["/a b"]))),
    ];
    for (text, expected) in cases {
        assert_eq!(command(text), expected, "{text}");
    }
}

#[test]
fn healthcheck_tests_at_intervals() {
    let Command::Healthcheck(check) = command(
        "HEALTHCHECK --interval=1m30s --timeout=3s --start-period=0 --start-interval=500ms \
         --retries=4 CMD curl -f localhost",
    ) else {
        panic!()
    };
    assert_eq!(check.test, ["CMD-SHELL", "curl -f localhost"]);
    let timing = check.timing;
    assert_eq!(timing.interval, Duration::from_secs(90));
    assert_eq!(timing.timeout, Duration::from_secs(3));
    assert_eq!(timing.start_period, Duration::ZERO);
    assert_eq!(timing.start_interval, Duration::from_millis(500));
    assert_eq!(timing.retries, 4);
    for (text, test) in [
        ("HEALTHCHECK NONE", &["NONE"][..]),
        ("HEALTHCHECK none", &["NONE"]),
        ("HEALTHCHECK cmd [\"a\", \"b\"]", &["CMD", "a", "b"]),
    ] {
        let Command::Healthcheck(check) = command(text) else { panic!() };
        assert_eq!(check.test, test, "{text}");
    }
}

#[test]
fn onbuild_stores_its_trigger_with_heredocs() {
    let cases = [
        ("ONBUILD RUN make  x", "RUN make  x"),
        ("onbuild  copy --link a b", "copy --link a b"),
        ("ONBUILD RUN <<-EOF\n\ta\n\tEOF\n", "RUN <<-EOF\n\ta\nEOF"),
        ("ONBUILD COPY <<a <<b /\n1\na\n2\nb\n", "COPY <<a <<b /\n1\na\n2\nb"),
    ];
    for (text, expected) in cases {
        assert_eq!(command(text), Command::Onbuild(expected.to_owned()), "{text}");
        let location = Location::line(7);
        let trigger = parse_trigger(expected, location).unwrap();
        assert_eq!(trigger.location, location);
        assert!(matches!(trigger.command, Command::Run(_) | Command::Copy(_)), "{text}");
    }
}

#[test]
fn triggers_of_images_are_single_instructions() {
    let location = Location::line(3);
    for trigger in ["", "RUN a\nRUN b", "FROM a", "ARG", "BOGUS"] {
        let error = parse_trigger(trigger, location).unwrap_err();
        assert_eq!(error.location(), Some(location), "{trigger}");
    }
}

#[test]
fn the_escape_directive_changes_continuations_and_words() {
    let file = parse("# escape=`\nFROM a\nRUN dir `\n c:\\\nENV a=b` c\n");
    let [run, env] = file.stages[0].instructions.as_slice() else { panic!() };
    assert_eq!(run.source, "RUN dir  c:\\");
    let Command::Env(pairs) = &env.command else { panic!() };
    assert_eq!(pairs[0].value, "b` c");
    assert_eq!(file.directives.escape, '`');
}

#[test]
fn files_of_other_systems_are_read() {
    let file = parse("\u{feff}# syntax=x\r\nFROM a\r\nRUN b \\\r\n c\r\n");
    assert_eq!(file.directives.syntax.unwrap().value, "x");
    assert_eq!(file.stages[0].instructions[0].source, "RUN b  c");
    let latin = Dockerfile::parse(b"# caf\xe9\nFROM a\nRUN b\\\n# \xe9\n c\n").unwrap();
    assert_eq!(latin.stages[0].instructions[0].source, "RUN b c");
}
