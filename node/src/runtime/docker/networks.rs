//! Which addresses are containers' of this host: those of the engine's bridge networks. Other
//! kinds of networks reach beyond the host, and addresses in them may be anyone's.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bollard::models::Network;
use bollard::query_parameters::ListNetworksOptions;
use tokio::sync::Notify;
use tracing::debug;

use super::Engine;

/// Networks are listed at most so often, however many strangers ask.
const PAUSE: Duration = Duration::from_secs(1);

/// Most subnets that are remembered; Docker's own pools end at some thirty.
const MAX_SUBNETS: usize = 256;

/// The subnets of containers, as the engine said last.
#[derive(Debug, Default)]
pub(super) struct Networks {
    subnets: Mutex<Vec<Subnet>>,
    listed: Mutex<Option<Instant>>,
    wanted: Notify,
}

/// An address and how many of its bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Subnet {
    address: IpAddr,
    prefix: u8,
}

impl Networks {
    /// Whether an address is in one of the networks. When it is not, the list may be old, so that
    /// a new one is asked for.
    pub(super) fn contain(&self, address: IpAddr) -> bool {
        let subnets = self.subnets.lock().unwrap_or_else(PoisonError::into_inner);
        let found = subnets.iter().any(|subnet| subnet.contains(address));
        if !found {
            self.wanted.notify_one();
        }
        found
    }

    /// Returns when somebody wants a new list and one may be asked for.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
        let listed = *self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listed) = listed {
            tokio::time::sleep_until((listed + PAUSE).into()).await;
        }
    }

    /// Lists the networks.
    pub(super) async fn list(&self, engine: &Engine) {
        *self.listed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        match engine
            .client
            .list_networks(None::<ListNetworksOptions>)
            .await
        {
            Ok(networks) => {
                let found = networks
                    .iter()
                    .flat_map(subnets)
                    .take(MAX_SUBNETS)
                    .collect();
                *self.subnets.lock().unwrap_or_else(PoisonError::into_inner) = found;
            }
            Err(error) => debug!(%error, "the engine's networks cannot be listed"),
        }
    }
}

fn subnets(network: &Network) -> Vec<Subnet> {
    if network.driver.as_deref() != Some("bridge") {
        return Vec::new();
    }
    let configs = network
        .ipam
        .iter()
        .flat_map(|ipam| ipam.config.iter().flatten());
    let texts = configs.filter_map(|config| config.subnet.as_deref());
    texts.filter_map(Subnet::parse).collect()
}

impl Subnet {
    /// Reads `10.0.0.0/8`. A network of all addresses is none.
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
        let most = if address.is_ipv4() { 32 } else { 128 };
        (1..=most)
            .contains(&prefix)
            .then_some(Self { address, prefix })
    }

    fn contains(&self, other: IpAddr) -> bool {
        match (self.address, other.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                (a.to_bits() ^ b.to_bits()).leading_zeros() >= self.prefix.into()
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (a.to_bits() ^ b.to_bits()).leading_zeros() >= self.prefix.into()
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::{Ipam, IpamConfig};

    use super::*;

    fn network(driver: &str, subnet: &str) -> Network {
        let config = IpamConfig {
            subnet: Some(subnet.to_owned()),
            ..IpamConfig::default()
        };
        Network {
            driver: Some(driver.to_owned()),
            ipam: Some(Ipam {
                config: Some(vec![config]),
                ..Ipam::default()
            }),
            ..Network::default()
        }
    }

    #[test]
    fn bridges_hold_containers_and_other_networks_may_hold_anyone() {
        let networks = Networks::default();
        let lists = [
            network("bridge", "172.17.0.0/16"),
            network("bridge", "fd00:1::/64"),
            network("macvlan", "192.168.1.0/24"),
            network("bridge", "0.0.0.0/0"),
            network("bridge", "nonsense"),
        ];
        *networks.subnets.lock().unwrap() = lists.iter().flat_map(subnets).collect();
        for (address, inside) in [
            ("172.17.255.1", true),
            ("::ffff:172.17.0.9", true),
            ("172.18.0.1", false),
            ("fd00:1::9", true),
            ("fd00:2::9", false),
            ("192.168.1.7", false),
            ("1.1.1.1", false),
        ] {
            assert_eq!(
                networks.contain(address.parse().unwrap()),
                inside,
                "{address}"
            );
        }
    }
}
