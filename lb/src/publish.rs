//! Opens and closes the listeners of all services, as the route table says: on their virtual
//! addresses and on published ports.
//!
//! Every node has all of them, whether it runs a replica or not. A listener that cannot be opened
//! is tried again for as long as it is wanted, and named in an event.

mod bind;
pub mod plan;
mod ports;
mod views;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use dunlin_state::model::{NodeId, ServiceKey};
use dunlin_state::route::RouteTable;
use rustix::process::{Resource, getrlimit};
use thiserror::Error;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use self::plan::{Place, Refusal};
use self::ports::Ports;
pub use self::views::{ListenerView, Listeners, Views};
use crate::origin::Origins;
use crate::proxy::Limits;
use crate::proxy::hop::Hop;

/// Listeners of one node. Four for each of the most services that a cluster may have would be
/// more; each takes a descriptor and a task.
const MAX_LISTENERS: usize = 16_384;

/// Descriptors that are left to the rest of the daemon.
const RESERVED_DESCRIPTORS: u64 = 1_024;

/// Most connections and UDP sessions of one node, whatever the system allows.
const MAX_PLACES: u64 = 262_144;

/// Something that people want to know of listeners. Shown by its `Display`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishEvent {
    /// A published port answers.
    Opened {
        /// Whose.
        service: ServiceKey,
        /// Where.
        place: Place,
    },
    /// A published port answers no longer: it is not wanted any more.
    Closed {
        /// Whose it was.
        service: ServiceKey,
        /// Where it answered.
        place: Place,
    },
    /// A warning: the address could not be taken. It is tried again.
    Failed {
        /// Whose port.
        service: ServiceKey,
        /// The address.
        place: Place,
        /// What the system said.
        reason: String,
    },
    /// A warning: the port will not be published on this node as it is specified.
    Refused(Refusal),
}

impl fmt::Display for PublishEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened { service, place } => write!(f, "{service} is published on {place}"),
            Self::Closed { service, place } => {
                write!(f, "{service} is no longer published on {place}")
            }
            Self::Failed {
                service,
                place,
                reason,
            } => write!(
                f,
                "{service} cannot be reached at {place}: {reason}; it is tried again until the \
                 address is free or the port is another one"
            ),
            Self::Refused(refusal) => write!(
                f,
                "port {} of {} is not published: {}",
                refusal.published, refusal.service, refusal.reason
            ),
        }
    }
}

/// The publisher ended although it was not asked to.
#[derive(Debug, Error)]
pub enum PublishError {
    /// A defect: the task of a port panicked, and its port is closed.
    #[error("the proxy of a port failed: {0}; restart the daemon and report this")]
    Proxy(#[source] JoinError),
}

/// Sockets by the names under which daemons hand them over.
pub type Sockets = BTreeMap<String, OwnedFd>;

type Heir = Box<dyn FnOnce(Sockets) + Send + Sync>;

/// Keeps the listeners of one node.
pub struct Publisher {
    bind_ip: IpAddr,
    limits: Limits,
    node: Option<NodeId>,
    hop: Option<Arc<Hop>>,
    places: Arc<Semaphore>,
    origins: Option<Arc<dyn Origins>>,
    inherited: Sockets,
    heir: Option<Heir>,
    views: Views,
    tell: Box<dyn Fn(PublishEvent) + Send + Sync>,
}

/// Most listeners for single replicas: as many as there may be of any kind, or an eighth of the
/// descriptors.
pub fn replica_listeners() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let most = MAX_LISTENERS / 2;
    usize::try_from(descriptors / 8).map_or(most, |eighth| eighth.min(most))
}

/// Room for connections in this process: each takes two descriptors, of those that listeners leave.
pub fn room() -> Arc<Semaphore> {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let listeners = (descriptors / 4).min(MAX_LISTENERS as u64);
    let half = descriptors.saturating_sub(RESERVED_DESCRIPTORS + listeners) / 2;
    let places = half.clamp(64, MAX_PLACES);
    Arc::new(Semaphore::new(usize::try_from(places).unwrap_or(64)))
}

impl Publisher {
    /// Publishes on `bind_ip` what names no host address; `0.0.0.0` and `::` are all addresses.
    /// `tell` gets the events. It must not block.
    pub fn new(bind_ip: IpAddr, tell: impl Fn(PublishEvent) + Send + Sync + 'static) -> Self {
        Self {
            bind_ip,
            limits: Limits::default(),
            node: None,
            hop: None,
            places: room(),
            origins: None,
            inherited: Sockets::new(),
            heir: None,
            views: Views::default(),
            tell: Box::new(tell),
        }
    }

    /// Other bounds for the proxy of each port.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Reaches replicas on nodes other than `node` by a hop. `places` is the room for connections,
    /// which both share.
    #[must_use]
    pub fn hop(mut self, node: NodeId, hop: Arc<Hop>, places: Arc<Semaphore>) -> Self {
        self.node = Some(node);
        self.hop = Some(hop);
        self.places = places;
        self
    }

    /// Keeps networks apart on virtual addresses: who connects is told by this. Without it,
    /// everybody reaches every service.
    #[must_use]
    pub fn origins(mut self, origins: Arc<dyn Origins>) -> Self {
        self.origins = Some(origins);
        self
    }

    /// Uses the sockets of the daemon before where they are what is wanted.
    #[must_use]
    pub fn inherit(mut self, sockets: Sockets) -> Self {
        self.inherited = sockets;
        self
    }

    /// When it is told to stop, `heir` gets the sockets of all listeners. It may block for a moment.
    #[must_use]
    pub fn hand_over(mut self, heir: impl FnOnce(Sockets) + Send + Sync + 'static) -> Self {
        self.heir = Some(Box::new(heir));
        self
    }

    /// What its proxies see.
    pub fn views(&self) -> Views {
        self.views.clone()
    }

    /// Follows the table until `stop` is cancelled; then closes all listeners at once and returns
    /// when the connections have ended, [`Limits::drain`] later at most. Dropped instead, it closes
    /// everything.
    ///
    /// # Errors
    /// When the task of a listener panicked.
    pub async fn run(
        self,
        mut routes: watch::Receiver<Arc<RouteTable>>,
        stop: CancellationToken,
    ) -> Result<(), PublishError> {
        let mut ports = Ports::of(self, stop.clone());
        let mut alive = true;
        let mut followed: Option<Arc<RouteTable>> = None;
        loop {
            let table = routes.borrow_and_update().clone();
            if !followed
                .as_ref()
                .is_some_and(|old| Arc::ptr_eq(old, &table))
            {
                ports.follow_replicas(&table);
                followed = Some(Arc::clone(&table));
            }
            ports.follow_listeners(&table);
            let due = ports.next_due();
            tokio::select! {
                () = stop.cancelled() => break,
                changed = routes.changed(), if alive => alive = changed.is_ok(),
                () = crate::proxy::until(due) => {}
                Some(ended) = ports.proxies.join_next() => ended.map_err(PublishError::Proxy)?,
            }
        }
        ports.hand_over();
        while let Some(ended) = ports.proxies.join_next().await {
            ended.map_err(PublishError::Proxy)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Publisher({})", self.bind_ip)
    }
}

#[cfg(test)]
mod tests;
