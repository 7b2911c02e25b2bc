use std::iter::Peekable;
use std::str::Chars;

use indexmap::IndexSet;

use super::{ExpandErrorKind, Expander, Expansion, Variables};

/// Deepest nesting of substitutions; each level costs stack.
const DEEPEST: usize = 64;

/// Most bytes that a word may grow by. Doubling a variable a few times would fill the memory.
const MOST_GROWTH: usize = 1 << 20;

/// Most bytes that the patterns of one word may be matched against, a pattern itself counting as
/// [`PATTERN_COST`].
const MOST_MATCHING: usize = 16 << 20;

/// What compiling a pattern counts for, in bytes of matching.
const PATTERN_COST: usize = 1 << 12;

/// Expands one word.
pub(super) struct Lexer<'a> {
    pub(super) options: &'a Expander,
    pub(super) chars: Peekable<Chars<'a>>,
    variables: &'a dyn Variables,
    keep_escapes: bool,
    depth: usize,
    limit: usize,
    matching_left: usize,
    used: IndexSet<String>,
    unset: IndexSet<String>,
}

/// What a stretch of text expands to, as one string and split at blanks outside quotes.
#[derive(Default)]
struct Output {
    text: String,
    words: Vec<String>,
    word: String,
}

impl Output {
    /// Adds text that stays in one word, blanks and all.
    fn push_quoted(&mut self, text: &str) {
        self.text.push_str(text);
        self.word.push_str(text);
    }

    /// Adds text whose blanks separate words.
    fn push_split(&mut self, text: &str) {
        text.chars().for_each(|c| self.push(c));
    }

    fn push(&mut self, c: char) {
        self.text.push(c);
        if c.is_whitespace() {
            self.end_word();
        } else {
            self.word.push(c);
        }
    }

    fn end_word(&mut self) {
        if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }
}

impl<'a> Lexer<'a> {
    pub(super) fn new(options: &'a Expander, word: &'a str, variables: &'a dyn Variables) -> Self {
        Self {
            options,
            chars: word.chars().peekable(),
            variables,
            keep_escapes: options.keep_escapes,
            depth: 0,
            limit: word.len().saturating_add(MOST_GROWTH),
            matching_left: MOST_MATCHING,
            used: IndexSet::new(),
            unset: IndexSet::new(),
        }
    }

    pub(super) fn run(mut self) -> Result<Expansion, ExpandErrorKind> {
        let mut output = self.until(None)?;
        output.end_word();
        Ok(Expansion { text: output.text, words: output.words, used: self.used, unset: self.unset })
    }

    /// The expansion of what comes up to `stop`, which is consumed, with escape characters kept
    /// or not for its length. `None` if the text ends first.
    pub(super) fn nested(
        &mut self,
        stop: char,
        keep_escapes: bool,
    ) -> Result<Option<String>, ExpandErrorKind> {
        if self.depth == DEEPEST {
            return Err(ExpandErrorKind::TooDeep { limit: DEEPEST });
        }
        let outer = std::mem::replace(&mut self.keep_escapes, keep_escapes);
        self.depth += 1;
        let output = self.until(Some(stop))?;
        self.depth -= 1;
        self.keep_escapes = outer;
        Ok((self.chars.next_if_eq(&stop).is_some()).then_some(output.text))
    }

    /// The expansion of everything before `stop` or the end.
    fn until(&mut self, stop: Option<char>) -> Result<Output, ExpandErrorKind> {
        let mut output = Output::default();
        while let Some(c) = self.chars.next_if(|c| Some(*c) != stop) {
            match c {
                '\'' if !self.options.ignore_quotes => {
                    let text = self.single_quoted()?;
                    output.push_quoted(&text);
                }
                '"' if !self.options.ignore_quotes => {
                    let text = self.double_quoted()?;
                    output.push_quoted(&text);
                }
                '$' => {
                    let text = self.dollar()?;
                    output.push_split(&text);
                }
                '<' => output.push_quoted(&self.heredoc_start()),
                c if c == self.options.escape => {
                    if self.keep_escapes {
                        output.push_quoted(c.encode_utf8(&mut [0; 4]));
                    }
                    // An escape character with nothing after it is dropped.
                    let Some(escaped) = self.chars.next() else { break };
                    output.push_quoted(escaped.encode_utf8(&mut [0; 4]));
                }
                c => output.push(c),
            }
            self.check_length(output.text.len())?;
        }
        Ok(output)
    }

    /// Everything up to the closing quote, as it is.
    fn single_quoted(&mut self) -> Result<String, ExpandErrorKind> {
        let mut text = self.quote('\'');
        loop {
            match self.chars.next() {
                None => return Err(ExpandErrorKind::Unclosed("single-quote")),
                Some('\'') => break,
                Some(c) => text.push(c),
            }
        }
        text.push_str(&self.quote('\''));
        Ok(text)
    }

    /// Everything up to the closing quote, variables replaced. The escape character is one only
    /// before a quote, a dollar sign and itself.
    fn double_quoted(&mut self) -> Result<String, ExpandErrorKind> {
        let mut text = self.quote('"');
        loop {
            match self.chars.next() {
                None => return Err(ExpandErrorKind::Unclosed("double-quote")),
                Some('"') => break,
                Some('$') => text.push_str(&self.dollar()?),
                Some(c) if c == self.options.escape => {
                    if self.keep_escapes {
                        text.push(c);
                    }
                    let escape = self.options.escape;
                    match self.chars.next_if(|next| *next == '"' || *next == '$' || *next == escape)
                    {
                        Some(escaped) => text.push(escaped),
                        None if self.chars.peek().is_some() => text.push(c),
                        None => {}
                    }
                }
                Some(c) => text.push(c),
            }
            self.check_length(text.len())?;
        }
        text.push_str(&self.quote('"'));
        Ok(text)
    }

    /// A quote, if quotes are kept.
    fn quote(&self, quote: char) -> String {
        if self.options.keep_quotes { quote.to_string() } else { String::new() }
    }

    /// After a `<`: a heredoc's name may stand apart from its `<<` and still be one word with it.
    fn heredoc_start(&mut self) -> String {
        let mut text = String::from("<");
        if let Some(second) = self.chars.next_if_eq(&'<') {
            text.push(second);
            while let Some(blank) = self.chars.next_if(|c| matches!(c, '\t' | '\r' | ' ')) {
                text.push(blank);
            }
        }
        text
    }

    /// Looks a variable up, and remembers that.
    pub(super) fn lookup(&mut self, name: &str) -> Option<&'a str> {
        let value = self.variables.get(name);
        let seen = if value.is_some() { &mut self.used } else { &mut self.unset };
        if !seen.contains(name) {
            seen.insert(name.to_owned());
        }
        value
    }

    /// Accounts for matching a pattern against `length` bytes.
    pub(super) fn spend(&mut self, length: usize) -> Result<(), ExpandErrorKind> {
        let cost = length.saturating_add(PATTERN_COST);
        self.matching_left =
            self.matching_left.checked_sub(cost).ok_or(ExpandErrorKind::TooMuchMatching)?;
        Ok(())
    }

    pub(super) fn check_length(&self, length: usize) -> Result<(), ExpandErrorKind> {
        if length > self.limit {
            return Err(ExpandErrorKind::TooLong { limit: self.limit });
        }
        Ok(())
    }
}
