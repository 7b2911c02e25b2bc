//! Reading a `.dockerignore` file.

use super::clean::clean_path;
use thiserror::Error;

/// Why an ignore file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IgnoreFileError {
    /// The line is not UTF-8; the number counts from 1.
    #[error("ignore file: line {line} is not UTF-8")]
    NotUtf8 {
        /// Counts from 1.
        line: usize,
    },
}

/// Gives the patterns of an ignore file, cleaned and in order.
///
/// A byte order mark, empty lines and lines whose first character is `#` are left out (an indented
/// `#` is a pattern); white space around a pattern and one leading `/` are removed, also after `!`.
pub fn read_ignore_file(content: &[u8]) -> Result<Vec<String>, IgnoreFileError> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut patterns = Vec::new();
    for (index, line) in content.split(|&byte| byte == b'\n').enumerate() {
        let line =
            std::str::from_utf8(line).map_err(|_| IgnoreFileError::NotUtf8 { line: index + 1 })?;
        if !line.starts_with('#') {
            patterns.extend(read_line(line));
        }
    }
    Ok(patterns)
}

fn read_line(line: &str) -> Option<String> {
    let line = line.trim();
    if line.is_empty() {
        return None;
    }
    let (exception, pattern) = match line.strip_prefix('!') {
        Some(rest) => ("!", rest.trim()),
        None => ("", line),
    };
    if pattern.is_empty() {
        // A bare `!` is an error, which the matcher reports.
        return Some(exception.to_owned());
    }
    let clean = clean_path(pattern);
    let relative = match clean.strip_prefix('/') {
        Some(rest) if !rest.is_empty() => rest,
        _ => &clean,
    };
    Some(format!("{exception}{relative}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<String> {
        read_ignore_file(text.as_bytes()).unwrap()
    }

    #[test]
    fn lines_become_clean_relative_patterns() {
        assert_eq!(
            read(
                "test1\n/test2\n/a/file/here\n\nlastfile\n# comment\n! /inverted/abs/path\n!\n! \n"
            ),
            ["test1", "test2", "a/file/here", "lastfile", "!inverted/abs/path", "!", "!"]
        );
    }

    #[test]
    fn the_byte_order_mark_is_not_part_of_the_first_line() {
        assert_eq!(read("\u{feff}# comment\n*.o"), ["*.o"]);
    }

    #[test]
    fn only_a_number_sign_in_the_first_column_makes_a_comment() {
        assert_eq!(read("#a\n #b\n\\#c"), ["#b", "\\#c"]);
    }

    #[test]
    fn white_space_and_line_ends_of_windows_are_trimmed() {
        assert_eq!(read("  a/ \r\n\tb//c\t\r\n/\r\n."), ["a", "b/c", "/", "."]);
    }

    #[test]
    fn a_line_that_is_not_text_is_named() {
        assert_eq!(read_ignore_file(b"a\n\xff"), Err(IgnoreFileError::NotUtf8 { line: 2 }));
    }
}
