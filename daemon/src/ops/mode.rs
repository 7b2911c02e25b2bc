//! Modes as `--chmod` takes them: octal, or symbolic as chmod(1).

use std::str::FromStr;

/// A change of mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ModeSpec {
    /// These bits, whatever was there.
    Octal(u32),
    /// Clauses, applied in order.
    Symbolic(Vec<Clause>),
}

/// One action on the bits of some classes: `ug+rX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clause {
    /// The bits of user, group and others that may change, from 0o7700 for user.
    classes: u32,
    op: char,
    permissions: Vec<char>,
}

/// A text that is no mode.
#[derive(Debug, thiserror::Error)]
#[error("invalid mode {0:?}: expected an octal number up to 7777 or a form like u=rwX,go=rX")]
pub(crate) struct InvalidMode(String);

const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHER: u32 = 0o1007;

impl FromStr for ModeSpec {
    type Err = InvalidMode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidMode(text.to_owned());
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|&mode| mode <= 0o7777);
            return mode.map(Self::Octal).ok_or_else(invalid);
        }
        let clauses: Option<Vec<_>> = text.split(',').map(clauses).collect();
        let clauses = clauses.ok_or_else(invalid)?.concat();
        if clauses.is_empty() { Err(invalid()) } else { Ok(Self::Symbolic(clauses)) }
    }
}

/// Reads `ugo+r-w`: classes, then one or more actions.
fn clauses(text: &str) -> Option<Vec<Clause>> {
    let start = text.find(['+', '-', '='])?;
    let mut classes = 0;
    for class in text[..start].chars() {
        classes |= match class {
            'u' => USER,
            'g' => GROUP,
            'o' => OTHER,
            'a' => USER | GROUP | OTHER,
            _ => return None,
        };
    }
    if classes == 0 {
        classes = USER | GROUP | OTHER;
    }
    let mut found: Vec<Clause> = Vec::new();
    for c in text[start..].chars() {
        match c {
            '+' | '-' | '=' => found.push(Clause { classes, op: c, permissions: Vec::new() }),
            'r' | 'w' | 'x' | 'X' | 's' | 't' | 'u' | 'g' | 'o' => {
                found.last_mut()?.permissions.push(c);
            }
            _ => return None,
        }
    }
    Some(found)
}

impl ModeSpec {
    /// The mode that `mode` becomes.
    pub(crate) fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Self::Octal(bits) => *bits,
            Self::Symbolic(clauses) => {
                clauses.iter().fold(mode, |mode, clause| clause.apply(mode, is_dir))
            }
        }
    }
}

impl Clause {
    fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let copied = |bits: u32| bits * 0o111;
        let mut bits = 0;
        for permission in &self.permissions {
            bits |= match permission {
                'r' => 0o444,
                'w' => 0o222,
                'x' => 0o111,
                'X' if is_dir || mode & 0o111 != 0 => 0o111,
                's' => 0o6000,
                't' => 0o1000,
                'u' => copied(mode >> 6 & 7),
                'g' => copied(mode >> 3 & 7),
                'o' => copied(mode & 7),
                _ => 0,
            };
        }
        let bits = bits & self.classes;
        match self.op {
            '+' => mode | bits,
            '-' => mode & !bits,
            // A directory keeps set-id bits that are not named, as in chmod(1).
            _ => {
                let special = if is_dir { 0o6000 } else { 0 };
                mode & !(self.classes & !special) | bits
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_change_as_chmod_changes_them() {
        let cases = [
            ("755", 0o644, false, 0o755),
            ("0644", 0o777, false, 0o644),
            ("u+x", 0o644, false, 0o744),
            ("+x", 0o644, false, 0o755),
            ("go-rwx", 0o755, false, 0o700),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("u=rwX,go=rX", 0o711, false, 0o755),
            ("g=u", 0o640, false, 0o660),
            ("a=r", 0o777, false, 0o444),
            ("u+s", 0o755, false, 0o4755),
            ("+t", 0o777, true, 0o1777),
            ("u+r-w", 0o200, false, 0o400),
        ];
        for (text, mode, is_dir, expected) in cases {
            let changed = text.parse::<ModeSpec>().unwrap().apply(mode, is_dir);
            assert_eq!(changed, expected, "{text} on {mode:o}: {changed:o}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "8", "77777", "u", "rwx", "u+q", "x=r", "u=r,", "0o7"] {
            assert!(text.parse::<ModeSpec>().is_err(), "{text:?}");
        }
    }
}
