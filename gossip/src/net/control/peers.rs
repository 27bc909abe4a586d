//! Who is connected, who is being dialed, and what waits for a connection. Pure: time comes in.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use dunlin_state::model::NodeId;
use libp2p::swarm::ConnectionId;
use tokio::time::Instant;

use super::MAX_MESSAGE;
use super::task::Request;

/// Messages and requests waiting for one connection to come up.
const MAX_WAITING: usize = 256;

/// Bytes waiting for one connection to come up: two documents.
const MAX_WAITING_BYTES: usize = 2 * MAX_MESSAGE;

/// Time without traffic after which a connection closes that nobody wants.
const IDLE: Duration = Duration::from_secs(60);

/// Connections dialed on demand that are kept; beyond, the least recently used close.
const MAX_ON_DEMAND: usize = 64;

/// Age at which a connection that doubles another one closes: by then both sides send on the other.
const SETTLED: Duration = Duration::from_secs(5);

/// Age from which a connection counts as dead when its peer opens another: who has one does not dial,
/// so the peer has lost it, as it does when it is killed and started again. Younger ones may be two
/// that were opened at once, which are up within some round trips of each other.
const REPLACED: Duration = Duration::from_secs(1);

/// Time after a failed dial during which a mere message does not dial again.
const PAUSE: Duration = Duration::from_millis(500);

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opener {
    Us,
    Them,
}

/// What waits for a connection.
#[derive(Debug)]
pub(super) enum Waiting {
    Message(Bytes),
    Request(Request),
}

impl Waiting {
    fn len(&self) -> usize {
        match self {
            Self::Message(bytes) => bytes.len(),
            Self::Request(request) => request.len(),
        }
    }
}

/// What to do for something that wants to be sent.
#[derive(Debug)]
pub(super) enum Route {
    /// There is a connection: send it.
    Now(Waiting),
    /// It waits, and somebody must dial.
    Dial,
    /// It waits for a dial under way.
    Waits,
    /// It does not fit, or the last dial has just failed.
    Dropped(Waiting),
}

/// What a connection that has come up means.
#[derive(Debug)]
pub(super) struct Up {
    /// Whether it is the first, not counting those that it replaces.
    pub(super) first: bool,
    /// What has waited for it.
    pub(super) waited: Vec<Waiting>,
    /// Those that the peer has lost without a word: they are forgotten already, and are to be closed.
    pub(super) replaced: Vec<ConnectionId>,
}

/// Who opened the connection that stays when both sides have opened one: the smaller node id. Both
/// sides reckon the same.
pub(super) fn keeper(local: &NodeId, remote: &NodeId) -> Opener {
    if local < remote {
        Opener::Us
    } else {
        Opener::Them
    }
}

#[derive(Debug, Clone, Copy)]
struct Connection {
    opener: Opener,
    since: Instant,
}

#[derive(Debug)]
struct Peer {
    connections: BTreeMap<ConnectionId, Connection>,
    wanted: bool,
    dialing: Option<ConnectionId>,
    dial_failed: Option<Instant>,
    waiting: Vec<Waiting>,
    waiting_bytes: usize,
    last_used: Instant,
}

impl Peer {
    fn new(now: Instant) -> Self {
        Self {
            connections: BTreeMap::new(),
            wanted: false,
            dialing: None,
            dial_failed: None,
            waiting: Vec::new(),
            waiting_bytes: 0,
            last_used: now,
        }
    }

    fn pauses(&self, now: Instant) -> bool {
        let since = |failed| now.duration_since(failed);
        self.dial_failed.is_some_and(|at| since(at) < PAUSE)
    }

    fn is_forgettable(&self, now: Instant) -> bool {
        self.connections.is_empty() && self.dialing.is_none() && !self.wanted && !self.pauses(now)
    }

    /// The connections that this node has opened.
    fn ours(&self) -> impl Iterator<Item = (ConnectionId, Connection)> {
        let all = self.connections.iter().map(|(id, open)| (*id, *open));
        all.filter(|(_, open)| open.opener == Opener::Us)
    }

    fn has_theirs(&self) -> bool {
        let mut all = self.connections.values();
        all.any(|open| open.opener == Opener::Them)
    }

