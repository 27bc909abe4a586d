//! Who is let in: the rules of the gate that every connection passes before anything else sees it.
//!
//! The transport has proven that each side holds its key; here the two sides show what that key
//! is worth. The dialer speaks first:
//!
//! ```text
//! dialer    MEMBER   (epoch of its keyring, its chain)       or
//!           INVITED  (cluster, invite, proof)
//! listener  ACCEPTED (root key, its chain, its keyring if the dialer's is older)     or
//!           WELCOME  (root key, its chain, keyring, a chain for the newcomer, another for its
//!                     role)                                                         or
//!           REFUSED  (why; and, if the dialer was removed, the signed order)
//! ```
//!
//! A refusal is believed for what it is worth: a text for the log. Only the order of an admin,
//! which anybody can check, makes a node believe that it has been removed.

mod refusal;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::{BTreeMap, BTreeSet};

use crate::Seconds;
use crate::chain::{Chain, Verified};
use crate::credential::Credential;
use crate::encode::Malformed;
use crate::founding::{issue_node, issue_role};
use crate::keyring::Keyring;
use crate::keys::{ClusterId, PublicKey, SecretKey};
use crate::power::{Power, Role};
use crate::rights;
use crate::statement::Signed;
use crate::ticket::InviteKey;

pub use refusal::{GateError, Refusal};
pub use wire::MAX_GATE_MESSAGE;
use wire::{Answer, Hello};

/// What a node is to its cluster.
#[derive(Debug, Clone)]
pub enum Standing {
    /// It holds a ticket and has not been let in yet.
    Invited(InviteKey),
    /// It belongs.
    Member {
        /// The cluster's root key.
        root: PublicKey,
        /// Its certificate as a node.
        chain: Chain,
        /// What all members share.
        keyring: Keyring,
    },
}

/// What a member knows of a ticket that it, or another member, has given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// What its bearer becomes, besides a node.
    pub role: Role,
    /// Until when it can be used.
    pub not_after: Seconds,
    /// How many hosts may use it; 0 is any number.
    pub uses: u32,
}

/// What desired state says about who belongs.
#[derive(Debug, Clone, Default)]
pub struct Knowledge {
    /// Removed keys, each with the signed order.
    pub revoked: BTreeMap<PublicKey, Vec<u8>>,
    /// Tickets.
    pub invites: BTreeMap<PublicKey, Invite>,
    /// Who has used which.
    pub uses: BTreeMap<PublicKey, BTreeSet<PublicKey>>,
    /// Members that are known to belong although their certificate is older than the keyring.
    pub members: BTreeSet<PublicKey>,
}

/// What a newcomer is given.
#[derive(Debug, Clone)]
pub struct Welcome {
    /// The cluster's root key.
    pub root: PublicKey,
    /// What all members share.
    pub keyring: Keyring,
    /// Its certificate as a node.
    pub node: Chain,
    /// Its certificate for another role, if the ticket was for one.
    pub role: Option<Chain>,
}

/// What the listener makes of a hello.
#[derive(Debug)]
pub struct Heard {
    /// To be sent in any case.
    pub answer: Vec<u8>,
    /// Whether the connection may be used; the invite that was used for it, if one was.
    pub verdict: Result<Option<(PublicKey, Role)>, GateError>,
}

/// What the dialer makes of an answer.
#[derive(Debug)]
pub enum Answered {
    /// The connection may be used.
    Accepted,
    /// The connection may be used, and the keyring is newer than ours.
    NewKeyring(Box<Keyring>),
    /// This node is a member now.
    Welcomed(Box<Welcome>),
}

/// The rules, with what they are applied to.
#[derive(Debug)]
pub struct Gatekeeper {
    key: SecretKey,
    cluster: ClusterId,
    standing: Standing,
    admin: Option<Credential>,
    knowledge: Knowledge,
    /// Uses that have not come back as desired state yet.
    granted: BTreeMap<PublicKey, BTreeSet<PublicKey>>,
}

impl Gatekeeper {
    /// For the node with this key.
    pub fn new(key: SecretKey, cluster: ClusterId, standing: Standing) -> Self {
        Self {
            key,
            cluster,
            standing,
            admin: None,
            knowledge: Knowledge::default(),
            granted: BTreeMap::new(),
        }
    }

    /// What this node is.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Replaces it: after a welcome, a renewal, or a change of the keyring.
    pub fn set_standing(&mut self, standing: Standing) {
        self.standing = standing;
    }

    /// With an admin's credential, tickets for every role are redeemed here.
    pub fn set_admin(&mut self, admin: Option<Credential>) {
        self.admin = admin;
    }

    /// Replaces what is known from desired state.
    pub fn set_knowledge(&mut self, knowledge: Knowledge) {
        for (invite, subjects) in &knowledge.uses {
            if let Some(granted) = self.granted.get_mut(invite) {
                granted.retain(|subject| !subjects.contains(subject));
            }
        }
        self.granted.retain(|_, subjects| !subjects.is_empty());
        self.knowledge = knowledge;
    }

    /// What is known from desired state.
    pub fn knowledge(&self) -> &Knowledge {
        &self.knowledge
    }

