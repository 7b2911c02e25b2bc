//! Expansion: quotes, escapes and variables in the words of an instruction.
//!
//! The rules are those of a POSIX shell as far as Dockerfiles have them: single and double
//! quotes, an escape character, `$name` and `${name}` with the modifiers `-` `+` `?` (each also
//! after a colon), `#` `##` `%` `%%` and `/` `//`.
//!
//! ```
//! use indexmap::IndexMap;
//! use kiln_dockerfile::expand::Expander;
//!
//! let variables = IndexMap::from([("VERSION".to_owned(), "1.2".to_owned())]);
//! let found = Expander::new('\\').expand("app-${VERSION%.*}${TAG:+-$TAG}", &variables)?;
//! assert_eq!(found.text, "app-1");
//! assert!(found.used.contains("VERSION"));
//! assert!(found.unset.contains("TAG"));
//! # Ok::<(), kiln_dockerfile::expand::ExpandError>(())
//! ```

mod lexer;
mod pattern;
mod substitution;
mod variables;

use indexmap::IndexSet;

pub use variables::{NoVariables, Variables};

/// How words are expanded.
#[derive(Clone, Debug)]
pub struct Expander {
    escape: char,
    keep_quotes: bool,
    keep_escapes: bool,
    ignore_quotes: bool,
    keep_unset: bool,
}

impl Expander {
    /// Expansion as instructions have it, with the Dockerfile's escape character.
    pub fn new(escape: char) -> Self {
        Self {
            escape,
            keep_quotes: false,
            keep_escapes: false,
            ignore_quotes: false,
            keep_unset: false,
        }
    }

    /// Leaves quotes in the result.
    #[must_use]
    pub fn keep_quotes(self) -> Self {
        Self { keep_quotes: true, ..self }
    }

    /// Leaves escape characters in the result.
    #[must_use]
    pub fn keep_escapes(self) -> Self {
        Self { keep_escapes: true, ..self }
    }

    /// Gives quotes no meaning, as in the body of a heredoc.
    #[must_use]
    pub fn ignore_quotes(self) -> Self {
        Self { ignore_quotes: true, ..self }
    }

    /// Leaves references to unset variables as they are written, as in a step's display name.
    #[must_use]
    pub fn keep_unset(self) -> Self {
        Self { keep_unset: true, ..self }
    }

    /// Expands `word`, and says which variables that looked at.
    pub fn expand(&self, word: &str, variables: &dyn Variables) -> Result<Expansion, ExpandError> {
        lexer::Lexer::new(self, word, variables).run().map_err(|kind| ExpandError::new(word, kind))
    }

    /// Expands `word` to a single string.
    pub fn word(&self, word: &str, variables: &dyn Variables) -> Result<String, ExpandError> {
        self.expand(word, variables).map(|expansion| expansion.text)
    }

    /// Expands `word` and splits the result at blanks outside quotes.
    pub fn words(&self, word: &str, variables: &dyn Variables) -> Result<Vec<String>, ExpandError> {
        self.expand(word, variables).map(|expansion| expansion.words)
    }
}

/// An expanded word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    /// The result as one string.
    pub text: String,
    /// The result split at blanks outside quotes.
    pub words: Vec<String>,
    /// Variables that were looked up and are set, in order.
    pub used: IndexSet<String>,
    /// Variables that were looked up and are not set, in order.
    pub unset: IndexSet<String>,
}

/// A word that cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {word:?}: {kind}")]
pub struct ExpandError {
    /// The word, cut off if it is very long.
    pub word: String,
    /// What is wrong with it.
    pub kind: ExpandErrorKind,
}

impl ExpandError {
    fn new(word: &str, kind: ExpandErrorKind) -> Self {
        const SHOWN: usize = 200;
        let mut shown: String = word.chars().take(SHOWN).collect();
        if shown.len() < word.len() {
            shown.push('…');
        }
        Self { word: shown, kind }
    }
}

/// What can be wrong with a word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandErrorKind {
    /// A quote that is not closed.
    #[error("unexpected end of statement while looking for matching {0}")]
    Unclosed(&'static str),
    /// `${` that is not closed.
    #[error("syntax error: missing '}}'")]
    MissingBrace,
    /// `${name/pattern` without its second slash.
    #[error("syntax error: missing '/' in ${{}}")]
    MissingSlash,
    /// `${}` and its like.
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    /// A modifier that is not known.
    #[error("unsupported modifier ({0}) in substitution")]
    Modifier(String),
    /// `${name?message}` of a variable that is not set, or empty.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The Dockerfile's message, or ours.
        message: String,
    },
    /// A pattern that cannot be matched.
    #[error("invalid pattern ({pattern}) in substitution: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Substitutions inside substitutions, deeper than is accepted.
    #[error("substitutions are nested more than {limit} deep")]
    TooDeep {
        /// Most levels accepted.
        limit: usize,
    },
    /// More patterns on more text than is accepted.
    #[error("its patterns are matched against too much text")]
    TooMuchMatching,
    /// The result grows beyond what is accepted.
    #[error("the result has more than {limit} bytes")]
    TooLong {
        /// Most bytes accepted.
        limit: usize,
    },
}
