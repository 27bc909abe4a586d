//! The engine: all machines of one node behind one verb.
//!
//! Four machines do the work: membership says who lives, the overlay which connections to keep,
//! replication brings desired state and registers, and the [`Agent`] decides. The engine carries
//! the effects of each to the others, encodes what travels between nodes, and keeps the disk's
//! requests of replication and agent apart. It decides nothing itself but when this process stood
//! still and when a departed node is forgotten.

mod holders;
mod inputs;
mod routing;
#[cfg(test)]
mod tests;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use dunlin_gossip::membership::{self, Membership};
use dunlin_gossip::overlay::Overlay;
use dunlin_gossip::replication::{PersistId, Replication, Tuning};
use dunlin_state::Now;
use dunlin_state::desired::{Actor, Document, Rules};
use dunlin_state::model::NodeId;
use dunlin_state::observed::Seal;

use crate::agent::{Agent, Start};
use crate::io::{Changed, Effect, Event, NodeConfig, Recovered, Write};
use holders::Holders;

pub use views::Member;

/// Milliseconds by which a deadline must be missed before the engine concludes that the process
/// stood still. Schedulers of healthy hosts are late by tens of milliseconds.
const STALL_MS: u64 = 1_000;

/// Milliseconds between two writes of the known addresses; losing the last one costs nothing as
/// long as one old address still answers.
const PEERS_INTERVAL_MS: u64 = 5_000;

/// Addresses remembered across a restart: enough that some still answer after months.
const MAX_PEERS: usize = 64;

/// Milliseconds after its goodbye until a node is forgotten.
const FORGET_LEFT_MS: u64 = 600_000;

/// Milliseconds after which a node that is gone without a goodbye is forgotten: until then people
/// see it in lists, and its labels' owner may bring it back.
const FORGET_GONE_MS: u64 = 24 * 3_600_000;

/// Marks the disk requests of the engine itself; replication numbers its own from zero.
const OWN_PERSIST: u64 = 1 << 63;

/// Marks proposals of the engine itself; the shell numbers those of people from zero.
const OWN_PROPOSAL: u64 = 1 << 63;

/// Why a node cannot start. Nothing has been changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The saved document cannot be read.
    #[error(
        "the saved cluster state cannot be read: {0}; move the state file away to start without it \
         and take the state over from a peer"
    )]
    Document(String),
}

/// Everything one node decides.
pub struct Engine {
    config: NodeConfig,
    membership: Membership,
    overlay: Overlay,
    replication: Replication,
    agent: Agent,
    now: Now,
    changed: Changed,
    next_persist: u64,
    next_proposal: u64,
    /// The request by which the claims are being written, to repeat it if it fails.
    claims_request: Option<PersistId>,
    /// The same for the volumes; what needs one waits for it.
    volumes_request: Option<PersistId>,
    holders: Holders,
    seal: Arc<dyn Seal>,
    peers: KnownPeers,
    /// Membership addresses, the latest of each node.
    addresses: BTreeMap<NodeId, SocketAddr>,
    /// When to forget departed nodes.
    forget: BTreeMap<NodeId, u64>,
    /// When a complaint about an unreadable message may be repeated.
    next_complaint: u64,
    /// Nodes that were removed from the cluster.
    removed: BTreeSet<NodeId>,
}

/// Membership addresses for the next life.
#[derive(Debug, Default)]
struct KnownPeers {
    addresses: BTreeSet<SocketAddr>,
    due: Option<u64>,
    last: Option<u64>,
}

