use std::collections::BTreeMap;

use dunlin_state::model::{Phase, Resources, ServiceSpec, SlotId, Version};
use proptest::prelude::*;

use super::*;

fn id(index: u8) -> NodeId {
    NodeId::from_bytes([index; 32])
}

fn key(index: u8) -> ServiceKey {
    format!("s{index}").parse().unwrap()
}

fn claim(service: u8, slot: u32, epoch: u64, leaving: bool) -> Claim {
    Claim {
        slot: SlotId {
            service: key(service),
            slot: Slot::Replica(slot),
        },
        epoch,
        revision: String::new(),
        phase: Phase::Running,
        ready: true,
        leaving,
        since: 0,
        resources: Resources::ZERO,
        host_ports: Vec::new(),
        endpoints: Vec::new(),
        restarts: 0,
        last_exit: None,
        message: None,
        workload: None,
        started_at: None,
        trial: dunlin_state::model::Trial::default(),
        moved_from: None,
        history: Vec::new(),
        outputs: dunlin_state::model::Outputs::default(),
    }
}

fn register(node: NodeId, seq: u64, claims: Vec<Claim>) -> Arc<NodeRegister> {
    Arc::new(NodeRegister {
        node,
        version: Version { boot: 1, seq },
        report: NodeReport {
            claims,
            ..NodeReport::default()
        },
    })
}

fn desired(replicas: u32) -> Desired {
    let service = Service {
        spec: Arc::new(ServiceSpec::default()),
        revision: "r".to_owned(),
        replicas,
        running: true,
        rollout: Default::default(),
        jobs: Default::default(),
    };
    Desired {
        services: (0..3).map(|s| (key(s), service.clone())).collect(),
        ..Desired::default()
    }
}

#[test]
fn every_service_has_one_first_rank_and_ranks_move_little() {
    let nodes: Vec<NodeId> = (0..20).map(id).collect();
    let first = |without: Option<NodeId>, service: u8| {
        let desired = Desired {
            services: BTreeMap::from([(key(service), desired(1).services[&key(0)].clone())]),
            ..Desired::default()
        };
        let mut cluster = Cluster::new(nodes[0]);
        for node in &nodes {
            let _ = cluster.set_standing(*node, Standing::Alive, &desired);
        }
        let _ = cluster.set_service(&key(service), &desired);
        if let Some(gone) = without {
            let _ = cluster.set_standing(gone, Standing::Gone, &desired);
        }
        cluster.auctioneers(&key(service))[0]
    };
    let mut moved = 0;
    let mut auctioneers = BTreeSet::new();
    for service in 0..100 {
        let before = first(None, service);
        auctioneers.insert(before);
        moved += usize::from(first(Some(nodes[7]), service) != before);
    }
    assert!(
        auctioneers.len() > 15,
        "spread over {} nodes",
        auctioneers.len()
    );
    assert!((1..12).contains(&moved), "{moved} of 100 moved");
}

/// What happens to the cluster.
#[derive(Debug, Clone)]
enum Step {
    Claims(u8, Vec<(u8, u32, bool)>),
    Stands(u8, Standing),
    Scale(u32),
    Hold(u8, bool),
    Forget(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let claims = proptest::collection::vec((0..3u8, 0..6u32, any::<bool>()), 0..6);
    let standing = prop_oneof![
        Just(Standing::Alive),
        Just(Standing::Suspect),
        Just(Standing::Gone),
        Just(Standing::Left)
    ];
    prop_oneof![
        4 => (1..6u8, claims).prop_map(|(node, claims)| Step::Claims(node, claims)),
        2 => (1..6u8, standing).prop_map(|(node, standing)| Step::Stands(node, standing)),
        1 => (0..6u32).prop_map(Step::Scale),
        1 => (0..3u8, any::<bool>()).prop_map(|(service, held)| Step::Hold(service, held)),
        1 => (1..6u8).prop_map(Step::Forget),
    ]
}

proptest! {
    /// The index says what a search through all registers would.
    #[test]
    fn the_index_equals_a_search(steps in proptest::collection::vec(step(), 1..40)) {
        let mut desired = desired(3);
        let mut cluster = Cluster::new(id(0));
        for service in 0..3 {
            let _ = cluster.set_service(&key(service), &desired);
        }
        for (seq, step) in steps.into_iter().enumerate() {
            match step {
                Step::Claims(node, claims) => {
                    let mut claims: Vec<Claim> = claims
                        .into_iter()
                        .map(|(service, slot, leaving)| claim(service, slot, seq as u64, leaving))
                        .collect();
                    if seq % 2 == 0 {
                        claims.sort_by(|a, b| a.slot.cmp(&b.slot));
                        claims.dedup_by(|a, b| a.slot == b.slot);
                    }
                    let _ = cluster.set_register(&register(id(node), seq as u64, claims), true);
                }
                Step::Stands(node, standing) => {
                    let _ = cluster.set_standing(id(node), standing, &desired);
                }
                Step::Scale(replicas) => {
                    for service in desired.services.values_mut() {
                        service.replicas = replicas;
                    }
                    for service in 0..3 {
                        let _ = cluster.set_service(&key(service), &desired);
                    }
                }
                Step::Hold(service, held) => cluster.set_held(&key(service), held, &desired),
                Step::Forget(node) => {
                    let _ = cluster.forget(id(node), &desired);
                }
            }
            check(&cluster, &desired)?;
        }
    }
}

fn check(cluster: &Cluster, desired: &Desired) -> Result<(), TestCaseError> {
    for service in 0..3 {
        let Some(watch) = cluster.watch(&key(service)) else {
            continue;
        };
        let wanted = desired.services[&key(service)].replicas;
        let vacant: BTreeSet<u32> = (0..wanted)
            .filter(|slot| {
                !cluster.nodes().any(|(_, node)| {
                    let claims = node.register.iter().flat_map(|r| &r.report.claims);
                    let mut last: BTreeMap<&SlotId, &Claim> = BTreeMap::new();
                    for claim in claims {
                        last.insert(&claim.slot, claim);
                    }
                    last.values().any(|c| {
                        node.standing.holds_claims()
                            && c.slot.service == key(service)
                            && c.slot.slot == Slot::Replica(*slot)
                            && !c.leaving
                    })
                })
            })
            .collect();
        prop_assert_eq!(watch.vacant(), &vacant);
    }
    Ok(())
}
