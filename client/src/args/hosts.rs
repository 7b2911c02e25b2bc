//! `--add-host`: extra lines of `/etc/hosts`.

use super::invalid::Invalid;
use std::net::IpAddr;

const EXPECTED: &str = "of the form HOST=IP or HOST:IP";

/// Reads the flag's values into the frontend's list. A host may have several addresses.
pub(crate) fn parse(values: &[String]) -> Result<String, Invalid> {
    let mut hosts = Vec::new();
    for text in values {
        let mut host = "";
        for part in text.split(',') {
            // Another address of the host before it, or another host.
            if let Some(address) = address(part).filter(|_| !host.is_empty()) {
                hosts.push(format!("{host}={address}"));
                continue;
            }
            let (name, rest) = part
                .split_once('=')
                .or_else(|| part.split_once(':'))
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| Invalid::not(text, EXPECTED))?;
            // The daemon's host, whose address only the daemon knows.
            if rest == "host-gateway" {
                host = "";
                hosts.push(format!("{name}={rest}"));
                continue;
            }
            let address = address(rest).ok_or_else(|| Invalid::not(text, EXPECTED))?;
            host = name;
            hosts.push(format!("{host}={address}"));
        }
    }
    Ok(hosts.join(","))
}

/// Reads an address, which may stand in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    inner.unwrap_or(text).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_split_at_the_first_equals_sign_or_colon() {
        for (text, expected) in [
            ("a:10.0.0.1", "a=10.0.0.1"),
            ("a=10.0.0.1", "a=10.0.0.1"),
            ("a:::1", "a=::1"),
            ("a=[::1]", "a=::1"),
            ("a=1.1.1.1,2.2.2.2", "a=1.1.1.1,a=2.2.2.2"),
            ("a:1.1.1.1,b:::2,::3", "a=1.1.1.1,b=::2,b=::3"),
            ("a:host-gateway,b=host-gateway", "a=host-gateway,b=host-gateway"),
        ] {
            assert_eq!(parse(&[text.to_owned()]), Ok(expected.to_owned()), "{text}");
        }
        for text in ["a", "a=", "=1.1.1.1", "a=x", "a:host-gateway,::1", "1.1.1.1", "a=1.1.1.1,"] {
            assert!(parse(&[text.to_owned()]).is_err(), "{text}");
        }
    }
}
