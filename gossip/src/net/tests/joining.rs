//! Newcomers with tickets, removed nodes, and changes of the keyring.

use std::collections::BTreeMap;

use dunlin_trust::{
    Credential, Invite, InviteKey, KeyringSecret, Knowledge, PublicKey, Role, issue_admission,
    issue_node, rights, sign,
};

use super::*;

const SECRET: [u8; 16] = [7; 16];

fn cluster() -> (PublicKey, ClusterId) {
    let root = SecretKey::from_seed([1; 32]).public();
    (root, ClusterId::of(&root))
}

fn newcomer(seed: u8) -> Node {
    start_as(seed, Listen::Both, || {
        let standing = Standing::Invited(InviteKey::of(&SECRET));
        Gatekeeper::new(SecretKey::from_seed([seed; 32]), cluster().1, standing)
    })
}

fn invited(uses: u32) -> Knowledge {
    let invite = Invite {
        role: Role::Node,
        not_after: trust::wall_seconds() + 3_600,
        uses,
    };
    Knowledge {
        invites: BTreeMap::from([(InviteKey::of(&SECRET).id(), invite)]),
        ..Knowledge::default()
    }
}

impl Node {
    async fn at_the_gate(&mut self) -> TrustEvent {
        let event = timeout(PATIENCE, self.net.gate.recv()).await;
        event.expect("an event in time").expect("a running node")
    }
}

#[tokio::test]
async fn a_newcomer_with_a_ticket_is_let_in_and_speaks_with_all() {
    let (mut a, mut b, mut c) = (start(1, 1), start(2, 1), newcomer(3));
    a.net.trust.update(|gate| gate.set_knowledge(invited(1)));
    c.net.datagrams.send(b.address, "too early".into());
    c.net.control.knock(a.address);
    assert_eq!(a.connected().await, c.net.node);
    assert_eq!(c.connected().await, a.net.node);
    assert!(matches!(c.at_the_gate().await, TrustEvent::Welcomed(_)));
    let TrustEvent::Admitted { node, role, .. } = a.at_the_gate().await else {
        panic!("not admitted");
    };
    assert_eq!((node, role), (c.net.node, Role::Node));
    c.net.datagrams.send(b.address, "hello".into());
    let received = timeout(PATIENCE, b.net.received.recv()).await.unwrap();
    assert_eq!(received.unwrap().sender, c.net.node);
    c.send(&b, "hello");
    assert_eq!(b.message().await, (c.net.node, "hello".into()));
}

#[tokio::test]
async fn a_ticket_that_was_used_up_is_refused_with_the_reason_on_both_sides() {
    let (a, first, mut second) = (start(1, 1), newcomer(3), newcomer(4));
    a.net.trust.update(|gate| gate.set_knowledge(invited(1)));
    let mut first = first;
    first.net.control.knock(a.address);
    assert!(matches!(first.at_the_gate().await, TrustEvent::Welcomed(_)));
    second.net.control.knock(a.address);
    let TrustEvent::Refused { by, reason } = second.at_the_gate().await else {
        panic!("not refused");
    };
    assert_eq!(by, a.net.node);
    assert!(reason.contains("has been used 1 times"), "{reason}");
    let started = Instant::now();
    while a.net.counters.read().strangers_refused == 0 {
        assert!(started.elapsed() < PATIENCE);
        tokio::task::yield_now().await;
    }
}

fn admin() -> Credential {
    let key = SecretKey::from_seed([50; 32]);
    let now = trust::wall_seconds();
    let founding = Founding::new([1; 32], [1; 32], key.public(), now);
    Credential::new(key, founding.admin, &cluster().0).unwrap()
}

#[tokio::test]
async fn a_removed_node_is_cut_off_and_learns_why() {
    let (mut a, mut b) = (start(1, 1), start(2, 1));
    b.connect(&a);
    assert_eq!(a.connected().await, b.net.node);
    let removed = PublicKey(*b.net.node.as_bytes());
    let context = rights::revocation_key(&removed);
    let order = sign(&admin(), cluster().1, &context, b"{}");
    a.net.trust.update(|gate| {
        gate.set_knowledge(Knowledge {
            revoked: BTreeMap::from([(removed, order)]),
            ..Knowledge::default()
        });
    });
    a.net.control.expel(b.net.node);
    assert_eq!(b.disconnected().await, a.net.node);
    b.net.datagrams.send(a.address, "still here".into());
    let started = Instant::now();
    while a.net.counters.read().datagrams_refused == 0 {
        assert!(started.elapsed() < PATIENCE);
        tokio::task::yield_now().await;
    }
    b.connect(&a);
    assert!(matches!(b.at_the_gate().await, TrustEvent::Removed));
    b.unreachable().await;
    assert!(!b.net.control.probe(a.net.node, a.address).await);
}

#[tokio::test]
async fn a_change_of_the_keyring_reaches_who_connects_and_splits_nobody() {
    let (a, mut b) = (start(1, 1), start(2, 1));
    let (root, id) = cluster();
    let now = trust::wall_seconds();
    let keyring = issue_admission(id, &admin(), KeyringSecret([6; 32]), 2, now);
    a.net.trust.update(|gate| {
        gate.set_standing(Standing::Member {
            root,
            chain: issue_node(id, &keyring, PublicKey(*a.net.node.as_bytes()), now),
            keyring,
        });
        let members = [PublicKey(*b.net.node.as_bytes())].into();
        gate.set_knowledge(Knowledge {
            members,
            ..Knowledge::default()
        });
    });
    b.connect(&a);
    let TrustEvent::NewKeyring(keyring) = b.at_the_gate().await else {
        panic!("no keyring");
    };
    assert_eq!(keyring.epoch, 2);
    b.connected().await;
    // The old key is still taken for a while.
    let mut a = a;
    b.net.datagrams.send(a.address, "old".into());
    let received = timeout(PATIENCE, a.net.received.recv()).await.unwrap();
    assert_eq!(received.unwrap().bytes, "old");
}
