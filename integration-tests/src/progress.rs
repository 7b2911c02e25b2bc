//! Reads the plain progress log, which is also what users read.

use std::collections::BTreeMap;

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It was run.
    Done,
    /// It was reused.
    Cached,
    /// It failed, with this message.
    Failed(String),
    /// It was stopped because another step failed or the user asked for it.
    Canceled,
    /// The log has no end of it.
    Unfinished,
}

/// One numbered step of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The number after `#`.
    pub number: u32,
    /// For example `[stage-0 2/3] RUN make`.
    pub name: String,
    /// How it ended.
    pub state: State,
    /// The lines that its command wrote, without their times.
    pub log: Vec<String>,
    /// The other lines: transfers, pulls, exports.
    pub statuses: Vec<String>,
}

/// The steps of a log, by number.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    steps: BTreeMap<u32, Step>,
}

impl Progress {
    /// Reads a log in plain format; lines of other kinds are passed over.
    pub fn parse(log: &str) -> Self {
        let mut progress = Self::default();
        for line in log.lines() {
            let Some((number, rest)) = line.strip_prefix('#').and_then(|l| l.split_once(' '))
            else {
                continue;
            };
            let Ok(number) = number.parse() else { continue };
            progress.add(number, rest);
        }
        progress
    }

    fn add(&mut self, number: u32, rest: &str) {
        let Some(step) = self.steps.get_mut(&number) else {
            let step = Step {
                number,
                name: rest.to_owned(),
                state: State::Unfinished,
                log: Vec::new(),
                statuses: Vec::new(),
            };
            self.steps.insert(number, step);
            return;
        };
        // The name comes again when the log returns to a step, `...` when it leaves one.
        if rest == step.name || rest == "..." {
            return;
        }
        match rest.split_once(' ').unwrap_or((rest, "")) {
            // A step that reports its end twice (once for reuse, once for its transfer) is cached.
            ("DONE", _) if step.state == State::Unfinished => step.state = State::Done,
            ("DONE", _) => {}
            ("CACHED", "") => step.state = State::Cached,
            ("CANCELED", "") => step.state = State::Canceled,
            ("ERROR:", message) => step.state = State::Failed(message.to_owned()),
            (time, line) if is_time(time) => step.log.push(line.to_owned()),
            _ => step.statuses.push(rest.to_owned()),
        }
    }

    /// All steps, by number.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.values()
    }

    /// The step of an instruction: the one whose name is `wanted`, or is it after `[…] `.
    pub fn find(&self, wanted: &str) -> Option<&Step> {
        self.steps().find(|step| {
            step.name == wanted
                || step.name.split_once("] ").is_some_and(|(_, instruction)| instruction == wanted)
        })
    }
}

/// Log lines begin with seconds, of four digits: `0.040`, `10.04`.
fn is_time(word: &str) -> bool {
    word.split_once('.').is_some_and(|(seconds, fraction)| {
        seconds.len() + fraction.len() == 4
            && [seconds, fraction].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_reads_as_steps() {
        let log = "\
#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 134B done
#1 DONE 0.1s

#2 [stage-0 2/3] RUN ls -1
#2 0.040 Dockerfile
#2 ...

#3 [stage-0 1/3] WORKDIR /work
#3 CACHED

#2 [stage-0 2/3] RUN ls -1
#2 10.14 src
#2 DONE 10.2s

#4 [stage-0 3/3] RUN false
#4 ERROR: exit code: 1
------
 > [stage-0 3/3] RUN false:
------
";
        let progress = Progress::parse(log);
        let ls = progress.find("RUN ls -1").expect("step");
        assert_eq!((ls.number, &ls.state), (2, &State::Done));
        assert_eq!(ls.log, ["Dockerfile", "src"]);
        assert_eq!(progress.find("WORKDIR /work").expect("step").state, State::Cached);
        let failed = progress.find("RUN false").expect("step");
        assert_eq!(failed.state, State::Failed("exit code: 1".to_owned()));
        let load = progress.find("[internal] load build definition from Dockerfile").expect("step");
        assert_eq!(load.statuses, ["transferring dockerfile: 134B done"]);
    }
}
