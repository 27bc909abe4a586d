//! A peer made of the project's own machines, around which somebody else has built a daemon that
//! lies: it speaks membership and replication as a member does, believes every register, signs only
//! what it likes, and can be told things that are not so.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dunlin_core::wire::{self, PeerMessage};
use dunlin_gossip::membership::{self, MemberId, Membership, Profile};
use dunlin_gossip::net::{ControlEvent, Net, NetConfig, NodeSeed, TrustEvent};
use dunlin_gossip::replication::{self, Replication};
use dunlin_state::Now;
use dunlin_state::desired::{Actor, Document};
use dunlin_state::model::NodeId;
use dunlin_state::observed::{Proof, Seal};
use dunlin_trust::{
    ClusterId, Founding, Gatekeeper, InviteKey, PublicKey, SecretKey, Signature, Standing, Ticket,
    Welcome,
};

use crate::lab::net::LabError;

/// What daemons put before the digest of a register that they sign.
const REGISTER: &[u8] = b"dunlin observed register";

/// Messages kept, of those that were sent to it.
const MAX_HEARD: usize = 20_000;

/// The seal of a daemon.
#[derive(Debug)]
struct NodeSeal(SecretKey);

impl Seal for NodeSeal {
    fn sign(&self, digest: &[u8; 32]) -> Proof {
        Proof(self.0.sign(&[REGISTER, digest].concat()).0)
    }

    fn verify(&self, node: NodeId, digest: &[u8; 32], proof: &Proof) -> bool {
        let key = PublicKey(*node.as_bytes());
        key.verifies(&[REGISTER, digest].concat(), &Signature(proof.0))
    }
}

/// See the module.
pub(super) struct Mallory {
    pub(super) seed: u8,
    pub(super) me: MemberId,
    pub(super) net: Net,
    pub(super) members: Membership,
    pub(super) replication: Replication,
    pub(super) seal: Arc<dyn Seal>,
    /// What made it a member.
    pub(super) welcome: Option<Welcome>,
    /// Why it was not let in.
    pub(super) refusals: Vec<String>,
    /// Whether it was shown an order of its removal.
    pub(super) removed: bool,
    /// With whom it is connected.
    pub(super) connected: BTreeSet<NodeId>,
    /// What it was told.
    pub(super) heard: Vec<(NodeId, PeerMessage)>,
    /// Whose words it passes over.
    pub(super) deaf_to: BTreeSet<NodeId>,
    addresses: BTreeMap<NodeId, SocketAddr>,
    started: Instant,
}

/// Who it is at the gate.
pub(super) enum Role {
    /// It holds a ticket.
    Invited(Ticket),
    /// It has what makes a member.
    Member(ClusterId, Standing),
}

impl Role {
    /// A member of a cluster of its own.
    pub(super) fn stranger(seed: u8) -> Self {
        let key = SecretKey::from_seed([seed; 32]);
        let founding = Founding::new([seed; 32], [seed; 32], key.public(), seconds());
        let root = founding.root.public();
        let standing = Standing::Member {
            root,
            chain: founding.node,
            keyring: founding.keyring,
        };
        Self::Member(ClusterId::of(&root), standing)
    }
}

