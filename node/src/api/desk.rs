//! Who vouches for people: the cluster, through any of its nodes.
//!
//! The root of these certificates is a key that all members derive from the one secret that they
//! share, so that a person who was given a role by one node has it at every node, and no node has
//! to be asked. A node that is trusted with the cluster's secret can therefore hand out roles; the
//! certificate of a person can not.
//!
//! Tickets are kept in memory by the node that made them and are redeemed there. A restart takes
//! them back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use dunlin_api::tls::Proof;
use dunlin_trust::{
    Certificate, Chain, ClusterId, InviteKey, Power, PublicKey, Role, Seconds, SecretKey,
    Signature, Ticket,
};

use super::authority::{Authority, Wish};

const ROOT_CONTEXT: &str = "dunlin 2026 root key of API certificates";

/// How long a person's certificate is good: 30 days, because nothing takes it back before.
const PERSON_SECONDS: Seconds = 30 * 24 * 3_600;
/// How long a node's is. It is made anew at every start, and after half of that.
const NODE_SECONDS: Seconds = 90 * 24 * 3_600;
/// How long a ticket is good when nobody says otherwise, and at most.
const TICKET_SECONDS: Seconds = 3_600;
const MAX_TICKET_SECONDS: Seconds = 30 * 24 * 3_600;
/// Tickets that may be open at a time: a class that is let in by a script. More are a mistake.
const MAX_TICKETS: usize = 1_000;

/// Hands out roles.
pub(crate) struct Desk {
    key: SecretKey,
    root: SecretKey,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    own: Option<(Seconds, Chain)>,
    invites: BTreeMap<PublicKey, Invite>,
}

struct Invite {
    role: Role,
    not_after: Seconds,
    uses: usize,
    users: BTreeSet<PublicKey>,
}

impl Desk {
    /// Of the node with this key, in the cluster with this secret.
    pub(crate) fn new(key: [u8; 32], cluster_secret: &[u8; 32]) -> Self {
        let root = blake3::derive_key(ROOT_CONTEXT, cluster_secret);
        Self {
            key: SecretKey::from_seed(key),
            root: SecretKey::from_seed(root),
            state: Mutex::default(),
        }
    }

    fn cluster(&self) -> ClusterId {
        ClusterId::of(&self.root.public())
    }

