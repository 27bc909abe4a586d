//! What the daemon does about trust: keeps the gate, the engine and the disk in step with what
//! this node is, lets the cluster know whom it has let in, follows removals and changes of the
//! keyring, and, where it is an admin's, makes a new keyring when a member was removed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dunlin_gossip::net::{Trust, TrustEvent};
use dunlin_state::desired::{Command, Desired, PERSON, Rules, TrustCommand, TrustRecords};
use dunlin_state::model::NodeId;
use dunlin_trust::{
    Invite, Keyring, KeyringOrder, KeyringSecret, Knowledge, PublicKey, Seconds, issue_admission,
    open_box, seal_box,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cluster::Belonging;

/// How long another admin's daemon is given to replace the keyring after a removal that it has
/// ordered, before this one does.
const ROTATION_PATIENCE: Duration = Duration::from_secs(5);

/// How often a node asks for a keyring that it has no box of.
const ASK_EVERY: Duration = Duration::from_secs(3);

/// How long a node that was removed through itself goes on, so that the others hear of it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why the next start would find an older state than this one has: the file cannot be written.
const UNSAVED: &str = "the certificates of this node cannot be saved";

/// What the driver has to do.
#[derive(Debug)]
pub(super) enum Duty {
    /// Tell the engine whom to believe.
    Rules(Box<Rules>),
    /// Change desired state.
    Propose(Command),
    /// Close all connections with a node.
    Expel(NodeId),
    /// This node was let in: call the members that are known.
    Joined,
    /// There is a newer keyring, and none of its boxes is for this node: who is asked at the gate
    /// hands it over.
    AskForKeyring,
    /// This node was removed.
    Removed,
    /// Tell people.
    Tell {
        /// Whether it is a warning.
        warning: bool,
        /// What.
        text: String,
    },
}

/// See the module.
pub(super) struct Trustee {
    belonging: Belonging,
    trust: Trust,
    saved: watch::Sender<Belonging>,
    revoked: BTreeSet<PublicKey>,
    /// The keyring that was proposed last, and when.
    proposed: Option<(KeyringOrder, Instant)>,
    /// Since when the newest keyring has had a removed member.
    stale: Option<Instant>,
    /// When a keyring was asked for last.
    asked: Option<Instant>,
    /// When this node falls silent.
    ends: Option<Instant>,
    last_refusal: Option<String>,
    /// Told when this node was removed.
    told: CancellationToken,
}

impl Trustee {
    pub(super) fn new(
        belonging: Belonging,
        trust: Trust,
        told: CancellationToken,
    ) -> (Self, watch::Receiver<Belonging>) {
        let (saved, keeper) = watch::channel(belonging.clone());
        let trustee = Self {
            belonging,
            trust,
            saved,
            revoked: BTreeSet::new(),
            proposed: None,
            stale: None,
            asked: None,
            ends: None,
            last_refusal: None,
            told,
        };
        (trustee, keeper)
    }

    /// Where the ticket says that members are.
    pub(super) fn invited(&self) -> Vec<SocketAddr> {
        let ticket = self.belonging.ticket.as_ref();
        ticket.map_or_else(Vec::new, |ticket| ticket.addresses.clone())
    }

    /// Whether it holds a ticket and has not been let in.
    pub(super) fn is_invited(&self) -> bool {
        self.belonging.membership.is_none()
    }

    /// Something happened at the gate.
    pub(super) fn at_the_gate(&mut self, event: TrustEvent, now: Seconds) -> Vec<Duty> {
        match event {
            TrustEvent::Admitted { node, invite, role } => vec![
                tell(false, format!("let {} in as {role}", node.short())),
                Duty::Propose(Command::Trust(TrustCommand::Use {
                    invite: invite.to_string(),
                    node: PublicKey(*node.as_bytes()).to_string(),
                    role: role.to_string(),
                })),
            ],
            TrustEvent::Redeemed {
                person,
                invite,
                role,
            } => vec![
                tell(
                    false,
                    format!("gave {} a certificate as {role}", person.short()),
                ),
                Duty::Propose(Command::Trust(TrustCommand::Use {
                    invite: invite.to_string(),
                    node: person.to_string(),
                    role: format!("{PERSON}{role}"),
                })),
            ],
            TrustEvent::Welcomed(welcome) => {
                self.belonging.welcome(&welcome);
                let role = self.belonging.credential();
                let role = role.map_or("node".to_owned(), |c| c.verified().power.to_string());
                let mut duties = self.changed();
                duties.push(tell(
                    false,
                    format!("joined cluster {} as {role}", self.belonging.name()),
                ));
                duties.push(Duty::Joined);
                duties
            }
            TrustEvent::NewKeyring(keyring) => self.take_keyring(*keyring, now),
            TrustEvent::Removed => self.removed(),
            TrustEvent::Refused { by, reason } => {
                let again = self.last_refusal.as_ref() == Some(&reason);
                let text = format!("{} does not let this node in: {reason}", by.short());
                self.last_refusal = Some(reason);
                match again {
                    true => Vec::new(),
                    false => vec![tell(true, text)],
                }
            }
        }
    }

    /// Desired state has changed.
    pub(super) fn desired(&mut self, desired: &Desired, now: Seconds) -> Vec<Duty> {
        let records = &desired.trust;
        self.trust
            .update(|gate| gate.set_knowledge(knowledge(records)));
        let mut duties = Vec::new();
        for key in records.revoked.keys() {
            if self.revoked.insert(*key) && *key != self.belonging.key().public() {
                duties.push(Duty::Expel(NodeId::from_bytes(key.0)));
            }
        }
        if records.revoked.contains_key(&self.belonging.key().public()) {
            self.ends.get_or_insert_with(|| Instant::now() + LAST_WORDS);
            return duties;
        }
        if let Some(keyring) = self.our_box(records) {
            duties.extend(self.take_keyring(keyring, now));
        }
        duties.extend(self.consider_rotation(records, now));
        duties
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, desired: &Desired, now: Seconds) -> Vec<Duty> {
        if self.ends.is_some_and(|at| at <= Instant::now()) {
            self.ends = None;
            return self.removed();
        }
        let mut duties = match self.belonging.renew(now) {
            true => self.changed(),
            false => Vec::new(),
        };
        if self.is_behind(&desired.trust) && self.asked.is_none_or(|at| at.elapsed() >= ASK_EVERY) {
            self.asked = Some(Instant::now());
            duties.push(Duty::AskForKeyring);
        }
        duties.extend(self.consider_rotation(&desired.trust, now));
        duties
    }

    /// Whether the newest keyring is newer than ours, for longer than it takes to open a box.
    fn is_behind(&self, records: &TrustRecords) -> bool {
        let member = self.belonging.membership.as_ref();
        let ours = member.map(|member| member.keyring.order());
        let newest = records.newest_keyring();
        ours.is_some_and(|ours| newest.is_some_and(|(newest, _)| *newest > ours))
    }

    fn our_box(&self, records: &TrustRecords) -> Option<Keyring> {
        let member = self.belonging.membership.as_ref()?;
        let (order, record) = records.newest_keyring()?;
        if *order <= member.keyring.order() {
            return None;
        }
        let key = self.belonging.key();
        let opened = open_box(key, record.boxes.get(&key.public())?).ok()?;
        let keyring = Keyring::decode(&opened).ok()?;
        (keyring.order() == *order).then_some(keyring)
    }

    fn take_keyring(&mut self, keyring: Keyring, now: Seconds) -> Vec<Duty> {
        match self.belonging.rotate(keyring, now) {
            true => self.changed(),
            false => Vec::new(),
        }
    }

    /// An admin's daemon records the first keyring, and replaces one that a removed member has.
    fn consider_rotation(&mut self, records: &TrustRecords, now: Seconds) -> Option<Duty> {
        let (Some(admin), Some(member)) = (self.belonging.admin(), &self.belonging.membership)
        else {
            return None;
        };
        let newest = records.newest_keyring();
        let compromised = records.is_compromised();
        if newest.is_some() && !compromised {
            self.stale = None;
            return None;
        }
        let waited = self.stale.get_or_insert_with(Instant::now).elapsed();
        let me = self.belonging.key().public();
        let ordered_here = records.revoked.values().any(|order| order.by == Some(me));
        // Until the one that was proposed last is there, or seems to be lost.
        let under_way = self.proposed.is_some_and(|(order, at)| {
            newest.is_none_or(|(newest, _)| *newest < order) && at.elapsed() < ROTATION_PATIENCE
        });
        if under_way || (compromised && !ordered_here && waited < ROTATION_PATIENCE) {
            return None;
        }
        let keyring = match newest {
            None => member.keyring.clone(),
            Some((order, _)) => {
                let epoch = order.epoch.max(member.keyring.epoch).saturating_add(1);
                let secret = KeyringSecret(random()?);
                issue_admission(self.belonging.cluster, &admin, secret, epoch, now)
            }
        };
        let mut members = records.members();
        members.insert(me);
        self.proposed = Some((keyring.order(), Instant::now()));
        Some(Duty::Propose(keyring_command(&keyring, &members, records)?))
    }

    /// Brings the gate, the engine and the disk in step with what this node is now.
    fn changed(&mut self) -> Vec<Duty> {
        let (standing, admin) = (self.belonging.standing(), self.belonging.admin());
        self.trust.update(|gate| {
            if let Some(standing) = standing {
                gate.set_standing(standing);
            }
            gate.set_admin(admin);
        });
        self.saved.send_replace(self.belonging.clone());
        vec![Duty::Rules(Box::new(self.belonging.rules()))]
    }

    fn removed(&mut self) -> Vec<Duty> {
        if self.belonging.removed {
            return Vec::new();
        }
        self.belonging.removed = true;
        self.told.cancel();
        self.saved.send_replace(self.belonging.clone());
        let text = format!(
            "this node was removed from cluster {} by an admin: its replicas end, and it does not \
             try to join any more; to start as a new node, stop this daemon, move its data \
             directory away, and join with a new ticket",
            self.belonging.name()
        );
        vec![tell(true, text), Duty::Removed]
    }
}

fn tell(warning: bool, text: String) -> Duty {
    Duty::Tell { warning, text }
}

fn random() -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Some(bytes),
        Err(error) => {
            tracing::error!(%error, "no randomness for a new keyring");
            None
        }
    }
}

