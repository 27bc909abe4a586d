//! The task that owns the engine: what happens goes in, what the engine asks for is performed.
//!
//! It never waits for anything slow. Disk, runtimes, peers and probes have tasks of their own
//! behind bounded queues; their answers come back as inputs.

mod perform;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dunlin_api::EventRecord;
use dunlin_core::engine::Engine;
use dunlin_core::io::{Effect, Event, Input, RuntimeCommand, RuntimeEvent};
use dunlin_gossip::membership;
use dunlin_gossip::net::{Control, ControlEvent, Datagram, DatagramSender, TrustEvent};
use dunlin_gossip::replication::{PersistId, ProposalId};
use dunlin_state::desired::Rejection;
use dunlin_state::model::NodeId;
use dunlin_state::route::{ReplicaNumbers, RouteTable};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::clock::{Clock, wall_millis};
use super::handle::Request;
use super::measuring::Followed;
use super::strangers::Strangers;
use super::trust::{Duty, Trustee};
use crate::api::EventLog;
use crate::runtime::Offer;
use crate::secrets::SecretVault;
use crate::store::{Store, Written};
use crate::streams::Visitor;

/// How often a disk that has refused a write is tried again.
const DISK_RETRY: Duration = Duration::from_secs(5);
/// The engine sleeps at most so long, so that a lost timer cannot stop a node.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// How often certificates and keyrings are looked at without a reason.
const TRUST_TICK: Duration = Duration::from_secs(1);
/// Members that are asked for a keyring at a time.
const DOORS: usize = 4;
/// Addresses of the local network that a newcomer remembers until it is let in.
const MAX_DISCOVERED: usize = 32;
/// The id of a write that only asks whether the disk works. The engine never gives it out.
const DISK_CHECK: PersistId = PersistId(u64::MAX);

/// Why the driver ended on its own. The node cannot go on without that part.
#[derive(Debug, Error)]
pub enum DriverError {
    /// A part of the node has ended.
    #[error("{0} has ended unexpectedly")]
    Ended(&'static str),
    /// Another process lives as this node, and started later.
    #[error(
        "a later start of this node (number {0}) was seen in the cluster: make sure that no copy of its data directory runs elsewhere, then start this daemon again"
    )]
    Superseded(u64),
    /// The runtimes take no more commands.
    #[error("the runtimes are stuck: {0} commands are waiting")]
    Stuck(usize),
}

/// What the driver reads.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) datagrams: mpsc::Receiver<Datagram>,
    pub(crate) control: mpsc::Receiver<ControlEvent>,
    pub(crate) gate: mpsc::Receiver<TrustEvent>,
    pub(crate) runtime: mpsc::Receiver<RuntimeEvent>,
    pub(crate) written: mpsc::Receiver<Written>,
    pub(crate) offer: watch::Receiver<Offer>,
}

/// What the driver writes to.
#[derive(Debug)]
pub(crate) struct Outbox {
    pub(crate) datagrams: DatagramSender,
    pub(crate) control: Control,
    pub(crate) runtime: mpsc::Sender<RuntimeCommand>,
    pub(crate) store: Store,
    pub(crate) peer_requests: mpsc::Sender<PeerRequest>,
    pub(crate) streams: mpsc::Sender<Visitor>,
    pub(crate) routes: watch::Sender<Arc<RouteTable>>,
    pub(crate) followed: watch::Sender<Followed>,
    pub(crate) events: EventLog,
    pub(crate) vault: Arc<SecretVault>,
}

/// A question from another node, to be answered outside the engine.
#[derive(Debug)]
pub(crate) struct PeerRequest {
    pub(crate) bytes: bytes::Bytes,
    pub(crate) reply: oneshot::Sender<bytes::Bytes>,
}

/// The engine with its surroundings.
pub(crate) struct Driver {
    engine: Engine,
    clock: Clock,
    inbox: Inbox,
    outbox: Outbox,
    waiting: BTreeMap<ProposalId, oneshot::Sender<Result<bool, Rejection>>>,
    next_proposal: u64,
    probes: JoinSet<(NodeId, bool)>,
    disk_ok: bool,
    strangers: Strangers,
    trustee: Trustee,
    /// Seen on the local network before this node was let in.
    discovered: BTreeSet<SocketAddr>,
    /// Desired state has changed since the trustee looked at it.
    look: bool,
    /// The addresses of single replicas on this node.
    numbers: ReplicaNumbers,
}

impl Driver {
    pub(super) fn new(
        engine: Engine,
        clock: Clock,
        inbox: Inbox,
        outbox: Outbox,
        trustee: Trustee,
    ) -> Self {
        let mut driver = Self {
            engine,
            clock,
            inbox,
            outbox,
            waiting: BTreeMap::new(),
            next_proposal: 0,
            probes: JoinSet::new(),
            disk_ok: true,
            strangers: Strangers::default(),
            trustee,
            discovered: BTreeSet::new(),
            look: true,
            numbers: ReplicaNumbers::new(dunlin_lb::publish::replica_listeners()),
        };
        // Names of before are known from the first query on, which may have waited for this daemon.
        driver.publish_routes();
        driver
    }