    fn issue(&self, to: PublicKey, role: Role, now: Seconds, life: Seconds) -> Chain {
        let span = (now, now.saturating_add(life));
        let power = Power::Role(role);
        let leaf = Certificate::issue(self.cluster(), &self.root, to, power, span);
        Chain::root_signed(leaf)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Authority for Desk {
    fn key(&self) -> SecretKey {
        self.key.clone()
    }

    fn proof(&self, now: Seconds) -> Option<Proof> {
        let mut state = self.state();
        let fresh = |since: &Seconds| now.abs_diff(*since) < NODE_SECONDS / 2;
        let chain = match &state.own {
            Some((since, chain)) if fresh(since) => chain.clone(),
            Some(_) | None => {
                let chain = self.issue(self.key.public(), Role::Node, now, NODE_SECONDS);
                state.own = Some((now, chain.clone()));
                chain
            }
        };
        let root = self.root.public();
        Some(Proof { root, chain })
    }

    /// Nothing takes a certificate back yet; it ends by itself.
    fn is_revoked(&self, _key: &PublicKey) -> bool {
        false
    }

    fn invite(
        &self,
        wish: &Wish,
        secret: [u8; 16],
        now: Seconds,
    ) -> Result<(Ticket, Seconds), String> {
        if wish.role == Role::Node {
            // Its bearer could pose as a node to people.
            return Err("nodes join with a ticket of their own".to_owned());
        }
        let life = wish.ttl.unwrap_or(TICKET_SECONDS);
        if life == 0 || life > MAX_TICKET_SECONDS {
            return Err(format!(
                "a ticket for a role is good for 1 s to {} days",
                MAX_TICKET_SECONDS / 24 / 3_600
            ));
        }
        let uses = wish.uses.unwrap_or(1);
        if uses == 0 {
            return Err("a ticket for a role is for 1 use or more".to_owned());
        }
        let mut state = self.state();
        state.invites.retain(|_, invite| invite.not_after >= now);
        if state.invites.len() >= MAX_TICKETS {
            return Err(format!(
                "{MAX_TICKETS} tickets are open already: wait until some expire"
            ));
        }
        let not_after = now.saturating_add(life);
        let invite = Invite {
            role: wish.role.clone(),
            not_after,
            uses: usize::try_from(uses).unwrap_or(usize::MAX),
            users: BTreeSet::new(),
        };
        state.invites.insert(InviteKey::of(&secret).id(), invite);
        let ticket = Ticket {
            cluster: self.cluster(),
            secret,
            addresses: Vec::new(),
        };
        Ok((ticket, not_after))
    }

    fn redeem(
        &self,
        invite: &PublicKey,
        newcomer: &PublicKey,
        proof: &Signature,
        now: Seconds,
    ) -> Result<Chain, String> {
        let own = self.key.public();
        if !InviteKey::is_proven(invite, self.cluster(), newcomer, &own, proof) {
            return Err("the ticket's proof is wrong: the ticket was altered".to_owned());
        }
        let mut state = self.state();
        let known = state.invites.get_mut(invite).ok_or(
            "the ticket is not known here: it is redeemed at the node that made it, before that node restarts",
        )?;
        if now > known.not_after {
            let ago = now - known.not_after;
            return Err(format!("the ticket expired {ago} s ago: ask for a new one"));
        }
        // Who has used it may come again: the answer may have been lost.
        if !known.users.contains(newcomer) && known.users.len() >= known.uses {
            return Err(format!(
                "the ticket has been used {} times, which is all it was made for",
                known.uses
            ));
        }
        known.users.insert(*newcomer);
        let role = known.role.clone();
        drop(state);
        Ok(self.issue(*newcomer, role, now, PERSON_SECONDS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Seconds = 1_800_000_000;

    fn desk(n: u8) -> Desk {
        Desk::new([n; 32], &[9; 32])
    }

    fn wish(uses: Option<u32>, ttl: Option<Seconds>) -> Wish {
        let role = "viewer".parse().unwrap();
        Wish { role, ttl, uses }
    }

    /// Redeems the ticket with this secret for person `n`.
    fn redeem(desk: &Desk, secret: u8, n: u8, now: Seconds) -> Result<Chain, String> {
        let invite = InviteKey::of(&[secret; 16]);
        let person = SecretKey::from_seed([n; 32]).public();
        let proof = invite.prove(desk.cluster(), &person, &desk.key.public());
        desk.redeem(&invite.id(), &person, &proof, now)
    }

    #[test]
    fn a_role_of_one_node_is_good_at_all() {
        let (one, other) = (desk(1), desk(2));
        one.invite(&wish(None, None), [7; 16], NOW).unwrap();
        let chain = redeem(&one, 7, 50, NOW).unwrap();
        let root = other.proof(NOW).unwrap().root;
        let verified = chain.verify_at(&root, NOW).unwrap();
        assert_eq!(verified.power.to_string(), "viewer");
        let elsewhere = Desk::new([1; 32], &[8; 32]).proof(NOW).unwrap().root;
        assert!(chain.verify_at(&elsewhere, NOW).is_err());
        assert!(
            chain
                .verify_at(&root, NOW + PERSON_SECONDS + 1_000)
                .is_err()
        );
    }

    #[test]
    fn tickets_are_counted_and_end() {
        let desk = desk(1);
        desk.invite(&wish(Some(2), Some(60)), [7; 16], NOW).unwrap();
        assert!(redeem(&desk, 7, 50, NOW).is_ok());
        assert!(redeem(&desk, 7, 50, NOW).is_ok(), "the same person again");
        assert!(redeem(&desk, 7, 51, NOW).is_ok());
        let used = redeem(&desk, 7, 52, NOW).unwrap_err();
        assert!(used.contains("used 2 times"), "{used}");
        let late = redeem(&desk, 7, 50, NOW + 61).unwrap_err();
        assert!(late.contains("expired 1 s ago"), "{late}");
        let unknown = redeem(&desk, 6, 50, NOW).unwrap_err();
        assert!(unknown.contains("not known here"), "{unknown}");
    }

    #[test]
    fn a_proof_is_for_one_person_at_one_node() {
        let (desk, other) = (desk(1), desk(2));
        desk.invite(&wish(Some(5), None), [7; 16], NOW).unwrap();
        let invite = InviteKey::of(&[7; 16]);
        let person = SecretKey::from_seed([50; 32]).public();
        let thief = SecretKey::from_seed([51; 32]).public();
        let heard = invite.prove(desk.cluster(), &person, &desk.key.public());
        assert!(desk.redeem(&invite.id(), &thief, &heard, NOW).is_err());
        let elsewhere = invite.prove(desk.cluster(), &person, &other.key.public());
        assert!(desk.redeem(&invite.id(), &person, &elsewhere, NOW).is_err());
        assert!(desk.redeem(&invite.id(), &person, &heard, NOW).is_ok());
    }

    #[test]
    fn open_tickets_are_bounded_and_make_room_when_they_end() {
        let desk = desk(1);
        let secret = |n: usize| {
            let mut secret = [0; 16];
            secret[..8].copy_from_slice(&n.to_be_bytes());
            secret
        };
        for n in 0..MAX_TICKETS {
            desk.invite(&wish(None, Some(10)), secret(n), NOW).unwrap();
        }
        assert!(desk.invite(&wish(None, None), [7; 16], NOW).is_err());
        assert!(desk.invite(&wish(None, None), [7; 16], NOW + 11).is_ok());
        let node = Wish {
            role: Role::Node,
            ..wish(None, None)
        };
        for bad in [
            node,
            wish(Some(0), None),
            wish(None, Some(0)),
            wish(None, Some(u64::MAX)),
        ] {
            assert!(desk.invite(&bad, [7; 16], NOW + 11).is_err());
        }
    }
}
