//! Who proves what with a certificate. What several nodes do together is tested with the agent.

use dunlin_state::desired::Revocation;
use dunlin_trust::{
    Chain, ClusterId, Credential, Founding, Namespaces, Role, SecretKey, issue_node, issue_role,
};

use super::*;

const SECONDS: u64 = 1_800_000_000;

fn founder() -> SecretKey {
    SecretKey::from_seed([2; 32])
}

fn founding() -> Founding {
    Founding::new([1; 32], [3; 32], founder().public(), SECONDS)
}

fn now() -> Now {
    Now {
        mono: 5_000,
        wall: SECONDS * 1_000,
    }
}

/// The key of a member with this role, and its certificates.
fn member(role: Role) -> (PublicKey, Chain) {
    let founding = founding();
    let root = founding.root.public();
    let admin = Credential::new(founder(), founding.admin, &root).unwrap();
    let key = SecretKey::from_seed([4; 32]).public();
    let chain = issue_role(ClusterId::of(&root), &admin, key, role, SECONDS);
    (key, chain)
}

fn operator(namespaces: &[&str]) -> Role {
    let names = namespaces.iter().map(|n| (*n).to_owned());
    Role::Operator(Namespaces::Only(names.collect()))
}

/// Whether a holder of `shop/pw` gives its key to this node for this proof.
fn gives(from: PublicKey, chain: &Chain, revoked: &[PublicKey]) -> bool {
    let me = NodeId::from_bytes(founder().public().0);
    let mut keeper = Keeper::new(me);
    keeper.set_authority(Some(founding().root.public()), Vec::new());
    let secret: ItemKey = "shop/pw".parse().unwrap();
    let content = ContentId([7; 16]);
    keeper.held.insert(secret.clone(), content);
    let mut desired = Desired::default();
    let trust = Arc::make_mut(&mut desired.trust);
    for key in revoked {
        let order = Revocation {
            by: None,
            at: 0,
            reason: String::new(),
            order: Bytes::new(),
        };
        trust.revoked.insert(*key, order);
    }
    let view = View {
        cluster: &Cluster::new(me),
        desired: &desired,
        used: &BTreeSet::new(),
    };
    let want = Message::Want {
        secret,
        content,
        proof: Some(chain.encode().into()),
    };
    let effects = keeper.message(NodeId::from_bytes(from.0), want, view, now());
    !effects.is_empty()
}

#[test]
fn who_may_write_a_secret_gets_its_key_by_proof() {
    let table = [
        (Role::Admin, true),
        (Role::Operator(Namespaces::All), true),
        (operator(&["shop"]), true),
        (operator(&["other", "shop"]), true),
        (operator(&["other"]), false),
        (operator(&["shop2"]), false),
        (operator(&["sho"]), false),
        (Role::Viewer, false),
        (Role::Node, false),
    ];
    for (role, expected) in table {
        let (key, chain) = member(role.clone());
        assert_eq!(gives(key, &chain, &[]), expected, "{role}");
    }
}

#[test]
fn a_proof_is_worth_nothing_to_others_or_after_a_removal() {
    let (key, chain) = member(Role::Admin);
    let thief = SecretKey::from_seed([5; 32]).public();
    assert!(!gives(thief, &chain, &[]), "another node's proof");
    assert!(!gives(key, &chain, &[key]), "a removed node's proof");
    let issuer = founder().public();
    assert!(!gives(key, &chain, &[issuer]), "granted by a removed one");
    let founding = founding();
    let cluster = ClusterId::of(&founding.root.public());
    let node = issue_node(cluster, &founding.keyring, key, SECONDS);
    assert!(!gives(key, &node, &[]), "a node's certificate");
    let foreign = Founding::new([8; 32], [3; 32], key, SECONDS);
    assert!(!gives(key, &foreign.admin, &[]), "another cluster's admin");
    let late = Founding::new([1; 32], [3; 32], key, SECONDS + 100_000);
    assert!(!gives(key, &late.admin, &[]), "not valid yet");
}

#[test]
fn a_peer_is_answered_once_in_a_while_and_gifts_are_taken_from_who_was_asked() {
    let me = NodeId::from_bytes([1; 32]);
    let mut keeper = Keeper::new(me);
    let secret: ItemKey = "shop/pw".parse().unwrap();
    let peer = NodeId::from_bytes([2; 32]);
    assert!(keeper.note_answer(peer, &secret, 1_000));
    assert!(!keeper.note_answer(peer, &secret, 1_000 + ANSWER_INTERVAL_MS - 1));
    assert!(keeper.note_answer(peer, &secret, 1_000 + ANSWER_INTERVAL_MS));
    let (cluster, used) = (Cluster::new(me), BTreeSet::new());
    let view = View {
        cluster: &cluster,
        desired: &Desired::default(),
        used: &used,
    };
    let give = Message::Give {
        secret,
        content: ContentId([7; 16]),
        sealed: Bytes::from_static(b"unasked"),
    };
    assert!(keeper.message(peer, give, view, now()).is_empty());
}

#[test]
fn answers_that_are_remembered_are_bounded() {
    let mut keeper = Keeper::new(NodeId::from_bytes([1; 32]));
    let secret: ItemKey = "shop/pw".parse().unwrap();
    for n in 0..2 * MAX_ANSWERED as u64 {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_be_bytes());
        let _noted = keeper.note_answer(NodeId::from_bytes(key), &secret, 1_000);
    }
    assert_eq!(keeper.answered.len(), MAX_ANSWERED);
}
