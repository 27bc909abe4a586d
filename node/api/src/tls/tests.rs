//! The envelope, and whom a client trusts.

use dunlin_trust::{Certificate, Credential, Founding, issue_role};

use super::*;

const NOW: u64 = 1_800_000_000;

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed([n; 32])
}

/// A cluster that node `n` has founded.
fn founding(n: u8) -> Founding {
    Founding::new([n; 32], [n; 32], key(n).public(), NOW)
}

fn node(n: u8) -> Proof {
    let founding = founding(n);
    Proof {
        root: founding.root.public(),
        chain: founding.node,
    }
}

fn shown(n: u8, proof: Option<&Proof>) -> Presented {
    let certified = certified(&key(n), proof).unwrap();
    Presented::read(&certified.cert[0]).unwrap()
}

#[test]
fn what_is_presented_is_what_is_read() {
    let proof = node(1);
    let seen = shown(1, Some(&proof));
    assert_eq!(seen.key, key(1).public());
    assert_eq!(seen.proof, Some(proof));
    assert_eq!(shown(2, None).proof, None);
}

#[test]
fn a_client_speaks_to_nodes_of_its_cluster_only() {
    let (ours, theirs) = (node(1), node(2));
    let expected = Expected::Root(ours.root);
    let by_ticket = Expected::Cluster(ClusterId::of(&ours.root));
    let server = shown(1, Some(&ours));
    for expected in [expected, by_ticket] {
        assert_eq!(expected.check(&server, NOW), Ok(ours.clone()));
        let foreign = expected.check(&shown(2, Some(&theirs)), NOW);
        assert!(
            matches!(foreign, Err(Distrust::Foreign { .. })),
            "{foreign:?}"
        );
        let stolen = expected.check(&shown(3, Some(&ours)), NOW);
        assert_eq!(stolen, Err(Distrust::NotItsOwn));
        let bare = expected.check(&shown(1, None), NOW);
        assert!(matches!(bare, Err(Distrust::NotOurs(_))), "{bare:?}");
        let later = expected.check(&server, NOW + 400 * 24 * 3_600);
        assert!(matches!(
            later,
            Err(Distrust::Chain(ChainError::Expired { .. }))
        ));
        // Names the root key of another cluster, without its signature.
        let forged = Proof {
            root: ours.root,
            chain: theirs.chain.clone(),
        };
        let forged = expected.check(&shown(2, Some(&forged)), NOW);
        assert!(matches!(
            forged,
            Err(Distrust::Chain(ChainError::Forged(_)))
        ));
    }
}

#[test]
fn an_operator_cannot_pose_as_a_node() {
    let founding = founding(1);
    let root = founding.root.public();
    let admin = Credential::new(key(1), founding.admin, &root).unwrap();
    let role = "operator:a".parse().unwrap();
    let chain = issue_role(ClusterId::of(&root), &admin, key(5).public(), role, NOW);
    let proof = Proof { root, chain };
    let refused = Expected::Root(root).check(&shown(5, Some(&proof)), NOW);
    assert_eq!(refused, Err(Distrust::NoNode("operator:a".to_owned())));
}

#[test]
fn damaged_certificates_are_refused_and_never_panic() {
    let whole = certified(&key(1), Some(&node(1))).unwrap().cert[0].to_vec();
    for cut in 0..whole.len() {
        assert!(Presented::read(&CertificateDer::from(&whole[..cut])).is_err());
    }
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x81;
        // Whatever can still be read is not believed: a key or a chain has changed.
        let _read_or_not = Presented::read(&CertificateDer::from(bytes));
    }
    let long = vec![0x30; MAX_PRESENTED + 1];
    assert!(Presented::read(&CertificateDer::from(long)).is_err());
}

#[test]
fn the_longest_chain_fits() {
    let founding = founding(1);
    let root = founding.root.public();
    let names: Vec<String> = (0..32).map(|n| format!("{n:a>63}")).collect();
    let role: Role = format!("operator:{}", names.join(",")).parse().unwrap();
    let admin = Credential::new(key(1), founding.admin, &root).unwrap();
    let power = Power::Role(role);
    let subject = key(2).public();
    let cluster = ClusterId::of(&root);
    let leaf = Certificate::issue(cluster, admin.key(), subject, power, (NOW, NOW + 1));
    let proof = Proof {
        root,
        chain: admin.chain().with(leaf),
    };
    assert_eq!(shown(2, Some(&proof)).proof, Some(proof));
}
