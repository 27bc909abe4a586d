//! Virtual addresses: one number for each service, the same on all nodes.
//!
//! What the cluster agrees on is a number of 16 bits. A node turns it into addresses of the ranges
//! that it has: nodes with the same range, which is the rule, give a service the same address, and
//! daemons that share one host without the right to have routes use loopback ranges of their own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// The number of a service among all virtual addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct VipIndex(u16);

impl VipIndex {
    /// The first number of a service. Those below are the range's own: 0 names the network, 1 the
    /// node itself, which answers DNS there.
    pub const FIRST: u16 = 16;

    /// One more than the last number of a service. The upper half of a range is not given to
    /// services. A third of what is given out is used when there are as many services as may be.
    pub const END: u16 = 0x8000;

    /// How many services can have one.
    pub const COUNT: u16 = Self::END - Self::FIRST;

    /// The number, if a service may have it.
    pub const fn new(number: u16) -> Option<Self> {
        if number >= Self::FIRST && number < Self::END {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The number that is `offset` steps after the first, around the end if need be.
    pub const fn nth(offset: u64) -> Self {
        Self(Self::FIRST + (offset % Self::COUNT as u64) as u16)
    }

    /// As a number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for VipIndex {
    type Error = String;

    fn try_from(number: u16) -> Result<Self, Self::Error> {
        Self::new(number).ok_or_else(|| format!("no service has the virtual address {number}"))
    }
}

impl From<VipIndex> for u16 {
    fn from(index: VipIndex) -> Self {
        index.0
    }
}

/// The virtual addresses of one service on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Vip {
    /// Its IPv4 address, if this node has such a range.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address, if this node has such a range.
    pub v6: Option<Ipv6Addr>,
}

impl Vip {
    /// All of them, IPv4 first.
    pub fn addresses(self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.v4.map(IpAddr::V4);
        v4.into_iter().chain(self.v6.map(IpAddr::V6))
    }
}

/// The ranges that a node takes virtual addresses from: 65,536 IPv4 addresses and an IPv6 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VipRange {
    /// The first address of a /16.
    v4: Option<Ipv4Addr>,
    /// The first address of a /64.
    v6: Option<Ipv6Addr>,
}

impl VipRange {
    /// Bits of the IPv4 network.
    pub const V4_PREFIX: u8 = 16;

    /// Bits of the IPv6 network.
    pub const V6_PREFIX: u8 = 64;

    /// The networks in which these addresses are.
    pub fn new(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Self {
        let v4 = v4.map(|a| {
            let [first, second, ..] = a.octets();
            Ipv4Addr::new(first, second, 0, 0)
        });
        let v6 = v6.map(|a| Ipv6Addr::from_bits(a.to_bits() >> 64 << 64));
        Self { v4, v6 }
    }

    /// The first address of the IPv4 network.
    pub fn v4(&self) -> Option<Ipv4Addr> {
        self.v4
    }

    /// The first address of the IPv6 network.
    pub fn v6(&self) -> Option<Ipv6Addr> {
        self.v6
    }

    /// The addresses of the node itself, where containers find its DNS server.
    pub fn gateway(&self) -> Vip {
        self.at(1)
    }

    /// The addresses of a service.
    pub fn of(&self, index: VipIndex) -> Vip {
        self.at(index.get())
    }

    /// Whether an address is in one of the networks.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(a) => Self::new(Some(a), None).v4 == self.v4 && self.v4.is_some(),
            IpAddr::V6(a) => Self::new(None, Some(a)).v6 == self.v6 && self.v6.is_some(),
        }
    }

    /// The addresses of any number.
    pub(crate) fn at(&self, number: u16) -> Vip {
        let v4 = self
            .v4
            .map(|base| Ipv4Addr::from_bits(base.to_bits() | u32::from(number)));
        let v6 = self
            .v6
            .map(|base| Ipv6Addr::from_bits(base.to_bits() | u128::from(number)));
        Vip { v4, v6 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_becomes_an_address_of_each_range() {
        let range = VipRange::new(
            Some([10, 93, 7, 7].into()),
            Some("fd12:3456:789a::7".parse().unwrap()),
        );
        let vip = range.of(VipIndex::new(0x1234).unwrap());
        assert_eq!(vip.v4, Some([10, 93, 0x12, 0x34].into()));
        assert_eq!(vip.v6, Some("fd12:3456:789a::1234".parse().unwrap()));
        assert_eq!(range.gateway().v4, Some([10, 93, 0, 1].into()));
        assert!(vip.addresses().all(|a| range.contains(a)));
        assert!(!range.contains([10, 94, 0, 1].into()));
        let none = VipRange::default();
        assert_eq!(none.of(VipIndex::nth(0)), Vip::default());
        assert!(!none.contains([0, 0, 0, 1].into()));
    }

    #[test]
    fn numbers_that_no_service_has_are_refused() {
        for number in [0, 1, VipIndex::FIRST - 1, VipIndex::END, u16::MAX] {
            assert_eq!(VipIndex::new(number), None);
            assert!(serde_json::from_str::<VipIndex>(&number.to_string()).is_err());
        }
        assert_eq!(VipIndex::nth(0).get(), VipIndex::FIRST);
        assert_eq!(
            VipIndex::nth(u64::from(VipIndex::COUNT)).get(),
            VipIndex::FIRST
        );
        assert_eq!(
            VipIndex::nth(u64::MAX).get(),
            VipIndex::nth(u64::MAX % u64::from(VipIndex::COUNT)).get()
        );
    }
}
