//! PAX extended headers: records of the form `<length> <key>=<value>\n`.

/// Splits a header's data into records, in order. `None` if it is malformed.
pub(super) fn parse(mut data: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    // Some writers pad the data with NULs.
    while data.first().is_some_and(|&byte| byte != 0) {
        let space = data.iter().take(20).position(|&byte| byte == b' ')?;
        let length: usize = decimal(&data[..space])?.try_into().ok()?;
        let record = data.get(space + 1..length)?;
        let (b'\n', record) = record.split_last()? else { return None };
        let equals = record.iter().position(|&byte| byte == b'=')?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if key.is_empty() {
            return None;
        }
        records.push((key, value));
        data = &data[length..];
    }
    Some(records)
}

/// Digits and nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with an optional fraction, of which more than nine digits are cut off.
pub(super) fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) || whole.starts_with('+') {
        return None;
    }
    let secs: i64 = whole.parse().ok()?;
    let mut nanos: u32 = 0;
    for digit in fraction.bytes().chain(std::iter::repeat(b'0')).take(9) {
        nanos = nanos * 10 + u32::from(digit - b'0');
    }
    if whole.starts_with('-') && nanos > 0 {
        return Some((secs.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((secs, nanos))
}

/// Appends a record.
pub(super) fn write(data: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // The length counts its own digits.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    data.extend_from_slice(length.to_string().as_bytes());
    data.push(b' ');
    data.extend_from_slice(key);
    data.push(b'=');
    data.extend_from_slice(value);
    data.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_records_are_read_back() {
        for length in [0, 1, 5, 85, 86, 87, 88, 89, 90, 985, 986, 987, 988, 9_990] {
            let value = vec![b'\n'; length];
            let mut data = Vec::new();
            write(&mut data, b"path", &value);
            write(&mut data, b"k", b"a=b");
            let records = parse(&data).unwrap();
            assert_eq!(records, [(&b"path"[..], &value[..]), (b"k", b"a=b")], "{length}");
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        let rows: &[&[u8]] = &[
            b"path=x\n",
            b"8 path=x\n",
            b"11 path=x\n",
            b"10 path=xy",
            b"99999999999999999999999 a=b\n",
            b"-1 a=b\n",
            b"2 a=b\n",
            b"4 =b\n",
            b"5 ab\n",
        ];
        for data in rows {
            assert_eq!(parse(data), None, "{}", data.escape_ascii());
        }
    }

    #[test]
    fn times_may_have_fractions_and_lie_before_1970() {
        let rows: &[(&str, Option<(i64, u32)>)] = &[
            ("12", Some((12, 0))),
            ("12.5", Some((12, 500_000_000))),
            ("12.0000000019", Some((12, 1))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-0.5", Some((-1, 500_000_000))),
            ("1e9", None),
            ("1.-1", None),
            ("", None),
        ];
        for (text, expected) in rows {
            assert_eq!(time(text.as_bytes()), *expected, "{text}");
        }
    }
}