/// The keyring, sealed to each member.
fn keyring_command(
    keyring: &Keyring,
    members: &BTreeSet<PublicKey>,
    records: &TrustRecords,
) -> Option<Command> {
    let text = keyring.encode();
    let mut boxes = BTreeMap::new();
    for member in members {
        // A key that is none was never a member's.
        if let Ok(sealed) = seal_box(member, random()?, &text) {
            boxes.insert(member.to_string(), data_encoding::BASE64.encode(&sealed));
        }
    }
    let order = keyring.order();
    Some(Command::Trust(TrustCommand::Keyring {
        epoch: order.epoch,
        admission: order.admission.to_string(),
        boxes,
        without: records.revoked.keys().map(ToString::to_string).collect(),
    }))
}

/// What the gate needs of desired state.
fn knowledge(records: &TrustRecords) -> Knowledge {
    let revoked = records.revoked.iter();
    let invites = records.invites.iter().filter_map(|(id, invite)| {
        let invite = Invite {
            role: invite.role.parse().ok()?,
            not_after: invite.not_after,
            uses: invite.uses,
        };
        Some((*id, invite))
    });
    Knowledge {
        revoked: revoked.map(|(k, r)| (*k, r.order.to_vec())).collect(),
        invites: invites.collect(),
        uses: records.uses.clone(),
        members: records.members(),
    }
}

/// Writes what this node is to disk, away from the driver. When it falls behind, only the newest
/// is written.
pub(crate) struct Keeper {
    pub(super) belonging: watch::Receiver<Belonging>,
    pub(super) dir: PathBuf,
}

impl Keeper {
    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let dir = std::mem::take(&mut self.dir);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                changed = self.belonging.changed() => if changed.is_err() { break },
            }
            self.write(&dir).await;
        }
        if self.belonging.has_changed().unwrap_or(false) {
            self.write(&dir).await;
        }
        stop.cancelled().await;
    }

    async fn write(&mut self, dir: &Path) {
        let (belonging, dir) = (self.belonging.borrow_and_update().clone(), dir.to_owned());
        let written = tokio::task::spawn_blocking(move || belonging.remember(&dir)).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "{UNSAVED}"),
            Err(error) => tracing::error!(%error, "{UNSAVED}"),
        }
    }
}
