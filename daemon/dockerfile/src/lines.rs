//! Physical lines joined to logical ones: continuations, comments, heredoc bodies.

use std::collections::BTreeSet;

use crate::directive::Directives;
use crate::error::ErrorKind;
use crate::heredoc::Heredoc;
use crate::{Location, ParseError};

/// What one instruction is parsed from.
#[derive(Debug)]
pub(crate) struct LogicalLine {
    /// The text with its continuations joined, without leading blanks.
    pub(crate) text: String,
    /// Where it was written; grows when heredoc bodies follow.
    pub(crate) location: Location,
    /// Comments since the previous instruction, without `#` and surrounding blanks.
    pub(crate) comments: Comments,
    /// Whether an empty line stood between its continuations.
    pub(crate) has_empty_continuation: bool,
}

/// The comments before an instruction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comments {
    /// Their texts, in order. An empty comment drops those before it, an empty line does not.
    pub texts: Vec<String>,
}

impl Comments {
    /// The description that a comment of the form `# <name> <description>` gives for `name`.
    pub fn describe(&self, name: &str) -> Option<String> {
        if name.is_empty() {
            return None;
        }
        self.texts.iter().find_map(|text| {
            let rest = text.strip_prefix(name)?.strip_prefix(' ')?;
            Some(rest.to_owned())
        })
    }
}

/// Reads a Dockerfile's text line by line.
pub(crate) struct Lines<'a> {
    rest: &'a str,
    number: u32,
    escape: char,
    head: u32,
    /// Numbers of the lines that were not UTF-8, which only comments may be.
    damaged: &'a BTreeSet<u32>,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(
        source: &'a str,
        damaged: &'a BTreeSet<u32>,
        directives: &Directives,
    ) -> Self {
        Self {
            rest: source,
            number: 0,
            escape: directives.escape,
            head: directives.last_line,
            damaged,
        }
    }

    /// Number of the line last read.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    fn check_encoding(&self) -> Result<(), ParseError> {
        if self.damaged.contains(&self.number) {
            return Err(ParseError::new(ErrorKind::NotUtf8, Location::line(self.number)));
        }
        Ok(())
    }

    /// The next physical line with its line ending.
    fn physical(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        let end = self.rest.find('\n').map_or(self.rest.len(), |at| at + 1);
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.number += 1;
        Some(line)
    }

    /// The next logical line, or `None` at the end of the file.
    pub(crate) fn next_logical(&mut self) -> Result<Option<LogicalLine>, ParseError> {
        let mut comments = Comments::default();
        while let Some(line) = self.physical() {
            let line = trim_ending(line).trim_start();
            if let Some(comment) = line.strip_prefix('#') {
                if self.number > self.head {
                    comments.add(comment.trim());
                }
                continue;
            }
            self.check_encoding()?;
            let (text, continues) = self.split_continuation(line);
            if text.is_empty() && !continues {
                continue;
            }
            let mut logical = LogicalLine {
                text: text.to_owned(),
                location: Location::line(self.number),
                comments,
                has_empty_continuation: false,
            };
            if continues {
                self.join_continuations(&mut logical)?;
            }
            return Ok(Some(logical));
        }
        Ok(None)
    }

    fn join_continuations(&mut self, logical: &mut LogicalLine) -> Result<(), ParseError> {
        while let Some(line) = self.physical() {
            let line = trim_ending(line);
            logical.location.end = self.number;
            let content = line.trim_start();
            if content.starts_with('#') {
                continue;
            }
            if content.is_empty() {
                logical.has_empty_continuation = true;
                continue;
            }
            self.check_encoding()?;
            let (text, continues) = self.split_continuation(line);
            logical.text.push_str(text);
            if !continues {
                break;
            }
        }
        Ok(())
    }

    /// Cuts off a trailing continuation character and says whether there was one. A doubled
    /// escape character at the end of a line does not continue it.
    fn split_continuation<'t>(&self, line: &'t str) -> (&'t str, bool) {
        let body = line.trim_end_matches([' ', '\t']);
        match body.strip_suffix(self.escape) {
            Some(text) if !text.ends_with(self.escape) => (text, true),
            _ => (line, false),
        }
    }

    /// Reads the body of a heredoc that `line` started, up to its terminator.
    pub(crate) fn read_heredoc(
        &mut self,
        heredoc: &mut Heredoc,
        line: &mut Location,
    ) -> Result<(), ParseError> {
        while let Some(text) = self.physical() {
            line.end = self.number;
            let mut candidate = trim_ending(text);
            if heredoc.strip_tabs {
                candidate = candidate.trim_start_matches('\t');
            }
            if candidate == heredoc.name {
                return Ok(());
            }
            self.check_encoding()?;
            heredoc.content.push_str(text);
        }
        let kind = ErrorKind::UnterminatedHeredoc { name: heredoc.name.clone() };
        Err(ParseError::new(kind, *line))
    }
}

impl Comments {
    fn add(&mut self, text: &str) {
        if text.is_empty() {
            self.texts.clear();
        } else {
            self.texts.push(text.to_owned());
        }
    }
}

fn trim_ending(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &str) -> Vec<LogicalLine> {
        let directives = Directives::read(source).unwrap();
        let damaged = BTreeSet::new();
        let mut lines = Lines::new(source, &damaged, &directives);
        std::iter::from_fn(|| lines.next_logical().unwrap()).collect()
    }

    fn texts(source: &str) -> Vec<String> {
        read(source).into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn continuations_join_lines_and_keep_their_indentation() {
        let cases: &[(&str, &[&str])] = &[
            ("RUN a\\\n  b\n", &["RUN a  b"]),
            ("RUN a \\ \t\nb", &["RUN a b"]),
            ("RUN a \\\r\n b\r\n", &["RUN a  b"]),
            ("RUN a\\\\\nFROM b", &["RUN a\\\\", "FROM b"]),
            ("\\\nRUN a", &["RUN a"]),
            ("RUN a \\\n# comment\n  # indented\n b", &["RUN a  b"]),
            ("RUN a \\\n\n b", &["RUN a  b"]),
            ("RUN a \\", &["RUN a "]),
            ("  RUN a\n\n\t\n", &["RUN a"]),
            ("# escape=`\nRUN a `\n b\\\nRUN c", &["RUN a  b\\", "RUN c"]),
        ];
        for (source, expected) in cases {
            assert_eq!(texts(source), *expected, "{source:?}");
        }
    }

    #[test]
    fn a_logical_line_knows_its_first_and_last_line() {
        let lines = read("\n# c\nRUN a \\\n\\\n b\n\nRUN c\n");
        assert_eq!(lines[0].location, Location::new(3, 5));
        assert_eq!(lines[1].location, Location::line(7));
    }

    #[test]
    fn empty_continuations_are_noticed() {
        let empty: Vec<bool> = read("RUN a \\\n\nb\nRUN a \\\n# c\nb\n")
            .iter()
            .map(|line| line.has_empty_continuation)
            .collect();
        assert_eq!(empty, [true, false]);
    }

    #[test]
    fn comments_belong_to_the_next_instruction() {
        let lines = read("# syntax=x\n# one\n  # two\nFROM a\n# three\n#\n# four\n\nRUN b\n");
        assert_eq!(lines[0].comments.texts, ["one", "two"]);
        assert_eq!(lines[1].comments.texts, ["four"]);
    }
}
