//! Lets a test indent the Dockerfile that it holds.

/// Takes away the first line if it is blank, and the indentation that all other lines share.
pub fn dedent(text: &str) -> String {
    let text = text.strip_prefix('\n').unwrap_or(text);
    let margin = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| line.len() - line.trim_start_matches(' ').len())
        .min()
        .unwrap_or(0);
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        out.push_str(line.get(margin..).unwrap_or("").trim_end_matches(' '));
        out.push('\n');
    }
    while out.ends_with("\n\n") {
        out.pop();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::dedent;

    #[test]
    fn shared_indentation_goes_and_the_rest_stays() {
        for (given, expected) in [
            ("FROM a", "FROM a\n"),
            ("FROM a\nRUN b\n", "FROM a\nRUN b\n"),
            ("\n    FROM a\n    RUN b \\\n      c\n    ", "FROM a\nRUN b \\\n  c\n"),
            ("\n    FROM a\n\n    RUN b\n", "FROM a\n\nRUN b\n"),
            ("", ""),
        ] {
            assert_eq!(dedent(given), expected, "{given:?}");
        }
    }
}
