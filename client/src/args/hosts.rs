//! `--add-host`: extra lines of `/etc/hosts`.

use super::invalid::Invalid;
use std::net::IpAddr;

const EXPECTED: &str = "of the form HOST=IP or HOST:IP";

/// Reads the flag's values into the frontend's list. A host may have several addresses.
pub(crate) fn parse(values: &[String]) -> Result<String, Invalid> {
    let mut hosts = Vec::new();
    for text in values {
        let (host, addresses) = text
            .split_once('=')
            .or_else(|| text.split_once(':'))
            .filter(|(host, addresses)| !host.is_empty() && !addresses.is_empty())
            .ok_or_else(|| Invalid::not(text, EXPECTED))?;
        if addresses == "host-gateway" {
            return Err(Invalid::Unsupported("the address host-gateway".to_owned()));
        }
        for address in addresses.split(',') {
            let address = address
                .strip_prefix('[')
                .and_then(|address| address.strip_suffix(']'))
                .unwrap_or(address);
            let _: IpAddr = address.parse().map_err(|_| Invalid::not(text, EXPECTED))?;
            hosts.push(format!("{host}={address}"));
        }
    }
    Ok(hosts.join(","))
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
        ] {
            assert_eq!(parse(&[text.to_owned()]), Ok(expected.to_owned()), "{text}");
        }
        for text in ["a", "a=", "=1.1.1.1", "a=x", "a:host-gateway"] {
            assert!(parse(&[text.to_owned()]).is_err(), "{text}");
        }
    }
}
