//! Options that limit or equip the containers of steps.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, bail};
use kiln_proto::pb;

use crate::network::HOST_GATEWAY;

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(|item| item.trim_matches('"')).filter(|item| !item.is_empty())
}

/// `add-hosts`: `host=address` pairs, where [`HOST_GATEWAY`] is an address as well.
pub(super) fn extra_hosts(text: &str) -> anyhow::Result<Vec<pb::HostIp>> {
    let pair = |pair: &str| {
        let pair = pair.to_lowercase();
        let (host, ip) =
            pair.split_once('=').with_context(|| format!("invalid key-value pair {pair}"))?;
        let host = host.to_owned();
        if ip == HOST_GATEWAY {
            return Ok(pb::HostIp { host, ip: ip.to_owned() });
        }
        let ip: IpAddr = ip.parse().with_context(|| format!("failed to parse IP {ip}"))?;
        Ok(pb::HostIp { host, ip: ip.to_string() })
    };
    list(text).map(pair).collect()
}

/// `shm-size`, in bytes; 0 is the default.
pub(super) fn shm_size(text: &str) -> anyhow::Result<i64> {
    if text.is_empty() { Ok(0) } else { Ok(text.parse()?) }
}

/// `ulimit`: `name=soft[:hard]`, where -1 is no limit.
pub(super) fn ulimits(text: &str) -> anyhow::Result<Vec<pb::Ulimit>> {
    list(text).map(ulimit).collect()
}

fn ulimit(text: &str) -> anyhow::Result<pb::Ulimit> {
    let invalid = || format!("invalid ulimit argument: {text}");
    let (name, value) = text.split_once('=').with_context(invalid)?;
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    let soft: i64 = soft.trim().parse().with_context(invalid)?;
    let hard: i64 = hard.trim().parse().with_context(invalid)?;
    if hard != -1 && (soft == -1 || soft > hard) {
        bail!("ulimit soft limit must be less than or equal to hard limit: {text}");
    }
    Ok(pb::Ulimit { name: name.to_owned(), soft, hard })
}

/// Memory and CPU limits; `None` if there are none.
pub(super) fn resources(
    options: &BTreeMap<String, String>,
) -> anyhow::Result<Option<pb::LinuxResources>> {
    let mut resources = pb::LinuxResources::default();
    let get = |name: &str| options.get(name).filter(|value| !value.is_empty());
    let number = |name: &str, least: i64| -> anyhow::Result<i64> {
        let Some(text) = get(name) else { return Ok(0) };
        let value: i64 = text.parse().with_context(|| format!("invalid {name} value: {text}"))?;
        if value < least || value == 0 {
            bail!("invalid {name} value: {text}: must be > 0");
        }
        Ok(value)
    };
    resources.memory = number("memory", 1)?;
    // -1 is unlimited.
    resources.memory_swap = number("memswap", -1)?;
    resources.cpu_shares = number("cpushares", 1)?.unsigned_abs();
    resources.cpu_period = number("cpuperiod", 1)?.unsigned_abs();
    resources.cpu_quota = number("cpuquota", 1)?;
    resources.cpuset_cpus = cpuset("cpusetcpus", get("cpusetcpus"))?;
    resources.cpuset_mems = cpuset("cpusetmems", get("cpusetmems"))?;
    Ok((resources != pb::LinuxResources::default()).then_some(resources))
}

/// A list of numbers and ranges of numbers: `0-3,5`.
fn cpuset(name: &str, text: Option<&String>) -> anyhow::Result<String> {
    let Some(text) = text else { return Ok(String::new()) };
    let is_range = |part: &str| {
        let (start, end) = part.split_once('-').unwrap_or((part, part));
        matches!((start.parse::<u32>(), end.parse::<u32>()), (Ok(start), Ok(end)) if start <= end)
    };
    if !text.split(',').all(is_range) {
        bail!("invalid {name} value: {text}");
    }
    Ok(text.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulimits_have_a_soft_and_a_hard_limit() {
        let parsed = ulimits("nofile=1024:2048,core=-1").unwrap();
        let plain: Vec<_> = parsed.iter().map(|l| (&*l.name, l.soft, l.hard)).collect();
        assert_eq!(plain, [("nofile", 1024, 2048), ("core", -1, -1)]);
        for invalid in ["nofile", "nofile=x", "nofile=2:1"] {
            assert!(ulimits(invalid).is_err(), "{invalid}");
        }
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        let parse = |name: &str, value: &str| {
            resources(&BTreeMap::from([(name.to_owned(), value.to_owned())]))
        };
        assert_eq!(parse("memory", "").unwrap(), None);
        assert_eq!(parse("memory", "1024").unwrap().unwrap().memory, 1024);
        assert_eq!(parse("memswap", "-1").unwrap().unwrap().memory_swap, -1);
        assert_eq!(parse("cpusetcpus", "0-1,3").unwrap().unwrap().cpuset_cpus, "0-1,3");
        let invalid =
            [("memory", "0"), ("memory", "-1"), ("cpushares", "x"), ("cpusetmems", "2-1")];
        for (name, value) in invalid {
            assert!(parse(name, value).is_err(), "{name}={value}");
        }
    }

    #[test]
    fn hosts_need_addresses() {
        let hosts = extra_hosts("A=10.0.0.1,b=::1,c=host-gateway").unwrap();
        assert_eq!((&*hosts[0].host, &*hosts[1].ip), ("a", "::1"));
        assert!(extra_hosts("a").is_err() && extra_hosts("a=b").is_err());
    }
}
