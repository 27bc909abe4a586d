//! The order of auctions in a cluster that is nearly full.

use super::*;
use crate::bidding::turns::{TURN_MS, Turns};

fn small() -> ServiceKey {
    "small".parse().unwrap()
}

/// Five nodes of two cores; `web` wants one core for each of its replicas, `small` a quarter.
fn crowd(large: u32, little: u32) -> (Cluster, Desired) {
    let mut desired = desired(1_000, large);
    let mut other = desired.services[&web()].clone();
    let mut spec = ServiceSpec::clone(&other.spec);
    spec.reservation.cpu_millis = 250;
    other.spec = Arc::new(spec);
    other.replicas = little;
    desired.services.insert(small(), other);
    let mut cluster = Cluster::new(id(0));
    for node in 0..5 {
        let _ = cluster.set_standing(id(node), Standing::Alive, &desired);
        tell(&mut cluster, node, 1, Vec::new());
    }
    let _ = cluster.set_service(&web(), &desired);
    (cluster, desired)
}

fn tell(cluster: &mut Cluster, node: u8, seq: u64, claims: Vec<Claim>) {
    let report = NodeReport {
        claims,
        ..report(2_000)
    };
    let version = Version { boot: 1, seq };
    let node = id(node);
    let register = NodeRegister {
        node,
        version,
        report,
    };
    let _ = cluster.set_register(&Arc::new(register), true);
}

fn wait(cluster: &Cluster, desired: &Desired, service: &ServiceKey) -> u64 {
    let floor = Floor {
        cluster,
        desired,
        open: true,
    };
    let reservation = desired.services[service].spec.reservation;
    Turns::default().wait(reservation, floor, 1_000)
}

#[test]
fn small_replicas_wait_for_larger_ones_where_room_is_scarce() {
    let (cluster, desired) = crowd(7, 10);
    assert_eq!(wait(&cluster, &desired, &web()), 0);
    assert_eq!(wait(&cluster, &desired, &small()), TURN_MS);
}

#[test]
fn nobody_waits_where_there_is_room() {
    // Seven and a half of ten cores.
    let (cluster, desired) = crowd(5, 10);
    assert_eq!(wait(&cluster, &desired, &small()), 0);
}

#[test]
fn nobody_waits_for_what_has_been_placed() {
    let (mut cluster, desired) = crowd(7, 10);
    let spec = &desired.services[&web()].spec;
    let won = |index: u8| {
        let slot = SlotId {
            service: web(),
            slot: Slot::Replica(u32::from(index)),
        };
        Claim::won(slot, 1, "r1", spec, 0)
    };
    for node in 0..5 {
        // The last two slots are second ones of their nodes.
        let held = [node, node + 5].into_iter().filter(|index| *index < 7);
        tell(&mut cluster, node, 2, held.map(won).collect());
    }
    assert_eq!(wait(&cluster, &desired, &small()), 0);
    tell(&mut cluster, 3, 3, Vec::new());
    assert_eq!(wait(&cluster, &desired, &small()), TURN_MS);
}

#[test]
fn what_reserves_nothing_waits_for_nobody() {
    let (cluster, mut desired) = crowd(12, 0);
    let service = desired.services.get_mut(&small()).unwrap();
    service.replicas = 3;
    service.spec = Arc::new(ServiceSpec::default());
    assert_eq!(wait(&cluster, &desired, &small()), 0);
}
