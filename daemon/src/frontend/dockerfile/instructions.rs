//! The instructions that change the image's config.

use anyhow::bail;
use kiln_dockerfile::instruction::{
    ArgDefinition, Command, CommandLine, Healthcheck as Check, Instruction, KeyValue, parse_port,
};
use kiln_dockerfile::lint::StageLint;
use kiln_proto::pb;
use kiln_proto::pb::file_action::Action;
use serde_json::json;

use super::evaluate::Evaluation;
use super::graph::{NONE, file, owner};
use super::history;
use super::image::Healthcheck;
use super::paths::absolute;
use super::scans::is_about_scans;
use super::stage::Stage;

impl Evaluation<'_> {
    /// Evaluates one instruction of `stage`.
    pub(super) fn instruction(
        &mut self,
        stage: &mut Stage,
        instruction: &Instruction,
    ) -> anyhow::Result<()> {
        match &instruction.command {
            Command::Add(add) => self.add(stage, instruction, add),
            Command::Arg(args) => self.arg(stage, instruction, args),
            Command::Cmd(line) => {
                self.cmd(stage, instruction, line);
                Ok(())
            }
            Command::Copy(copy) => self.copy(stage, instruction, copy),
            Command::Entrypoint(line) => {
                self.entrypoint(stage, instruction, line);
                Ok(())
            }
            Command::Env(pairs) => self.env(stage, instruction, pairs),
            Command::Expose(words) => self.expose(stage, instruction, words),
            Command::Healthcheck(check) => {
                self.healthcheck(stage, instruction, check);
                Ok(())
            }
            Command::Label(pairs) => self.label(stage, instruction, pairs),
            Command::Maintainer(author) => {
                stage.image.author.clone_from(author);
                self.commit(stage, format!("MAINTAINER {author}"), false);
                Ok(())
            }
            Command::Onbuild(trigger) => {
                stage.image.config.on_build.push(trigger.clone());
                Ok(())
            }
            Command::Run(run) => self.run_command(stage, instruction, run),
            Command::Shell(words) => {
                stage.image.config.shell.clone_from(words);
                self.commit(stage, format!("SHELL [{}]", words.join(" ")), false);
                Ok(())
            }
            Command::StopSignal(word) => {
                let signal = self.expand(stage, instruction, word)?;
                check_signal(&signal)?;
                self.commit(stage, format!("STOPSIGNAL {signal}"), false);
                stage.image.config.stop_signal = signal;
                Ok(())
            }
            Command::User(word) => {
                let user = self.expand(stage, instruction, word)?;
                self.commit(stage, format!("USER {user}"), false);
                stage.image.config.user = user;
                Ok(())
            }
            Command::Volume(words) => self.volume(stage, instruction, words),
            Command::Workdir(path) => self.workdir(stage, instruction, path),
        }
    }

    /// Adds a line to the image's history.
    pub(super) fn commit(&self, stage: &mut Stage, created_by: impl AsRef<str>, has_layer: bool) {
        history::commit(&mut stage.image, created_by.as_ref(), has_layer, self.planned.epoch);
    }

    fn arg(
        &mut self,
        stage: &mut Stage,
        instruction: &Instruction,
        args: &[ArgDefinition],
    ) -> anyhow::Result<()> {
        let mut shown = Vec::new();
        for arg in args {
            let name = &arg.name;
            StageLint::variable_name(self.linter, instruction, name);
            let given = self.conversion.options.build_args.get(name);
            let value = match (given, &arg.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(self.expand(stage, instruction, default)?),
                (None, None) => self.planned.globals.values.get(name).cloned(),
            };
            if let Some(value) = &value
                && !is_about_scans(name)
            {
                stage.set_env(name.clone(), value.clone());
            }
            let is_global = given.is_none() && arg.default.is_none() && value.is_some();
            stage.needs.arg(arg, value.as_deref(), instruction.location, is_global);
            shown.push(match &value {
                Some(value) => format!("{name}={value}"),
                None => name.clone(),
            });
            stage.args.push((name.clone(), value));
        }
        self.commit(stage, format!("ARG {}", shown.join(" ")), false);
        Ok(())
    }

    /// Pairs with their variables replaced.
    fn pairs(
        &mut self,
        stage: &Stage,
        instruction: &Instruction,
        pairs: &[KeyValue],
    ) -> anyhow::Result<Vec<(String, String)>> {
        let mut expanded = Vec::new();
        for pair in pairs {
            let name = self.expand(stage, instruction, &pair.key)?;
            expanded.push((name, self.expand(stage, instruction, &pair.value)?));
        }
        StageLint::pairs(self.linter, instruction);
        Ok(expanded)
    }

    fn env(
        &mut self,
        stage: &mut Stage,
        instruction: &Instruction,
        pairs: &[KeyValue],
    ) -> anyhow::Result<()> {
        // All pairs of an instruction see the variables from before it.
        let pairs = self.pairs(stage, instruction, pairs)?;
        let mut text = "ENV".to_owned();
        for (name, value) in pairs {
            StageLint::variable_name(self.linter, instruction, &name);
            text += &format!(" {name}={value}");
            stage.image.config.set_env(&name, &value);
            stage.set_env(name, value);
        }
        self.commit(stage, text, false);
        Ok(())
    }

    fn label(
        &mut self,
        stage: &mut Stage,
        instruction: &Instruction,
        pairs: &[KeyValue],
    ) -> anyhow::Result<()> {
        let pairs = self.pairs(stage, instruction, pairs)?;
        let mut text = "LABEL".to_owned();
        for (name, value) in pairs {
            text += &format!(" {name}={value}");
            stage.image.config.labels.insert(name, value);
        }
        self.commit(stage, text, false);
        Ok(())
    }

    /// The words of a CMD or ENTRYPOINT, with the shell if that runs them.
    fn command_line(
        &mut self,
        stage: &mut Stage,
        instruction: &Instruction,
        line: &CommandLine,
    ) -> Vec<String> {
        let has_shell = !stage.image.config.shell.is_empty();
        stage.lint.command_line(self.linter, instruction, line, has_shell);
        match line {
            CommandLine::Exec(words) => words.clone(),
            CommandLine::Shell(text) => stage.with_shell(text.clone()),
        }
    }

    fn cmd(&mut self, stage: &mut Stage, instruction: &Instruction, line: &CommandLine) {
        let words = self.command_line(stage, instruction, line);
        self.commit(stage, format!("CMD {}", history::quoted(&words)), false);
        stage.image.config.cmd = words;
        stage.image.config.args_escaped = true;
        stage.has_cmd = true;
    }

    fn entrypoint(&mut self, stage: &mut Stage, instruction: &Instruction, line: &CommandLine) {
        let words = self.command_line(stage, instruction, line);
        self.commit(stage, format!("ENTRYPOINT {}", history::quoted(&words)), false);
        stage.image.config.entrypoint = words;
        // The base image's arguments are not meant for this program.
        if !stage.has_cmd {
            stage.image.config.cmd.clear();
        }
    }

    fn expose(
        &mut self,
        stage: &mut Stage,
        instruction: &Instruction,
        words: &[String],
    ) -> anyhow::Result<()> {
        let mut ports = Vec::new();
        for word in words {
            for word in self.expander.words(word, &stage.env)? {
                let exposed = parse_port(&word)?;
                StageLint::ports(self.linter, instruction, &word, &exposed);
                ports.extend(exposed.range.ports());
            }
        }
        self.commit(stage, format!("EXPOSE [{}]", ports.join(" ")), false);
        let exposed = &mut stage.image.config.exposed_ports;
        exposed.extend(ports.into_iter().map(|port| (port, json!({}))));
        Ok(())
    }

    fn healthcheck(&mut self, stage: &mut Stage, instruction: &Instruction, check: &Check) {
        stage.lint.used_once(self.linter, instruction);
        let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let check = Healthcheck {
            test: check.test.clone(),
            interval: nanos(check.timing.interval),
            timeout: nanos(check.timing.timeout),
            start_period: nanos(check.timing.start_period),
            start_interval: nanos(check.timing.start_interval),
            retries: check.timing.retries.into(),
        };
        self.commit(stage, history::healthcheck(&check), false);
        stage.image.config.healthcheck = Some(check);
    }

    fn volume(
        &mut self,
        stage: &mut Stage,
        instruction: &Instruction,
        words: &[String],
    ) -> anyhow::Result<()> {
        let volumes = self.expand_all(stage, instruction, words)?;
        if volumes.iter().any(String::is_empty) {
            bail!("VOLUME specified can not be an empty string");
        }
        self.commit(stage, format!("VOLUME [{}]", volumes.join(" ")), false);
        let known = &mut stage.image.config.volumes;
        known.extend(volumes.into_iter().map(|volume| (volume, json!({}))));
        Ok(())
    }

    fn workdir(
        &mut self,
        stage: &mut Stage,
        instruction: &Instruction,
        path: &str,
    ) -> anyhow::Result<()> {
        let path = self.expand(stage, instruction, path)?;
        stage.lint.workdir(self.linter, instruction, &path);
        let workdir = absolute(&stage.workdir, &path);
        stage.workdir.clone_from(&workdir);
        // The image says it as the Dockerfile does.
        let written = match path.as_str() {
            "" if stage.image.config.working_dir.is_empty() => "/".to_owned(),
            "" => stage.image.config.working_dir.clone(),
            _ if path.starts_with('/') => path,
            _ => workdir.clone(),
        };
        stage.image.config.working_dir.clone_from(&written);
        let has_layer = workdir != "/";
        if has_layer {
            let shown = self.shown(stage, instruction);
            let name = stage.names.next(&shown, &stage.env);
            let user = &stage.image.config.user;
            let input = if stage.root.is_some() { 0 } else { NONE };
            let action = Action::Mkdir(pb::FileActionMkDir {
                path: workdir.clone(),
                mode: 0o755,
                make_parents: true,
                owner: (!user.is_empty()).then(|| owner(user, input)),
                timestamp: self
                    .planned
                    .epoch
                    .map_or(-1, |epoch| i64::try_from(epoch.unix_timestamp_nanos()).unwrap_or(-1)),
            });
            let meta = Stage::meta(&self.conversion.loaded.file, instruction, name);
            stage.root = Some(file(stage.root.as_ref(), action, &stage.platform, meta));
        }
        self.commit(stage, format!("WORKDIR {written}"), has_layer);
        Ok(())
    }
}

