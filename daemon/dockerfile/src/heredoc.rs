//! Heredocs: `<<NAME`, `<<-NAME` and `<<"NAME"` in RUN, COPY and ADD.

use crate::expand::{ExpandError, Expander, NoVariables};

/// Text that was written into the Dockerfile itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The terminator, which is also the file's name in COPY and ADD.
    pub name: String,
    /// Whether variables are replaced in it: not if any part of the name was quoted.
    pub expand: bool,
    /// Whether tabs at the start of its lines are dropped (`<<-`).
    pub strip_tabs: bool,
    /// The lines as written, with their endings.
    pub content: String,
}

impl Heredoc {
    /// The content as the instruction sees it: without leading tabs after `<<-`.
    pub fn body(&self) -> String {
        if !self.strip_tabs {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }

    /// The heredoc that a word starts, its content still empty; `None` if it starts none.
    pub(crate) fn from_word(word: &str) -> Result<Option<Self>, ExpandError> {
        let digits = word.trim_start_matches(|c: char| c.is_ascii_digit());
        let Some(rest) = digits.strip_prefix("<<") else { return Ok(None) };
        let (rest, strip_tabs) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
        let rest = rest.trim_start();
        if rest.is_empty() || rest.contains('<') {
            return Ok(None);
        }

        let lexer = Expander::new('\\').keep_unset();
        let plain = lexer.clone().words(rest, &NoVariables)?;
        let quoted = lexer.keep_quotes().words(rest, &NoVariables)?;
        let ([name], [written]) = (plain.as_slice(), quoted.as_slice()) else { return Ok(None) };
        let expand = count_quotes(name) == count_quotes(written);
        Ok(Some(Self { name: name.clone(), expand, strip_tabs, content: String::new() }))
    }

    /// All heredocs that a line starts, in order.
    pub(crate) fn in_line(line: &str) -> Result<Vec<Self>, ExpandError> {
        if !line.contains("<<") {
            return Ok(Vec::new());
        }
        let lexer = Expander::new('\\').keep_quotes().keep_escapes().keep_unset();
        // A line that cannot be split into words is the shell's to judge, and has no heredocs.
        let words = lexer.words(line, &NoVariables).unwrap_or_default();
        words.iter().filter_map(|word| Self::from_word(word).transpose()).collect()
    }
}

fn count_quotes(text: &str) -> usize {
    text.matches(['\'', '"']).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_may_start_a_heredoc() {
        type Expected<'a> = Option<(&'a str, bool, bool)>;
        let cases: &[(&str, Expected<'_>)] = &[
            ("<<EOF", Some(("EOF", true, false))),
            ("<<-EOF", Some(("EOF", true, true))),
            ("<<'EOF'", Some(("EOF", false, false))),
            ("<<\"EOF\"", Some(("EOF", false, false))),
            ("<<E\"O\"F", Some(("EOF", false, false))),
            ("<<-'EOF'", Some(("EOF", false, true))),
            ("<<E\\'F", Some(("E'F", true, false))),
            ("5<<EOF", Some(("EOF", true, false))),
            ("<< EOF", Some(("EOF", true, false))),
            ("<<$EOF", Some(("$EOF", true, false))),
            ("<<<EOF", None),
            ("<<EOF<<", None),
            ("<<", None),
            ("a<<EOF", None),
            ("<EOF", None),
        ];
        for (word, expected) in cases {
            let found = Heredoc::from_word(word).unwrap();
            let found = found.as_ref().map(|doc| (doc.name.as_str(), doc.expand, doc.strip_tabs));
            assert_eq!(found, *expected, "{word}");
        }
    }

    #[test]
    fn a_line_may_start_several() {
        let names = |line: &str| -> Vec<String> {
            Heredoc::in_line(line).unwrap().into_iter().map(|doc| doc.name).collect()
        };
        assert_eq!(names("RUN cat <<A - <<B && echo '<<C' \"<<D\""), ["A", "B"]);
        assert_eq!(names("RUN echo $((1<<2)) 'unclosed <<EOF"), [] as [&str; 0]);
        assert_eq!(names("RUN cat << EOF | sh"), ["EOF"]);
    }

    #[test]
    fn leading_tabs_are_dropped_from_the_body_only_after_a_dash() {
        let content = "\ta\n\t\tb\n c\td\n".to_owned();
        let mut doc = Heredoc { name: "E".to_owned(), expand: true, strip_tabs: true, content };
        assert_eq!(doc.body(), "a\nb\n c\td\n");
        doc.strip_tabs = false;
        assert_eq!(doc.body(), doc.content);
    }
}
