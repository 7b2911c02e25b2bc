//! Numbers in header fields: octal text, or base 256 where octal is too short.

/// Reads a field; an empty one is 0. `None` if it is no number or does not fit.
pub(super) fn parse(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base256(field),
        _ => octal(field),
    }
}

fn octal(field: &[u8]) -> Option<i64> {
    let text = field.split(|&byte| byte == 0).next().unwrap_or_default().trim_ascii();
    if text.is_empty() {
        return Some(0);
    }
    let text = std::str::from_utf8(text).ok().filter(|text| !text.starts_with(['+', '-']))?;
    i64::from_str_radix(text, 8).ok()
}

/// Two's complement, big endian, behind a marker bit that leaves the sign in the next one.
fn base256(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    let negative = first & 0x40 != 0;
    // The marker bit becomes a copy of the sign.
    let start = if negative { i128::from(first | 0x80) - 256 } else { i128::from(first & 0x7f) };
    let mut value = start;
    for &byte in rest {
        value = value.checked_mul(256)?.checked_add(byte.into())?;
    }
    i64::try_from(value).ok()
}

/// Writes `value` as zero-padded octal with a NUL behind it; `false` if it does not fit.
pub(super) fn write_octal(field: &mut [u8], value: u64) -> bool {
    let Some((end, digits)) = field.split_last_mut() else { return false };
    *end = 0;
    let mut rest = value;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 8) as u8;
        rest /= 8;
    }
    rest == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_every_tar_writes_them() {
        let rows: &[(&[u8], Option<i64>)] = &[
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"644\0junk", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"777777777777", Some(0o777_777_777_777)),
            (b"-1\0", None),
            (b"+1\0", None),
            (b"8\0", None),
            (b"\x80\0\0\0\0\0\0\x01\0\0\0\0", Some(1 << 32)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ];
        for (field, expected) in rows {
            assert_eq!(parse(field), *expected, "{}", field.escape_ascii());
        }
    }

    #[test]
    fn octal_is_padded_and_says_when_it_does_not_fit() {
        let mut field = [b'x'; 8];
        assert!(write_octal(&mut field, 0o755));
        assert_eq!(&field, b"0000755\0");
        assert!(write_octal(&mut field, 0o777_7777));
        assert!(!write_octal(&mut field, 0o1000_0000));
    }
}
