use super::*;

const NOW: Seconds = 1_800_000_000;

fn key() -> SecretKey {
    SecretKey::from_seed([1; 32])
}

fn settle(dir: &Path, ticket: Option<&Ticket>) -> Result<Belonging, ClusterError> {
    Belonging::settle(dir, ticket, &key(), NOW)
}

fn ticket(cluster: u8) -> Ticket {
    Ticket {
        cluster: ClusterId([cluster; 16]),
        secret: [2; 16],
        addresses: Vec::new(),
    }
}

#[test]
fn a_founder_is_an_admin_and_stays_in_its_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let first = settle(dir.path(), None).unwrap();
    assert!(first.admin().is_some());
    let second = settle(dir.path(), None).unwrap();
    assert_eq!(second.cluster, first.cluster);
    assert_eq!(cluster_of(dir.path()).unwrap(), Some(first.cluster));
    let refused = settle(dir.path(), Some(&ticket(7))).unwrap_err();
    assert!(matches!(refused, ClusterError::Foreign { .. }), "{refused}");
    assert!(settle(dir.path(), None).is_ok());
}

#[test]
fn secrets_are_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    settle(dir.path(), None).unwrap();
    for file in [CLUSTER_FILE, ROOT_FILE] {
        let mode = fs::metadata(dir.path().join(file)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600, "{file}");
    }
}

#[test]
fn an_invited_node_waits_to_be_let_in_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let invited = settle(dir.path(), Some(&ticket(7))).unwrap();
    assert!(matches!(invited.standing(), Some(Standing::Invited(_))));
    let again = settle(dir.path(), None).unwrap();
    assert!(matches!(again.standing(), Some(Standing::Invited(_))));
    assert!(again.admin().is_none());
}

#[test]
fn a_damaged_file_needs_a_ticket() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(CLUSTER_FILE), "zz").unwrap();
    assert!(matches!(
        settle(dir.path(), None),
        Err(ClusterError::Damaged(_))
    ));
    assert!(settle(dir.path(), Some(&ticket(7))).is_ok());
}

#[test]
fn a_removed_node_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut founder = settle(dir.path(), None).unwrap();
    founder.removed = true;
    founder.remember(dir.path()).unwrap();
    let refused = settle(dir.path(), None).unwrap_err();
    assert!(refused.to_string().contains("was removed"), "{refused}");
}

#[test]
fn a_certificate_is_renewed_after_half_of_its_life() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = settle(dir.path(), None).unwrap();
    let half = NOW + dunlin_trust::NODE_SECONDS / 2;
    assert!(!node.renew(half - 1));
    assert!(node.renew(half));
    let member = node.membership.unwrap();
    let verified = member.node.verify_at(&member.root, half).unwrap();
    assert_eq!(verified.not_before, half);
}

#[test]
fn the_root_key_makes_its_host_an_admin_and_is_kept_when_the_host_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let founder = settle(dir.path(), None).unwrap();
    let root = read_root(dir.path()).unwrap().unwrap();
    let path = dir.path().join(CLUSTER_FILE);
    let mut plain = founder.clone();
    plain.membership.as_mut().unwrap().role = None;
    plain.remember(dir.path()).unwrap();
    assert!(settle(dir.path(), None).unwrap().admin().is_some());
    Belonging::forget(dir.path()).unwrap();
    assert!(!path.exists());
    let kept = dir.path().join(format!("root-{}.key", founder.cluster));
    assert!(kept.exists());
    // The root key of another cluster is not taken for ours.
    write_root(dir.path(), &root).unwrap();
    assert!(matches!(
        settle(dir.path(), Some(&ticket(7))),
        Err(ClusterError::BadRoot(_))
    ));
}
