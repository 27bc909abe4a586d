//! What each kind of key can and cannot do, and that nothing altered is taken for valid.

use proptest::prelude::*;

use super::*;

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

fn with_role(n: u8, role: Role) -> Credential {
    let chain = issue_role(cluster(), &admin(), key(n).public(), role, NOW);
    Credential::new(key(n), chain, &root()).unwrap()
}

#[test]
fn the_founder_is_admin_and_node_and_admits_others() {
    let founding = founding();
    let admin = founding.admin.verify_at(&root(), NOW).unwrap();
    assert_eq!(admin.role(), Some(&Role::Admin));
    let node = founding.node.verify_at(&root(), NOW).unwrap();
    assert_eq!(node.role(), Some(&Role::Node));
    founding.keyring.verify_at(&root(), NOW).unwrap();
    let other = issue_node(cluster(), &founding.keyring, key(4).public(), NOW);
    let other = other.verify_at(&root(), NOW).unwrap();
    assert_eq!(
        (other.subject, other.role()),
        (key(4).public(), Some(&Role::Node))
    );
}

#[test]
fn the_admission_key_grants_nothing_but_nodes() {
    let keyring = founding().keyring;
    let roles = [
        Role::Admin,
        Role::Viewer,
        "operator".parse().unwrap(),
        "operator:shop".parse().unwrap(),
    ];
    for role in roles {
        let forged = keyring.admission.with(Certificate::issue(
            cluster(),
            &keyring.secret.admission_key(),
            key(4).public(),
            Power::Role(role),
            (NOW, NOW + 1_000),
        ));
        let refused = forged.verify(&root());
        assert!(
            matches!(refused, Err(ChainError::Overreach { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn nodes_viewers_and_operators_grant_nothing() {
    for role in [Role::Node, Role::Viewer, "operator".parse().unwrap()] {
        let holder = with_role(4, role);
        let chain = issue_role(cluster(), &holder, key(5).public(), Role::Node, NOW);
        let refused = chain.verify(&root());
        assert!(
            matches!(refused, Err(ChainError::Overreach { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn time_is_kept_with_some_minutes_of_tolerance() {
    let chain = founding().node;
    let verified = chain.verify(&root()).unwrap();
    assert!(verified.check_time(NOW - SKEW_SECONDS).is_ok());
    let early = verified.check_time(NOW - SKEW_SECONDS - 1);
    assert!(matches!(early, Err(ChainError::NotYet { .. })));
    let end = NOW + NODE_SECONDS;
    assert!(verified.check_time(end + SKEW_SECONDS).is_ok());
    let late = verified.check_time(end + SKEW_SECONDS + 1);
    assert!(matches!(late, Err(ChainError::Expired { .. })));
    assert!(!verified.is_half_over(NOW + NODE_SECONDS / 2 - 1));
    assert!(verified.is_half_over(NOW + NODE_SECONDS / 2));
}

#[test]
fn another_clusters_chain_proves_nothing() {
    let other = Founding::new([9; 32], [2; 32], key(3).public(), NOW);
    let refused = other.node.verify(&root());
    assert!(matches!(refused, Err(ChainError::Forged(_))));
}

#[test]
fn rights_follow_the_key() {
    let shop: Role = "operator:shop".parse().unwrap();
    let operator: Role = "operator".parse().unwrap();
    let cases = [
        (Role::Admin, "trust/revoked/x", true),
        (Role::Admin, "svc/shop/web/spec", true),
        (Role::Admin, "of/a/newer/version", true),
        (operator.clone(), "svc/shop/web/spec", true),
        (operator.clone(), "node/x/labels", true),
        (operator.clone(), "trust/revoked/x", false),
        (operator.clone(), "trust/invite/node/x", false),
        (operator, "of/a/newer/version", false),
        (shop.clone(), "svc/shop/web/spec", true),
        (shop.clone(), "rev/shop/web/spec/1-2", true),
        (shop.clone(), "secret/shop/password", true),
        (shop.clone(), "svc/shopping/web/spec", false),
        (shop.clone(), "svc/sho/web/spec", false),
        (shop.clone(), "svc/shop", false),
        (shop, "node/x/availability", false),
        (Role::Node, "trust/use/a/b", true),
        (Role::Node, "trust/invite/node/a", true),
        (Role::Node, "trust/invite/operator/a", false),
        (Role::Node, "trust/revoked/x", false),
        (Role::Node, "svc/shop/web/spec", false),
        (Role::Node, "node/x/availability", false),
        (Role::Viewer, "svc/shop/web/spec", false),
        (Role::Viewer, "trust/use/a/b", false),
    ];
    for (role, key, allowed) in cases {
        let verdict = rights::check(&Power::Role(role.clone()), key);
        assert_eq!(verdict.is_ok(), allowed, "{role} {key}");
    }
    assert!(rights::check(&Power::Admission(1), "trust/use/a/b").is_err());
}

#[test]
fn a_statement_holds_in_its_place_only() {
    let operator = with_role(4, "operator".parse().unwrap());
    let bytes = sign(&operator, cluster(), "svc/a/b/spec", b"text");
    let signed = Signed::decode(&bytes).unwrap();
    assert_eq!(signed.text, b"text");
    let author = signed.verify(&root(), "svc/a/b/spec").unwrap();
    assert_eq!(author.subject, key(4).public());
    let moved = signed.verify(&root(), "svc/a/c/spec");
    assert!(matches!(moved, Err(StatementError::Forged(_))));
    let other = Founding::new([9; 32], [2; 32], key(3).public(), NOW);
    assert!(signed.verify(&other.root.public(), "svc/a/b/spec").is_err());
}

#[test]
fn statements_that_share_a_signature_hold_each_by_itself() {
    let operator = with_role(4, "operator".parse().unwrap());
    let texts: Vec<(String, [u8; 1])> =
        (0..40).map(|n| (format!("svc/a/b{n}/spec"), [n])).collect();
    let all = sign_all(&operator, cluster(), &texts);
    let mut seals = std::collections::BTreeSet::new();
    for (n, bytes) in all.iter().enumerate() {
        let signed = Signed::decode(bytes).unwrap();
        assert_eq!(signed.text, texts[n].1);
        for (m, (context, _)) in texts.iter().enumerate() {
            let verified = signed.verify(&root(), context);
            assert_eq!(verified.is_ok(), n == m, "text {n} in the place of {m}");
        }
        seals.insert(signed.seal(cluster(), &texts[n].0).to_bytes());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let verified = Signed::decode(&damaged).map(|s| s.verify(&root(), &texts[n].0).is_ok());
            assert_ne!(verified, Ok(true), "byte {at} of text {n}");
        }
    }
    assert_eq!(seals.len(), 3, "one signature for every sixteen");
    let alone = sign(&operator, cluster(), "svc/a/b/spec", b"text");
    assert_eq!(
        sign_all(&operator, cluster(), &[("svc/a/b/spec", b"text")]),
        [alone]
    );
}

#[test]
fn a_box_opens_for_its_receiver_only() {
    let sealed = seal_box(&key(4).public(), [7; 32], b"secret").unwrap();
    assert_eq!(sealed.len(), 6 + BOX_OVERHEAD);
    assert_eq!(open_box(&key(4), &sealed).unwrap(), b"secret");
    assert_eq!(open_box(&key(5), &sealed), Err(BoxError::Closed));
    assert_eq!(
        seal_box(&PublicKey([0; 32]), [7; 32], b"x"),
        Err(BoxError::NoKey)
    );
}

#[test]
fn a_sealed_file_opens_with_its_passphrase_only() {
    let file = SealedFile::seal("correct horse", [7; 40], b"root").unwrap();
    assert_eq!(SealedFile::open("correct horse", &file).unwrap(), b"root");
    let wrong = SealedFile::open("correct hors", &file);
    assert_eq!(wrong, Err(PassphraseError::Wrong));
    let none = SealedFile::open("x", "something else");
    assert_eq!(none, Err(PassphraseError::NotSealed));
}

#[test]
fn an_invite_is_proven_to_one_member_for_one_newcomer() {
    let invite = InviteKey::of(&[8; 16]);
    let (newcomer, member) = (key(4).public(), key(3).public());
    let proof = invite.prove(cluster(), &newcomer, &member);
    let proven =
        |n: &PublicKey, m: &PublicKey| InviteKey::is_proven(&invite.id(), cluster(), n, m, &proof);
    assert!(proven(&newcomer, &member));
    assert!(!proven(&key(5).public(), &member));
    assert!(!proven(&newcomer, &key(5).public()));
}

fn ticket() -> Ticket {
    Ticket {
        cluster: cluster(),
        secret: [9; 16],
        addresses: vec![
            "10.0.0.1:7400".parse().unwrap(),
            "[fd00::1]:7400".parse().unwrap(),
        ],
    }
}

#[test]
fn a_ticket_can_be_read_and_every_changed_character_is_noticed() {
    let text = ticket().to_string();
    assert_eq!(format!(" {text}\n").parse(), Ok(ticket()));
    for at in "dunlin2-".len()..text.len() {
        let mut changed = text.clone().into_bytes();
        changed[at] = if changed[at] == b'a' { b'b' } else { b'a' };
        let changed = String::from_utf8(changed).unwrap();
        assert_eq!(
            changed.parse::<Ticket>(),
            Err(BadTicket::Damaged),
            "at {at}"
        );
    }
    assert!(!format!("{:?}", ticket()).contains("9, 9"));
}

#[test]
fn what_is_no_ticket_is_told_apart() {
    let cases = [
        ("", BadTicket::NotATicket),
        ("SWMTKN-1-abc", BadTicket::NotATicket),
        ("dunlin1-abc", BadTicket::Older),
        ("dunlin3-abc", BadTicket::Newer),
        ("dunlin2-", BadTicket::Damaged),
        ("dunlin2-!!", BadTicket::Damaged),
    ];
    for (text, error) in cases {
        assert_eq!(text.parse::<Ticket>(), Err(error), "{text}");
    }
}

#[test]
fn roles_are_read_as_they_are_written() {
    for text in ["node", "viewer", "operator", "operator:a,b", "admin"] {
        assert_eq!(text.parse::<Role>().unwrap().to_string(), text);
    }
    for text in [
        "",
        "root",
        "operator:",
        "operator:A",
        "operator:a,",
        "Admin",
    ] {
        assert!(text.parse::<Role>().is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn no_changed_bit_of_a_chain_goes_unnoticed(at: prop::sample::Index, bit in 0u8..8) {
        let mut bytes = founding().node.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let taken = Chain::decode(&bytes).is_ok_and(|chain| chain.verify_at(&root(), NOW).is_ok());
        prop_assert!(!taken);
    }

    #[test]
    fn a_chain_has_one_encoding(names in proptest::collection::btree_set("[a-z0-9-]{1,8}", 1..6)) {
        let role = Role::Operator(Namespaces::Only(names));
        let chain = with_role(4, role).chain().clone();
        let decoded = Chain::decode(&chain.encode()).unwrap();
        prop_assert_eq!(decoded.encode(), chain.encode());
        prop_assert_eq!(decoded, chain);
    }

    #[test]
    fn noise_is_no_chain_statement_or_keyring(noise in proptest::collection::vec(any::<u8>(), 0..600)) {
        let chain = Chain::decode(&noise).is_ok_and(|chain| chain.verify(&root()).is_ok());
        let signed = Signed::decode(&noise).is_ok_and(|s| s.verify(&root(), "a").is_ok());
        let keyring = Keyring::decode(&noise).is_ok_and(|k| k.verify_at(&root(), NOW).is_ok());
        prop_assert!(!chain && !signed && !keyring);
    }
}
