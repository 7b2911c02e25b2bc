//! Random Dockerfiles, edited at random, built by a daemon that is pruned, restarted and killed at
//! random, and whose machine loses its power: each build has the files that the Dockerfile says.
//!
//! What it says is worked out here, by reading the instructions one after the other; there is no
//! cache in that. `KILN_RANDOM_STEPS` says how many builds, `KILN_POWER_CUTS` how often the power is
//! cut, `KILN_RANDOM_SEED` repeats a run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use kiln_integration_tests::{Context, Daemon, PowerCutDisk, Registry, World, unpack_archive};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// The files that instructions read and write, in `/w` and in the context.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// The files in the directory of the context.
const INNER: [&str; 4] = ["dir/p", "dir/q", "dir/r", "dir/sub/s"];
const STAGES: usize = 4;

/// An instruction after FROM.
#[derive(Clone, Debug)]
enum Instruction {
    /// One of the context's files.
    Copy {
        from: &'static str,
        to: &'static str,
        is_linked: bool,
    },
    /// The context's directory.
    CopyDir {
        is_linked: bool,
    },
    /// What an earlier stage has in `/w`.
    CopyStage {
        stage: usize,
        is_linked: bool,
    },
    /// A text, a variable, and how often a cache mount was used, which must not matter.
    Echo {
        text: u32,
        to: &'static str,
        is_cached: bool,
    },
    /// Two files in one.
    Join {
        from: [&'static str; 2],
        to: &'static str,
    },
    /// A file of the context or of a stage that is only mounted.
    Bind {
        from: &'static str,
        stage: Option<usize>,
        to: &'static str,
    },
    Remove {
        file: &'static str,
    },
    RemoveDir,
    Move {
        from: &'static str,
        to: &'static str,
    },
    Env {
        value: u32,
    },
    Arg {
        value: u32,
    },
}

#[derive(Clone, Debug)]
struct Stage {
    /// An earlier stage; the base image if none.
    base: Option<usize>,
    instructions: Vec<Instruction>,
}

/// Files by path, and the variable.
#[derive(Clone, Default)]
struct Tree {
    files: BTreeMap<String, String>,
    variable: String,
}

struct Model {
    random: StdRng,
    stages: Vec<Stage>,
    target: usize,
    /// The build argument that a client gives, if it does.
    argument: Option<u32>,
    context: BTreeMap<String, String>,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut model = Self {
            random: StdRng::seed_from_u64(seed),
            stages: Vec::new(),
            target: STAGES - 1,
            argument: None,
            context: BTreeMap::new(),
        };
        for name in NAMES.iter().chain(&INNER) {
            model.context.insert((*name).to_owned(), format!("{name}\n"));
        }
        for stage in 0..STAGES {
            let base = (stage > 0 && model.random.random_bool(0.4))
                .then(|| model.random.random_range(0..stage));
            let count = model.random.random_range(1..5);
            let instructions = (0..count).map(|_| model.instruction(stage)).collect();
            model.stages.push(Stage { base, instructions });
        }
        model
    }

