//! How the proxies treat a service's connections.
//!
//! None of it changes what a replica runs, so none of it counts towards the revision: an edit takes
//! effect in the proxies and replaces no replica.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::ServiceKey;

/// How the proxies choose and carry a service's connections.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrafficPolicy {
    /// How a replica is chosen.
    pub balance: Balance,
    /// Which replicas come first.
    pub prefer: Locality,
    /// Most connections of one node's proxy to one replica; further ones wait.
    pub max_connections: Option<u32>,
    /// Most connections that wait for a replica on one node; further ones are refused.
    pub max_pending: Option<u32>,
    /// Connections that one source may open through one node.
    pub rate_limit: Option<RateLimit>,
    /// Sources that may connect; all when empty.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub allow: Vec<Cidr>,
    /// Sources that may not connect, also when they are allowed.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub deny: Vec<Cidr>,
    /// Whether replicas are told the client's address in the PROXY protocol.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// A share of the connections that goes to another service.
    pub split: Option<Split>,
    /// Milliseconds that one replica may take to accept a connection.
    pub connect_timeout_ms: Option<u64>,
    /// Milliseconds without a byte after which a connection is ended.
    pub idle_timeout_ms: Option<u64>,
    /// Milliseconds for which connections go on to a replica that has left.
    pub drain_ms: Option<u64>,
}

/// How a replica is chosen for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Balance {
    /// Of two drawn at random the one that answers sooner for its number of connections.
    #[default]
    RandomOfTwo,
    /// One after the other.
    RoundRobin,
    /// The one with the fewest open connections.
    LeastConnections,
    /// In proportion to the label `weight` of the replicas' nodes.
    Weighted,
    /// The same replica for the same source address, as long as it is there.
    SourceHash,
}

/// Which replicas come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Locality {
    /// All are alike.
    #[default]
    Any,
    /// Those on this node, then those in its zone, then the others.
    Node,
    /// Those in this node's zone (label `zone`), then the others.
    Zone,
}

/// A rate for one source: an IPv4 address or an IPv6 network of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RateLimit {
    /// Connections a second in the long run, at least 1.
    pub per_second: u32,
    /// Connections at once after a pause, at least 1.
    pub burst: u32,
}

/// Versions of the PROXY protocol (haproxy's `proxy-protocol.txt`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ProxyProtocol {
    /// One line of text.
    V1,
    /// Binary.
    V2,
}

/// A share of connections for another service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Split {
    /// The other service. It must have the same target port.
    pub service: ServiceKey,
    /// Of a hundred connections so many go there, 0 to 100; none while it has no ready replica.
    pub percent: u8,
}

/// A network, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// A text that is no [`Cidr`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "'{0}' is no network; write an address, or one with the bits of its network as in 10.0.0.0/8"
)]
pub struct BadCidr(pub String);

impl Cidr {
    /// The network that has `prefix` bits in common with `address`.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(a) if prefix <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() & mask))
            }
            IpAddr::V6(a) if prefix <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & mask))
            }
            IpAddr::V4(_) | IpAddr::V6(_) => return None,
        };
        Some(Self { address, prefix })
    }

    /// The first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Bits that all addresses in it share.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether an address is in it. An IPv4 address is the same in its IPv6-mapped form.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4()
            && Self::new(address, self.prefix).is_some_and(|of| of.address == self.address)
    }

    /// Whether they share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (wide, narrow) = match self.prefix <= other.prefix {
            true => (self, other),
            false => (other, self),
        };
        wide.contains(narrow.address)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = BadCidr;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadCidr(text.chars().take(80).collect());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_no_address| bad())?;
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_no_number| bad())?,
            None if address.is_ipv4() => 32,
            None => 128,
        };
        Self::new(address, prefix).ok_or_else(bad)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_are_read_and_know_their_addresses() {
        for (text, shown) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fd00::1/8", "fd00::/8"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(cidr(text).to_string(), shown);
        }
        for bad in [
            "",
            "10.0.0.0/33",
            "::/129",
            "x/8",
            "10.0.0.0/",
            "10.0.0.0/-1",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
        let ten = cidr("10.0.0.0/8");
        assert!(ten.contains([10, 255, 0, 1].into()) && !ten.contains([11, 0, 0, 1].into()));
        assert!(ten.contains("::ffff:10.0.0.1".parse().unwrap()));
        assert!(!ten.contains("fd00::1".parse().unwrap()));
    }

    #[test]
    fn networks_overlap_when_one_is_in_the_other() {
        assert!(cidr("10.0.0.0/8").overlaps(&cidr("10.93.0.0/16")));
        assert!(cidr("10.93.0.0/16").overlaps(&cidr("10.0.0.0/8")));
        assert!(!cidr("10.92.0.0/16").overlaps(&cidr("10.93.0.0/16")));
        assert!(!cidr("::/0").overlaps(&cidr("0.0.0.0/0")));
    }
}