    fn publish_routes(&mut self) {
        let mut table = self.engine.route_table();
        self.numbers.assign(&mut table);
        self.outbox.routes.send_if_modified(|old| {
            let differs = **old != table;
            if differs {
                *old = Arc::new(table);
            }
            differs
        });
    }

    /// Runs until `stop` is cancelled or a part of the node ends. Then everything that was to be
    /// written is on disk.
    pub(crate) async fn run(
        mut self,
        first: Vec<Effect>,
        stop: CancellationToken,
    ) -> Result<(), DriverError> {
        let result = self.turn(first, &stop).await;
        self.probes.shutdown().await;
        // Joining the disk thread waits for its last sync: away from the runtime's workers.
        let mut store = self.outbox.store;
        if tokio::task::spawn_blocking(move || store.close())
            .await
            .is_err()
        {
            tracing::error!("closing the store panicked");
        }
        result
    }

    async fn turn(
        &mut self,
        first: Vec<Effect>,
        stop: &CancellationToken,
    ) -> Result<(), DriverError> {
        self.perform(first)?;
        let mut disk_retry = interval(DISK_RETRY);
        disk_retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut trust_tick = interval(TRUST_TICK);
        trust_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.look_at_desired()?;
            let due = self.due();
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                request = self.inbox.requests.recv() => {
                    self.request(request.ok_or(DriverError::Ended("the API"))?)?;
                }
                datagram = self.inbox.datagrams.recv() => {
                    let Datagram { from, sender, bytes } =
                        datagram.ok_or(DriverError::Ended("the membership socket"))?;
                    // A member speaks in its own name only.
                    if membership::sender(&bytes) == Some(sender) {
                        self.input(Input::Datagram { from, bytes })?;
                    }
                }
                event = self.inbox.control.recv() => {
                    self.control(event.ok_or(DriverError::Ended("the control plane"))?)?;
                }
                event = self.inbox.gate.recv() => {
                    let event = event.ok_or(DriverError::Ended("the gate"))?;
                    let duties = self.trustee.at_the_gate(event, wall_millis() / 1_000);
                    self.fulfil(duties)?;
                }
                _ = trust_tick.tick() => {
                    let desired = self.engine.desired();
                    let duties = self.trustee.tick(desired, wall_millis() / 1_000);
                    self.fulfil(duties)?;
                }
                event = self.inbox.runtime.recv() => {
                    self.input(Input::Runtime(event.ok_or(DriverError::Ended("the runtimes"))?))?;
                }
                written = self.inbox.written.recv() => {
                    self.written(written.ok_or(DriverError::Ended("the disk thread"))?)?;
                }
                changed = self.inbox.offer.changed() => {
                    changed.map_err(|_closed| DriverError::Ended("the runtimes"))?;
                    self.host_changed()?;
                }
                Some(probe) = self.probes.join_next() => {
                    if let Ok((node, reachable)) = probe {
                        self.input(Input::ProbeDone { node, reachable })?;
                    }
                }
                _ = disk_retry.tick(), if !self.disk_ok => self.try_disk(),
                () = tokio::time::sleep_until(due) => self.input(Input::Timeout)?,
            }
        }
    }

    fn due(&self) -> Instant {
        let longest = Instant::now() + LONGEST_SLEEP;
        self.engine
            .poll_timeout()
            .map_or(longest, |mono| self.clock.instant(mono).min(longest))
    }

    fn request(&mut self, request: Request) -> Result<(), DriverError> {
        match request {
            Request::Propose {
                commands,
                author,
                reply,
            } => {
                let id = ProposalId(self.next_proposal);
                self.next_proposal += 1;
                self.waiting.insert(id, reply);
                self.input(Input::Propose {
                    id,
                    commands,
                    author,
                })
            }
            Request::Ask(question) => {
                question(&self.engine);
                Ok(())
            }
            Request::Volume(news) => self.input(Input::Volume(news)),
            Request::Measured(samples) => self.input(Input::Measured(samples)),
            Request::Join(address) => self.input(Input::Join(address)),
            Request::Leave => self.input(Input::Leave),
        }
    }

    /// Who belongs may have changed with desired state.
    fn look_at_desired(&mut self) -> Result<(), DriverError> {
        while std::mem::take(&mut self.look) {
            let desired = self.engine.desired();
            let duties = self.trustee.desired(desired, wall_millis() / 1_000);
            self.fulfil(duties)?;
        }
        Ok(())
    }

    fn fulfil(&mut self, duties: Vec<Duty>) -> Result<(), DriverError> {
        for duty in duties {
            match duty {
                Duty::Rules(rules) => self.input(Input::Rules(rules))?,
                Duty::Propose(command) => {
                    let id = ProposalId(self.next_proposal);
                    self.next_proposal += 1;
                    self.input(Input::Propose {
                        id,
                        commands: vec![command],
                        author: "dunlin".to_owned(),
                    })?;
                }
                Duty::Expel(node) => self.outbox.control.expel(node),
                Duty::Joined => {
                    for address in self.trustee.invited() {
                        self.input(Input::Join(address))?;
                    }
                    for address in std::mem::take(&mut self.discovered) {
                        self.input(Input::Seen(address))?;
                    }
                }
                Duty::AskForKeyring => {
                    let members = self.engine.members();
                    for member in members.iter().take(DOORS) {
                        self.outbox.control.knock(member.id.address);
                    }
                }
                Duty::Removed => {
                    self.input(Input::Removed)?;
                }
                Duty::Tell { warning, text } => {
                    let event = Event {
                        warning,
                        text,
                        slot: None,
                        node: None,
                    };
                    tell(&self.outbox.events, event);
                }
            }
        }
        Ok(())
    }

    fn control(&mut self, event: ControlEvent) -> Result<(), DriverError> {
        match event {
            ControlEvent::Connected(node) => self.input(Input::Connected(node)),
            ControlEvent::Disconnected(node) => self.input(Input::Disconnected(node)),
            ControlEvent::Unreachable { node, reason } => {
                tracing::debug!(%node, reason, "no connection");
                Ok(())
            }
            ControlEvent::Message { from, bytes } => self.input(Input::Message { from, bytes }),
            ControlEvent::RpcRequest { from, bytes, reply } => {
                // A full queue drops the reply, which the asker sees as a refusal.
                if self
                    .outbox
                    .peer_requests
                    .try_send(PeerRequest { bytes, reply })
                    .is_err()
                {
                    tracing::debug!(%from, "too many requests from peers");
                }
                Ok(())
            }
            ControlEvent::Stream { from, stream } => {
                let visitor = Visitor {
                    from: Some(from),
                    stream: Box::new(stream),
                };
                // Dropping it tells the opener.
                if self.outbox.streams.try_send(visitor).is_err() {
                    tracing::debug!(%from, "too many streams from peers");
                }
                Ok(())
            }
            ControlEvent::Discovered { node, control } => {
                let known = self.engine.members().iter().any(|m| m.id.node == node);
                match control.port().checked_sub(1) {
                    Some(port)
                        if !known
                            && node != self.engine.me().node
                            && self.strangers.admit(Instant::now()) =>
                    {
                        let mut membership = control;
                        membership.set_port(port);
                        if self.trustee.is_invited() {
                            self.outbox.control.knock(membership);
                            // Datagrams are of no use before it was let in.
                            if self.discovered.len() < MAX_DISCOVERED {
                                self.discovered.insert(membership);
                            }
                        }
                        self.input(Input::Seen(membership))
                    }
                    Some(_) | None => Ok(()),
                }
            }
        }
    }

    fn written(&mut self, written: Written) -> Result<(), DriverError> {
        let ok = written.result.is_ok();
        if ok != self.disk_ok {
            self.disk_ok = ok;
            self.host_changed()?;
        }
        match (written.id, written.result) {
            (DISK_CHECK, _) => Ok(()),
            (id, Ok(())) => self.input(Input::Persisted(id)),
            (id, Err(reason)) => self.input(Input::PersistFailed { id, reason }),
        }
    }

    fn host_changed(&mut self) -> Result<(), DriverError> {
        let Offer {
            runtimes,
            engine,
            notes: _,
        } = self.inbox.offer.borrow_and_update().clone();
        self.input(Input::Host {
            runtimes,
            disk_ok: self.disk_ok,
            engine,
        })
    }

    fn try_disk(&self) {
        if let Err(reason) = self.outbox.store.persist(DISK_CHECK, Vec::new()) {
            tracing::warn!(reason, "the disk still takes no writes");
        }
    }

    fn input(&mut self, input: Input) -> Result<(), DriverError> {
        let effects = self.engine.handle(input, self.clock.now());
        match self.engine.superseded() {
            // What it still wants would be done in the name of the later life.
            Some(boot) => Err(DriverError::Superseded(boot)),
            None => self.perform(effects),
        }
    }
}

pub(super) fn tell(events: &EventLog, event: Event) {
    if event.warning {
        tracing::warn!("{}", event.text);
    } else {
        tracing::info!("{}", event.text);
    }
    events.push(EventRecord {
        at: wall_millis(),
        warning: event.warning,
        text: event.text,
        service: event.slot.as_ref().map(|s| s.service.clone()),
        slot: event.slot.map(|s| s.slot),
        node: event.node,
    });
}
