//! Documents that believe only what is signed by somebody who may.

use std::collections::BTreeMap;

use dunlin_trust::{
    ClusterId, Credential, Founding, PublicKey, Role, SecretKey, issue_node, issue_role, rights,
    sign,
};

use super::*;
use crate::desired::keys::Key;
use crate::desired::register::Register;

/// 2027-01-15 in milliseconds: certificates are not valid in 1970.
const NOW: u64 = 1_800_000_000_000;

fn secret(n: u8) -> SecretKey {
    SecretKey::from_seed([n; 32])
}

fn founding() -> Founding {
    Founding::new([1; 32], [2; 32], secret(3).public(), NOW / 1_000)
}

fn root() -> PublicKey {
    founding().root.public()
}

fn cluster() -> ClusterId {
    ClusterId::of(&root())
}

fn admin() -> Credential {
    Credential::new(secret(3), founding().admin, &root()).unwrap()
}

fn with_role(n: u8, role: &str) -> Credential {
    let chain = match role.parse().unwrap() {
        Role::Node => {
            let keyring = founding().keyring;
            issue_node(cluster(), &keyring, secret(n).public(), NOW / 1_000)
        }
        role => issue_role(cluster(), &admin(), secret(n).public(), role, NOW / 1_000),
    };
    Credential::new(secret(n), chain, &root()).unwrap()
}

fn rules(credential: Credential) -> Rules {
    Rules::new(Some(root()), vec![credential])
}

/// A document of the `n`-th node, which holds this credential.
fn signed(n: u8, credential: Credential) -> Document {
    let mut document = Document::new(actor(n));
    document.set_rules(rules(credential));
    document
}

/// The same that lets everything out: a member that lies.
fn lying(n: u8, from: &Document) -> Document {
    Document::load(&from.save(), &[], actor(n)).unwrap()
}

fn put(document: &mut Document, key: &str, value: Bytes) -> Bytes {
    let writes = BTreeMap::from([(key.to_owned(), value)]);
    document.engine.write(&writes, 0).unwrap()
}

fn assert_refused(document: &mut Document, change: Bytes, because: &str) {
    let before = (document.fingerprint(), document.snapshot());
    let refused = document.apply_changes(&[change]).unwrap_err().to_string();
    assert!(refused.contains(because), "{refused}");
    assert_eq!((document.fingerprint(), document.snapshot()), before);
}

#[test]
fn what_an_operator_writes_is_taken_by_all_and_survives_compaction_without_him() {
    let mut author = signed(1, with_role(4, "operator"));
    let changes = [
        write(&mut author, deploy("web", spec("x:1")), NOW),
        write(&mut author, scale("web", 3), NOW + 1),
    ];
    let mut other = signed(2, with_role(5, "node"));
    feed(&mut other, &changes);
    assert_same(&author, &other);
    other.compact().unwrap();
    let mut third = signed(3, with_role(6, "node"));
    let _adopted = third.adopt(&other.save(), other.id()).unwrap();
    assert_eq!(service(&third, "web").unwrap().replicas, 3);
    let saved = third.save();
    let rules = rules(with_role(6, "node"));
    let loaded = Document::load_prefix(&saved, &[], actor(9), Some(rules)).unwrap();
    assert_same(&loaded.document, &third);
}

#[test]
fn who_may_not_write_is_told_so_and_writes_nothing() {
    let cases = [
        ("node", deploy("web", spec("x"))),
        ("viewer", deploy("web", spec("x"))),
        ("operator:shop", deploy("web", spec("x"))),
        ("operator:shop", deploy("shopping/web", spec("x"))),
        ("operator:shop", labels()),
    ];
    for (role, command) in cases {
        let mut document = signed(1, with_role(4, role));
        let before = document.fingerprint();
        let refused = document.propose(&[command], "eve", at(NOW)).unwrap_err();
        assert!(matches!(refused, Rejection::NotAllowed { .. }), "{refused}");
        assert!(refused.to_string().contains(role), "{refused}");
        assert_eq!(document.fingerprint(), before);
    }
    let mut shop = signed(1, with_role(4, "operator:shop"));
    write(&mut shop, deploy("shop/web", spec("x")), NOW);
}