    fn take_waiting(&mut self) -> Vec<Waiting> {
        self.waiting_bytes = 0;
        std::mem::take(&mut self.waiting)
    }
}

/// All peers that are connected, dialed or wanted.
#[derive(Debug)]
pub(super) struct Peers {
    local: NodeId,
    peers: BTreeMap<NodeId, Peer>,
}

impl Peers {
    pub(super) fn new(local: NodeId) -> Self {
        Self {
            local,
            peers: BTreeMap::new(),
        }
    }

    fn peer(&mut self, node: NodeId, now: Instant) -> &mut Peer {
        self.peers.entry(node).or_insert_with(|| Peer::new(now))
    }

    /// Where something for `node` goes.
    pub(super) fn route(&mut self, node: NodeId, what: Waiting, now: Instant) -> Route {
        let peer = self.peer(node, now);
        peer.last_used = now;
        if !peer.connections.is_empty() {
            return Route::Now(what);
        }
        let patient = matches!(what, Waiting::Message(_));
        let bytes = peer.waiting_bytes.saturating_add(what.len());
        let full = peer.waiting.len() >= MAX_WAITING || bytes > MAX_WAITING_BYTES;
        if full || (patient && peer.dialing.is_none() && peer.pauses(now)) {
            return Route::Dropped(what);
        }
        peer.waiting_bytes = bytes;
        peer.waiting.push(what);
        if peer.dialing.is_some() {
            Route::Waits
        } else {
            Route::Dial
        }
    }

    /// Wants a lasting connection. True when somebody must dial.
    pub(super) fn want(&mut self, node: NodeId, now: Instant) -> bool {
        let peer = self.peer(node, now);
        peer.wanted = true;
        peer.connections.is_empty() && peer.dialing.is_none()
    }

    /// Wants it no longer. Returns the connections to close.
    pub(super) fn unwant(&mut self, node: NodeId) -> Vec<ConnectionId> {
        let Some(peer) = self.peers.get_mut(&node) else {
            return Vec::new();
        };
        peer.wanted = false;
        peer.ours().map(|(id, _)| id).collect()
    }

    /// A dial is under way.
    pub(super) fn dialing(&mut self, node: NodeId, id: ConnectionId, now: Instant) {
        self.peer(node, now).dialing = Some(id);
    }

    /// A connection is up.
    pub(super) fn connected(
        &mut self,
        node: NodeId,
        id: ConnectionId,
        opener: Opener,
        now: Instant,
    ) -> Up {
        let peer = self.peer(node, now);
        if peer.dialing == Some(id) {
            peer.dialing = None;
        }
        peer.dial_failed = None;
        peer.last_used = now;
        let lost = |open: &Connection| {
            opener == Opener::Them && now.duration_since(open.since) >= REPLACED
        };
        let old = peer.connections.extract_if(.., |_, open| lost(open));
        let replaced = old.map(|(id, _)| id).collect();
        let first = peer.connections.is_empty();
        let since = now;
        peer.connections.insert(id, Connection { opener, since });
        Up {
            first,
            waited: peer.take_waiting(),
            replaced,
        }
    }

    /// A connection is gone. True when it was the last.
    pub(super) fn disconnected(&mut self, node: NodeId, id: ConnectionId) -> bool {
        let Some(peer) = self.peers.get_mut(&node) else {
            return false;
        };
        let was_open = peer.connections.remove(&id).is_some();
        let last = was_open && peer.connections.is_empty();
        // Who wants it hears that it is gone and asks again.
        peer.wanted &= !last;
        last
    }

    /// A dial has failed. Returns what had waited for it, unless another connection is up.
    pub(super) fn dial_failed(
        &mut self,
        node: NodeId,
        id: ConnectionId,
        now: Instant,
    ) -> Option<Vec<Waiting>> {
        let peer = self.peers.get_mut(&node)?;
        if peer.dialing != Some(id) {
            return None;
        }
        peer.dialing = None;
        if !peer.connections.is_empty() {
            return None;
        }
        peer.dial_failed = Some(now);
        // Who wants it hears of the failure and asks again.
        peer.wanted = false;
        Some(peer.take_waiting())
    }

    /// There was traffic with a peer.
    pub(super) fn used(&mut self, node: &NodeId, now: Instant) {
        if let Some(peer) = self.peers.get_mut(node) {
            peer.last_used = now;
        }
    }

