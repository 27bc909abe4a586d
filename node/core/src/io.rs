//! What goes into a node's engine and what comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use dunlin_gossip::membership::{MemberId, Profile};
use dunlin_gossip::replication::{PersistId, ProposalId};
use dunlin_state::desired::{Command, Rejection, Rules};
use dunlin_state::model::{
    BadOutputs, Claim, Endpoint, Facts, HealthCheck, HeldVolume, HttpTest, Load, NodeId, Outputs,
    Resources, ServiceKey, ServiceSpec, SlotId, VipRange, VolumeId,
};

use crate::secrets::{Answer, Order};
use crate::wire::PeerMessage;

/// What a node is when it starts.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Identity, boot count and membership address.
    pub member: MemberId,
    /// Its name.
    pub name: String,
    /// Timing preset.
    pub profile: Profile,
    /// Seeds every random choice of this node in this life.
    pub seed: u64,
    /// Labels from the command line.
    pub labels: BTreeMap<String, String>,
    /// What it is.
    pub facts: Facts,
    /// What its replicas may use in total.
    pub capacity: Resources,
    /// Runtimes it offers, of `process` and `docker`.
    pub runtimes: Vec<String>,
    /// Version of the daemon.
    pub dunlin_version: String,
    /// The ranges of virtual addresses that it serves.
    pub vips: VipRange,
}

/// What a node remembers from its earlier life.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// The saved document and the changes after it; `None` on a first start.
    pub document: Option<(Bytes, Vec<Bytes>)>,
    /// The claims it held.
    pub claims: Vec<Claim>,
    /// The volumes it had data of.
    pub volumes: Vec<HeldVolume>,
    /// Registers of other nodes that told of volumes, as they were signed.
    pub holders: Vec<Bytes>,
    /// Membership addresses it knew.
    pub peers: Vec<SocketAddr>,
    /// Whom it believes, and in whose name it writes. A daemon always has some; a machine without
    /// them believes everybody.
    pub rules: Option<Rules>,
}

/// What the engine may be told.
#[derive(Debug, Clone)]
pub enum Input {
    /// An authenticated, opened membership datagram.
    Datagram {
        /// Source address.
        from: SocketAddr,
        /// Plain text.
        bytes: Bytes,
    },
    /// A control connection with a peer is up.
    Connected(NodeId),
    /// It is gone.
    Disconnected(NodeId),
    /// A message from a peer over its control connection, still encoded: see `wire`.
    Message {
        /// The authenticated sender.
        from: NodeId,
        /// The encoded message.
        bytes: Bytes,
    },
    /// The same from a peer in this process, where nothing needs to be encoded: a simulator's.
    Told {
        /// The sender.
        from: NodeId,
        /// The message.
        message: PeerMessage,
    },
    /// The answer to [`Effect::Probe`].
    ProbeDone {
        /// Who was probed.
        node: NodeId,
        /// Whether it answered.
        reachable: bool,
    },
    /// A person's change.
    Propose {
        /// Comes back in the answer.
        id: ProposalId,
        /// All or none.
        commands: Vec<Command>,
        /// Who asks.
        author: String,
    },
    /// The disk has synced a write.
    Persisted(PersistId),
    /// The disk refused a write.
    PersistFailed {
        /// Which.
        id: PersistId,
        /// Why.
        reason: String,
    },
    /// News from the runtimes.
    Runtime(RuntimeEvent),
    /// Join through this membership address.
    Join(SocketAddr),
    /// A stranger was seen at this membership address. It is called once and not remembered: it may
    /// belong to another cluster.
    Seen(SocketAddr),
    /// Whom to believe from now on, and in whose name to write.
    Rules(Box<Rules>),
    /// What a person has made of a volume's data on this node.
    Volume(VolumeNews),
    /// The answer to [`Effect::Secret`].
    Secret(Answer),
    /// This node was removed from its cluster, and whoever said so has proven it: its replicas
    /// end, and it falls silent.
    Removed,
    /// Say goodbye and end all replicas: the daemon stops for good on this cluster.
    Leave,
    /// The runtimes on offer or the disk's health have changed.
    Host {
        /// Runtimes on offer.
        runtimes: Vec<String>,
        /// Whether the disk accepts writes.
        disk_ok: bool,
        /// Version of the container engine, if one answers.
        engine: Option<String>,
    },
    /// What this node's proxies and replicas do for services that follow their load
    /// ([`crate::engine::Engine::followed`]).
    Measured(BTreeMap<ServiceKey, Load>),
    /// Time has passed; harmless when early.
    Timeout,
}

