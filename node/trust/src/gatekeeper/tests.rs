//! Who gets in, who does not, and what each is told.

use super::*;
use crate::chain::ChainError;
use crate::founding::{Founding, issue_admission};
use crate::keyring::KeyringSecret;
use crate::statement::sign;

const NOW: Seconds = 1_800_000_000;

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed([n; 32])
}

fn founding() -> Founding {
    Founding::new([1; 32], [2; 32], key(3).public(), NOW)
}

fn root() -> PublicKey {
    founding().root.public()
}

fn cluster() -> ClusterId {
    ClusterId::of(&root())
}

fn admin() -> Credential {
    Credential::new(key(3), founding().admin, &root()).unwrap()
}

fn member(n: u8) -> Gatekeeper {
    let keyring = founding().keyring;
    let standing = Standing::Member {
        root: root(),
        chain: issue_node(cluster(), &keyring, key(n).public(), NOW),
        keyring,
    };
    Gatekeeper::new(key(n), cluster(), standing)
}

fn newcomer(n: u8, secret: u8) -> Gatekeeper {
    let standing = Standing::Invited(InviteKey::of(&[secret; 16]));
    Gatekeeper::new(key(n), cluster(), standing)
}

fn invite(role: &str, uses: u32) -> Knowledge {
    let invite = Invite {
        role: role.parse().unwrap(),
        not_after: NOW + 3_600,
        uses,
    };
    Knowledge {
        invites: BTreeMap::from([(InviteKey::of(&[8; 16]).id(), invite)]),
        ..Knowledge::default()
    }
}

/// `dialer` dials `listener`: what each makes of it.
fn meet(
    dialer: &Gatekeeper,
    listener: &mut Gatekeeper,
    now: Seconds,
) -> (Result<Answered, GateError>, Heard) {
    let (from, to) = (dialer.key.public(), listener.key.public());
    let heard = listener.hear(&dialer.hello(&to), &from, now);
    (dialer.judge(&heard.answer, &to, now), heard)
}

#[test]
fn members_accept_each_other() {
    let (answered, heard) = meet(&member(4), &mut member(5), NOW);
    assert!(matches!(answered, Ok(Answered::Accepted)), "{answered:?}");
    assert_eq!(heard.verdict, Ok(None));
}

#[test]
fn a_newcomer_with_a_ticket_becomes_a_member() {
    let mut listener = member(4);
    listener.set_knowledge(invite("node", 1));
    let dialer = newcomer(9, 8);
    let (answered, heard) = meet(&dialer, &mut listener, NOW);
    let Ok(Answered::Welcomed(welcome)) = answered else {
        panic!("{answered:?}");
    };
    assert_eq!(heard.verdict.unwrap().unwrap().1, Role::Node);
    assert!(welcome.role.is_none());
    let mut dialer = dialer;
    dialer.set_standing(Standing::Member {
        root: welcome.root,
        chain: welcome.node,
        keyring: welcome.keyring,
    });
    assert!(matches!(
        meet(&dialer, &mut member(5), NOW).0,
        Ok(Answered::Accepted)
    ));
    assert!(matches!(
        meet(&member(5), &mut dialer, NOW).0,
        Ok(Answered::Accepted)
    ));
}

fn refused(dialer: &Gatekeeper, listener: &mut Gatekeeper, now: Seconds) -> Refusal {
    let (answered, heard) = meet(dialer, listener, now);
    let Err(GateError::Refused(refusal)) = heard.verdict else {
        panic!("{heard:?}");
    };
    // The dialer is told what the listener logs.
    match answered {
        Err(GateError::RefusedUs(reason)) => assert_eq!(reason, refusal.to_string()),
        Err(GateError::WasRemoved) => assert_eq!(refusal, Refusal::Removed),
        other => panic!("{other:?}"),
    }
    refusal
}

#[test]
fn tickets_that_are_worth_nothing_are_refused_with_the_reason() {
    let mut listener = member(4);
    listener.set_knowledge(invite("node", 1));
    let altered = newcomer(9, 7);
    assert_eq!(
        refused(&altered, &mut listener, NOW),
        Refusal::UnknownTicket
    );
    let late = refused(&newcomer(9, 8), &mut listener, NOW + 3_610);
    assert_eq!(late, Refusal::ExpiredTicket(10));
    let foreign = Gatekeeper::new(
        key(9),
        ClusterId([7; 16]),
        Standing::Invited(InviteKey::of(&[8; 16])),
    );
    assert_eq!(
        refused(&foreign, &mut listener, NOW),
        Refusal::ForeignTicket(ClusterId([7; 16]))
    );
    assert!(meet(&newcomer(9, 8), &mut listener, NOW).0.is_ok());
    assert_eq!(
        refused(&newcomer(10, 8), &mut listener, NOW),
        Refusal::UsedUp(1)
    );
    let again = meet(&newcomer(9, 8), &mut listener, NOW).0;
    assert!(again.is_ok(), "the answer may have been lost: {again:?}");
}