fn labels() -> Command {
    Command::SetLabels {
        node: node(1),
        labels: [("zone".to_owned(), "a".to_owned())].into(),
    }
}

#[test]
fn forged_changes_are_refused_whole() {
    let mut honest = signed(1, with_role(4, "operator"));
    write(&mut honest, deploy("web", spec("x:1")), NOW);
    let mut liar = lying(7, &honest);
    // Unsigned.
    let unsigned = liar
        .propose(&[scale("web", 9)], "eve", at(NOW))
        .unwrap()
        .unwrap();
    assert_refused(&mut honest, unsigned, "not signed");
    // Signed by a node, which may not.
    let text = register(&honest, 9);
    let key = "svc/default/web/scale";
    let node = sign(&with_role(5, "node"), cluster(), key, &text);
    let change = put(&mut lying(8, &honest), key, node.into());
    assert_refused(&mut honest, change, "certificate for 'node' does not allow");
    // Signed by an operator of another namespace.
    let shop = sign(&with_role(5, "operator:shop"), cluster(), key, &text);
    let change = put(&mut lying(9, &honest), key, shop.into());
    assert_refused(&mut honest, change, "operator:shop");
    // Signed for another key.
    let moved = sign(&with_role(4, "operator"), cluster(), "svc/a/b/scale", &text);
    let change = put(&mut lying(10, &honest), key, moved.into());
    assert_refused(&mut honest, change, "signature");
    // By an operator of another cluster.
    let other = Founding::new([9; 32], [2; 32], secret(9).public(), NOW / 1_000);
    let theirs = Credential::new(secret(9), other.admin, &other.root.public()).unwrap();
    let foreign = sign(&theirs, ClusterId::of(&other.root.public()), key, &text);
    let change = put(&mut lying(11, &honest), key, foreign.into());
    assert_refused(&mut honest, change, "another cluster");
    // Others' changes are not held up.
    let mut peer = signed(2, with_role(6, "operator"));
    sync(&mut peer, &mut honest);
    let good = write(&mut peer, scale("web", 5), NOW + 5);
    feed(&mut honest, &[good]);
    assert_eq!(service(&honest, "web").unwrap().replicas, 5);
}

fn register(document: &Document, replicas: u32) -> Vec<u8> {
    let register = Register {
        stamp: Stamp {
            counter: document.table.next_counter(),
            actor: actor(7),
        },
        author: "eve".to_owned(),
        time: NOW,
        base: None,
        value: replicas.into(),
    };
    register.encode().to_vec()
}

#[test]
fn forged_documents_and_disks_are_refused() {
    let mut honest = signed(1, with_role(4, "operator"));
    write(&mut honest, deploy("web", spec("x:1")), NOW);
    let mut liar = lying(7, &honest);
    write(&mut liar, scale("web", 9), NOW);
    liar.compact().unwrap();
    let before = honest.fingerprint();
    let refused = honest.adopt(&liar.save(), liar.id()).unwrap_err();
    assert!(refused.to_string().contains("not signed"), "{refused}");
    assert_eq!(honest.fingerprint(), before);
    let rules = rules(with_role(4, "operator"));
    let loaded = Document::load_prefix(&liar.save(), &[], actor(9), Some(rules));
    assert!(loaded.is_err());
}

#[test]
fn an_old_version_that_is_sent_again_changes_nothing() {
    let mut author = signed(1, with_role(4, "operator"));
    write(&mut author, deploy("web", spec("x:1")), NOW);
    write(&mut author, labels(), NOW);
    let keys = [
        "svc/default/web/scale".to_owned(),
        Key::parse(&format!("node/{}/labels", node(1)))
            .unwrap()
            .to_string(),
    ];
    let old = keys.clone().map(|key| author.engine.values(&key).remove(0));
    write(&mut author, scale("web", 7), NOW + 1);
    let cleared = Command::SetLabels {
        node: node(1),
        labels: BTreeMap::new(),
    };
    write(&mut author, cleared, NOW + 1);
    let (snapshot, mut honest) = (author.snapshot(), author);
    let mut liar = lying(7, &honest);
    for (key, value) in keys.iter().zip(old) {
        let change = put(&mut liar, key, value);
        feed(&mut honest, &[change]);
    }
    assert_eq!(honest.snapshot(), snapshot);
    assert_reads_the_same_from_disk(&honest);
    honest.compact().unwrap();
    assert_eq!(honest.snapshot(), snapshot);
}

