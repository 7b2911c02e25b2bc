//! Sizes in bytes: `64m`, `1.5GB`, `100 KiB`.

use super::invalid::Invalid;

const EXPECTED: &str = "a size (such as 64m or 2g)";

/// Reads a size; units are powers of 1024, as docker's flags take them.
pub(crate) fn parse(text: &str) -> Result<i64, Invalid> {
    let not = || Invalid::not(text, EXPECTED);
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.trim_start().to_ascii_lowercase();
    let prefix = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let power = match prefix {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(not()),
    };
    let number: f64 = number.parse().map_err(|_| not())?;
    let bytes = number * 1024_f64.powi(power);
    // Beyond 2^63 a float is not a count of bytes any more.
    if bytes < 9.2e18 { Ok(bytes as i64) } else { Err(not()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_1024() {
        for (text, expected) in [
            ("0", 0),
            ("12", 12),
            ("12b", 12),
            ("64m", 64 << 20),
            ("64MB", 64 << 20),
            ("1.5GiB", 3 << 29),
            ("2 k", 2048),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "m", "-1", "1x", "1.2.3", "99999999999999p"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
