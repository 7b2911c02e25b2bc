//! `Content-Disposition`: the name that a server gives a file.

/// The name in a header's value; none if there is none, or it is the name of a directory.
pub(super) fn file_name(header: &str) -> Option<String> {
    let mut rest = header.split_once(';')?.1;
    let (mut plain, mut extended) = (None, None);
    while let Some((name, value, after)) = parameter(rest) {
        match name.to_ascii_lowercase().as_str() {
            "filename" => plain = Some(value),
            "filename*" => extended = decode(&value),
            _ => {}
        }
        rest = after;
    }
    extended.or(plain).filter(|name| !name.is_empty() && !name.ends_with('/'))
}

/// The first parameter of `text`, and what follows it.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let (name, rest) = text.split_once('=')?;
    let name = name.trim_matches(|c: char| c == ';' || c.is_whitespace());
    let rest = rest.trim_start();
    let Some(quoted) = rest.strip_prefix('"') else {
        let (value, after) = rest.split_once(';').unwrap_or((rest, ""));
        return Some((name, value.trim().to_owned(), after));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((index, c)) = chars.next() {
        match c {
            '"' => return Some((name, value, &quoted[index + 1..])),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            c => value.push(c),
        }
    }
    None
}

/// `charset'language'percent-encoded` (RFC 8187).
fn decode(value: &str) -> Option<String> {
    let mut parts = value.splitn(3, '\'');
    let (charset, _, encoded) = (parts.next()?, parts.next()?, parts.next()?);
    let is_known = ["utf-8", "us-ascii"].iter().any(|known| charset.eq_ignore_ascii_case(known));
    let decoded = percent_encoding::percent_decode_str(encoded).decode_utf8().ok()?;
    is_known.then(|| decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::file_name;

    #[test]
    fn names_are_read_in_all_forms() {
        let cases = [
            ("attachment; filename=a.txt", Some("a.txt")),
            ("attachment; size=1; FileName=\"a; b.txt\"; x=y", Some("a; b.txt")),
            (r#"attachment; filename="a\"b""#, Some("a\"b")),
            ("attachment; filename=x; filename*=UTF-8''%e2%82%ac.txt", Some("€.txt")),
            ("attachment; filename=x; filename*=koi8-r''%c1", Some("x")),
            ("attachment", None),
            ("attachment; filename=", None),
            ("attachment; filename=\"dir/\"", None),
            ("attachment; filename=\"open", None),
            ("filename=a", None),
        ];
        for (header, expected) in cases {
            assert_eq!(file_name(header).as_deref(), expected, "{header}");
        }
    }
}