/// The seed of a key that nobody has had in this process: a removed one never comes back.
pub(super) fn fresh() -> u8 {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The time as certificates know it.
pub(super) fn seconds() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

impl Mallory {
    /// Starts on free ports of this address. Whoever was here before lives on in the same name.
    pub(super) fn start(seed: u8, boot: u64, at: IpAddr, role: Role) -> Result<Self, LabError> {
        let mut last = None;
        for _ in 0..50 {
            let socket = UdpSocket::bind((at, 0)).map_err(|e| LabError::new("bind", e))?;
            match Self::start_on(seed, boot, socket, &role) {
                Ok(mallory) => return Ok(mallory),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| LabError::broken("no two free ports")))
    }

    fn start_on(seed: u8, boot: u64, socket: UdpSocket, role: &Role) -> Result<Self, LabError> {
        let key = SecretKey::from_seed([seed; 32]);
        let address = socket.local_addr();
        let address = address.map_err(|e| LabError::new("bind", e))?;
        let gatekeeper = match role {
            Role::Invited(ticket) => {
                let standing = Standing::Invited(InviteKey::of(&ticket.secret));
                Gatekeeper::new(key.clone(), ticket.cluster, standing)
            }
            Role::Member(cluster, standing) => {
                Gatekeeper::new(key.clone(), *cluster, standing.clone())
            }
        };
        let net = Net::start(NetConfig {
            seed: NodeSeed([seed; 32]),
            boot,
            gatekeeper,
            membership: socket,
            mdns: false,
        });
        let net = net.map_err(|e| LabError::new("start a peer", e))?;
        let node = net.node;
        let me = MemberId {
            node,
            boot,
            address,
        };
        let (started, now) = (Instant::now(), now_at(Duration::ZERO));
        let seal: Arc<dyn Seal> = Arc::new(NodeSeal(key));
        let document = Document::new(Actor::new(node, boot));
        Ok(Self {
            seed,
            members: Membership::new(me, Profile::Lan, u64::from(seed), now),
            replication: Replication::new(node, boot, document, Arc::clone(&seal), 1, now),
            me,
            net,
            seal,
            welcome: None,
            refusals: Vec::new(),
            removed: false,
            connected: BTreeSet::new(),
            heard: Vec::new(),
            deaf_to: BTreeSet::new(),
            addresses: BTreeMap::new(),
            started,
        })
    }

    pub(super) fn now(&self) -> Now {
        now_at(self.started.elapsed())
    }

    /// Where somebody lives.
    pub(super) fn knows(&mut self, node: NodeId, address: SocketAddr) {
        self.addresses.insert(node, address);
    }

    /// Says something to a node.
    pub(super) fn say(&self, to: NodeId, message: &PeerMessage) -> Result<(), LabError> {
        let bytes = wire::encode(message).map_err(|e| LabError::new("encode a message", e))?;
        self.say_bytes(to, bytes);
        Ok(())
    }

    /// The same with anything.
    pub(super) fn say_bytes(&self, to: NodeId, bytes: Bytes) {
        if let Some(address) = self.addresses.get(&to) {
            self.net.control.send(to, *address, bytes);
        }
    }

    /// Lives for a while as a member does.
    pub(super) async fn live(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.live_until(until).await;
        }
    }

    /// Lives until something is so.
    pub(super) async fn until(
        &mut self,
        what: &str,
        limit: Duration,
        done: impl Fn(&Self) -> bool,
    ) -> Result<(), LabError> {
        let until = Instant::now() + limit;
        while !done(self) {
            if Instant::now() >= until {
                return Err(LabError::broken(format!("not within {limit:?}: {what}")));
            }
            self.live_until(until).await;
        }
        Ok(())
    }

    /// Until something happens, or nothing does for a moment.
    async fn live_until(&mut self, until: Instant) {
        let moment = Instant::now() + Duration::from_millis(20);
        let pause = tokio::time::sleep_until(until.min(moment).into());
        tokio::select! {
            () = pause => {}
            Some(event) = self.net.events.recv() => self.on_control(event),
            Some(event) = self.net.gate.recv() => match event {
                TrustEvent::Welcomed(welcome) => self.welcome = Some(*welcome),
                TrustEvent::Refused { reason, .. } => self.refusals.push(reason),
                TrustEvent::Removed => self.removed = true,
                TrustEvent::Admitted { .. } | TrustEvent::Redeemed { .. } | TrustEvent::NewKeyring(_) => {}
            },
            Some(datagram) = self.net.received.recv() => {
                if !self.deaf_to.contains(&datagram.sender) {
                    let (from, bytes) = (datagram.from, datagram.bytes);
                    self.tell_members(membership::Input::Datagram { from, bytes });
                }
            }
        }
        self.tick();
    }

    fn tick(&mut self) {
        let now = self.now();
        if self.members.poll_timeout().is_some_and(|at| at <= now.mono) {
            let effects = self.members.handle_timeout(now);
            self.carry_members(effects);
        }
        if self
            .replication
            .poll_timeout()
            .is_some_and(|at| at <= now.mono)
        {
            let effects = self.replication.handle_timeout(now);
            self.carry_replication(effects);
        }
    }

    fn on_control(&mut self, event: ControlEvent) {
        match event {
            ControlEvent::Connected(node) => {
                self.connected.insert(node);
                self.tell_replication(replication::Input::Connected(node));
            }
            ControlEvent::Disconnected(node) => {
                self.connected.remove(&node);
                self.tell_replication(replication::Input::Disconnected(node));
            }
            ControlEvent::Message { from, bytes } => {
                let Ok(message) = wire::decode(&bytes) else {
                    return;
                };
                if self.heard.len() < MAX_HEARD {
                    self.heard.push((from, message.clone()));
                }
                match message {
                    PeerMessage::Swim(bytes) if !self.deaf_to.contains(&from) => {
                        self.tell_members(membership::Input::Reliable { from, bytes });
                    }
                    PeerMessage::Replication(message) => {
                        self.tell_replication(replication::Input::Message { from, message });
                    }
                    PeerMessage::Swim(_)
                    | PeerMessage::Bidding(_)
                    | PeerMessage::Secrets(_)
                    | PeerMessage::Lease(_)
                    | PeerMessage::Holder(_) => {}
                }
            }
            ControlEvent::Unreachable { .. }
            | ControlEvent::RpcRequest { .. }
            | ControlEvent::Stream { .. }
            | ControlEvent::Discovered { .. } => {}
        }
    }

    pub(super) fn tell_members(&mut self, input: membership::Input) {
        let effects = self.members.handle(input, self.now());
        self.carry_members(effects);
    }

    fn carry_members(&mut self, effects: Vec<membership::Effect>) {
        for effect in effects {
            match effect {
                membership::Effect::Send { to, bytes } => self.net.datagrams.send(to, bytes),
                membership::Effect::SendReliable { to, bytes } => {
                    if let Ok(bytes) = wire::encode(&PeerMessage::Swim(bytes)) {
                        self.say_bytes(to, bytes);
                    }
                }
                membership::Effect::Event(_) => {}
            }
        }
    }

    pub(super) fn tell_replication(&mut self, input: replication::Input) {
        let effects = self.replication.handle(input, self.now());
        self.carry_replication(effects);
    }

    fn carry_replication(&mut self, effects: Vec<replication::Effect>) {
        for effect in effects {
            match effect {
                replication::Effect::Send { to, message } => {
                    if let Ok(bytes) = wire::encode(&PeerMessage::Replication(message)) {
                        self.say_bytes(to, bytes);
                    }
                }
                // It has no disk, and says that it has.
                replication::Effect::Persist { id, .. } => {
                    self.tell_replication(replication::Input::Persisted(id));
                }
                replication::Effect::Proposed { .. }
                | replication::Effect::DesiredChanged
                | replication::Effect::ObservedChanged(_)
                | replication::Effect::Warning(_) => {}
            }
        }
    }

    /// Forgets whom it has taken for what, and joins once more, as its next life.
    pub(super) fn begin_anew(&mut self) {
        self.deaf_to.clear();
        self.me.boot += 1;
        let now = self.now();
        self.members = Membership::new(self.me, Profile::Lan, self.me.boot, now);
        for address in self.addresses.clone().into_values() {
            self.tell_members(membership::Input::Join { address });
        }
    }

    /// Ends at once, without a goodbye, and frees its ports.
    pub(super) async fn vanish(self) {
        let _in_time = self.net.tasks.shutdown().await;
    }
}

fn now_at(since: Duration) -> Now {
    Now {
        mono: u64::try_from(since.as_millis())
            .unwrap_or(u64::MAX)
            .saturating_add(1_000),
        wall: seconds() * 1_000,
    }
}
