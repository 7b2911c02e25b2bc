//! `--resource` and the flags of the classic command: limits of each step.

use super::invalid::Invalid;
use super::size;
use std::collections::BTreeMap;

/// Reads `KEY=VALUE` limits into the frontend's attributes. A limit of zero is none.
pub(crate) fn parse<'a>(
    values: impl IntoIterator<Item = &'a str>,
) -> Result<BTreeMap<String, String>, Invalid> {
    let mut attributes = BTreeMap::new();
    for text in values {
        let (key, value) =
            text.split_once('=').ok_or_else(|| Invalid::NotKeyValue(text.to_owned()))?;
        let (key, value) = (key.trim(), value.trim());
        let number = || {
            let parsed: Result<i64, _> = value.parse();
            parsed.map_err(|_| Invalid::value(key, value, "a number"))
        };
        let (name, value) = match key {
            "memory" => ("memory", positive(size::parse(value)?)),
            "memory-swap" if value == "-1" => ("memswap", Some(value.to_owned())),
            "memory-swap" => ("memswap", positive(size::parse(value)?)),
            "cpu-shares" => ("cpushares", positive(number()?)),
            "cpu-period" => ("cpuperiod", positive(number()?)),
            "cpu-quota" => ("cpuquota", positive(number()?)),
            "cpuset-cpus" => ("cpusetcpus", non_empty(value)),
            "cpuset-mems" => ("cpusetmems", non_empty(value)),
            _ => return Err(Invalid::UnknownKey(key.to_owned())),
        };
        if let Some(value) = value {
            attributes.insert(name.to_owned(), value);
        }
    }
    Ok(attributes)
}

fn positive(value: i64) -> Option<String> {
    (value > 0).then(|| value.to_string())
}

fn non_empty(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_the_frontends_names() {
        let limits =
            ["memory=1g", "memory-swap=-1", "cpu-quota=5", "cpuset-cpus=0-1", "cpu-shares=0"];
        let attributes = parse(limits).unwrap();
        let expected =
            [("cpuquota", "5"), ("cpusetcpus", "0-1"), ("memory", "1073741824"), ("memswap", "-1")];
        assert!(attributes.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(expected));
        for text in ["memory", "disk=1", "cpu-quota=x", "memory=x"] {
            assert!(parse([text]).is_err(), "{text}");
        }
    }
}
