use crate::error::ErrorKind;
use crate::heredoc::Heredoc;
use crate::json;
use crate::lines::{Comments, Lines, LogicalLine};
use crate::words;
use crate::{Location, ParseError};

/// An instruction taken apart as far as all instructions are alike.
#[derive(Debug)]
pub(crate) struct Statement {
    /// The keyword as written.
    pub(crate) keyword: String,
    /// The flags, with dashes.
    pub(crate) flags: Vec<String>,
    /// Everything after the flags.
    pub(crate) arguments: String,
    /// The heredocs, with their contents.
    pub(crate) heredocs: Vec<Heredoc>,
    /// The logical line.
    pub(crate) line: String,
    pub(crate) location: Location,
    pub(crate) comments: Comments,
    /// The character that escapes others.
    pub(crate) escape: char,
}

impl Statement {
    /// Takes `logical` apart and reads the heredocs it starts from `lines`.
    pub(crate) fn read(
        logical: LogicalLine,
        lines: &mut Lines<'_>,
        escape: char,
    ) -> Result<Self, ParseError> {
        let LogicalLine { text, mut location, comments, .. } = logical;
        let split = words::split(&text, escape);
        let mut heredocs = Vec::new();
        if may_have_heredocs(split.keyword, split.arguments, escape)
            .map_err(|kind| ParseError::new(kind, location))?
        {
            heredocs =
                Heredoc::in_line(&text).map_err(|error| ParseError::new(error.into(), location))?;
            for heredoc in &mut heredocs {
                lines.read_heredoc(heredoc, &mut location)?;
            }
        }
        Ok(Self {
            keyword: split.keyword.to_owned(),
            arguments: split.arguments.to_owned(),
            flags: split.flags,
            heredocs,
            line: text,
            location,
            comments,
            escape,
        })
    }

    /// The arguments split at blanks.
    pub(crate) fn blank_words(&self) -> Vec<String> {
        words::split_blanks(&self.arguments)
    }

    /// The arguments split at blanks outside quotes, quotes kept.
    pub(crate) fn quoted_words(&self) -> Vec<String> {
        words::quoted_words(&self.arguments, self.escape)
    }

    /// The arguments in JSON form, if that is what they are.
    pub(crate) fn json(&self) -> Result<Option<Vec<String>>, ErrorKind> {
        json::string_array(&self.arguments)
    }

    /// The one argument of `instruction`, blanks and all.
    pub(crate) fn only_argument(&self, instruction: &'static str) -> Result<String, ErrorKind> {
        if self.arguments.is_empty() {
            return Err(ErrorKind::NotOneArgument { instruction });
        }
        Ok(self.arguments.clone())
    }
}

/// Whether `<<` starts a heredoc in this instruction: in RUN, COPY and ADD, also as a trigger,
/// but not in JSON form.
fn may_have_heredocs(keyword: &str, arguments: &str, escape: char) -> Result<bool, ErrorKind> {
    if keyword.eq_ignore_ascii_case("onbuild") {
        let trigger = words::split(arguments, escape);
        let nested = trigger.keyword.eq_ignore_ascii_case("onbuild");
        return if nested {
            Ok(false)
        } else {
            may_have_heredocs(trigger.keyword, trigger.arguments, escape)
        };
    }
    let takes_heredocs =
        ["run", "copy", "add"].iter().any(|name| keyword.eq_ignore_ascii_case(name));
    Ok(takes_heredocs && json::string_array(arguments)?.is_none())
}
