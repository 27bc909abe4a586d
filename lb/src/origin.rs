//! Who connects, as far as this node can tell: what isolation between networks goes by.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use dunlin_state::model::{Networks, Protocol, share_network};

/// A connection as its sockets tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// The protocol.
    pub protocol: Protocol,
    /// The client's address.
    pub from: SocketAddr,
    /// The address that it connected to.
    pub to: SocketAddr,
}

/// Who connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A replica of a service in these networks.
    Replica(Arc<Networks>),
    /// Anybody else: people and programs of this host that are no replicas, or that nobody can
    /// tell from such.
    Other,
}

impl Origin {
    /// Whether it may connect to services in these networks. Networks are between services: who
    /// is none of them is not held back.
    pub fn reaches(&self, networks: &Networks) -> bool {
        match self {
            Self::Replica(own) => share_network(own, networks),
            Self::Other => true,
        }
    }
}

/// Tells who connects.
pub trait Origins: fmt::Debug + Send + Sync {
    /// What is known at once of a connection to a service in these networks; `None` when
    /// [`Self::find`] has to be asked.
    fn known(&self, peer: &Peer, target: &Networks) -> Option<Origin>;

    /// Finds out.
    fn find(
        &self,
        peer: Peer,
        target: Arc<Networks>,
    ) -> Pin<Box<dyn Future<Output = Origin> + Send + '_>>;
}

/// Finds out who connects, at once where that is possible.
pub(crate) async fn origin(origins: &dyn Origins, peer: Peer, target: &Arc<Networks>) -> Origin {
    match origins.known(&peer, target) {
        Some(origin) => origin,
        None => origins.find(peer, Arc::clone(target)).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_replicas_are_held_back() {
        let networks = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Networks>();
        let replica = |names| Origin::Replica(Arc::new(networks(names)));
        let db = networks(&["shop/back"]);
        assert!(replica(&["shop/back", "shop/front"]).reaches(&db));
        assert!(!replica(&["shop/front"]).reaches(&db));
        assert!(!replica(&[]).reaches(&db));
        assert!(Origin::Other.reaches(&db));
    }
}
