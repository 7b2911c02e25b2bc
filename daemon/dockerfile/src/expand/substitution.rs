//! `$name` and `${name…}`.

use super::ExpandErrorKind;
use super::lexer::Lexer;
use super::pattern;

impl Lexer<'_> {
    /// After a `$`.
    pub(super) fn dollar(&mut self) -> Result<String, ExpandErrorKind> {
        if self.chars.next_if_eq(&'{').is_some() {
            return self.braced();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        Ok(match self.lookup(&name) {
            Some(value) => value.to_owned(),
            None if self.options.keep_unset => format!("${name}"),
            None => String::new(),
        })
    }

    /// After a `${`.
    fn braced(&mut self) -> Result<String, ExpandErrorKind> {
        match self.chars.peek() {
            None => return Err(ExpandErrorKind::MissingBrace),
            Some('{' | '}' | ':') => return Err(ExpandErrorKind::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        match self.chars.next() {
            Some('}') => Ok(match self.lookup(&name) {
                Some(value) => value.to_owned(),
                None if self.options.keep_unset => format!("${{{name}}}"),
                None => String::new(),
            }),
            Some(':') => match self.chars.next() {
                Some(c @ ('-' | '+' | '?')) => self.conditional(&name, c, true),
                Some(c) => Err(ExpandErrorKind::Modifier(format!(":{c}"))),
                None => Err(ExpandErrorKind::MissingBrace),
            },
            Some(c @ ('-' | '+' | '?')) => self.conditional(&name, c, false),
            Some(c @ ('#' | '%')) => self.trimmed(&name, c),
            Some('/') => self.replaced(&name),
            Some(c) => Err(ExpandErrorKind::Modifier(c.to_string())),
            None => Err(ExpandErrorKind::MissingBrace),
        }
    }

    /// `${name-word}`, `${name+word}`, `${name?word}`. After a colon an empty variable counts as
    /// one that is not set.
    fn conditional(
        &mut self,
        name: &str,
        modifier: char,
        colon: bool,
    ) -> Result<String, ExpandErrorKind> {
        let word = self.nested('}', false)?.ok_or(ExpandErrorKind::MissingBrace)?;
        let value = self.lookup(name);
        if value.is_none() && self.options.keep_unset {
            let colon = if colon { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{modifier}{word}}}"));
        }
        let counted = value.filter(|value| !(colon && value.is_empty()));
        match (modifier, counted) {
            ('+', Some(_)) | ('-', None) => Ok(word),
            ('+', None) => Ok(String::new()),
            (_, Some(value)) => Ok(value.to_owned()),
            (_, None) => {
                let state = if value.is_some() { "empty" } else { "unset" };
                let message =
                    if word.is_empty() { format!("is not allowed to be {state}") } else { word };
                Err(ExpandErrorKind::Required { name: name.to_owned(), message })
            }
        }
    }

    /// `${name#pattern}` and `${name%pattern}`; the modifier doubled takes the longest match.
    fn trimmed(&mut self, name: &str, modifier: char) -> Result<String, ExpandErrorKind> {
        let word = self.nested('}', true)?.ok_or(ExpandErrorKind::MissingBrace)?;
        let Some(value) = self.lookup(name) else {
            return Ok(if self.options.keep_unset {
                format!("${{{name}{modifier}{word}}}")
            } else {
                String::new()
            });
        };
        self.spend(value.len())?;
        let (pattern, longest) =
            word.strip_prefix(modifier).map_or((word.as_str(), false), |rest| (rest, true));
        if modifier == '#' {
            pattern::trim_prefix(value, pattern, longest)
        } else {
            pattern::trim_suffix(value, pattern, longest)
        }
    }

    /// `${name/pattern/replacement}` and `${name//pattern/replacement}`.
    fn replaced(&mut self, name: &str) -> Result<String, ExpandErrorKind> {
        let all = self.chars.next_if_eq(&'/').is_some();
        let pattern = self.nested('/', true)?.ok_or(ExpandErrorKind::MissingSlash)?;
        let replacement = self.nested('}', true)?.ok_or(ExpandErrorKind::MissingBrace)?;
        let Some(value) = self.lookup(name) else {
            let slashes = if all { "//" } else { "/" };
            return Ok(if self.options.keep_unset {
                format!("${{{name}{slashes}{pattern}/{replacement}}}")
            } else {
                String::new()
            });
        };
        self.spend(value.len())?;
        pattern::replace(value, &pattern, &replacement, all, |length| self.check_length(length))
    }

    /// A variable's name: letters, digits and underscores; digits alone if it starts with one;
    /// or one of the shell's special parameters. Empty if there is none.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.chars.peek() {
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => name.extend(self.chars.next()),
            Some(c) if c.is_numeric() => {
                while let Some(digit) = self.chars.next_if(|c| c.is_numeric()) {
                    name.push(digit);
                }
            }
            _ => {
                while let Some(c) = self.chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    name.push(c);
                }
            }
        }
        name
    }
}
