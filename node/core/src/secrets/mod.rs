//! Which secrets this node should be able to open, whom it asks for their keys, and whom it answers.
//!
//! A secret travels in desired state, sealed with a key of its own. A node opens it with that key,
//! which it finds sealed to itself beside the secret, or gets from a node that has it. Who may have
//! it is decided here, on the node that is asked, and from what it knows itself:
//!
//! - a node that proves by its certificate that it may write in the secret's namespace: it could
//!   deploy something that tells it the secret anyway;
//! - a node that holds a slot of a service that uses the secret: the slot exists, the node matches
//!   the placement constraints, and nobody alive has a better claim to it.
//!
//! Keys themselves are never seen here: this machine orders them opened, sealed and forgotten.

mod entitled;
mod message;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use dunlin_state::Now;
use dunlin_state::desired::{Desired, Item, items_of};
use dunlin_state::model::{ContentId, ItemKey, ItemKind, NodeId, ServiceKey, ServiceSpec};
use dunlin_trust::{Power, PublicKey, rights};

use crate::cluster::Cluster;
use crate::hashing::{mix, node_hash};
pub(crate) use entitled::recipients;
use entitled::{register_key, users};
pub use message::{Answer, Message, Order};

/// Nodes asked at a time: one that holds the key answers within a round trip, and asking all at
/// once would have each of them seal it.
const FANOUT: usize = 3;

/// Milliseconds until others are asked after the first ones did not answer; doubles each time.
const FIRST_WAIT_MS: u64 = 250;

/// The longest such wait, in milliseconds.
const LONGEST_WAIT_MS: u64 = 4_000;

/// Milliseconds after which an order to open that was not answered is repeated.
const OPEN_PATIENCE_MS: u64 = 5_000;

/// Milliseconds in which one node is answered once for one secret: sealing takes 0.1 ms of CPU, and
/// a peer may ask as fast as it likes.
const ANSWER_INTERVAL_MS: u64 = 200;

/// Answers that are remembered for that; when there are more, the asking nodes wait.
const MAX_ANSWERED: usize = 4_096;

/// What the machine wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub(crate) enum Effect {
    Send { to: NodeId, message: Message },
    Order(Order),
}

/// What the machine may look at.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) desired: &'a Desired,
    /// The secrets of what this node runs or is about to run.
    pub(crate) used: &'a BTreeSet<ItemKey>,
}

/// A certificate chain of this node, and what it proves.
#[derive(Debug, Clone)]
pub struct OwnProof {
    /// What it proves.
    pub power: Power,
    /// The chain, encoded.
    pub chain: Bytes,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Keeper {
    me: NodeId,
    root: Option<PublicKey>,
    proofs: Vec<OwnProof>,
    /// Versions that this node can open.
    held: BTreeMap<ItemKey, ContentId>,
    wanted: BTreeMap<ItemKey, Wanted>,
    /// Until when who is not answered about what.
    answered: BTreeMap<(NodeId, ItemKey), u64>,
}

/// A secret that this node should be able to open and cannot.
#[derive(Debug)]
struct Wanted {
    content: ContentId,
    since: u64,
    /// Rounds of asking so far.
    rounds: u32,
    /// Who was asked and has not answered.
    asked: BTreeSet<NodeId>,
    /// When to go on.
    at: u64,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Opening,
    Asking,
}

impl Keeper {
    pub(crate) fn new(me: NodeId) -> Self {
        Self {
            me,
            root: None,
            proofs: Vec::new(),
            held: BTreeMap::new(),
            wanted: BTreeMap::new(),
            answered: BTreeMap::new(),
        }
    }

    /// Sets whom to believe, and what this node can prove.
    pub(crate) fn set_authority(&mut self, root: Option<PublicKey>, proofs: Vec<OwnProof>) {
        self.root = root;
        self.proofs = proofs;
    }

    /// Whether this node can open the present version.
    pub(crate) fn opens(&self, secret: &ItemKey, item: &Item) -> bool {
        self.held.get(secret) == Some(&item.content)
    }