/// What became of a volume's data on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeNews {
    /// It has come from elsewhere, or been begun anew by a person.
    Put(VolumeId),
    /// It was deleted.
    Dropped(VolumeId),
}

/// What the engine wants done.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Seal and send a membership datagram.
    SendDatagram {
        /// Where.
        to: SocketAddr,
        /// Plain text.
        bytes: Bytes,
    },
    /// Send over the control plane; connect first if needed. Losing it is harmless.
    SendMessage {
        /// To whom.
        to: NodeId,
        /// Its membership address: the control plane listens on the next port. `0.0.0.0:0` when
        /// nobody knows it: then only a connection that the peer has opened can be used.
        address: SocketAddr,
        /// The message; [`crate::wire::encode`] makes bytes of it.
        message: PeerMessage,
    },
    /// Keep a control connection with this peer.
    Connect {
        /// Who.
        node: NodeId,
        /// Its membership address.
        address: SocketAddr,
    },
    /// Keep it no longer.
    Disconnect(NodeId),
    /// Ask the peer over the reliable path whether it lives; answer with [`Input::ProbeDone`]
    /// within a second.
    Probe {
        /// Who.
        node: NodeId,
        /// Its membership address.
        address: SocketAddr,
    },
    /// Write in order, sync, answer with the id.
    Persist {
        /// Comes back.
        id: PersistId,
        /// What to write, atomically.
        writes: Vec<Write>,
    },
    /// Answer to [`Input::Propose`].
    Proposed {
        /// Which.
        id: ProposalId,
        /// Whether anything changed, or why it was refused.
        result: Result<bool, Rejection>,
    },
    /// Something for the runtimes to do.
    Runtime(RuntimeCommand),
    /// Something for the holder of the keys of secrets; answered by [`Input::Secret`].
    Secret(Order),
    /// What readers see has changed: publish new views.
    Changed(Changed),
    /// A line for the operator's log and the event stream.
    Event(Event),
}

/// Which views have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changed {
    /// Desired state.
    pub desired: bool,
    /// Registers.
    pub observed: bool,
    /// Members and their states.
    pub members: bool,
}

/// A write to the node's disk.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Replace the document and drop the appended changes.
    Document(Bytes),
    /// Append one change.
    Change(Bytes),
    /// Replace the claims. Nothing waits for this one.
    Claims(Vec<Claim>),
    /// Replace the known membership addresses. Nothing waits for this one.
    Peers(Vec<SocketAddr>),
    /// Replace the list of volumes that this node has data of.
    Volumes(Vec<HeldVolume>),
    /// Replace what another node has said of its volumes: its register as it was signed. Nothing
    /// waits for this one.
    Holder(NodeId, Bytes),
}

/// One attempt to run a slot on this node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadId {
    /// The slot.
    pub slot: SlotId,
    /// The claim's epoch.
    pub epoch: u64,
    /// Counts starts under that claim, from 0.
    pub attempt: u32,
}

/// Everything a runtime needs to start a replica.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Which attempt of which slot.
    pub id: WorkloadId,
    /// Hash of the specification.
    pub revision: String,
    /// The specification.
    pub spec: Arc<ServiceSpec>,
    /// Name of this node, for the environment.
    pub node_name: String,
    /// This node.
    pub node: NodeId,
    /// Those of its volumes that have data here: it must not be started without them.
    pub volumes: BTreeSet<VolumeId>,
    /// What the jobs that it waits for have told, as variables of its environment.
    pub given: BTreeMap<String, String>,
    /// Whether it may tell something itself, as a part of a job.
    pub tells: bool,
    /// Milliseconds from now after which it has to be dead, unless the time is extended by
    /// [`RuntimeCommand::Extend`]; it may run for ever when absent.
    pub lease_ms: Option<u64>,
}

