//! Numbers as people read them.

/// Bytes in decimal units with two decimals: `12B`, `1.23kB`.
pub(crate) fn bytes(count: i64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if count.unsigned_abs() < 1000 {
        return format!("{count}B");
    }
    let mut value = count as f64;
    let mut unit = 0;
    while value.abs() >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.2}{}", UNITS[unit])
}

/// Bytes in decimal units with four significant digits: `12B`, `1.234kB`, `57.8MB`.
pub(crate) fn short_bytes(count: i64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value.abs() >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let integer_digits = if value.abs() >= 100.0 {
        3
    } else if value.abs() >= 10.0 {
        2
    } else {
        1
    };
    let text = format!("{value:.*}", 4 - integer_digits);
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

/// A span of time in its largest unit: `5 minutes`.
pub(crate) fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    let (minutes, hours) = ((seconds / 60.0) as u64, (seconds / 3600.0).round() as u64);
    match (seconds as u64, minutes, hours) {
        (0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (seconds, ..) if seconds < 60 => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, minutes, _) if minutes < 60 => format!("{minutes} minutes"),
        (_, _, 1) => "About an hour".to_owned(),
        (_, _, hours) if hours < 48 => format!("{hours} hours"),
        (_, _, hours) if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        (_, _, hours) if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        (_, _, hours) if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        (_, _, hours) => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_decimal_units() {
        for (count, long, short) in [
            (0, "0B", "0B"),
            (999, "999B", "999B"),
            (1000, "1.00kB", "1kB"),
            (1234, "1.23kB", "1.234kB"),
            (57_812_345, "57.81MB", "57.81MB"),
            (i64::MAX, "9.22EB", "9.223EB"),
            (-1234, "-1.23kB", "-1.234kB"),
        ] {
            assert_eq!(bytes(count), long);
            assert_eq!(short_bytes(count), short);
        }
    }

    #[test]
    fn a_span_is_told_in_its_largest_unit() {
        for (seconds, expected) in [
            (0.4, "Less than a second"),
            (1.0, "1 second"),
            (59.0, "59 seconds"),
            (61.0, "About a minute"),
            (600.0, "10 minutes"),
            (4000.0, "About an hour"),
            (86_400.0, "24 hours"),
            (86_400.0 * 3.0, "3 days"),
            (86_400.0 * 20.0, "2 weeks"),
        ] {
            assert_eq!(duration(seconds), expected);
        }
    }
}
