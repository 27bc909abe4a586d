//! A bridge of its own for each network of services, so that containers of this host that share
//! none do not reach each other past the proxy either: engines let nothing pass between bridges.
//!
//! Containers in nothing but the default network of the default namespace stay on the engine's own
//! bridge: most are, and it costs nothing. Bridges are made when they are first needed and removed
//! when nothing runs in them; an engine has room for some thirty.

use std::collections::{BTreeSet, HashMap};

use bollard::errors::Error;
use bollard::models::{ContainerSummary, NetworkConnectRequest, NetworkCreateRequest};
use bollard::query_parameters::ListNetworksOptions;
use dunlin_state::model::{Networks, ServiceKey};
use tokio::sync::{Mutex, RwLock, RwLockReadGuard};
use tracing::debug;

use super::super::StartError;
use super::naming::Owner;
use super::start::{refused, status};
use super::{Engine, Inner};

/// The engine's own bridge.
const OWN_BRIDGE: &str = "bridge";

/// Keeps bridges from being removed while containers are being put into them.
#[derive(Debug, Default)]
pub(super) struct Walls {
    standing: RwLock<()>,
    making: Mutex<()>,
}

/// The bridges of one container: the one that it is created in, and the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rooms {
    pub(super) first: String,
    pub(super) others: Vec<String>,
}

impl Rooms {
    /// `None` where the engine's own bridge will do.
    pub(super) fn of(owner: &Owner, networks: &Networks) -> Option<Self> {
        let own = ServiceKey::DEFAULT_NAMESPACE;
        let plain = |network: &str| network == format!("{own}/{own}");
        if networks.iter().all(|network| plain(network)) {
            return None;
        }
        let names = networks.iter().map(|network| match plain(network) {
            true => OWN_BRIDGE.to_owned(),
            false => owner.network_name(network),
        });
        let mut names = names.collect::<BTreeSet<String>>().into_iter();
        Some(Self {
            first: names.next()?,
            others: names.collect(),
        })
    }
}

impl Inner {
    /// The bridges of a container that is to be started, all of which exist then, and what keeps
    /// them until it runs.
    pub(super) async fn rooms(
        &self,
        engine: &Engine,
        networks: &Networks,
    ) -> Result<(Option<Rooms>, RwLockReadGuard<'_, ()>), StartError> {
        let standing = self.walls.standing.read().await;
        // The host does not see the addresses of a rootless engine, and its bridges are not ours.
        let rooms = match engine.rootless {
            true => None,
            false => Rooms::of(&self.owner, networks),
        };
        if rooms.is_some() {
            let _one = self.walls.making.lock().await;
            let mut made = false;
            for network in networks {
                made |= self.make(engine, network).await?;
            }
            if made {
                // From now on its addresses are known to be containers'.
                self.networks.list(engine).await;
            }
        }
        Ok((rooms, standing))
    }

    /// Makes the bridge of a network, unless it exists; whether it was made.
    async fn make(&self, engine: &Engine, network: &str) -> Result<bool, StartError> {
        let only = Networks::from([network.to_owned()]);
        let Some(room) = Rooms::of(&self.owner, &only) else {
            return Ok(false);
        };
        if engine
            .client
            .inspect_network(&room.first, None)
            .await
            .is_ok()
        {
            return Ok(false);
        }
        let request = NetworkCreateRequest {
            name: room.first,
            driver: Some("bridge".to_owned()),
            labels: Some(self.owner.network_labels(network)),
            ..NetworkCreateRequest::default()
        };
        match engine.client.create_network(request).await {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == Some(409) => Ok(false),
            Err(error) => Err(no_room(network, &error)),
        }
    }

    /// Puts a container that was created into its other bridges.
    pub(super) async fn enter(
        &self,
        engine: &Engine,
        container: &str,
        rooms: &Rooms,
    ) -> Result<(), StartError> {
        for room in &rooms.others {
            let request = NetworkConnectRequest {
                container: container.to_owned(),
                endpoint_config: None,
            };
            let entered = engine.client.connect_network(room, request).await;
            entered.map_err(|error| refused("connect", &error))?;
        }
        Ok(())
    }

    /// Removes the bridges of ours that no running container is in.
    pub(super) async fn tear_down(&self, engine: &Engine, running: &[ContainerSummary]) {
        let Ok(_alone) = self.walls.standing.try_write() else {
            return;
        };
        let options = ListNetworksOptions {
            filters: Some(self.owner.filter()),
        };
        let Ok(networks) = engine.client.list_networks(Some(options)).await else {
            return;
        };
        let used: BTreeSet<&String> = running
            .iter()
            .filter_map(|c| c.network_settings.as_ref()?.networks.as_ref())
            .flat_map(HashMap::keys)
            .collect();
        let names = networks.into_iter().filter_map(|network| network.name);
        for name in names.filter(|name| !used.contains(name)) {
            // The engine refuses while something of others is in it.
            if let Err(error) = engine.client.remove_network(&name).await {
                debug!(name, %error, "a bridge is left standing");
            }
        }
    }
}

fn no_room(network: &str, error: &Error) -> StartError {
    match refused("make a bridge for", error) {
        StartError::Failed { reason, .. } if reason.contains("address pool") => {
            StartError::hopeless(format!(
                "this host's container engine has no free subnet for the network {network}; give \
                 it more with 'default-address-pools' in its daemon.json, or remove networks \
                 that nobody uses (docker network prune): {reason}"
            ))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use dunlin_state::model::NodeId;

    use super::*;

    fn rooms(names: &[&str]) -> Option<(String, Vec<String>)> {
        let owner = Owner::new("c", NodeId::from_bytes([1; 32]));
        let networks = names.iter().map(|name| (*name).to_owned()).collect();
        Rooms::of(&owner, &networks).map(|rooms| (rooms.first, rooms.others))
    }

    #[test]
    fn each_network_has_a_bridge_but_the_one_that_most_are_in() {
        assert_eq!(rooms(&["default/default"]), None);
        let back = "dunlin-aeaqca-shop.back".to_owned();
        assert_eq!(rooms(&["shop/back"]), Some((back.clone(), vec![])));
        let both = rooms(&["default/default", "shop/back"]);
        assert_eq!(both, Some(("bridge".to_owned(), vec![back])));
        let default = rooms(&["shop/default"]).map(|(first, _)| first);
        assert_eq!(default.as_deref(), Some("dunlin-aeaqca-shop.default"));
        // No namespace has an underscore in its name.
        let shared = rooms(&["*/all"]).map(|(first, _)| first);
        assert_eq!(shared.as_deref(), Some("dunlin-aeaqca-_.all"));
    }
}
