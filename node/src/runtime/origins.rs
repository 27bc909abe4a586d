//! Who connects to a virtual address of this node: what the runtimes know of its replicas.
//!
//! A container has an address of its own, also towards this host. A process has the host's, and is
//! told by its socket. What is neither is a person or a program of the host, whom networks do not
//! hold back.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use dunlin_lb::{Origin, Origins, Peer};
use dunlin_state::model::Networks;

use super::RuntimesHandle;

impl Origins for RuntimesHandle {
    fn known(&self, peer: &Peer, target: &Networks) -> Option<Origin> {
        let address = peer.from.ip().to_canonical();
        // This host talks to itself: so do programs, and processes, but no container.
        let own = address.is_loopback() || address == peer.to.ip().to_canonical();
        if let Some(docker) = self.shared.docker.as_ref().filter(|_| !own) {
            if let Some(networks) = docker.source(address) {
                return Some(Origin::Replica(networks));
            }
            if docker.has_container(address) {
                return None;
            }
        }
        let process = self.shared.process.as_ref();
        let others = process.is_some_and(|process| process.has_others(target));
        (!others).then_some(Origin::Other)
    }

    fn find(
        &self,
        peer: Peer,
        target: Arc<Networks>,
    ) -> Pin<Box<dyn Future<Output = Origin> + Send + '_>> {
        Box::pin(async move {
            let found = match self.container_at(peer.from.ip().to_canonical()) {
                Some(asking) => asking.await,
                None => self.process_of(peer, target).await,
            };
            found.map_or(Origin::Other, Origin::Replica)
        })
    }
}

type Asking<'a> = futures::future::BoxFuture<'a, Option<Arc<Networks>>>;

impl RuntimesHandle {
    /// Asks for the container at an address that may be one's.
    fn container_at(&self, address: IpAddr) -> Option<Asking<'_>> {
        let docker = self.shared.docker.as_ref()?;
        let may_be = docker.has_container(address);
        may_be.then(|| docker.find_source(address))
    }

    async fn process_of(&self, peer: Peer, target: Arc<Networks>) -> Option<Arc<Networks>> {
        let process = self.shared.process.as_ref()?;
        process.find_source(peer, target).await
    }
}