    fn name(&mut self) -> &'static str {
        NAMES.choose(&mut self.random).expect("names")
    }

    /// A new instruction for a stage.
    fn instruction(&mut self, stage: usize) -> Instruction {
        let (from, to) = (self.name(), self.name());
        let is_linked = self.random.random_bool(0.3);
        let value = self.random.random_range(0..4);
        let earlier = (stage > 0).then(|| self.random.random_range(0..stage.max(1)));
        match self.random.random_range(0..14) {
            0 | 1 => Instruction::Copy { from, to, is_linked },
            2 => Instruction::CopyDir { is_linked },
            3 | 4 if earlier.is_some() => {
                Instruction::CopyStage { stage: earlier.expect("a stage"), is_linked }
            }
            5 => Instruction::Join { from: [from, self.name()], to },
            6 => Instruction::Bind { from, stage: earlier, to },
            7 => Instruction::Remove { file: from },
            8 => Instruction::RemoveDir,
            9 => Instruction::Move { from, to },
            10 => Instruction::Env { value },
            11 => Instruction::Arg { value },
            _ => Instruction::Echo { text: value, to, is_cached: is_linked },
        }
    }

    /// Changes something.
    fn edit(&mut self) {
        let stage = self.random.random_range(0..STAGES);
        let count = self.stages[stage].instructions.len();
        match self.random.random_range(0..10) {
            0..4 => {
                let all: Vec<_> = NAMES.iter().chain(&INNER).collect();
                let name = **all.choose(&mut self.random).expect("names");
                let content = format!("{name} {}\n", self.random.random_range(0..5));
                self.context.insert(name.to_owned(), content);
            }
            4 => {
                let name = *INNER[1..].choose(&mut self.random).expect("names");
                self.context.remove(name);
            }
            5 | 6 => {
                let at = self.random.random_range(0..=count);
                let instruction = self.instruction(stage);
                self.stages[stage].instructions.insert(at, instruction);
            }
            7 if count > 2 => {
                let at = self.random.random_range(0..count);
                self.stages[stage].instructions.remove(at);
            }
            8 if count > 0 => {
                let at = self.random.random_range(0..count);
                self.stages[stage].instructions[at] = self.instruction(stage);
            }
            _ => {
                self.target = self.random.random_range(0..STAGES);
                self.argument =
                    self.random.random_bool(0.4).then(|| self.random.random_range(0..4));
            }
        }
        // Long ones say no more.
        self.stages[stage].instructions.truncate(9);
    }

    /// The Dockerfile.
    fn dockerfile(&self) -> String {
        let mut text = String::new();
        for (number, stage) in self.stages.iter().enumerate() {
            let base = stage.base.map_or("busybox".to_owned(), |base| format!("s{base}"));
            writeln!(text, "FROM {base} AS s{number}\nWORKDIR /w").expect("text");
            for instruction in &stage.instructions {
                writeln!(text, "{}", instruction.line()).expect("text");
            }
        }
        text
    }

    /// What a stage has in `/w`, worked out without a cache.
    fn tree(&self, number: usize) -> Tree {
        let stage = &self.stages[number];
        let mut tree = stage.base.map(|base| self.tree(base)).unwrap_or_default();
        for instruction in &stage.instructions {
            self.apply(instruction, &mut tree);
        }
        tree
    }

    fn apply(&self, instruction: &Instruction, tree: &mut Tree) {
        let files = &mut tree.files;
        match instruction {
            Instruction::Copy { from, to, .. } => {
                files.insert((*to).to_owned(), self.context[*from].clone());
            }
            Instruction::CopyDir { .. } => {
                let inner = self.context.iter().filter(|(path, _)| path.starts_with("dir/"));
                files.extend(inner.map(|(path, content)| (path.clone(), content.clone())));
            }
            Instruction::CopyStage { stage, .. } => files.extend(self.tree(*stage).files),
            Instruction::Echo { text, to, .. } => {
                files.insert((*to).to_owned(), format!("text {text} {}\n", tree.variable));
            }
            Instruction::Join { from, to } => {
                let content = |name: &str| files.get(name).cloned().unwrap_or_default();
                let joined = format!("{}{}-\n", content(from[0]), content(from[1]));
                files.insert((*to).to_owned(), joined);
            }
            Instruction::Bind { from, stage, to } => {
                let content = match stage {
                    Some(stage) => self.tree(*stage).files.get(*from).cloned(),
                    None => self.context.get(*from).cloned(),
                };
                let bound = format!("{}+\n", content.unwrap_or_default());
                files.insert((*to).to_owned(), bound);
            }
            Instruction::Remove { file } => drop(files.remove(*file)),
            Instruction::RemoveDir => files.retain(|path, _| !path.starts_with("dir/")),
            Instruction::Move { from, to } => {
                if let Some(content) = files.remove(*from) {
                    files.insert((*to).to_owned(), content);
                }
            }
            Instruction::Env { value } => tree.variable = format!("env{value}"),
            // An argument is hidden by a variable of the image with the same name, so it has its own.
            Instruction::Arg { value } => {
                let value = self.argument.unwrap_or(*value);
                files.insert("arg".to_owned(), format!("arg{value}\n"));
            }
        }
    }
}