    /// Whether this key was removed.
    pub fn is_revoked(&self, key: &PublicKey) -> bool {
        self.knowledge.revoked.contains_key(key)
    }

    /// What to say to the node that was dialed.
    pub fn hello(&self, to: &PublicKey) -> Vec<u8> {
        let hello = match &self.standing {
            Standing::Invited(invite) => Hello::Invited {
                cluster: self.cluster,
                invite: invite.id(),
                proof: invite.prove(self.cluster, &self.key.public(), to),
            },
            Standing::Member { chain, keyring, .. } => Hello::Member {
                epoch: keyring.epoch,
                chain: chain.clone(),
            },
        };
        hello.encode()
    }

    /// Judges the hello of `from`, who dialed.
    pub fn hear(&mut self, message: &[u8], from: &PublicKey, now: Seconds) -> Heard {
        let hello = match Hello::decode(message) {
            Ok(hello) => hello,
            Err(malformed) => {
                let answer = Answer::refused("this is a dunlin node", &[]);
                let verdict = Err(GateError::Malformed(malformed));
                return Heard { answer, verdict };
            }
        };
        let judged = match hello {
            Hello::Member { epoch, chain } => self.accept(epoch, &chain, from, now),
            Hello::Invited {
                cluster,
                invite,
                proof,
            } => self
                .check_invite(cluster, &invite, from, &proof, now)
                .and_then(|role| self.welcome(invite, role, from, now)),
        };
        match judged {
            Ok((answer, used)) => Heard {
                answer: answer.encode(),
                verdict: Ok(used),
            },
            Err(refusal) => {
                let order = self.knowledge.revoked.get(from);
                let order = order.filter(|_| refusal == Refusal::Removed);
                Heard {
                    answer: Answer::refused(&refusal.to_string(), order.map_or(&[], Vec::as_slice)),
                    verdict: Err(refusal.into()),
                }
            }
        }
    }

    fn accept(
        &self,
        epoch: u64,
        chain: &Chain,
        from: &PublicKey,
        now: Seconds,
    ) -> Result<(Answer, Option<(PublicKey, Role)>), Refusal> {
        let Standing::Member {
            root,
            chain: ours,
            keyring,
        } = &self.standing
        else {
            return Err(Refusal::NotYetMember);
        };
        self.check_member(root, keyring, chain, from, now)?;
        let keyring = (epoch < keyring.epoch).then(|| keyring.clone());
        let answer = Answer::Accepted {
            root: *root,
            chain: ours.clone(),
            keyring,
        };
        Ok((answer, None))
    }

    /// Whether this chain makes `of` a member, here and now.
    fn check_member(
        &self,
        root: &PublicKey,
        keyring: &Keyring,
        chain: &Chain,
        of: &PublicKey,
        now: Seconds,
    ) -> Result<(), Refusal> {
        if self.is_revoked(of) {
            return Err(Refusal::Removed);
        }
        let verified = chain.verify_at(root, now)?;
        if verified.subject != *of || verified.power != Power::Role(Role::Node) {
            return Err(Refusal::NotItsOwn);
        }
        self.check_standing(keyring, &verified)
    }

    /// A certificate older than the keyring is worth something only to members on record: the one
    /// who was removed could have made others with the old key.
    fn check_standing(&self, keyring: &Keyring, verified: &Verified) -> Result<(), Refusal> {
        let current = verified.epoch.is_none_or(|epoch| epoch >= keyring.epoch);
        if !current && !self.knowledge.members.contains(&verified.subject) {
            return Err(Refusal::Outdated);
        }
        let mut issuers = verified.issuers.iter();
        match current && issuers.any(|key| self.is_revoked(key)) {
            true => Err(Refusal::RemovedIssuer),
            false => Ok(()),
        }
    }

    fn check_invite(
        &self,
        cluster: ClusterId,
        invite: &PublicKey,
        from: &PublicKey,
        proof: &crate::keys::Signature,
        now: Seconds,
    ) -> Result<Role, Refusal> {
        if cluster != self.cluster {
            return Err(Refusal::ForeignTicket(cluster));
        }
        if self.is_revoked(from) {
            return Err(Refusal::Removed);
        }
        let known = self.knowledge.invites.get(invite);
        let known = known.ok_or(Refusal::UnknownTicket)?;
        if !InviteKey::is_proven(invite, cluster, from, &self.key.public(), proof) {
            return Err(Refusal::BadProof);
        }
        if now > known.not_after {
            return Err(Refusal::ExpiredTicket(now - known.not_after));
        }
        let recorded = self.knowledge.uses.get(invite);
        let granted = self.granted.get(invite);
        let users: BTreeSet<_> = recorded.into_iter().chain(granted).flatten().collect();
        // Who has used it already may come again: the answer may have been lost.
        if known.uses > 0 && users.len() >= known.uses as usize && !users.contains(from) {
            return Err(Refusal::UsedUp(known.uses));
        }
        Ok(known.role.clone())
    }

