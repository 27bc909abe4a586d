//! Opens and closes the listeners of all services, as the route table says: on their virtual
//! addresses and on published ports.
//!
//! Every node has all of them, whether it runs a replica or not. A listener that cannot be opened
//! is tried again for as long as it is wanted, and named in an event.

mod bind;
pub mod plan;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use dunlin_state::model::{NodeId, Protocol, ServiceKey};
use dunlin_state::route::RouteTable;
use rustix::process::{Resource, getrlimit};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::plan::{Place, Refusal, Wish, plan};
pub use self::views::{ListenerView, Listeners, Views};
use crate::origin::Origins;
use crate::proxy::hop::Hop;
use crate::proxy::{Door, Ends, Limits, Pool, PortKey, Shared, UdpListener, serve_tcp, serve_udp};

/// Pause before a failed listener is tried again. It doubles with each failure up to
/// [`MAX_RETRY`].
const RETRY: Duration = Duration::from_millis(50);

/// Longest pause between tries: how late a port is noticed to have become free.
const MAX_RETRY: Duration = Duration::from_secs(5);

/// The failure in a row that is worth an event. The first ones may only mean that a listener of
/// our own on the same address is not closed yet.
const FAILURES_TO_TELL: u32 = 3;

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

/// How long sockets of the daemon before are kept that nobody wants yet: those of replicas are
/// wanted when their nodes have reported.
const INHERITANCE: Duration = Duration::from_secs(10);

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
        let shared = Shared {
            limits: self.limits,
            node: self.node,
            hop: self.hop.clone(),
            places: Arc::clone(&self.places),
        };
        let mut ports = Ports {
            unclaimed_until: Instant::now() + INHERITANCE,
            publisher: self,
            shared: Arc::new(shared),
            stop: stop.clone(),
            open: BTreeMap::new(),
            failed: BTreeMap::new(),
            refused: BTreeSet::new(),
            proxies: JoinSet::new(),
        };
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

/// What is open, and what could not be.
struct Ports {
    publisher: Publisher,
    shared: Arc<Shared>,
    stop: CancellationToken,
    open: BTreeMap<Place, Open>,
    failed: BTreeMap<Place, Failed>,
    refused: BTreeSet<Refusal>,
    /// When sockets of the daemon before are closed that nobody wanted.
    unclaimed_until: Instant,
    proxies: JoinSet<()>,
}

/// A socket that is listened on. Its task has it too, and lets it go first.
#[derive(Debug, Clone)]
enum Listening {
    Tcp(Arc<TcpListener>),
    Udp(Arc<UdpListener>),
}

impl Listening {
    fn duplicate(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(listener) => listener.as_fd().try_clone_to_owned(),
            Self::Udp(listener) => listener.as_fd().try_clone_to_owned(),
        }
    }
}

struct Open {
    wish: Wish,
    stop: CancellationToken,
    listening: Listening,
    /// Keeps other daemons of this host off a published address.
    guard: Option<bind::Guard>,
}

struct Failed {
    wish: Wish,
    failures: u32,
    reason: String,
    again: Instant,
}

impl Ports {
    /// Tells every pool who is ready now. Pools of ports that are gone stay until their last
    /// connection has ended.
    fn follow_replicas(&mut self, table: &RouteTable) {
        let bell = self.publisher.views.bell();
        let mut pools = self.publisher.views.pools();
        for (service, route) in &table.services {
            for port in &route.ports {
                let key = PortKey {
                    service: service.clone(),
                    target: port.target,
                    protocol: port.protocol,
                };
                let new = || Pool::new(key.clone(), Arc::clone(&bell));
                pools.entry(key.clone()).or_insert_with(new);
            }
        }
        for (key, pool) in pools.iter() {
            let route = table.services.get(&key.service);
            let other = route.and_then(|r| r.traffic.split.as_ref());
            // Else a split would lead around the walls between networks.
            let open = |service: &ServiceKey| table.share_network(&key.service, service);
            let aside = other
                .filter(|split| open(&split.service))
                .and_then(|split| {
                    let service = split.service.clone();
                    let key = PortKey {
                        service,
                        ..key.clone()
                    };
                    pools.get(&key).cloned()
                });
            pool.follow(table, self.publisher.node, aside);
        }
        pools.retain(|key, pool| {
            let route = table.services.get(&key.service);
            let exists = route.is_some_and(|r| r.ports.iter().any(|p| key.is(p)));
            exists || pool.is_used()
        });
    }

    fn follow_listeners(&mut self, table: &RouteTable) {
        if self.unclaimed_until <= Instant::now() {
            self.publisher.inherited.clear();
        }
        let (wishes, refusals) = plan(table, self.publisher.bind_ip);
        let refusals: BTreeSet<Refusal> = refusals.into_iter().collect();
        for refusal in refusals.difference(&self.refused) {
            self.tell(PublishEvent::Refused(refusal.clone()));
        }
        let mut changed = refusals != self.refused;
        self.refused = refusals;
        let before = self.open.len() + self.failed.len();
        self.close_unwanted(&wishes);
        changed |= before != self.open.len() + self.failed.len();
        for (place, wish) in wishes {
            let waits = |f: &Failed| f.again > Instant::now();
            let known = self.open.contains_key(&place);
            if !known && !self.failed.get(&place).is_some_and(waits) {
                self.try_open(place, wish);
                changed = true;
            }
        }
        if changed {
            self.show_listeners();
        }
    }