/// Fails for what is no signal: a number, or a name with or without `SIG`.
fn check_signal(signal: &str) -> anyhow::Result<()> {
    const NAMES: &str = "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF \
                         PWR QUIT RTMIN RTMAX SEGV STKFLT STOP SYS TERM TRAP TSTP TTIN TTOU \
                         UNUSED URG USR1 USR2 VTALRM WINCH XCPU XFSZ";
    let upper = signal.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |prefix: &str| {
        let offset = name.strip_prefix(prefix).and_then(|offset| offset.parse::<u8>().ok());
        offset.is_some_and(|offset| (1..=15).contains(&offset))
    };
    let is_known = signal.parse::<i32>().is_ok_and(|number| number != 0)
        || NAMES.split_whitespace().any(|known| known == name)
        || offset("RTMIN+")
        || offset("RTMAX-");
    if !is_known {
        bail!("invalid signal: {signal}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_signal;

    #[test]
    fn signals_are_numbers_or_names() {
        for signal in ["9", "SIGTERM", "term", "SIGRTMIN+3", "RTMAX-1", "64"] {
            assert!(check_signal(signal).is_ok(), "{signal}");
        }
        for signal in ["", "0", "SIG", "NOPE", "SIGRTMIN+99", "SIGRTMIN+x"] {
            assert!(check_signal(signal).is_err(), "{signal}");
        }
    }
}
