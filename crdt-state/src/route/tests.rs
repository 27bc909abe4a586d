use std::sync::Arc;

use super::*;
use crate::desired::{Assigned, Service};
use crate::model::{Claim, NodeReport, Resources, ServiceSpec, SlotId, Version, VipIndex};
use crate::observed::{Register, SharedSecret};

fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn range() -> VipRange {
    VipRange::new(Some([10, 93, 0, 0].into()), None)
}

fn key(name: &str) -> ServiceKey {
    name.parse().unwrap()
}

fn desired(running: bool) -> Desired {
    let mut desired = Desired::default();
    let spec = ServiceSpec {
        image: "nginx".to_owned(),
        ports: vec![PortSpec {
            target: 80,
            ..PortSpec::default()
        }],
        ..ServiceSpec::default()
    };
    desired.services.insert(
        key("web"),
        Service {
            spec: Arc::new(spec),
            revision: "r1".to_owned(),
            replicas: 2,
            running,
            rollout: Default::default(),
            jobs: Default::default(),
        },
    );
    desired
}

fn claim(name: &str, index: u32, phase: Phase, ready: bool) -> Claim {
    Claim {
        slot: SlotId {
            service: key(name),
            slot: Slot::Replica(index),
        },
        epoch: 1,
        revision: "r0".to_owned(),
        phase,
        ready,
        leaving: false,
        since: 0,
        resources: Resources::ZERO,
        host_ports: Vec::new(),
        endpoints: vec![Endpoint {
            target: 80,
            protocol: Default::default(),
            address: "10.0.0.1:8080".parse().unwrap(),
        }],
        restarts: 0,
        last_exit: None,
        message: None,
        workload: None,
        started_at: None,
        trial: crate::model::Trial::default(),
        moved_from: None,
        history: Vec::new(),
        outputs: crate::model::Outputs::default(),
    }
}

fn observed(claims: Vec<(u8, Vec<Claim>)>) -> ObservedTable {
    let mut table = ObservedTable::default();
    for (n, claims) in claims {
        let report = NodeReport {
            claims,
            ..NodeReport::default()
        };
        let seal = SharedSecret::new(node(n), [1; 32]);
        let version = Version { boot: 1, seq: 1 };
        let register = Register::first(node(n), version, report, &seal).unwrap();
        table.merge(Arc::new(register));
    }
    table
}

fn slots(table: &RouteTable) -> Vec<(u8, Slot)> {
    let backends = &table.services[&key("web")].backends;
    backends
        .iter()
        .map(|b| (b.node.as_bytes()[0], b.slot))
        .collect()
}

#[test]
fn offers_only_what_is_ready_and_runs_on_a_serving_node() {
    let observed = observed(vec![
        (
            2,
            vec![
                claim("web", 1, Phase::Running, true),
                claim("web", 2, Phase::Running, false),
                claim("web", 3, Phase::Starting, true),
                claim("gone", 0, Phase::Running, true),
            ],
        ),
        (1, vec![claim("web", 0, Phase::Running, true)]),
        (3, vec![claim("web", 0, Phase::Running, true)]),
    ]);
    let table = project(&desired(true), &observed, range(), |n| n != node(3));
    assert_eq!(
        slots(&table),
        [(1, Slot::Replica(0)), (2, Slot::Replica(1))]
    );
    assert_eq!(table.services.len(), 1);
    assert_eq!(table.services[&key("web")].ports.len(), 1);
    let serving: Vec<bool> = table.nodes.values().map(|n| n.serving).collect();
    assert_eq!(serving, [true, true, false]);
}

#[test]
fn a_stopped_service_keeps_its_name_and_has_no_backend() {
    let observed = observed(vec![(1, vec![claim("web", 0, Phase::Running, true)])]);
    let table = project(&desired(false), &observed, range(), |_| true);
    assert!(slots(&table).is_empty());
}

#[test]
fn a_slot_of_the_wrong_kind_is_not_offered() {
    let mut wrong = claim("web", 0, Phase::Running, true);
    wrong.slot.slot = Slot::Node(node(1));
    let observed = observed(vec![(1, vec![wrong])]);
    let table = project(&desired(true), &observed, range(), |_| true);
    assert!(slots(&table).is_empty());
}

#[test]
fn labels_of_the_cluster_win_and_addresses_come_from_the_range() {
    let mut desired = desired(true);
    let index = VipIndex::new(300).unwrap();
    let assigned = Assigned {
        index,
        written: true,
    };
    desired.vips = Arc::new(BTreeMap::from([(key("web"), assigned)]));
    let intent = desired.nodes.entry(node(1)).or_default();
    intent.labels.insert("zone".to_owned(), "north".to_owned());
    let table = project(&desired, &observed(vec![(1, Vec::new())]), range(), |_| {
        true
    });
    assert_eq!(
        table.services[&key("web")].vip.v4,
        Some([10, 93, 1, 44].into())
    );
    assert_eq!(table.nodes[&node(1)].zone.as_deref(), Some("north"));
}