    /// Compares what should be open with what is.
    pub(crate) fn review(&mut self, view: View<'_>, now: u64) -> Vec<Effect> {
        let secrets = &view.desired.items.secrets;
        let needed: BTreeMap<&ItemKey, &Arc<Item>> = secrets
            .iter()
            .filter(|(key, _)| view.used.contains(*key) || self.proof_for(key).is_some())
            .collect();
        let gone = |key: &ItemKey| !needed.contains_key(key);
        let known = self.held.keys().chain(self.wanted.keys());
        let forget: BTreeSet<ItemKey> = known.filter(|key| gone(key)).cloned().collect();
        let mut effects = Vec::new();
        for key in forget {
            self.held.remove(&key);
            self.wanted.remove(&key);
            effects.push(Effect::Order(Order::Forget(key)));
        }
        for (key, item) in needed {
            if self.opens(key, item) {
                self.wanted.remove(key);
                continue;
            }
            self.held.remove(key);
            let known = self.wanted.get(key);
            if known.is_some_and(|wanted| wanted.content == item.content) {
                continue;
            }
            let wanted = Wanted {
                content: item.content,
                since: now,
                rounds: 0,
                asked: BTreeSet::new(),
                at: now.saturating_add(OPEN_PATIENCE_MS),
                stage: Stage::Opening,
            };
            self.wanted.insert(key.clone(), wanted);
            effects.push(open(key, item, None));
        }
        effects
    }

    /// What a replica lacks before it can be started here; `None` when all of its files are there.
    pub(crate) fn lacks(
        &self,
        spec: &ServiceSpec,
        service: &ServiceKey,
        desired: &Desired,
        now: u64,
    ) -> Option<String> {
        for kind in ItemKind::ALL {
            let items = desired.items.of(kind);
            for key in items_of(spec, service.namespace(), kind) {
                let Some(item) = items.get(&key) else {
                    return Some(format!(
                        "waits for {kind} '{key}', which does not exist: make it with `dunlin \
                         {kind} create`"
                    ));
                };
                if kind == ItemKind::Secret && !self.opens(&key, item) {
                    return Some(self.waiting_text(&key, now));
                }
            }
        }
        None
    }

    fn waiting_text(&self, key: &ItemKey, now: u64) -> String {
        let since = self.wanted.get(key).map_or(now, |wanted| wanted.since);
        match now.saturating_sub(since) / 1_000 {
            0..5 => format!("waits for the key of secret '{key}'"),
            _ => format!(
                "waits for the key of secret '{key}': no node that can open it answers; bring back \
                 one that ran this service or an operator's node, or set the secret anew with \
                 `dunlin secret update`"
            ),
        }
    }

    /// When to call [`Self::handle_timeout`], in milliseconds of the monotonic clock.
    pub(crate) fn poll_timeout(&self) -> Option<u64> {
        self.wanted.values().map(|wanted| wanted.at).min()
    }

    /// Time has passed; harmless when early.
    pub(crate) fn handle_timeout(&mut self, view: View<'_>, now: u64) -> Vec<Effect> {
        let due = self.wanted.iter().filter(|(_, wanted)| wanted.at <= now);
        let due: Vec<ItemKey> = due.map(|(key, _)| key.clone()).collect();
        let mut effects = Vec::new();
        for key in due {
            effects.extend(self.go_on(&key, view, now));
        }
        effects
    }

    fn go_on(&mut self, key: &ItemKey, view: View<'_>, now: u64) -> Vec<Effect> {
        let Some(wanted) = self.wanted.get_mut(key) else {
            return Vec::new();
        };
        let item = view.desired.items.secrets.get(key);
        match (wanted.stage, item) {
            (Stage::Opening, Some(item)) if item.content == wanted.content => {
                wanted.at = now.saturating_add(OPEN_PATIENCE_MS);
                vec![open(key, item, None)]
            }
            (Stage::Asking, Some(item)) if item.content == wanted.content => {
                self.ask(key, &Arc::clone(item), view, now)
            }
            // The review that follows every change of desired state settles it.
            (Stage::Opening | Stage::Asking, Some(_) | None) => {
                wanted.at = now.saturating_add(OPEN_PATIENCE_MS);
                Vec::new()
            }
        }
    }

    /// Asks the next few nodes.
    fn ask(&mut self, key: &ItemKey, item: &Item, view: View<'_>, now: u64) -> Vec<Effect> {
        let proof = self.proof_for(key);
        let candidates = self.candidates(key, item, view);
        let Some(wanted) = self.wanted.get_mut(key) else {
            return Vec::new();
        };
        let first = wanted.rounds as usize * FANOUT;
        wanted.rounds = wanted.rounds.saturating_add(1);
        let wait = FIRST_WAIT_MS << wanted.rounds.min(5).saturating_sub(1);
        wanted.at = now.saturating_add(wait.min(LONGEST_WAIT_MS));
        // Round and round: who was asked too early, or has come back, is asked again.
        let chosen = candidates
            .iter()
            .cycle()
            .skip(first % candidates.len().max(1));
        let chosen: Vec<NodeId> = chosen.take(FANOUT.min(candidates.len())).copied().collect();
        wanted.asked.extend(chosen.iter().copied());
        let send = |to| Effect::Send {
            to,
            message: Message::Want {
                secret: key.clone(),
                content: item.content,
                proof: proof.clone(),
            },
        };
        chosen.into_iter().map(send).collect()
    }

