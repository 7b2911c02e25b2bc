//! Sizes as Docker writes them: `512`, `64m`, `1.5 GiB`, always in powers of 1024.

/// Parses a number of bytes; `None` if it is none.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || matches!(c, '.' | ' '))?;
    let (number, suffix) = text.split_at(end + 1);
    let number = number.strip_suffix(' ').unwrap_or(number);
    let unit: u64 = match suffix.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        "p" | "pb" | "pib" => 1 << 50,
        _ => return None,
    };
    if let Ok(number) = number.parse::<u64>() {
        return number.checked_mul(unit);
    }
    let bytes = number.parse::<f64>().ok()? * unit as f64;
    // Beyond this, neighbouring floats are further apart than one byte, and sizes meaningless.
    (bytes.is_finite() && (0.0..9e15).contains(&bytes)).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbers_with_units() {
        let cases: &[(&str, u64)] = &[
            ("0", 0),
            ("512", 512),
            ("512b", 512),
            ("1k", 1024),
            ("64M", 64 << 20),
            ("64mb", 64 << 20),
            ("2GiB", 2 << 30),
            ("1.5g", 3 << 29),
            ("1 g", 1 << 30),
            ("1t", 1 << 40),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse(text), Some(*bytes), "{text}");
        }
    }

    #[test]
    fn anything_else_is_none() {
        for text in ["", "k", "1x", "1kk", "1bb", "-1", "1..2", "1e99p", "99999p", "nan", " "] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
