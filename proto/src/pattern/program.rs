//! Patterns with wildcards that no single comparison decides.

use super::glob::{BadGlob, CharSet};

/// A compiled pattern: what must follow what.
#[derive(Debug, Clone)]
pub(super) struct Program {
    steps: Vec<Step>,
    /// Steps that can take more or less; with two of them, failures are remembered.
    open_ended: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Literal(String),
    /// `?`: one character but `/`.
    OneChar,
    Set(CharSet),
    /// `*`: any characters but `/`.
    Chars,
    /// `**` or `**/` before something: nothing, or whole components and their `/`.
    Directories,
    /// `**` at the end: anything.
    Rest,
    /// `^`, which is a character only in a pattern without wildcards.
    Start,
}

impl Program {
    pub(super) fn compile(text: &str) -> Result<Self, BadGlob> {
        let steps = parse(text).ok_or_else(|| BadGlob { pattern: text.to_owned() })?;
        let open_ended = steps.iter().filter(|step| step.is_open_ended()).count();
        Ok(Self { steps, open_ended })
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        if let Some(Step::Literal(end)) = self.steps.last()
            && !path.ends_with(end.as_str())
        {
            return false;
        }
        // `**/*.o`, the most frequent line of all, is decided by the end alone.
        if let [Step::Directories, Step::Chars, Step::Literal(end)] = self.steps.as_slice()
            && !end.contains('/')
            && !path.contains('\n')
        {
            return true;
        }
        Run {
            steps: &self.steps,
            path,
            failed: Failed::new(self.open_ended, self.steps.len(), path.len()),
        }
        .from(0, 0)
    }
}

impl Step {
    fn is_open_ended(&self) -> bool {
        matches!(self, Self::Chars | Self::Directories)
    }
}

fn parse(text: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let step = match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                if chars.peek().is_none() { Step::Rest } else { Step::Directories }
            }
            '*' => Step::Chars,
            '?' => Step::OneChar,
            '^' => Step::Start,
            '[' => Step::Set(CharSet::parse(&mut chars)?),
            c => {
                let c = if c == '\\' { chars.next()? } else { c };
                if let Some(Step::Literal(literal)) = steps.last_mut() {
                    literal.push(c);
                    continue;
                }
                Step::Literal(c.to_string())
            }
        };
        // Two of these in a row say no more than one.
        if step.is_open_ended() && steps.last() == Some(&step) {
            continue;
        }
        steps.push(step);
    }
    Some(steps)
}

struct Run<'a> {
    steps: &'a [Step],
    path: &'a str,
    failed: Failed,
}

impl Run<'_> {
    /// Whether the steps from `step` on match all of the path from byte `at` on.
    fn from(&mut self, mut step: usize, mut at: usize) -> bool {
        loop {
            let rest = &self.path[at..];
            let Some(current) = self.steps.get(step) else {
                return rest.is_empty();
            };
            let first = rest.chars().next();
            match current {
                Step::Literal(literal) => {
                    if !rest.starts_with(literal.as_str()) {
                        return false;
                    }
                    at += literal.len();
                }
                Step::OneChar => match first {
                    Some(c) if c != '/' => at += c.len_utf8(),
                    _ => return false,
                },
                Step::Set(set) => match first {
                    Some(c) if set.contains(c) => at += c.len_utf8(),
                    _ => return false,
                },
                Step::Start => {
                    if at != 0 {
                        return false;
                    }
                }
                Step::Rest => return !rest.contains('\n'),
                Step::Chars | Step::Directories => return self.open_ended(step, at),
            }
            step += 1;
        }
    }

    fn open_ended(&mut self, step: usize, at: usize) -> bool {
        if self.failed.contains(step, at) {
            return false;
        }
        let in_one_component = self.steps[step] == Step::Chars;
        let mut after_separator = true;
        for (offset, c) in self.path[at..].char_indices() {
            if (in_one_component || after_separator) && self.from(step + 1, at + offset) {
                return true;
            }
            if c == if in_one_component { '/' } else { '\n' } {
                self.failed.insert(step, at);
                return false;
            }
            after_separator = c == '/';
        }
        let matched = (in_one_component || after_separator) && self.from(step + 1, self.path.len());
        if !matched {
            self.failed.insert(step, at);
        }
        matched
    }
}

/// Where in the path an open-ended step is known to fail, so that a hostile pattern costs its
/// length times the path's and not a power of it.
enum Failed {
    /// With one such step, each place is tried once anyway.
    Unneeded,
    Bits {
        width: usize,
        bits: Vec<u64>,
    },
}

impl Failed {
    fn new(open_ended: usize, steps: usize, path: usize) -> Self {
        if open_ended < 2 {
            return Self::Unneeded;
        }
        let width = path + 1;
        Self::Bits { width, bits: vec![0; (steps * width).div_ceil(64)] }
    }

    fn contains(&self, step: usize, at: usize) -> bool {
        match self {
            Self::Unneeded => false,
            Self::Bits { width, bits } => {
                let bit = step * width + at;
                bits[bit / 64] & (1 << (bit % 64)) != 0
            }
        }
    }

    fn insert(&mut self, step: usize, at: usize) {
        if let Self::Bits { width, bits } = self {
            let bit = step * *width + at;
            bits[bit / 64] |= 1 << (bit % 64);
        }
    }
}