    /// Whom to ask, likely holders first.
    fn candidates(&self, key: &ItemKey, item: &Item, view: View<'_>) -> Vec<NodeId> {
        let seed = u64::from_be_bytes(first_half(&item.content));
        let users: BTreeSet<&ServiceKey> = users(key, view.desired).collect();
        let runs_user = |node: NodeId| {
            let register = view.cluster.register(node);
            let claims = register.into_iter().flat_map(|r| &r.report.claims);
            claims.map(|c| &c.slot.service).any(|s| users.contains(s))
        };
        let rank = |node: NodeId| {
            let class = match (item.boxes.contains_key(&node), runs_user(node)) {
                (true, _) => 0,
                (false, true) => 1,
                (false, false) => 2,
            };
            // Another order on every node, so that not all ask the same.
            (class, mix(seed ^ node_hash(self.me), node_hash(node)), node)
        };
        let alive = view.cluster.alive().filter(|node| *node != self.me);
        let ranked: BTreeSet<_> = alive.map(rank).collect();
        ranked.into_iter().map(|(_, _, node)| node).collect()
    }

    /// This node's proof that it may write the secret.
    fn proof_for(&self, key: &ItemKey) -> Option<Bytes> {
        let context = register_key(key);
        let fits = |proof: &&OwnProof| rights::check(&proof.power, &context).is_ok();
        self.proofs.iter().find(fits).map(|p| p.chain.clone())
    }

    /// Takes a message of a peer.
    pub(crate) fn message(
        &mut self,
        from: NodeId,
        message: Message,
        view: View<'_>,
        now: Now,
    ) -> Vec<Effect> {
        match message {
            Message::Want {
                secret,
                content,
                proof,
            } => {
                if self.held.get(&secret) != Some(&content)
                    || !self.is_entitled(from, &secret, proof.as_deref(), view, now)
                    || !self.note_answer(from, &secret, now.mono)
                {
                    return Vec::new();
                }
                let to = from;
                vec![Effect::Order(Order::Seal {
                    to,
                    secret,
                    content,
                })]
            }
            Message::Give {
                secret,
                content,
                sealed,
            } => {
                let item = view.desired.items.secrets.get(&secret);
                let Some(wanted) = self.wanted.get_mut(&secret) else {
                    return Vec::new();
                };
                // Only who was asked, and once: each try costs a key agreement.
                if wanted.content != content || !wanted.asked.remove(&from) {
                    return Vec::new();
                }
                let Some(item) = item.filter(|item| item.content == content) else {
                    return Vec::new();
                };
                vec![open(&secret, item, Some(sealed))]
            }
        }
    }

    /// Takes an answer of the holder of keys. Returns the secret that can be opened since now.
    pub(crate) fn answer(&mut self, answer: Answer, now: u64) -> (Vec<Effect>, Option<ItemKey>) {
        match answer {
            Answer::Opened {
                secret,
                content,
                opened,
            } => {
                let Some(wanted) = self.wanted.get_mut(&secret) else {
                    return (Vec::new(), None);
                };
                if wanted.content != content {
                    return (Vec::new(), None);
                }
                if opened {
                    self.wanted.remove(&secret);
                    self.held.insert(secret.clone(), content);
                    return (Vec::new(), Some(secret));
                }
                if wanted.stage == Stage::Opening {
                    wanted.stage = Stage::Asking;
                    wanted.at = now;
                }
                (Vec::new(), None)
            }
            Answer::Sealed {
                to,
                secret,
                content,
                sealed,
            } => {
                let message = Message::Give {
                    secret,
                    content,
                    sealed,
                };
                (vec![Effect::Send { to, message }], None)
            }
        }
    }

    fn note_answer(&mut self, to: NodeId, secret: &ItemKey, now: u64) -> bool {
        let key = (to, secret.clone());
        if self.answered.get(&key).is_some_and(|until| *until > now) {
            return false;
        }
        if self.answered.len() >= MAX_ANSWERED {
            self.answered.retain(|_, until| *until > now);
            if self.answered.len() >= MAX_ANSWERED {
                return false;
            }
        }
        self.answered
            .insert(key, now.saturating_add(ANSWER_INTERVAL_MS));
        true
    }
}

fn open(secret: &ItemKey, item: &Arc<Item>, sealed: Option<Bytes>) -> Effect {
    Effect::Order(Order::Open {
        secret: secret.clone(),
        item: Arc::clone(item),
        sealed,
    })
}

fn first_half(content: &ContentId) -> [u8; 8] {
    let mut half = [0; 8];
    half.copy_from_slice(&content.0[..8]);
    half
}
