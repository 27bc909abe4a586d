//! Registers as they are written, sent and put together.

mod bounds;
mod envelopes;

use super::*;
use crate::model::{Claim, NodeReport, Phase, Resources, Slot, SlotId};

fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn seal(n: u8) -> SharedSecret {
    SharedSecret::new(node(n), [9; 32])
}

fn register(n: u8, boot: u64, seq: u64) -> Arc<Register> {
    let version = Version { boot, seq };
    Arc::new(Register::first(node(n), version, NodeReport::default(), &seal(n)).unwrap())
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
    a.forget(node(1));
    assert!(a.get(node(1)).is_none());
    assert_eq!(a.len(), 1);
}

fn claim(name: &str) -> Claim {
    claim_of(name, Slot::Replica(0))
}

fn claim_of(name: &str, slot: Slot) -> Claim {
    Claim {
        slot: SlotId {
            service: name.parse().unwrap(),
            slot,
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
        trial: Default::default(),
        moved_from: None,
        history: Vec::new(),
        outputs: crate::model::Outputs::default(),
    }
}
