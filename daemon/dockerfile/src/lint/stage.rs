use super::{Linter, Rule};
use crate::Location;
use crate::instruction::{Command, CommandLine, ExposedPorts, Instruction};

/// Words that, as a part of a variable's name, say that its value is secret.
const SECRET: [&str; 10] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
    "secret",
    "token",
];

/// Words that say that it is not.
const NOT_SECRET: [&str; 3] = ["public", "file", "version"];

/// Checks the instructions of one stage while they are evaluated, in order.
#[derive(Clone, Debug, Default)]
pub struct StageLint {
    has_workdir: bool,
    cmd: Option<Location>,
    entrypoint: Option<Location>,
    healthcheck: Option<Location>,
}

impl StageLint {
    /// For a stage that starts from an image.
    pub fn new() -> Self {
        Self::default()
    }

    /// For a stage that starts from another stage.
    #[must_use]
    pub fn inherit(&self) -> Self {
        Self { has_workdir: self.has_workdir, ..Self::default() }
    }

    /// A CMD or ENTRYPOINT; `has_shell` says whether the image so far names a shell of its own.
    pub fn command_line(
        &mut self,
        linter: &mut Linter,
        instruction: &Instruction,
        command: &CommandLine,
        has_shell: bool,
    ) {
        self.used_once(linter, instruction);
        if command.needs_shell() && !has_shell {
            let detail = format!(
                "JSON arguments recommended for {} to prevent unintended behavior related to OS \
                 signals",
                instruction.keyword
            );
            warn(linter, Rule::JSONArgsRecommended, instruction, detail);
        }
    }

    /// A CMD, ENTRYPOINT or HEALTHCHECK, of which the last one counts. The finding is about the
    /// one before, which has no effect.
    pub fn used_once(&mut self, linter: &mut Linter, instruction: &Instruction) {
        let slot = match instruction.command {
            Command::Cmd(_) => &mut self.cmd,
            Command::Entrypoint(_) => &mut self.entrypoint,
            Command::Healthcheck(_) => &mut self.healthcheck,
            _ => return,
        };
        if let Some(before) = slot.replace(instruction.location) {
            let detail = format!(
                "Multiple {} instructions should not be used in the same stage because only the \
                 last one will be used",
                instruction.keyword
            );
            let rule = Rule::MultipleInstructionsDisallowed;
            linter.warn(rule, before, &instruction.comments, detail);
        }
    }

    /// A WORKDIR, its path expanded.
    pub fn workdir(&mut self, linter: &mut Linter, instruction: &Instruction, path: &str) {
        let had_workdir = std::mem::replace(&mut self.has_workdir, true);
        if !had_workdir && !path.starts_with('/') {
            let detail = format!(
                "Relative workdir {path:?} can have unexpected results if the base image changes"
            );
            warn(linter, Rule::WorkdirRelativePath, instruction, detail);
        }
    }

    /// A variable of ENV or ARG, its name expanded.
    pub fn variable_name(linter: &mut Linter, instruction: &Instruction, name: &str) {
        let kind = match instruction.command {
            Command::Env(_) => "ENV",
            Command::Arg(_) => "ARG",
            _ => return,
        };
        let has_part = |words: &[&str]| {
            name.split('_').any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)))
        };
        if has_part(&SECRET) && !has_part(&NOT_SECRET) {
            let detail =
                format!("Do not use ARG or ENV instructions for sensitive data ({kind} {name:?})");
            warn(linter, Rule::SecretsUsedInArgOrEnv, instruction, detail);
        }
    }

    /// An ENV or LABEL.
    pub fn pairs(linter: &mut Linter, instruction: &Instruction) {
        let (Command::Env(pairs) | Command::Label(pairs)) = &instruction.command else { return };
        for _ in pairs.iter().filter(|pair| pair.is_legacy) {
            let name = &instruction.keyword;
            let detail = format!(
                "\"{name} key=value\" should be used instead of legacy \"{name} key value\" format"
            );
            warn(linter, Rule::LegacyKeyValueFormat, instruction, detail);
        }
    }

    /// One expanded word of EXPOSE, and the ports it names.
    pub fn ports(linter: &mut Linter, instruction: &Instruction, word: &str, ports: &ExposedPorts) {
        if ports.odd_protocol.is_some() {
            let detail =
                format!("Defined protocol '{word}' in EXPOSE instruction should be lowercase");
            warn(linter, Rule::ExposeProtoCasing, instruction, detail);
        }
        if ports.has_host_part {
            let detail = format!(
                "EXPOSE instruction should not define an IP address or host-port mapping, found \
                 '{word}'"
            );
            warn(linter, Rule::ExposeInvalidFormat, instruction, detail);
        }
    }
}

/// A source of COPY or ADD that the ignore file keeps out of the context.
pub fn ignored_file(linter: &mut Linter, instruction: &Instruction, path: &str) {
    let verb = if matches!(instruction.command, Command::Add(_)) { "Add" } else { "Copy" };
    let detail = format!("Attempting to {verb} file {path:?} that is excluded by .dockerignore");
    warn(linter, Rule::CopyIgnoredFile, instruction, detail);
}

/// A base image that was pulled for another platform than the build's.
pub fn base_platform(
    linter: &mut Linter,
    location: Location,
    image: &str,
    expected: &str,
    actual: &str,
) {
    let detail = format!(
        "Base image {image} was pulled with platform {actual:?}, expected {expected:?} for \
         current build"
    );
    let comments = crate::lines::Comments::default();
    linter.warn(Rule::InvalidBaseImagePlatform, location, &comments, detail);
}