    /// Gives a person who has proven a ticket to this node the role that it stands for.
    ///
    /// # Errors
    /// Why not.
    pub fn redeem(
        &mut self,
        invite: &PublicKey,
        person: &PublicKey,
        proof: &crate::keys::Signature,
        now: Seconds,
    ) -> Result<(Chain, Role), Refusal> {
        let role = self.check_invite(self.cluster, invite, person, proof, now)?;
        if role == Role::Node {
            return Err(Refusal::ForHosts);
        }
        let Some(admin) = &self.admin else {
            return Err(Refusal::NotHere(role.to_string()));
        };
        let chain = issue_role(self.cluster, admin, *person, role.clone(), now);
        self.granted.entry(*invite).or_default().insert(*person);
        Ok((chain, role))
    }

    fn welcome(
        &mut self,
        invite: PublicKey,
        role: Role,
        newcomer: &PublicKey,
        now: Seconds,
    ) -> Result<(Answer, Option<(PublicKey, Role)>), Refusal> {
        let Standing::Member {
            root,
            chain,
            keyring,
        } = &self.standing
        else {
            return Err(Refusal::NotYetMember);
        };
        let granted = match (&role, &self.admin) {
            (Role::Node, _) => None,
            (_, None) => return Err(Refusal::NotHere(role.to_string())),
            (_, Some(admin)) => {
                let role = role.clone();
                Some(issue_role(self.cluster, admin, *newcomer, role, now))
            }
        };
        let answer = Answer::Welcome {
            chain: chain.clone(),
            welcome: Box::new(Welcome {
                root: *root,
                keyring: keyring.clone(),
                node: issue_node(self.cluster, keyring, *newcomer, now),
                role: granted,
            }),
        };
        self.granted.entry(invite).or_default().insert(*newcomer);
        Ok((answer, Some((invite, role))))
    }

    /// Judges the answer of `from`, who was dialed. A welcome is not acted on here: the caller
    /// keeps it first, and then changes the standing.
    pub fn judge(
        &self,
        message: &[u8],
        from: &PublicKey,
        now: Seconds,
    ) -> Result<Answered, GateError> {
        match (Answer::decode(message)?, &self.standing) {
            (Answer::Refused { reason, order }, _) => {
                if self.is_removed_by(&order) {
                    return Err(GateError::WasRemoved);
                }
                Err(GateError::RefusedUs(reason))
            }
            (
                Answer::Accepted {
                    root,
                    chain,
                    keyring,
                },
                Standing::Member {
                    root: our_root,
                    keyring: our_keyring,
                    ..
                },
            ) => {
                if root != *our_root {
                    return Err(GateError::Foreign);
                }
                self.check_member(&root, our_keyring, &chain, from, now)?;
                match keyring {
                    Some(newer) if newer.epoch > our_keyring.epoch => {
                        newer.verify_at(&root, now).map_err(Refusal::from)?;
                        Ok(Answered::NewKeyring(Box::new(newer)))
                    }
                    Some(_) | None => Ok(Answered::Accepted),
                }
            }
            // Let in twice, by two calls at once: the first welcome holds.
            (Answer::Welcome { chain, welcome }, Standing::Member { root, keyring, .. })
                if welcome.root == *root =>
            {
                self.check_member(root, keyring, &chain, from, now)?;
                Ok(Answered::Accepted)
            }
            (Answer::Welcome { chain, welcome }, Standing::Invited(_)) => {
                self.check_welcome(&chain, &welcome, from, now)?;
                Ok(Answered::Welcomed(welcome))
            }
            (Answer::Accepted { .. } | Answer::Welcome { .. }, _) => {
                Err(Malformed("an answer to another question").into())
            }
        }
    }

    fn check_welcome(
        &self,
        chain: &Chain,
        welcome: &Welcome,
        from: &PublicKey,
        now: Seconds,
    ) -> Result<(), GateError> {
        let root = &welcome.root;
        if ClusterId::of(root) != self.cluster {
            return Err(GateError::Foreign);
        }
        self.check_member(root, &welcome.keyring, chain, from, now)?;
        welcome
            .keyring
            .verify_at(root, now)
            .map_err(Refusal::from)?;
        let me = self.key.public();
        let node = welcome.node.verify_at(root, now).map_err(Refusal::from)?;
        let role = welcome
            .role
            .as_ref()
            .map(|chain| chain.verify_at(root, now));
        let role = role.transpose().map_err(Refusal::from)?;
        let mine = node.subject == me && role.is_none_or(|role| role.subject == me);
        match mine && node.power == Power::Role(Role::Node) {
            true => Ok(()),
            false => Err(Refusal::NotItsOwn.into()),
        }
    }

    /// Whether an admin has signed that this node is removed.
    fn is_removed_by(&self, order: &[u8]) -> bool {
        let Standing::Member { root, .. } = &self.standing else {
            return false;
        };
        let key = rights::revocation_key(&self.key.public());
        let signed = Signed::decode(order).map_err(crate::statement::StatementError::from);
        let author = signed.and_then(|signed| signed.verify(root, &key));
        author.is_ok_and(|author| rights::check(&author.power, &key).is_ok())
    }
}
