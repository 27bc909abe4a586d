//! The listeners of a node as they are now: opened when the table wants them, tried again when that
//! failed, closed when nobody wants them any more.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use dunlin_state::model::{Protocol, ServiceKey};
use dunlin_state::route::RouteTable;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::plan::{Place, Refusal, Wish, plan};
use super::{ListenerView, MAX_LISTENERS, PublishEvent, Publisher, Sockets, bind};
use crate::proxy::{Door, Ends, Pool, PortKey, Shared, UdpListener, serve_tcp, serve_udp};

/// Pause before a failed listener is tried again. It doubles with each failure up to
/// [`MAX_RETRY`].
const RETRY: Duration = Duration::from_millis(50);

/// Longest pause between tries: how late a port is noticed to have become free.
const MAX_RETRY: Duration = Duration::from_secs(5);

/// The failure in a row that is worth an event. The first ones may only mean that a listener of
/// our own on the same address is not closed yet.
const FAILURES_TO_TELL: u32 = 3;

/// How long sockets of the daemon before are kept that nobody wants yet: those of replicas are
/// wanted when their nodes have reported.
const INHERITANCE: Duration = Duration::from_secs(10);

/// What is open, and what could not be.
pub(super) struct Ports {
    publisher: Publisher,
    shared: Arc<Shared>,
    stop: CancellationToken,
    open: BTreeMap<Place, Open>,
    failed: BTreeMap<Place, Failed>,
    refused: BTreeSet<Refusal>,
    /// When sockets of the daemon before are closed that nobody wanted.
    unclaimed_until: Instant,
    pub(super) proxies: JoinSet<()>,
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
    /// None yet.
    pub(super) fn of(publisher: Publisher, stop: CancellationToken) -> Self {
        let shared = Shared {
            limits: publisher.limits,
            node: publisher.node,
            hop: publisher.hop.clone(),
            places: Arc::clone(&publisher.places),
        };
        Self {
            unclaimed_until: Instant::now() + INHERITANCE,
            publisher,
            shared: Arc::new(shared),
            stop,
            open: BTreeMap::new(),
            failed: BTreeMap::new(),
            refused: BTreeSet::new(),
            proxies: JoinSet::new(),
        }
    }

    /// Tells every pool who is ready now. Pools of ports that are gone stay until their last
    /// connection has ended.
    pub(super) fn follow_replicas(&mut self, table: &RouteTable) {
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

    pub(super) fn follow_listeners(&mut self, table: &RouteTable) {
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
    pub(super) fn hand_over(&mut self) {
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
    pub(super) fn next_due(&self) -> Option<Instant> {
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