/// What the runtimes are asked to do. Every command is answered by an event, and repeating one is
/// harmless.
#[derive(Debug, Clone)]
pub enum RuntimeCommand {
    /// List what runs from an earlier life: answered by [`RuntimeEvent::Adopted`].
    Adopt,
    /// Fetch what is needed and start.
    Start(Box<Workload>),
    /// Ask to stop, wait for the grace, kill; answered by [`RuntimeEvent::Exited`] or
    /// [`RuntimeEvent::Lost`].
    Stop {
        /// Which.
        id: WorkloadId,
        /// Signal name; `SIGTERM` when absent.
        signal: Option<String>,
        /// Milliseconds between the signal and `SIGKILL`.
        grace_ms: u64,
    },
    /// The content of its secrets or configs may have changed: bring the files of a living attempt
    /// up to date, and tell it by the signal that the specification names if they were not. Not
    /// answered.
    Refresh {
        /// Which.
        id: WorkloadId,
        /// Its specification.
        spec: Arc<ServiceSpec>,
    },
    /// A living attempt may run for so long from now, whatever it was told before. What has not ended by
    /// then is killed, as far as the runtime can also when no daemon lives. Not answered.
    Extend {
        /// Which.
        id: WorkloadId,
        /// Milliseconds.
        lease_ms: u64,
    },
    /// Delete what a dead attempt left behind (container, files). Not answered.
    Remove {
        /// Which.
        id: WorkloadId,
    },
    /// Try whether this replica is well: answered by [`RuntimeEvent::Probed`]. A later probe of the
    /// same check takes the place of one that is still under way.
    Probe(Box<ProbeOrder>),
}

/// One probe of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeOrder {
    /// Comes back in the answer.
    pub id: ProbeId,
    /// What to try.
    pub probe: Probe,
    /// Milliseconds after which it has failed, and whatever was started for it is killed.
    pub timeout_ms: u64,
}

/// Identifies a probe, so that an answer which comes too late is known as such.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProbeId {
    /// Whose.
    pub workload: WorkloadId,
    /// Which of its checks.
    pub check: u8,
    /// Counts the probes of that check.
    pub seq: u32,
}

/// What a probe tries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A TCP connection.
    Tcp(SocketAddr),
    /// A `GET` request that is answered with a status of 200 to 399.
    Http {
        /// Where.
        address: SocketAddr,
        /// Path, host and headers.
        test: HttpTest,
    },
    /// A program beside the replica, that ends with code 0.
    Exec(Vec<String>),
}

/// News from the runtimes.
#[derive(Debug, Clone)]
pub enum RuntimeEvent {
    /// What runs from an earlier life, once after [`RuntimeCommand::Adopt`].
    Adopted(Vec<Adopted>),
    /// The image is being fetched.
    Preparing(WorkloadId),
    /// It runs.
    Started(Running),
    /// It could not be started.
    StartFailed {
        /// Which.
        id: WorkloadId,
        /// Why, for a person.
        reason: String,
        /// Whether trying the same again on this node is pointless (no such image, no such
        /// program), so that another node should have the slot.
        hopeless: bool,
    },
    /// It ended.
    Exited {
        /// Which.
        id: WorkloadId,
        /// Exit code; 128 + n for signal n.
        code: i32,
        /// Whether the kernel killed it for its memory.
        oom: bool,
        /// The last lines of its log, when it ended in failure.
        last_words: Vec<String>,
        /// What it has told, or why that cannot be taken.
        outputs: Result<Outputs, BadOutputs>,
    },
    /// It is not there any more and nobody knows how it ended.
    Lost(WorkloadId),
    /// The answer to [`RuntimeCommand::Probe`].
    Probed {
        /// Which probe.
        id: ProbeId,
        /// Whether it succeeded, or why not, for a person.
        result: Result<(), String>,
    },
}

/// A replica that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Which attempt.
    pub id: WorkloadId,
    /// The container's or process group's id.
    pub workload: String,
    /// Where its ports answer.
    pub endpoints: Vec<Endpoint>,
    /// The health check that its image defines, if there is one and the specification says nothing.
    pub image_health: Option<HealthCheck>,
}

/// What a runtime found from an earlier life of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// Which attempt it was.
    pub running: Running,
    /// Hash of the specification it was started with.
    pub revision: String,
    /// Its exit code and whether memory was the reason, when it has ended meanwhile.
    pub exited: Option<(i32, bool)>,
    /// What it has told then, or why that cannot be taken.
    pub outputs: Result<Outputs, BadOutputs>,
}

/// A thing worth telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Whether an operator should look at it.
    pub warning: bool,
    /// In words.
    pub text: String,
    /// The service it is about.
    pub slot: Option<SlotId>,
    /// The node it is about.
    pub node: Option<NodeId>,
}