impl Engine {
    /// A node that starts. The effects are to be carried out before the first input. `seal` signs
    /// what this node reports and checks what others do.
    ///
    /// # Errors
    /// When what was saved cannot be read.
    pub fn new(
        config: NodeConfig,
        seal: Arc<dyn Seal>,
        recovered: Recovered,
        now: Now,
    ) -> Result<(Self, Vec<Effect>), StartError> {
        let member = config.member;
        let actor = Actor::new(member.node, member.boot);
        let desired_known = recovered.document.is_some();
        let mut out = Vec::new();
        let rules = recovered.rules;
        let document = open_document(recovered.document, rules.clone(), actor, &mut out)?;
        let seed = config.seed;
        let start = Start {
            claims: recovered.claims,
            volumes: recovered.volumes,
            desired: document.snapshot(),
            desired_known,
            peers_known: !recovered.peers.is_empty(),
        };
        let (agent, outputs) = Agent::new(&config, start, now);
        let replication = Replication::new(
            member.node,
            member.boot,
            document,
            Arc::clone(&seal),
            seed.wrapping_add(1),
            now,
        )
        .with_tuning(Tuning::from(config.profile));
        let mut engine = Self {
            membership: Membership::new(member, config.profile, seed.wrapping_add(2), now),
            overlay: Overlay::new(member.node, seed.wrapping_add(3)),
            replication,
            agent,
            now,
            changed: Changed {
                desired: true,
                observed: true,
                members: true,
            },
            next_persist: OWN_PERSIST + 1,
            next_proposal: OWN_PROPOSAL,
            claims_request: None,
            volumes_request: None,
            holders: Holders::default(),
            seal,
            peers: KnownPeers::default(),
            addresses: BTreeMap::new(),
            forget: BTreeMap::new(),
            next_complaint: 0,
            removed: BTreeSet::new(),
            config,
        };
        engine.expel_removed(&mut out);
        engine.carry_out(outputs, &mut out);
        engine.recover_holders(recovered.holders, &mut out);
        if let Some(rules) = rules {
            let outputs = engine.agent.set_authority(&rules, now);
            engine.carry_out(outputs, &mut out);
        }
        for address in recovered.peers.into_iter().take(MAX_PEERS) {
            engine.peers.addresses.insert(address);
            let input = membership::Input::Join { address };
            let effects = engine.membership.handle(input, now);
            engine.on_membership(effects, &mut out);
        }
        engine.finish(&mut out);
        Ok((engine, out))
    }

    /// When [`crate::io::Input::Timeout`] is due, in milliseconds of the monotonic clock.
    pub fn poll_timeout(&self) -> Option<u64> {
        let times = [
            self.membership.poll_timeout(),
            self.overlay.poll_timeout(),
            self.replication.poll_timeout(),
            self.agent.poll_timeout(),
            self.peers.due,
            self.holders.poll_timeout(),
            self.forget.values().min().copied(),
        ];
        times.into_iter().flatten().min()
    }

    /// Tells readers what has changed, once for everything that one input caused.
    fn finish(&mut self, out: &mut Vec<Effect>) {
        let changed = std::mem::take(&mut self.changed);
        if changed != Changed::default() {
            out.push(Effect::Changed(changed));
        }
    }

    fn persist(&mut self, writes: Vec<Write>, out: &mut Vec<Effect>) -> PersistId {
        let id = PersistId(self.next_persist);
        self.next_persist += 1;
        out.push(Effect::Persist { id, writes });
        id
    }
}

/// Loads the document, or makes the empty one that every cluster starts from.
fn open_document(
    saved: Option<(bytes::Bytes, Vec<bytes::Bytes>)>,
    rules: Option<Rules>,
    actor: Actor,
    out: &mut Vec<Effect>,
) -> Result<Document, StartError> {
    let document = match saved {
        Some((saved, changes)) => {
            let loaded = Document::load_prefix(&saved, &changes, actor, rules)
                .map_err(|error| StartError::Document(error.to_string()))?;
            let Some(dropped) = loaded.dropped else {
                return Ok(loaded.document);
            };
            let text = format!(
                "the end of the saved cluster state is damaged and was dropped, peers will bring \
                 it back: {dropped}"
            );
            out.push(warning(text));
            loaded.document
        }
        None => {
            let mut document = Document::new(actor);
            if let Some(rules) = rules {
                document.set_rules(rules);
            }
            document
        }
    };
    // Changes are appended to a document, which therefore has to be on disk before them.
    out.push(Effect::Persist {
        id: PersistId(OWN_PERSIST),
        writes: vec![Write::Document(document.save())],
    });
    Ok(document)
}

fn warning(text: String) -> Effect {
    Effect::Event(Event {
        warning: true,
        text,
        slot: None,
        node: None,
    })
}

fn note(node: NodeId, warning: bool, text: String) -> Effect {
    Effect::Event(Event {
        warning,
        text,
        slot: None,
        node: Some(node),
    })
}