#[test]
fn deleting_is_not_possible() {
    let mut honest = signed(1, with_role(4, "operator"));
    write(&mut honest, deploy("web", spec("x:1")), NOW);
    let change = engine::craft::change(&honest, actor(7), |tx| {
        use automerge::transaction::Transactable as _;
        tx.delete(automerge::ROOT, "svc/default/web/spec").unwrap();
    });
    assert_refused(&mut honest, change, "deletes");
}

fn revoke(n: u8) -> Command {
    Command::Trust(TrustCommand::Revoke {
        key: secret(n).public().to_string(),
        reason: "stolen".to_owned(),
    })
}

#[test]
fn what_a_removed_author_wrote_before_stays_and_what_it_writes_later_counts_for_nothing() {
    let mut operator = signed(1, with_role(4, "operator"));
    let before = write(&mut operator, deploy("web", spec("x:1")), NOW);
    let mut remover = signed(2, admin());
    feed(&mut remover, &[before]);
    let order = write(&mut remover, revoke(4), NOW + 1);
    // Meanwhile, in another part of the cluster, the removed one goes on.
    let after = [
        write(&mut operator, scale("web", 9), NOW + 2),
        write(&mut operator, deploy("evil", spec("y")), NOW + 3),
    ];
    feed(&mut remover, &after);
    feed(&mut operator, &[order]);
    assert_same(&operator, &remover);
    assert_eq!(service(&remover, "web").unwrap().replicas, 1);
    assert_eq!(service(&remover, "evil"), None);
    let removed = secret(4).public();
    let trust = remover.snapshot().trust.clone();
    assert_eq!(trust.revoked[&removed].by, Some(secret(3).public()));
    assert_reads_the_same_from_disk(&remover);
    remover.compact().unwrap();
    assert_eq!(service(&remover, "web").unwrap().replicas, 1);
    assert_eq!(service(&remover, "evil"), None);
    assert_reads_the_same_from_disk(&remover);
    // The order proves itself to the removed one.
    let context = rights::revocation_key(&removed);
    let order = &trust.revoked[&removed].order;
    let signed = dunlin_trust::Signed::decode(order).unwrap();
    assert!(signed.verify(&root(), &context).is_ok());
}

#[test]
fn who_was_granted_a_role_by_a_removed_admin_is_told_that_it_is_void() {
    let other = with_role(4, "admin");
    let chain = issue_role(
        cluster(),
        &other,
        secret(5).public(),
        "operator".parse().unwrap(),
        NOW / 1_000,
    );
    let mut operator = signed(1, Credential::new(secret(5), chain, &root()).unwrap());
    let before = write(&mut operator, deploy("web", spec("x:1")), NOW);
    let mut remover = signed(2, admin());
    feed(&mut remover, &[before]);
    let order = write(&mut remover, revoke(4), NOW + 1);
    feed(&mut operator, &[order]);
    let refused = operator.propose(&[scale("web", 9)], "", at(NOW + 2));
    assert_eq!(refused, Err(Rejection::GrantorRemoved));
    assert_eq!(service(&operator, "web").unwrap().replicas, 1);
    assert_same(&operator, &remover);
}

