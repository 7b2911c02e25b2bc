//! `--allow`: what a build may do beyond the usual.

use super::invalid::Invalid;

/// What the user allows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// Entitlements that the daemon checks.
    pub(crate) entitlements: Vec<String>,
    /// Whether an export may remove files outside of the working directory.
    pub(crate) local_delete: bool,
}

/// Reads the flag's values.
pub(crate) fn parse(values: &[String]) -> Result<Allowed, Invalid> {
    let mut allowed = Allowed::default();
    for value in values.iter().filter(|value| !value.is_empty()) {
        match value.split_once('=').map_or(value.as_str(), |(name, _)| name) {
            "buildx.local.delete" if !value.contains('=') => allowed.local_delete = true,
            "network.host" | "security.insecure" if !value.contains('=') => {
                allowed.entitlements.push(value.clone());
            }
            "device" => allowed.entitlements.push(value.clone()),
            _ => return Err(Invalid::not(value, "an entitlement")),
        }
    }
    Ok(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entitlements_are_known_by_name() {
        let values = ["network.host", "device=gpu", "buildx.local.delete", ""].map(str::to_owned);
        let allowed = parse(&values).unwrap();
        assert_eq!(allowed.entitlements, ["network.host", "device=gpu"]);
        assert!(allowed.local_delete);
        for value in ["network", "network.host=1"] {
            assert!(parse(&[value.to_owned()]).is_err(), "{value}");
        }
    }
}