    /// Forgets what is over, and returns the connections to close that nobody needs any more.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<ConnectionId> {
        self.peers.retain(|_, peer| !peer.is_forgettable(now));
        let mut closing = self.doubles(now);
        let mut on_demand: Vec<(Instant, ConnectionId)> = Vec::new();
        for peer in self.peers.values().filter(|peer| !peer.wanted) {
            on_demand.extend(peer.ours().map(|(id, _)| (peer.last_used, id)));
        }
        on_demand.retain(|(_, id)| !closing.contains(id));
        on_demand.sort_unstable();
        let excess = on_demand.len().saturating_sub(MAX_ON_DEMAND);
        for (index, (last_used, id)) in on_demand.into_iter().enumerate() {
            if index < excess || now.duration_since(last_used) >= IDLE {
                closing.push(id);
            }
        }
        closing
    }

    /// This node's connections with peers that have opened one too, where theirs is the keeper.
    fn doubles(&self, now: Instant) -> Vec<ConnectionId> {
        let settled = |open: &Connection| now.duration_since(open.since) >= SETTLED;
        let mut doubles = Vec::new();
        for (node, peer) in &self.peers {
            if peer.has_theirs() && keeper(&self.local, node) == Opener::Them {
                doubles.extend(peer.ours().filter(|(_, open)| settled(open)));
            }
        }
        doubles.into_iter().map(|(id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: NodeId = NodeId::from_bytes([100; 32]);
    const A: NodeId = NodeId::from_bytes([1; 32]);

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    fn message(len: usize) -> Waiting {
        Waiting::Message(Bytes::from(vec![0; len]))
    }

    #[test]
    fn messages_wait_for_the_first_connection_and_then_flow() {
        let (mut peers, now) = (Peers::new(LOCAL), Instant::now());
        assert!(matches!(peers.route(A, message(1), now), Route::Dial));
        peers.dialing(A, id(1), now);
        assert!(matches!(peers.route(A, message(1), now), Route::Waits));
        let up = peers.connected(A, id(1), Opener::Us, now);
        assert!(up.first);
        assert_eq!(up.waited.len(), 2);
        assert!(matches!(peers.route(A, message(1), now), Route::Now(_)));
    }

    #[test]
    fn what_waits_is_bounded_in_number_and_bytes() {
        let (mut peers, now) = (Peers::new(LOCAL), Instant::now());
        peers.dialing(A, id(1), now);
        for _ in 0..MAX_WAITING {
            assert!(matches!(peers.route(A, message(1), now), Route::Waits));
        }
        assert!(matches!(peers.route(A, message(1), now), Route::Dropped(_)));

        let mut peers = Peers::new(LOCAL);
        peers.dialing(A, id(1), now);
        for _ in 0..2 {
            let route = peers.route(A, message(MAX_MESSAGE), now);
            assert!(matches!(route, Route::Waits));
        }
        assert!(matches!(peers.route(A, message(1), now), Route::Dropped(_)));
    }

    #[test]
    fn a_failed_dial_drops_what_waited_and_pauses_messages() {
        let (mut peers, now) = (Peers::new(LOCAL), Instant::now());
        let _ = peers.route(A, message(1), now);
        peers.dialing(A, id(1), now);
        assert_eq!(peers.dial_failed(A, id(1), now).map(|w| w.len()), Some(1));
        assert!(matches!(peers.route(A, message(1), now), Route::Dropped(_)));
        assert!(peers.want(A, now), "a wanted connection is dialed at once");
        let later = now + PAUSE;
        assert!(matches!(peers.route(A, message(1), later), Route::Dial));
    }

    #[test]
    fn a_failed_dial_is_no_loss_when_the_peer_has_dialed_meanwhile() {
        let (mut peers, now) = (Peers::new(LOCAL), Instant::now());
        let _ = peers.route(A, message(1), now);
        peers.dialing(A, id(1), now);
        let up = peers.connected(A, id(2), Opener::Them, now);
        assert!(up.first && up.waited.len() == 1);
        assert!(peers.dial_failed(A, id(1), now).is_none());
    }

    #[test]
    fn only_the_first_and_the_last_connection_are_news() {
        let (mut peers, now) = (Peers::new(LOCAL), Instant::now());
        assert!(peers.connected(A, id(1), Opener::Us, now).first);
        assert!(!peers.connected(A, id(2), Opener::Them, now).first);
        assert!(!peers.disconnected(A, id(1)));
        assert!(
            !peers.disconnected(A, id(1)),
            "a second report changes nothing"
        );
        assert!(peers.disconnected(A, id(2)));
        assert!(!peers.disconnected(A, id(2)));
    }

    #[test]
    fn a_peer_that_dials_again_has_lost_its_older_connections() {
        for opener in [Opener::Us, Opener::Them] {
            let (mut peers, now) = (Peers::new(LOCAL), Instant::now());
            peers.connected(A, id(1), opener, now);
            let young = peers.connected(A, id(2), Opener::Them, now + REPLACED / 2);
            assert!(!young.first && young.replaced.is_empty(), "dialed at once");
            let up = peers.connected(A, id(3), Opener::Them, now + REPLACED);
            assert_eq!((up.first, up.replaced), (false, vec![id(1)]));
            let up = peers.connected(A, id(4), Opener::Them, now + 3 * REPLACED);
            assert_eq!((up.first, up.replaced), (true, vec![id(2), id(3)]));
            assert!(!peers.disconnected(A, id(3)), "it was forgotten");
            assert!(peers.disconnected(A, id(4)));
        }
    }

    #[test]
    fn what_this_node_dials_replaces_nothing() {
        let (mut peers, now) = (Peers::new(LOCAL), Instant::now());
        peers.connected(A, id(1), Opener::Them, now);
        let up = peers.connected(A, id(2), Opener::Us, now + REPLACED);
        assert!(!up.first && up.replaced.is_empty());
    }

    #[test]
    fn idle_connections_close_unless_wanted_or_dialed_by_the_peer() {
        let (mut peers, now) = (Peers::new(LOCAL), Instant::now());
        let nodes = [1, 2, 3].map(|n| NodeId::from_bytes([n; 32]));
        peers.connected(nodes[0], id(1), Opener::Us, now);
        peers.connected(nodes[1], id(2), Opener::Us, now);
        peers.connected(nodes[2], id(3), Opener::Them, now);
        assert!(!peers.want(nodes[1], now));
        assert!(peers.sweep(now + IDLE / 2).is_empty());
        assert_eq!(peers.sweep(now + IDLE), [id(1)]);
        peers.used(&nodes[0], now + IDLE / 2);
        assert!(peers.sweep(now + IDLE).is_empty());
    }

    #[test]
    fn the_least_recently_used_close_beyond_the_limit() {
        let (mut peers, now) = (Peers::new(LOCAL), Instant::now());
        for n in 0..MAX_ON_DEMAND + 2 {
            let node = NodeId::from_bytes([n as u8; 32]);
            let at = now + Duration::from_millis(n as u64);
            peers.connected(node, id(n), Opener::Us, at);
        }
        let later = now + Duration::from_secs(1);
        assert_eq!(peers.sweep(later), [id(0), id(1)]);
    }

    #[test]
    fn of_two_connections_the_smaller_nodes_stays_and_the_other_closes_its_own() {
        let (mut peers, now) = (Peers::new(LOCAL), Instant::now());
        let larger = NodeId::from_bytes([200; 32]);
        for (node, n) in [(A, 0), (larger, 10)] {
            peers.connected(node, id(n + 1), Opener::Us, now);
            peers.connected(node, id(n + 2), Opener::Them, now);
            assert!(!peers.want(node, now));
        }
        assert!(peers.sweep(now).is_empty(), "not settled yet");
        assert_eq!(peers.sweep(now + SETTLED), [id(1)]);
        assert!(
            !peers.disconnected(A, id(1)),
            "the other one is still there"
        );
        assert!(peers.sweep(now + SETTLED).is_empty());
    }

    #[test]
    fn unwanted_peers_are_forgotten_once_they_are_gone() {
        let (mut peers, now) = (Peers::new(LOCAL), Instant::now());
        peers.connected(A, id(1), Opener::Us, now);
        assert!(peers.disconnected(A, id(1)));
        peers.sweep(now);
        assert!(peers.peers.is_empty());
    }
}