#[test]
fn admins_who_remove_each_other_in_two_parts_are_both_removed() {
    let mut one = signed(1, with_role(7, "admin"));
    let mut two = signed(2, with_role(4, "admin"));
    let common = [write(&mut one, deploy("web", spec("x:1")), NOW)];
    feed(&mut two, &common);
    // The parts are cut off from each other, and each admin goes on after its order.
    let first = [
        write(&mut one, revoke(4), NOW + 1),
        write(&mut one, scale("web", 5), NOW + 2),
    ];
    let second = [
        write(&mut two, revoke(7), NOW + 1),
        write(&mut two, scale("web", 7), NOW + 3),
    ];
    // Others hear of it in either order.
    let mut bystanders = [5, 6].map(|n| signed(n, with_role(n, "node")));
    for (bystander, orders) in bystanders
        .iter_mut()
        .zip([[&first, &second], [&second, &first]])
    {
        feed(bystander, &common);
        for order in orders {
            feed(bystander, order);
        }
    }
    feed(&mut one, &second);
    feed(&mut two, &first);
    for document in bystanders.iter().chain([&two]) {
        assert_same(document, &one);
    }
    let trust = one.snapshot().trust.clone();
    for removed in [7, 4] {
        assert!(trust.revoked.contains_key(&secret(removed).public()));
    }
    // What was there before stays, what each wrote after its own removal by the other counts for
    // nothing, and neither can write again.
    assert_eq!(service(&one, "web").unwrap().replicas, 1);
    for (document, again) in [(&mut one, 2), (&mut two, 3)] {
        let refused = document.propose(&[scale("web", again)], "", at(NOW + 9));
        assert!(refused.is_err(), "{refused:?}");
    }
    assert_reads_the_same_from_disk(&one);
    one.compact().unwrap();
    two.compact().unwrap();
    assert_same(&one, &two);
}

#[test]
fn only_an_admin_removes() {
    for role in ["node", "viewer", "operator"] {
        let mut document = signed(1, with_role(4, role));
        let refused = document.propose(&[revoke(5)], "eve", at(NOW)).unwrap_err();
        assert!(matches!(refused, Rejection::NotAllowed { .. }), "{refused}");
    }
}

#[test]
fn tickets_are_known_by_all_counted_and_void_when_their_maker_is_removed() {
    let mut maker = signed(1, with_role(4, "node"));
    let invite = |role: &str| {
        Command::Trust(TrustCommand::Invite {
            invite: secret(20).public().to_string(),
            role: role.to_owned(),
            not_after: NOW / 1_000 + 60,
            uses: 2,
        })
    };
    let refused = maker.propose(&[invite("operator")], "", at(NOW));
    assert!(matches!(refused, Err(Rejection::NotAllowed { .. })));
    let made = write(&mut maker, invite("node"), NOW);
    let mut admin = signed(2, admin());
    feed(&mut admin, &[made]);
    let used = Command::Trust(TrustCommand::Use {
        invite: secret(20).public().to_string(),
        node: secret(21).public().to_string(),
        role: "node".to_owned(),
    });
    let used = write(&mut maker, used, NOW);
    feed(&mut admin, &[used]);
    let trust = admin.snapshot().trust.clone();
    assert_eq!(trust.invites[&secret(20).public()].uses, 2);
    assert!(trust.members().contains(&secret(21).public()));
    write(&mut admin, revoke(4), NOW + 1);
    let trust = admin.snapshot().trust.clone();
    assert!(trust.invites.is_empty());
    assert!(trust.members().contains(&secret(21).public()));
}

#[test]
fn nobody_is_believed_before_the_root_key_is_known() {
    let mut author = signed(1, with_role(4, "operator"));
    let change = write(&mut author, deploy("web", spec("x:1")), NOW);
    let mut newcomer = Document::new(actor(2));
    newcomer.set_rules(Rules::default());
    let early = newcomer.apply_changes(std::slice::from_ref(&change));
    assert_eq!(early.unwrap_err(), Refused::NotJoined);
    let refused = newcomer.propose(&[deploy("a", spec("x"))], "", at(NOW));
    assert_eq!(refused, Err(Rejection::NotJoined));
    newcomer.set_rules(rules(with_role(5, "node")));
    feed(&mut newcomer, &[change]);
    assert_same(&newcomer, &author);
}

#[test]
fn an_expired_certificate_writes_nothing_new() {
    let mut document = signed(1, with_role(4, "operator"));
    let late = NOW + 366 * 24 * 3_600_000;
    let refused = document.propose(&[deploy("web", spec("x"))], "", at(late));
    assert!(matches!(refused, Err(Rejection::Certificate(_))));
}
