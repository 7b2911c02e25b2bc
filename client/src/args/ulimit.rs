//! `--ulimit`: `NAME=SOFT[:HARD]`.

use super::invalid::Invalid;

/// The limits that a process has.
const NAMES: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Reads the flag's values into the frontend's list; the last of a name wins.
pub(crate) fn parse(values: &[String]) -> Result<String, Invalid> {
    let mut limits = std::collections::BTreeMap::new();
    for text in values {
        let not = || Invalid::not(text, "of the form NAME=SOFT[:HARD]");
        let (name, numbers) = text.split_once('=').ok_or_else(not)?;
        if !NAMES.contains(&name) {
            return Err(Invalid::not(name, "the name of a limit"));
        }
        let (soft, hard) = numbers.split_once(':').unwrap_or((numbers, numbers));
        let soft: i64 = soft.parse().map_err(|_| not())?;
        let hard: i64 = hard.parse().map_err(|_| not())?;
        if hard != -1 && (soft == -1 || soft > hard) {
            return Err(Invalid::not(text, "a limit whose soft value is at most its hard value"));
        }
        limits.insert(name, format!("{name}={soft}:{hard}"));
    }
    Ok(limits.into_values().collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_a_soft_and_a_hard_value() {
        let values = ["nofile=1024", "nproc=1:2", "nofile=5:-1"].map(str::to_owned);
        assert_eq!(parse(&values).unwrap(), "nofile=5:-1,nproc=1:2");
        for text in ["nofile", "nofile=", "files=1", "nofile=2:1", "nofile=-1:5", "nofile=a:b"] {
            assert!(parse(&[text.to_owned()]).is_err(), "{text}");
        }
    }
}