#[test]
fn a_recorded_use_counts_once() {
    let mut listener = member(4);
    listener.set_knowledge(invite("node", 2));
    assert!(meet(&newcomer(9, 8), &mut listener, NOW).0.is_ok());
    let mut known = invite("node", 2);
    let subjects = BTreeSet::from([key(9).public()]);
    known.uses.insert(InviteKey::of(&[8; 16]).id(), subjects);
    listener.set_knowledge(known);
    assert!(meet(&newcomer(10, 8), &mut listener, NOW).0.is_ok());
    assert_eq!(
        refused(&newcomer(11, 8), &mut listener, NOW),
        Refusal::UsedUp(2)
    );
}

#[test]
fn only_an_admins_node_makes_operators() {
    let mut listener = member(4);
    listener.set_knowledge(invite("operator:shop", 0));
    assert!(matches!(
        refused(&newcomer(9, 8), &mut listener, NOW),
        Refusal::NotHere(_)
    ));
    let mut founder = member(3);
    founder.set_admin(Some(admin()));
    founder.set_knowledge(invite("operator:shop", 0));
    let Ok(Answered::Welcomed(welcome)) = meet(&newcomer(9, 8), &mut founder, NOW).0 else {
        panic!("not welcome");
    };
    let role = welcome.role.unwrap().verify_at(&root(), NOW).unwrap();
    assert_eq!(role.role(), Some(&"operator:shop".parse().unwrap()));
}

#[test]
fn strangers_and_borrowed_certificates_are_refused() {
    let other = Founding::new([9; 32], [2; 32], key(9).public(), NOW);
    let stranger = Gatekeeper::new(
        key(9),
        ClusterId::of(&other.root.public()),
        Standing::Member {
            root: other.root.public(),
            chain: other.node,
            keyring: other.keyring,
        },
    );
    assert!(matches!(
        refused(&stranger, &mut member(4), NOW),
        Refusal::Chain(ChainError::Forged(_))
    ));
    let mut thief = member(9);
    let keyring = founding().keyring;
    thief.set_standing(Standing::Member {
        root: root(),
        chain: issue_node(cluster(), &keyring, key(5).public(), NOW),
        keyring,
    });
    assert_eq!(refused(&thief, &mut member(4), NOW), Refusal::NotItsOwn);
    let dialed = meet(&member(4), &mut thief, NOW).0;
    assert!(matches!(
        dialed,
        Err(GateError::Refused(Refusal::NotItsOwn))
    ));
}

#[test]
fn expired_members_are_refused() {
    let late = NOW + crate::founding::NODE_SECONDS + 1_000;
    let mut renewed = member(4);
    renewed.set_standing(Standing::Member {
        root: root(),
        chain: issue_node(cluster(), &founding().keyring, key(4).public(), late),
        keyring: founding().keyring,
    });
    assert!(matches!(
        refused(&member(5), &mut renewed, late),
        Refusal::Chain(ChainError::Expired { .. })
    ));
}

fn removed(n: u8) -> Knowledge {
    let removed = key(n).public();
    let context = rights::revocation_key(&removed);
    let order = sign(&admin(), cluster(), &context, b"{}");
    Knowledge {
        revoked: BTreeMap::from([(removed, order)]),
        ..Knowledge::default()
    }
}

#[test]
fn a_removed_node_learns_it_from_the_order_and_from_nothing_else() {
    let mut listener = member(4);
    listener.set_knowledge(removed(9));
    let (answered, heard) = meet(&member(9), &mut listener, NOW);
    assert_eq!(heard.verdict, Err(Refusal::Removed.into()));
    assert!(matches!(answered, Err(GateError::WasRemoved)));
    let lie = Answer::refused(&Refusal::Removed.to_string(), b"no order");
    let answered = member(9).judge(&lie, &key(4).public(), NOW);
    assert!(matches!(answered, Err(GateError::RefusedUs(_))));
    // An order of a mere node is none.
    let node = Credential::new(
        key(4),
        issue_node(cluster(), &founding().keyring, key(4).public(), NOW),
        &root(),
    );
    let context = rights::revocation_key(&key(9).public());
    let forged = sign(&node.unwrap(), cluster(), &context, b"{}");
    let answered = member(9).judge(&Answer::refused("x", &forged), &key(4).public(), NOW);
    assert!(matches!(answered, Err(GateError::RefusedUs(_))));
}

#[test]
fn after_a_removal_only_members_on_record_come_back_with_old_certificates() {
    let mut listener = member(4);
    let keyring = issue_admission(cluster(), &admin(), KeyringSecret([6; 32]), 2, NOW);
    listener.set_standing(Standing::Member {
        root: root(),
        chain: issue_node(cluster(), &keyring, key(4).public(), NOW),
        keyring,
    });
    let mut known = removed(9);
    known.members.insert(key(5).public());
    listener.set_knowledge(known);
    let (answered, _) = meet(&member(5), &mut listener, NOW);
    let Ok(Answered::NewKeyring(keyring)) = answered else {
        panic!("{answered:?}");
    };
    assert_eq!(keyring.epoch, 2);
    // Made by the removed one, with the key that it still has.
    assert_eq!(refused(&member(10), &mut listener, NOW), Refusal::Outdated);
    // Who knows more than the listener is no stranger.
    assert!(meet(&listener, &mut member(5), NOW).0.is_ok());
}
