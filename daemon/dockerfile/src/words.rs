//! Splitting an instruction's line: keyword, flags, words.

/// An instruction's line in its three parts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Split<'a> {
    pub(crate) keyword: &'a str,
    /// Flags with their dashes, quotes removed.
    pub(crate) flags: Vec<String>,
    pub(crate) arguments: &'a str,
}

/// Splits a logical line into keyword, leading flags and the rest.
pub(crate) fn split(line: &str, escape: char) -> Split<'_> {
    let line = line.trim();
    let Some((keyword, rest)) = split_blank(line) else {
        return Split { keyword: line, flags: Vec::new(), arguments: "" };
    };
    let (flags, arguments) = take_flags(rest, escape);
    Split { keyword, flags, arguments: arguments.trim() }
}

/// Cuts at the first run of blanks.
pub(crate) fn split_blank(text: &str) -> Option<(&str, &str)> {
    let (first, rest) = text.split_at(text.find(is_blank)?);
    Some((first, rest.trim_start_matches(is_blank)))
}

/// The words between runs of blanks, quotes having no meaning.
pub(crate) fn split_blanks(text: &str) -> Vec<String> {
    text.split(is_blank).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The characters that separate words where quotes have no meaning.
fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// Takes the words that start with `--` off the front of `text`; a lone `--` ends them.
fn take_flags(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if !rest.starts_with("--") {
            return (flags, rest);
        }
        let (flag, after) = take_flag(rest, escape);
        rest = after;
        if flag == "--" {
            return (flags, rest);
        }
        flags.push(flag);
    }
}

/// Reads one flag up to a blank outside quotes.
fn take_flag(text: &str, escape: char) -> (String, &str) {
    let mut flag = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (flag, &text[at..]),
            None if matches!(c, '\'' | '"') => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ if c == escape => flag.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => flag.push(c),
        }
    }
    (flag, "")
}

/// The words of `text`, split at blanks outside quotes; quotes and escapes are kept for the
/// expansion that follows.
pub(crate) fn quoted_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        match quote {
            None if matches!(c, '\'' | '"') => quote = Some(c),
            Some(open) if c == open => quote = None,
            // Nothing is special between single quotes, not even the escape character.
            _ if c == escape && quote != Some('\'') => {
                // An escape character with nothing after it is dropped.
                if let Some(escaped) = chars.next() {
                    word.extend([c, escaped]);
                }
                continue;
            }
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_taken_off_the_front() {
        let cases: &[(&str, &[&str], &str)] = &[
            ("COPY a b", &[], "a b"),
            ("COPY --from=x  --link a b", &["--from=x", "--link"], "a b"),
            ("COPY --chown=\"a b\" c d", &["--chown=a b"], "c d"),
            ("COPY --chown='a\\'b c d", &["--chown=a'b c d"], ""),
            ("COPY --chown=a\\ b c d", &["--chown=a b"], "c d"),
            ("COPY --chown=é c d", &["--chown=é"], "c d"),
            ("COPY -- --from a", &[], "--from a"),
            ("COPY --link -- --from a", &["--link"], "--from a"),
            ("COPY - a", &[], "- a"),
            ("COPY --link", &["--link"], ""),
            ("COPY", &[], ""),
            ("COPY\t\u{b}a b  ", &[], "a b"),
        ];
        for (line, flags, arguments) in cases {
            let split = split(line, '\\');
            assert_eq!(split.keyword, "COPY");
            assert_eq!(split.flags, *flags, "{line}");
            assert_eq!(split.arguments, *arguments, "{line}");
        }
    }

    #[test]
    fn quotes_hold_words_together() {
        let cases: &[(&str, &[&str])] = &[
            ("a b", &["a", "b"]),
            ("a=\"b c\" d", &["a=\"b c\"", "d"]),
            ("a='b \\' c", &["a='b \\'", "c"]),
            ("a=\"b \\\" c\" d", &["a=\"b \\\" c\"", "d"]),
            ("a\\ b c", &["a\\ b", "c"]),
            ("a b\\", &["a", "b"]),
            ("\"\" a", &["\"\"", "a"]),
            ("  föo \t bàr ", &["föo", "bàr"]),
            ("\"open b", &["\"open b"]),
            ("", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(quoted_words(text, '\\'), *expected, "{text}");
        }
    }

    #[test]
    fn the_escape_character_can_be_a_backtick() {
        assert_eq!(quoted_words("a` b c:\\", '`'), ["a` b", "c:\\"]);
        assert_eq!(split("COPY --chown=a` b c d", '`').flags, ["--chown=a b"]);
    }
}
