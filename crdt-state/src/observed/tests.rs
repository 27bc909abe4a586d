use super::*;
use crate::model::{NodeReport, Phase, Resources, Slot, SlotId};

fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn register(n: u8, boot: u64, seq: u64) -> Arc<NodeRegister> {
    Arc::new(NodeRegister {
        node: node(n),
        version: Version { boot, seq },
        report: NodeReport::default(),
    })
}

fn table(registers: &[(u8, u64, u64)]) -> ObservedTable {
    let mut table = ObservedTable::default();
    for (n, boot, seq) in registers {
        table.merge(register(*n, *boot, *seq));
    }
    table
}

#[test]
fn the_newest_register_wins_in_any_order() {
    let mut a = table(&[(1, 1, 9), (1, 2, 0), (2, 1, 1)]);
    let b = table(&[(2, 1, 1), (1, 2, 0), (1, 1, 9)]);
    assert_eq!(a, b);
    assert_eq!(a.version(node(1)), Some(Version { boot: 2, seq: 0 }));
    assert!(!a.merge(register(1, 2, 0)), "the same again is no news");
}

#[test]
fn digests_find_what_each_side_lacks() {
    let ours = table(&[(1, 1, 5), (2, 1, 1), (3, 1, 1)]);
    let theirs = table(&[(1, 1, 4), (2, 1, 2), (4, 1, 1)]);
    let newer: Vec<NodeId> = ours
        .newer_than(&theirs.digest(), usize::MAX)
        .iter()
        .map(|r| r.node)
        .collect();
    assert_eq!(newer, [node(1), node(3)]);
    assert_eq!(ours.missing(&theirs.digest()), [node(2), node(4)]);
}

#[test]
fn rounds_of_bounded_size_reach_everything() {
    let ours = table(&[(1, 1, 1), (2, 1, 1), (3, 1, 1), (4, 1, 1)]);
    let mut theirs = ObservedTable::default();
    let mut rounds = 0;
    while theirs != ours {
        let sent = ours.newer_than(&theirs.digest(), 1);
        assert_eq!(sent.len(), 1, "one always goes, however small the room");
        for register in sent {
            theirs.merge(register);
        }
        rounds += 1;
    }
    assert_eq!(rounds, 4);
}

#[test]
fn a_digest_with_a_node_twice_counts_its_newest_version() {
    let ours = table(&[(1, 1, 5)]);
    let old = (node(1), Version { boot: 1, seq: 1 });
    let new = (node(1), Version { boot: 1, seq: 5 });
    assert!(ours.newer_than(&[new, old], usize::MAX).is_empty());
}

fn claim(name: &str) -> crate::model::Claim {
    crate::model::Claim {
        slot: SlotId {
            service: name.parse().unwrap(),
            slot: Slot::Replica(0),
        },
        epoch: 1,
        revision: String::new(),
        phase: Phase::Running,
        ready: true,
        leaving: false,
        since: 0,
        resources: Resources::ZERO,
        host_ports: Vec::new(),
        endpoints: Vec::new(),
        restarts: 0,
        last_exit: None,
        message: None,
        workload: None,
        started_at: None,
    }
}

#[test]
fn bounds_are_checked() {
    let with = |change: &dyn Fn(&mut NodeReport)| {
        let mut register = (*register(1, 1, 1)).clone();
        change(&mut register.report);
        check(&register)
    };
    assert_eq!(
        with(&|r| r.claims = vec![claim("web"), claim("db")]),
        Ok(())
    );
    let duplicate = with(&|r| r.claims = vec![claim("web"), claim("db"), claim("web")]);
    assert!(matches!(duplicate, Err(BadRegister::DuplicateClaim(_))));
    let many = with(&|r| {
        r.claims = (0..=MAX_CLAIMS).map(|n| claim(&format!("s{n}"))).collect();
    });
    assert!(matches!(many, Err(BadRegister::TooMany { .. })));
    let long = with(&|r| r.name = "x".repeat(300));
    assert!(matches!(long, Err(BadRegister::TooLong { .. })));
    let huge = with(&|r| {
        r.claims = (0..MAX_CLAIMS)
            .map(|n| crate::model::Claim {
                message: Some("x".repeat(1_000)),
                ..claim(&format!("s{n}"))
            })
            .collect();
    });
    assert!(matches!(huge, Err(BadRegister::TooLong { .. })));
}

#[test]
fn the_size_is_never_underestimated() {
    let mut register = (*register(1, u64::MAX, u64::MAX)).clone();
    let mut big = claim("a-service-with-a-long-name");
    big.since = u64::MAX;
    big.started_at = Some(u64::MAX);
    big.resources = Resources {
        cpu_millis: u64::MAX,
        memory: u64::MAX,
        disk: u64::MAX,
    };
    big.message = Some("no space left on device".to_owned());
    register.report.claims = vec![big; 3];
    register.report.labels = [("zone".to_owned(), "north".to_owned())].into();
    let encoded = serde_json::to_vec(&register).unwrap().len();
    // JSON spells every field name out for every claim and is the largest encoding in use.
    assert!(
        size(&register) * 2 > encoded,
        "{} against {encoded}",
        size(&register)
    );
}