impl Instruction {
    fn line(&self) -> String {
        let link = |is_linked: &bool| if *is_linked { "--link " } else { "" };
        match self {
            Self::Copy { from, to, is_linked } => format!("COPY {}{from} /w/{to}", link(is_linked)),
            Self::CopyDir { is_linked } => format!("COPY {}dir /w/dir", link(is_linked)),
            Self::CopyStage { stage, is_linked } => {
                format!("COPY {}--from=s{stage} /w /w", link(is_linked))
            }
            Self::Echo { text, to, is_cached } => {
                let cache = "--mount=type=cache,target=/k echo x >> /k/log && ";
                let cache = if *is_cached { cache } else { "" };
                format!("RUN {cache}echo text {text} \"$V\" > /w/{to}")
            }
            Self::Join { from: [first, second], to } => format!(
                "RUN (cat {first} 2>/dev/null; cat {second} 2>/dev/null; echo -) > /tmp/x; \
                 mv /tmp/x /w/{to}"
            ),
            Self::Bind { from, stage, to } => {
                let from_stage = stage.map_or(String::new(), |stage| format!("from=s{stage},"));
                let source = if stage.is_some() { "source=/w" } else { "source=." };
                format!(
                    "RUN --mount={from_stage}{source},target=/m (cat /m/{from} 2>/dev/null; \
                     echo +) > /w/{to}"
                )
            }
            Self::Remove { file } => format!("RUN rm -f /w/{file}"),
            Self::RemoveDir => "RUN rm -rf /w/dir".to_owned(),
            Self::Move { from, to } => format!("RUN mv {from} {to} 2>/dev/null || true"),
            Self::Env { value } => format!("ENV V=env{value}"),
            Self::Arg { value } => format!("ARG A={value}\nRUN echo arg$A > /w/arg"),
        }
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn a_build_has_what_its_dockerfile_says_whatever_was_built_pruned_and_killed_before() {
    let steps = number("KILN_RANDOM_STEPS", 40);
    let seed = number("KILN_RANDOM_SEED", u64::from(std::process::id()));
    eprintln!("seed {seed}");
    let mut model = Model::new(seed);
    let mut world = World::start();
    let context = Context::new();
    let (mut kills, mut prunes) = (0, 0);
    for step in 0..steps {
        for _ in 0..model.random.random_range(0..3) {
            model.edit();
        }
        write(&context, &model);
        match model.random.random_range(0..20) {
            0 => {
                prunes += 1;
                world.kiln().args(["prune", "--all", "--force"]).succeeds();
            }
            1 => {
                prunes += 1;
                let kinds = ["regular", "source.local", "exec.cachemount"];
                let kind = kinds.choose(&mut model.random).expect("kinds");
                let filter = format!("type={kind}");
                world.kiln().args(["prune", "--force", "--filter", &filter]).succeeds();
            }
            2 => {
                world.daemon.stop();
                world.daemon.start_again();
            }
            3 | 4 => {
                kills += 1;
                let mut build = world.build(&context).start();
                let moment = model.random.random_range(0..700);
                build.ends_within(Duration::from_millis(moment));
                world.daemon.kill();
                build.finish();
                world.daemon.check(&[]).is_clean();
                world.daemon.start_again();
            }
            _ => {}
        }
        builds_what_it_says(&world, &context, &mut model, &format!("step {step} of seed {seed}"));
    }
    eprintln!("{steps} builds, {kills} kills, {prunes} prunes");
    world.daemon.stop();
    world.daemon.check(&[]).is_clean();
}

#[test]
fn a_build_has_what_its_dockerfile_says_after_the_power_was_cut_at_any_moment() {
    let count = number("KILN_POWER_CUTS", 12) as usize;
    let seed = number("KILN_RANDOM_SEED", u64::from(std::process::id()));
    eprintln!("seed {seed}");
    let mut model = Model::new(seed);
    let mut moments = StdRng::seed_from_u64(seed);
    let disk = PowerCutDisk::mount(256);
    let registry = Registry::start();
    let daemon = Daemon::start_with_root(&disk.path().join("root"), &registry);
    let mut world = World { daemon, registry };
    let context = Context::new();
    write(&context, &model);
    builds_what_it_says(&world, &context, &mut model, &format!("seed {seed}"));
    world.daemon.stop();
    world.daemon.start_again();
    let mut builds = 1;
    // While it builds, and between: what was built lately is not on the disk, what was built some
    // seconds ago may be.
    let cuts = std::thread::scope(|scope| {
        let (_stop, stopped) = mpsc::channel::<()>();
        let disk = &disk;
        let cutting = scope.spawn(move || {
            let next = |number| {
                let pause = Duration::from_millis(moments.random_range(100..1_300));
                let is_time = stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout);
                is_time.then(|| disk.cut(number))
            };
            (0..count).map_while(next).collect::<Vec<_>>()
        });
        while !cutting.is_finished() {
            model.edit();
            write(&context, &model);
            builds_what_it_says(&world, &context, &mut model, &format!("seed {seed}"));
            builds += 1;
        }
        cutting.join().expect("cuts")
    });
    world.daemon.kill();
    let mut kept = Vec::new();
    for (number, cut) in cuts.iter().enumerate() {
        disk.go_back_to(cut);
        world.daemon.start_after_reboot();
        kept.push(fs::read_dir(world.daemon.root().join("snapshots")).expect("layers").count());
        for _ in 0..2 {
            let about = format!("cut {number} of seed {seed}");
            builds_what_it_says(&world, &context, &mut model, &about);
            model.edit();
            write(&context, &model);
        }
        world.daemon.stop();
        world.daemon.check(&[]).is_clean();
    }
    eprintln!("{builds} builds, layers after each cut: {kept:?}");
    assert!(kept.iter().all(|layers| *layers > 0), "what a daemon leaves that ends is on the disk");
}

/// Builds the Dockerfile of the context, and compares what came out with what it says.
#[track_caller]
fn builds_what_it_says(world: &World, context: &Context, model: &mut Model, about: &str) {
    let mut build = world.build(context).args(["--target", &format!("s{}", model.target)]);
    if let Some(argument) = model.argument {
        build = build.args(["--build-arg", &format!("A={argument}")]);
    }
    let of_image = model.random.random_bool(0.3);
    let built = if of_image {
        let (_, image) = world.pushed("random/image:1", build);
        image.contents()
    } else {
        let folder = Context::new();
        let archive = folder.path().join("files.tar");
        build.args(["--output", &format!("type=tar,dest={}", archive.display())]).succeeds();
        let files = unpack_archive(&fs::read(&archive).expect("archive"));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        files.into_iter().map(|(path, bytes)| (path, text(bytes))).collect()
    };
    let built: BTreeMap<_, _> = built
        .into_iter()
        .filter_map(|(path, content)| Some((path.strip_prefix("w/")?.to_owned(), content)))
        .collect();
    let expected = model.tree(model.target).files;
    let dockerfile = model.dockerfile();
    assert_eq!(
        built, expected,
        "{about}, target s{}, argument {:?}, image {of_image}:\n{dockerfile}",
        model.target, model.argument
    );
}

/// Brings the folder to what the model has, and leaves what is as it should be untouched.
fn write(context: &Context, model: &Model) {
    context.write("Dockerfile", model.dockerfile());
    let files = &model.context;
    for name in INNER {
        if !files.contains_key(name) && context.path().join(name).exists() {
            context.remove(name);
        }
    }
    for (path, content) in files {
        let is_same =
            fs::read_to_string(context.path().join(path)).is_ok_and(|old| old == *content);
        if !is_same {
            context.write(path, content);
        }
    }
}