    fn show_listeners(&self) {
        let view = |place: &Place, wish: &Wish, failure: Option<&str>| ListenerView {
            place: *place,
            port: wish.port.clone(),
            virtual_address: wish.virtual_address,
            only: wish.only,
            failure: failure.map(str::to_owned),
        };
        let open = self.open.iter();
        let open = open.map(|(place, open)| view(place, &open.wish, None));
        let failed = self.failed.iter();
        let failed = failed.map(|(place, f)| view(place, &f.wish, Some(&f.reason)));
        let mut all: Vec<ListenerView> = open.chain(failed).collect();
        all.sort_by_key(|listener| listener.place);
        let refused = self.refused.iter().cloned().collect();
        self.publisher.views.set_listeners(all, refused);
    }

    fn close_unwanted(&mut self, wishes: &BTreeMap<Place, Wish>) {
        let mut closed = Vec::new();
        self.open.retain(|place, open| {
            let wanted = wishes.get(place) == Some(&open.wish);
            if !wanted {
                open.stop.cancel();
                if !open.wish.virtual_address {
                    closed.push((open.wish.port.service.clone(), *place));
                }
            }
            wanted
        });
        self.failed
            .retain(|place, failed| wishes.get(place) == Some(&failed.wish));
        for (service, place) in closed {
            self.tell(PublishEvent::Closed { service, place });
        }
    }

    fn try_open(&mut self, place: Place, wish: Wish) {
        let service = wish.port.service.clone();
        let error = match self.start(place, &wish) {
            Ok(open) => {
                self.failed.remove(&place);
                if !wish.virtual_address {
                    self.tell(PublishEvent::Opened { service, place });
                }
                self.open.insert(place, open);
                return;
            }
            Err(error) => error,
        };
        let failures = self.failed.get(&place).map_or(0, |f| f.failures) + 1;
        let pause = RETRY.saturating_mul(1 << failures.min(10)).min(MAX_RETRY);
        let again = Instant::now() + pause;
        let reason = error.to_string();
        let failed = Failed {
            wish,
            failures,
            reason: reason.clone(),
            again,
        };
        self.failed.insert(place, failed);
        if failures == FAILURES_TO_TELL {
            self.tell(PublishEvent::Failed {
                service,
                place,
                reason,
            });
        }
    }

    fn start(&mut self, place: Place, wish: &Wish) -> io::Result<Open> {
        if self.open.len() >= MAX_LISTENERS {
            return Err(io::Error::other(format!(
                "this node has {MAX_LISTENERS} listeners, and no more"
            )));
        }
        let pool = {
            let pools = self.publisher.views.pools();
            pools.get(&wish.port).cloned()
        };
        let pool = pool.ok_or_else(|| io::Error::other("its service is gone"))?;
        let guarded = wish.virtual_address;
        let inherited = &mut self.publisher.inherited;
        let guard = match guarded {
            true => None,
            false => Some(bind::Guard::take(place, inherited)?),
        };
        let listening = self.listen(place, wish)?;
        let door = Door {
            pool,
            origins: self.publisher.origins.clone().filter(|_| guarded),
            only: wish.only,
        };
        let (shared, stop) = (Arc::clone(&self.shared), self.stop.child_token());
        match listening.clone() {
            Listening::Tcp(listener) => {
                let ends = Ends {
                    close: stop.clone(),
                    stop: self.stop.clone(),
                };
                self.proxies.spawn(serve_tcp(listener, door, shared, ends));
            }
            Listening::Udp(listener) => {
                self.proxies
                    .spawn(serve_udp(listener, door, shared, stop.clone()));
            }
        }
        Ok(Open {
            wish: wish.clone(),
            stop,
            listening,
            guard,
        })
    }

    /// The socket of the daemon before, or a new one.
    fn listen(&mut self, place: Place, wish: &Wish) -> io::Result<Listening> {
        let name = bind::listener_name(place, wish.only_v6);
        let taken = self.publisher.inherited.remove(&name);
        // A wildcard and an address in it bar each other, unless both say that they know.
        let beside = self.open.keys().any(|open| {
            open.protocol == place.protocol && open.address.port() == place.address.port()
        });
        let how = bind::How {
            only_v6: wish.only_v6,
            virtual_address: wish.virtual_address,
            beside,
        };
        Ok(match place.protocol {
            Protocol::Tcp => Listening::Tcp(Arc::new(match taken {
                Some(socket) => bind::taken_tcp(socket)?,
                None => bind::tcp(place.address, how)?,
            })),
            Protocol::Udp => Listening::Udp(Arc::new(UdpListener::new(match taken {
                Some(socket) => bind::taken_udp(socket)?,
                None => bind::udp(place.address, how)?,
            })?)),
        })
    }

    /// Gives all sockets to the heir, if there is one, and lets go of them.
    fn hand_over(&mut self) {
        let heir = self.publisher.heir.take();
        let open = std::mem::take(&mut self.open);
        let Some(heir) = heir else {
            return;
        };
        let mut sockets = Sockets::new();
        for (place, open) in &open {
            let name = bind::listener_name(*place, open.wish.only_v6);
            // One that cannot be duplicated is refused between the two daemons.
            sockets.extend(open.listening.duplicate().ok().map(|s| (name, s)));
            let guard = open.guard.as_ref().and_then(|g| g.duplicate().ok());
            sockets.extend(guard.map(|socket| (bind::guard_name(*place), socket)));
        }
        heir(sockets);
    }

    /// When something has to be tried again, or a connection's time is over.
    fn next_due(&self) -> Option<Instant> {
        let now = Instant::now();
        let pools = self.publisher.views.pools();
        let reaped = pools.values().filter_map(|pool| pool.reap(now)).min();
        let retry = self.failed.values().map(|failed| failed.again).min();
        let unclaimed = !self.publisher.inherited.is_empty();
        let unclaimed = unclaimed.then_some(self.unclaimed_until);
        [reaped, retry, unclaimed].into_iter().flatten().min()
    }

    fn tell(&self, event: PublishEvent) {
        (self.publisher.tell)(event);
    }
}

#[cfg(test)]
mod tests;
