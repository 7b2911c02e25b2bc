//! What a client grants its steps of devices: `device`, or `device=NAME[,alias=OTHER]`.

use std::collections::BTreeMap;

/// A grant that names no device.
#[derive(Debug, thiserror::Error)]
#[error("invalid device config {0:?}")]
pub(crate) struct InvalidGrant(String);

/// The devices that a client's steps may have.
#[derive(Debug, Default)]
pub(crate) struct DeviceGrants {
    /// Any device.
    pub(super) all: bool,
    named: Vec<String>,
    aliases: BTreeMap<String, String>,
}

impl DeviceGrants {
    /// Those among entitlements, of which others are passed over.
    pub(crate) fn of<'a>(
        entitlements: impl Iterator<Item = &'a str>,
    ) -> Result<Self, InvalidGrant> {
        let mut grants = Self::default();
        for entitlement in entitlements {
            match entitlement.split_once('=') {
                None if entitlement == "device" => grants.all = true,
                Some(("device", device)) => grants.add(device)?,
                _ => {}
            }
        }
        Ok(grants)
    }

    fn add(&mut self, device: &str) -> Result<(), InvalidGrant> {
        let mut fields = device.split(',');
        let name = fields.next().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| InvalidGrant(device.to_owned()))?;
        let mut is_alias = false;
        for field in fields {
            match field.split_once('=') {
                Some(("alias", alias)) if !alias.is_empty() => {
                    self.aliases.insert(alias.to_owned(), name.to_owned());
                    is_alias = true;
                }
                _ => return Err(InvalidGrant(field.to_owned())),
            }
        }
        if !is_alias {
            self.named.push(name.to_owned());
        }
        Ok(())
    }

    /// The names that are granted.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.named.iter().map(String::as_str)
    }

    /// The device that is granted as `alias`.
    pub(super) fn meaning(&self, alias: &str) -> Option<&str> {
        self.aliases.get(alias).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_that_names_nothing_is_refused() {
        for grant in ["device=", "device=v/c=a,alias", "device=v/c=a,alias=", "device=v/c=a,b=c"] {
            assert!(DeviceGrants::of([grant].into_iter()).is_err(), "{grant}");
        }
        assert!(DeviceGrants::of(["network.host", "device"].into_iter()).is_ok_and(|g| g.all));
    }
}
