//! Which container an address belongs to, and in which networks its service is.
//!
//! What this daemon has started or adopted is noted. A connection may be quicker than the note, so
//! an address of a container that is not known is looked for at the engine, once for all who wait.
//! Containers of others are remembered for a moment, so that they do not keep the engine busy.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bollard::models::{ContainerSummary, EndpointSettings};
use dunlin_state::model::Networks;
use tracing::debug;

use super::Inner;

/// How long an address counts as that of somebody else's container: addresses are given out in
/// turn, so it is not likely to be ours by then.
const STRANGE: Duration = Duration::from_secs(2);

/// Most such addresses that are remembered.
const MAX_STRANGERS: usize = 1_024;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Sources {
    known: Mutex<BTreeMap<IpAddr, Source>>,
    strangers: Mutex<BTreeMap<IpAddr, Instant>>,
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
struct Source {
    container: String,
    networks: Arc<Networks>,
}

impl Sources {
    /// The networks of the container that has this address.
    pub(super) fn get(&self, address: IpAddr) -> Option<Arc<Networks>> {
        let known = lock(&self.known);
        known.get(&address).map(|s| Arc::clone(&s.networks))
    }

    /// Notes the addresses of a container of ours.
    pub(super) fn note(
        &self,
        container: &str,
        addresses: impl IntoIterator<Item = IpAddr>,
        networks: &Networks,
    ) {
        let networks = Arc::new(networks.clone());
        let mut known = lock(&self.known);
        for address in addresses {
            let source = Source {
                container: container.to_owned(),
                networks: Arc::clone(&networks),
            };
            known.insert(address, source);
        }
    }

    /// A container has ended: its addresses may be another's.
    pub(super) fn forget(&self, container: &str) {
        lock(&self.known).retain(|_address, source| source.container != container);
    }

    fn is_strange(&self, address: IpAddr, since: Option<Instant>) -> bool {
        let seen = lock(&self.strangers).get(&address).copied();
        seen.is_some_and(|seen| seen.elapsed() < STRANGE && since.is_none_or(|since| seen >= since))
    }

    fn note_stranger(&self, address: IpAddr) {
        let mut strangers = lock(&self.strangers);
        if strangers.len() >= MAX_STRANGERS {
            strangers.clear();
        }
        strangers.insert(address, Instant::now());
    }
}

impl Inner {
    /// The networks of the container of ours that has this address; asks the engine when nobody
    /// has noted it.
    pub(super) async fn source(&self, address: IpAddr) -> Option<Arc<Networks>> {
        let sources = &self.sources;
        if let Some(networks) = sources.get(address) {
            return Some(networks);
        }
        if sources.is_strange(address, None) {
            return None;
        }
        let begun = Instant::now();
        let _one = sources.asking.lock().await;
        // Another may have asked since this one began to wait.
        if let Some(networks) = sources.get(address) {
            return Some(networks);
        }
        if sources.is_strange(address, Some(begun)) {
            return None;
        }
        let engine = self.client()?;
        match engine.list(&self.owner.filter()).await {
            Ok(list) => list.into_iter().for_each(|c| self.note_listed(c)),
            Err(error) => debug!(%error, "containers cannot be listed"),
        }
        let found = sources.get(address);
        if found.is_none() {
            sources.note_stranger(address);
        }
        found
    }

    fn note_listed(&self, container: ContainerSummary) {
        if !container.state.is_some_and(super::follow::is_alive) {
            return;
        }
        let labels = container.labels.unwrap_or_default();
        let (Some(labelled), Some(id)) = (self.owner.read(&labels), container.id) else {
            return;
        };
        let ends = container.network_settings.and_then(|s| s.networks);
        let ends = ends.unwrap_or_default();
        self.sources
            .note(&id, ends.values().flat_map(addresses), &labelled.networks);
    }
}

/// The addresses of a container in one network.
pub(super) fn addresses(end: &EndpointSettings) -> impl Iterator<Item = IpAddr> + use<> {
    let texts = [end.ip_address.clone(), end.global_ipv6_address.clone()];
    texts.into_iter().flatten().filter_map(|t| t.parse().ok())
}

/// Nothing panics while it holds one of these.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_a_containers_until_it_ends() {
        let sources = Sources::default();
        let (one, two): (IpAddr, IpAddr) = ([172, 17, 0, 2].into(), [172, 18, 0, 2].into());
        let back = Networks::from(["shop/back".to_owned()]);
        let front = Networks::from(["shop/front".to_owned()]);
        sources.note("a", [one, two], &back);
        assert_eq!(sources.get(two).as_deref(), Some(&back));
        // The engine has given one of them to another before the end of the first was seen.
        sources.note("b", [one], &front);
        sources.forget("a");
        assert_eq!(sources.get(one).as_deref(), Some(&front));
        assert_eq!(sources.get(two), None);
    }

    #[test]
    fn a_stranger_is_one_for_those_that_came_before_it_was_seen() {
        let sources = Sources::default();
        let address: IpAddr = [172, 17, 0, 9].into();
        let before = Instant::now();
        assert!(!sources.is_strange(address, None));
        sources.note_stranger(address);
        assert!(sources.is_strange(address, None) && sources.is_strange(address, Some(before)));
        let later = Instant::now() + Duration::from_secs(1);
        assert!(!sources.is_strange(address, Some(later)));
    }
}