fn warn(linter: &mut Linter, rule: Rule, instruction: &Instruction, detail: String) {
    linter.warn(rule, instruction.location, &instruction.comments, detail);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::Dockerfile;
    use crate::instruction::parse_port;

    /// Checks the only stage of `source` as an evaluation does that has no variables.
    fn findings(source: &str) -> Vec<(u32, Rule)> {
        let file = Dockerfile::parse(format!("FROM a\n{source}").as_bytes()).unwrap();
        let mut linter = Linter::default();
        let mut stage = StageLint::new();
        let mut has_shell = false;
        for instruction in &file.stages[0].instructions {
            let linter = &mut linter;
            match &instruction.command {
                Command::Cmd(line) | Command::Entrypoint(line) => {
                    stage.command_line(linter, instruction, line, has_shell);
                }
                Command::Healthcheck(_) => stage.used_once(linter, instruction),
                Command::Shell(_) => has_shell = true,
                Command::Workdir(path) => stage.workdir(linter, instruction, path),
                Command::Env(pairs) => {
                    StageLint::pairs(linter, instruction);
                    for pair in pairs {
                        StageLint::variable_name(linter, instruction, &pair.key);
                    }
                }
                Command::Label(_) => StageLint::pairs(linter, instruction),
                Command::Arg(args) => {
                    for arg in args {
                        StageLint::variable_name(linter, instruction, &arg.name);
                    }
                }
                Command::Expose(words) => {
                    for word in words {
                        let ports = parse_port(word).unwrap();
                        StageLint::ports(linter, instruction, word, &ports);
                    }
                }
                Command::Copy(copy) => {
                    ignored_file(linter, instruction, &copy.transfer.sources[0]);
                }
                _ => {}
            }
        }
        linter.warnings().iter().map(|warning| (warning.location.start, warning.rule)).collect()
    }

    #[test]
    fn each_rule_finds_what_it_is_about() {
        use Rule as R;
        let cases: &[(&str, &[(u32, R)])] = &[
            ("CMD x\n", &[(2, R::JSONArgsRecommended)]),
            ("ENTRYPOINT x\n", &[(2, R::JSONArgsRecommended)]),
            ("CMD [\"x\"]\n", &[]),
            ("SHELL [\"x\"]\nCMD x\n", &[]),
            (
                "CMD []\nCMD []\nCMD []\n",
                &[(2, R::MultipleInstructionsDisallowed), (3, R::MultipleInstructionsDisallowed)],
            ),
            ("CMD []\nENTRYPOINT []\nHEALTHCHECK NONE\n", &[]),
            ("HEALTHCHECK NONE\nHEALTHCHECK CMD x\n", &[(2, R::MultipleInstructionsDisallowed)]),
            ("WORKDIR x\nWORKDIR y\n", &[(2, R::WorkdirRelativePath)]),
            ("WORKDIR /x\nWORKDIR y\n", &[]),
            ("ENV a b\n", &[(2, R::LegacyKeyValueFormat)]),
            ("LABEL a b c\n", &[(2, R::LegacyKeyValueFormat)]),
            ("ENV a=b\nLABEL a=b\n", &[]),
            ("EXPOSE 80/TCP\n", &[(2, R::ExposeProtoCasing)]),
            ("EXPOSE 8080:80\n", &[(2, R::ExposeInvalidFormat)]),
            ("EXPOSE 80/tcp\n", &[]),
            ("COPY a b\n", &[(2, R::CopyIgnoredFile)]),
        ];
        for (source, expected) in cases {
            assert_eq!(findings(source), *expected, "{source}");
        }
    }

    #[test]
    fn names_with_a_secret_part_are_secret() {
        let secret = ["SECRET_PASSPHRASE", "password", "super_duper_token", "apikey", "git_key"];
        let harmless = [
            "PUBLIC_KEY",
            "PASSWORD_FILE",
            "AUTH_VERSION",
            "sunflower",
            "KEYS",
            "TOKENS",
            "MONKEY",
        ];
        for name in secret {
            let expected = [(2, Rule::SecretsUsedInArgOrEnv)];
            assert_eq!(findings(&format!("ARG {name}\n")), expected, "{name}");
            assert_eq!(findings(&format!("ENV {name}=x\n")), expected, "{name}");
        }
        for name in harmless {
            assert_eq!(findings(&format!("ARG {name}=x\n")), [], "{name}");
        }
    }

    #[test]
    fn a_workdir_is_inherited_and_a_command_is_not() {
        let file = Dockerfile::parse(b"FROM a\nWORKDIR x\nCMD []\n").unwrap();
        let [workdir, cmd] = file.stages[0].instructions.as_slice() else { panic!() };
        let mut linter = Linter::default();
        let mut base = StageLint::new();
        base.workdir(&mut linter, workdir, "/x");
        base.used_once(&mut linter, cmd);
        let mut stage = base.inherit();
        stage.workdir(&mut linter, workdir, "x");
        stage.used_once(&mut linter, cmd);
        assert_eq!(linter.warnings(), []);
    }

    #[test]
    fn a_comment_switches_a_rule_off_for_one_instruction() {
        assert_eq!(findings("# check=skip=SecretsUsedInArgOrEnv // fine\nARG password\n"), []);
    }
}
