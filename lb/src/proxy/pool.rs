//! One port of one service on this node: its balancer, its rules and its counters.
//!
//! However many listeners lead to it (virtual addresses, published ports), they share it, so that
//! what one connection learns of a replica holds for all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin_state::model::{Networks, NodeId, PortSpec, Protocol, ServiceKey, Slot, TrafficPolicy};
use dunlin_state::route::{NodeRoute, RouteTable, ServiceRoute};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::counters::{Counters, Tally, add};
use crate::balance::{
    self, Ask, Balancer, Candidate, Distance, Limiter, Pick, Rules, Target, TargetView,
};

/// How long connections go on to a replica that has left, when the specification says nothing. As
/// long as Docker waits before it kills a container that was asked to stop.
pub const DEFAULT_DRAIN: Duration = Duration::from_secs(10);

/// How long a connection may wait for the first replica of a service that has none unless somebody
/// connects: a decision, an auction, an image of usual size and a slow start. Most clients give up
/// before that by themselves.
pub(crate) const WAKE_PATIENCE: Duration = Duration::from_secs(60);

/// Connections that may wait for such a replica on one node and port, where the specification says
/// nothing: each takes a descriptor, and whoever wakes a service shall not be able to take all.
const MAX_WAKING: u32 = 1_024;

/// A port of a service, as its specification calls it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortKey {
    /// The service.
    pub service: ServiceKey,
    /// The port.
    pub target: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

impl PortKey {
    /// Whether it is this port of its service.
    pub(crate) fn is(&self, port: &PortSpec) -> bool {
        (self.target, self.protocol) == (port.target, port.protocol)
    }
}

impl fmt::Display for PortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.service, self.target, self.protocol)
    }
}

/// Why a source is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TurnedAway {
    Denied,
    Limited,
}

/// What this node's proxy sees of one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortView {
    /// Which.
    pub port: PortKey,
    /// Its replicas, also those that have left and still have connections.
    pub targets: Vec<TargetView>,
    /// Connections that wait for a replica.
    pub pending: u32,
    /// Whether they wait for the first replica of a service that has none unless somebody connects.
    pub waits: bool,
    /// The time at which ejections end is told by this clock, in milliseconds.
    pub now: u64,
    /// What it has counted.
    pub tally: Tally,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) key: PortKey,
    pub(crate) counters: Counters,
    start: Instant,
    inner: Mutex<Inner>,
    /// Told when a connection that waits may look again.
    changed: Notify,
    /// Told when one begins to wait although there is no replica.
    bell: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Inner {
    balancer: Balancer,
    policy: Arc<TrafficPolicy>,
    /// Whether the first connection brings a replica.
    wakes: bool,
    networks: Arc<Networks>,
    limiter: Option<Limiter>,
    /// The pool of the service that gets a share, and which share.
    aside: Option<(u8, Arc<Pool>)>,
    /// Ends the connections of a target.
    cuts: BTreeMap<Target, Cut>,
}

#[derive(Debug, Default)]
struct Cut {
    token: CancellationToken,
    /// When it is due: its target has left.
    due: Option<Instant>,
}

