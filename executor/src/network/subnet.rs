//! Ranges of IPv4 addresses.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// All addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    address: Ipv4Addr,
    length: u8,
}

/// Why a text is no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a range of IPv4 addresses: it looks like 10.89.0.0/22")]
pub struct InvalidSubnet(String);

impl Subnet {
    /// Every address.
    pub(super) const ALL: Self = Self { address: Ipv4Addr::UNSPECIFIED, length: 0 };

    /// The addresses that have the first `length` bits (at most 32) of `address`.
    pub(crate) fn new(address: Ipv4Addr, length: u8) -> Self {
        let length = length.min(32);
        let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
        Self { address: Ipv4Addr::from_bits(address.to_bits() & mask), length }
    }

    /// The first address.
    pub(super) fn address(self) -> Ipv4Addr {
        self.address
    }

    /// How many bits all addresses have in common.
    pub(super) fn length(self) -> u8 {
        self.length
    }

    /// The common bits.
    pub(super) fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(self.length)).unwrap_or(0))
    }

    /// How many addresses there are, the first and the last included.
    pub(super) fn size(self) -> u64 {
        1 << (32 - self.length)
    }

    /// An address by its place; the last one if there are not as many.
    pub(super) fn nth(self, place: u32) -> Ipv4Addr {
        let place = u64::from(place).min(self.size() - 1) as u32;
        Ipv4Addr::from_bits(self.address.to_bits() | place)
    }

    /// The second half; itself if there is but one address.
    pub(super) fn upper_half(self) -> Self {
        if self.length >= 32 {
            return self;
        }
        Self::new(self.nth((self.size() / 2) as u32), self.length + 1)
    }

    /// Whether some address is in both.
    pub(super) fn overlaps(self, other: Self) -> bool {
        let shorter = self.length.min(other.length);
        Self::new(self.address, shorter) == Self::new(other.address, shorter)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Subnet {
    type Err = InvalidSubnet;

    fn from_str(text: &str) -> Result<Self, InvalidSubnet> {
        let parsed = text.split_once('/').and_then(|(address, length)| {
            let length = length.parse().ok().filter(|length| *length <= 32)?;
            Some(Self::new(address.parse().ok()?, length))
        });
        parsed.ok_or_else(|| InvalidSubnet(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_is_read_and_written() {
        assert_eq!(subnet("10.1.2.3/16").to_string(), "10.1.0.0/16");
        for wrong in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "::/8", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Subnet>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_are_counted_from_the_first() {
        let range = subnet("10.1.0.0/22");
        assert_eq!(range.size(), 1024);
        assert_eq!(range.nth(1).to_string(), "10.1.0.1");
        assert_eq!(range.nth(u32::MAX).to_string(), "10.1.3.255");
        assert_eq!(range.upper_half(), subnet("10.1.2.0/23"));
        assert_eq!(range.mask().to_string(), "255.255.252.0");
    }

    #[test]
    fn ranges_overlap_if_one_contains_the_other() {
        assert!(subnet("10.0.0.0/8").overlaps(subnet("10.89.4.0/22")));
        assert!(subnet("10.89.4.0/22").overlaps(Subnet::ALL));
        assert!(!subnet("10.89.4.0/22").overlaps(subnet("10.89.0.0/22")));
    }
}