impl Pool {
    pub(crate) fn new(key: PortKey, bell: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            key,
            counters: Counters::default(),
            start: Instant::now(),
            inner: Mutex::default(),
            changed: Notify::new(),
            bell,
        })
    }

    /// Takes over what the table says. `aside` is the pool of the service that gets a share.
    pub(crate) fn follow(&self, table: &RouteTable, me: Option<NodeId>, aside: Option<Arc<Self>>) {
        let mut inner = self.lock();
        // The last connections of a service that is removed end by its own rules.
        let gone = ServiceRoute {
            traffic: TrafficPolicy::clone(&inner.policy),
            networks: Networks::clone(&inner.networks),
            ..ServiceRoute::default()
        };
        let route = table.services.get(&self.key.service).unwrap_or(&gone);
        let traffic = &route.traffic;
        inner.balancer.set_rules(Rules {
            policy: traffic.balance,
            prefer: traffic.prefer,
            max_connections: traffic.max_connections,
            max_pending: traffic.max_pending.or(route.wakes.then_some(MAX_WAKING)),
        });
        inner.wakes = route.wakes;
        inner.balancer.update(self.candidates(table, route, me));
        if inner.limiter.as_ref().map(Limiter::rate) != traffic.rate_limit {
            inner.limiter = traffic.rate_limit.map(Limiter::new);
        }
        let percent = traffic.split.as_ref().map(|s| s.percent);
        inner.aside = percent.zip(aside);
        if *inner.policy != *traffic {
            inner.policy = Arc::new(traffic.clone());
        }
        if *inner.networks != route.networks {
            inner.networks = Arc::new(route.networks.clone());
        }
        inner.note_departures();
        drop(inner);
        self.changed.notify_waiters();
    }

    fn candidates<'t>(
        &self,
        table: &'t RouteTable,
        route: &'t ServiceRoute,
        me: Option<NodeId>,
    ) -> impl Iterator<Item = Candidate> + use<'t> {
        let (target, protocol) = (self.key.target, self.key.protocol);
        let own_zone = me.and_then(|me| table.nodes.get(&me)?.zone.as_ref());
        route.backends.iter().flat_map(move |backend| {
            let node = table.nodes.get(&backend.node);
            let zone = node.and_then(|n: &NodeRoute| n.zone.as_ref());
            let distance = match () {
                () if me == Some(backend.node) => Distance::Node,
                () if zone.is_some() && zone == own_zone => Distance::Zone,
                () => Distance::Far,
            };
            let ends = backend.endpoints.iter();
            ends.filter(move |end| end.target == target && end.protocol == protocol)
                .map(move |end| Candidate {
                    target: Target {
                        slot: backend.slot,
                        node: backend.node,
                        epoch: backend.epoch,
                        address: end.address,
                    },
                    weight: node.map_or(1, |n| n.weight),
                    distance,
                })
        })
    }

    /// Whether a source may connect now; if so it is counted.
    pub(crate) fn admit(&self, source: IpAddr) -> Result<(), TurnedAway> {
        let now = self.now();
        let mut inner = self.lock();
        if !balance::admits(&inner.policy.allow, &inner.policy.deny, source) {
            add(&self.counters.denied, 1);
            return Err(TurnedAway::Denied);
        }
        let within = match &mut inner.limiter {
            Some(limiter) => limiter.admit(source, now),
            None => true,
        };
        if !within {
            add(&self.counters.limited, 1);
            return Err(TurnedAway::Limited);
        }
        Ok(())
    }

    /// The networks of its service.
    pub(crate) fn networks(&self) -> Arc<Networks> {
        Arc::clone(&self.lock().networks)
    }

    /// The pool that a connection to this one is carried by: this one, or the other of a split.
    pub(crate) fn share(self: &Arc<Self>, entropy: u64) -> Arc<Self> {
        let aside = match &self.lock().aside {
            Some((percent, pool)) if balance::goes_aside(*percent, entropy) => Arc::clone(pool),
            Some(_) | None => return Arc::clone(self),
        };
        match aside.has_targets() {
            true => aside,
            false => Arc::clone(self),
        }
    }

    pub(crate) fn has_targets(&self) -> bool {
        self.lock().balancer.has_targets()
    }

    pub(crate) fn policy(&self) -> Arc<TrafficPolicy> {
        Arc::clone(&self.lock().policy)
    }

    /// How long connections may go on that are to end.
    pub(crate) fn drain(&self) -> Duration {
        drain(&self.policy())
    }

    /// Chooses a replica.
    pub(crate) fn pick(
        self: &Arc<Self>,
        tried: &BTreeSet<Target>,
        (only, source): (Option<Slot>, u64),
    ) -> Result<Lease, Pick> {
        let ask = Ask {
            tried,
            only,
            entropy: rand::random(),
            source,
            now: self.now(),
        };
        let mut inner = self.lock();
        match inner.balancer.pick(&ask) {
            Pick::Chosen(target) => {
                let cut = inner.cuts.entry(target).or_default().token.clone();
                let pool = Arc::clone(self);
                Ok(Lease { pool, target, cut })
            }
            other @ (Pick::Full | Pick::Nobody) => Err(other),
        }
    }

    /// Counts a connection that waits; `None` when too many do.
    pub(crate) fn queue(self: &Arc<Self>) -> Option<Queued> {
        let may = self.lock().balancer.wait();
        if !may {
            add(&self.counters.overflowed, 1);
        } else if self.lock().waits() {
            self.bell.notify_one();
        }
        may.then(|| Queued(Arc::clone(self)))
    }

    /// How long a connection may wait for a replica: longer than `usual` where it is the first that
    /// brings one.
    pub(crate) fn patience(&self, usual: Duration) -> Duration {
        match self.lock().wakes {
            true => usual.max(WAKE_PATIENCE),
            false => usual,
        }
    }

    /// To be asked for before looking, and waited for when nothing was found.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// Ends the connections whose time is over. Returns when to ask again.
    pub(crate) fn reap(&self, now: Instant) -> Option<Instant> {
        let mut inner = self.lock();
        let Inner { balancer, cuts, .. } = &mut *inner;
        cuts.retain(|target, cut| {
            let over = cut.due.is_some_and(|due| due <= now);
            if over {
                cut.token.cancel();
            }
            !over && (balancer.is_listed(target) || balancer.open(target) > 0)
        });
        cuts.values().filter_map(|cut| cut.due).min()
    }

    /// Whether connections go on.
    pub(crate) fn is_used(&self) -> bool {
        self.counters
            .active
            .load(std::sync::atomic::Ordering::Relaxed)
            > 0
    }

    pub(crate) fn view(&self) -> PortView {
        let (inner, now) = (self.lock(), self.now());
        PortView {
            port: self.key.clone(),
            now,
            targets: inner.balancer.views(now).collect(),
            pending: inner.balancer.pending(),
            waits: inner.waits(),
            tally: Tally {
                ejections: inner.balancer.ejections(),
                ..self.counters.tally()
            },
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Nothing panics while it holds this lock, and a count that is off by one would do no harm.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn drain(policy: &TrafficPolicy) -> Duration {
    let millis = policy.drain_ms;
    millis.map_or(DEFAULT_DRAIN, Duration::from_millis)
}

impl Inner {
    fn waits(&self) -> bool {
        self.wakes && self.balancer.pending() > 0 && !self.balancer.has_targets()
    }

    /// Connections of those that have left may finish; of those that are back, go on.
    fn note_departures(&mut self) {
        let drain = drain(&self.policy);
        let now = Instant::now();
        let balancer = &self.balancer;
        for (target, cut) in &mut self.cuts {
            match balancer.is_listed(target) {
                true => cut.due = None,
                false => cut.due = cut.due.or(Some(now + drain)),
            }
        }
    }
}

/// A connection counted for a replica; dropping it ends the count, whatever happens to its task.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: Arc<Pool>,
    pub(crate) target: Target,
    /// Cancelled when the replica has left and the time to finish is over.
    pub(crate) cut: CancellationToken,
}

impl Lease {
    pub(crate) fn connected(&self, took: Duration) {
        self.pool.counters.connect_took(took);
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let now = self.pool.now();
        let mut inner = self.pool.lock();
        inner.balancer.connected(&self.target, micros, now);
    }

    pub(crate) fn failed(self) -> Target {
        add(&self.pool.counters.retries, 1);
        let target = self.target;
        let (entropy, now) = (rand::random(), self.pool.now());
        let mut inner = self.pool.lock();
        inner.balancer.failed(&target, entropy, now);
        drop(inner);
        target
    }

    /// The connection has shown whether the replica answers at all.
    pub(crate) fn judged(&self, answered: bool) {
        let (entropy, now) = (rand::random(), self.pool.now());
        let mut inner = self.pool.lock();
        inner.balancer.judged(&self.target, answered, entropy, now);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut inner = self.pool.lock();
        inner.balancer.closed(&self.target);
        let waiting = inner.balancer.pending() > 0;
        if !inner.balancer.is_listed(&self.target) && inner.balancer.open(&self.target) == 0 {
            inner.cuts.remove(&self.target);
        }
        drop(inner);
        if waiting {
            self.pool.changed.notify_waiters();
        }
    }
}

/// A connection that waits for a replica.
#[derive(Debug)]
pub(crate) struct Queued(Arc<Pool>);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.lock().balancer.waited();
    }
}
