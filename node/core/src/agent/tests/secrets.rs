//! Secrets among several agents: who gets which key, and what waits for it.

use dunlin_state::model::{
    Constraint, ConstraintOp, FileMount, NodeId, Phase, ServiceSpec, Slot, SlotId,
};
use proptest::prelude::*;

use super::flock::{Flock, key, node_id, process_spec};
use crate::io::RuntimeEvent;
use crate::secrets::Message;

fn spec() -> ServiceSpec {
    ServiceSpec {
        secrets: vec![FileMount {
            source: "pw".to_owned(),
            ..FileMount::default()
        }],
        ..process_spec()
    }
}

fn with_holder(nodes: usize, replicas: u32) -> Flock {
    let mut flock = Flock::new(nodes);
    // Node 0 has written it, and keeps its key without any other reason only as long as it needs it.
    flock.secret("pw", "one", &[node_id(0)]);
    flock.deploy("web", spec(), replicas);
    flock
}

fn messages(flock: &Flock) -> Vec<String> {
    flock.claims().filter_map(|(_, c)| c.message).collect()
}

#[test]
fn a_replica_waits_for_its_secret_and_says_so() {
    let mut flock = Flock::new(3);
    flock.deploy("web", spec(), 2);
    flock.run(3_000);
    let waiting: Vec<_> = flock.claims().collect();
    assert_eq!(waiting.len(), 2);
    for (_, claim) in waiting {
        assert_eq!(claim.phase, Phase::Claimed);
        let message = claim.message.unwrap();
        assert!(
            message.contains("'default/pw', which does not exist"),
            "{message}"
        );
    }
    let all: Vec<NodeId> = (0..3).map(node_id).collect();
    flock.secret("pw", "one", &all);
    let took = flock.run_until(5_000, |f| f.is_exact("web")).unwrap();
    assert!(took < 100, "what has come is told at once: {took} ms");
    assert!(flock.blind_starts.is_empty(), "{:?}", flock.blind_starts);
}

#[test]
fn only_nodes_with_a_slot_get_the_key_and_lose_it_with_the_slot() {
    let mut flock = with_holder(9, 3);
    // Its key is beside it for node 0 alone, which has to have a slot to open it.
    flock.edit(|d| {
        let service = d.services.get_mut(&key("web")).unwrap();
        let mut spec = ServiceSpec::clone(&service.spec);
        spec.placement.max_per_node = Some(1);
        service.spec = spec.into();
        service.replicas = 9;
    });
    assert!(flock.run_until(20_000, |f| f.is_exact("web")).is_some());
    assert!(flock.blind_starts.is_empty(), "{:?}", flock.blind_starts);
    flock.edit(|d| d.services.get_mut(&key("web")).unwrap().replicas = 4);
    assert!(flock.run_until(20_000, |f| f.is_exact("web")).is_some());
    flock.run(1_000);
    let holders: Vec<NodeId> = flock.claims().map(|(node, _)| node).collect();
    for index in 0..9 {
        let id = node_id(index);
        let opens = flock.vaults.get(&id).is_some_and(|vault| !vault.is_empty());
        assert_eq!(opens, holders.contains(&id), "n{index}");
    }
}

#[test]
fn a_holder_seals_for_who_takes_over_after_the_writer_has_gone() {
    let mut flock = with_holder(4, 1);
    flock.edit(|d| {
        let service = d.services.get_mut(&key("web")).unwrap();
        let mut spec = ServiceSpec::clone(&service.spec);
        spec.placement.max_per_node = Some(1);
        service.spec = spec.into();
        service.replicas = 4;
    });
    assert!(flock.run_until(20_000, |f| f.is_exact("web")).is_some());
    flock.kill(node_id(0));
    flock.edit(|d| d.services.get_mut(&key("web")).unwrap().replicas = 2);
    assert!(flock.run_until(20_000, |f| f.is_exact("web")).is_some());
    flock.given.clear();
    // Whoever is left passes it on to those that have forgotten it.
    flock.edit(|d| d.services.get_mut(&key("web")).unwrap().replicas = 3);
    assert!(flock.run_until(20_000, |f| f.is_exact("web")).is_some());
    assert_eq!(flock.given.len(), 1, "{:?}", flock.given);
    assert!(flock.blind_starts.is_empty(), "{:?}", flock.blind_starts);
}

#[test]
fn when_nobody_is_left_to_open_it_the_replica_waits_until_it_is_set_anew() {
    let mut flock = Flock::new(3);
    flock.secret("pw", "one", &[NodeId::from_bytes([9; 32])]);
    flock.deploy("web", spec(), 1);
    assert!(flock.run_until(20_000, |f| f.is_exact("web")).is_none());
    let told = messages(&flock);
    assert!(
        told[0].contains("no node that can open it answers"),
        "{told:?}"
    );
    assert!(told[0].contains("dunlin secret update"), "{told:?}");
    let all: Vec<NodeId> = (0..3).map(node_id).collect();
    flock.secret("pw", "two", &all);
    assert!(flock.run_until(5_000, |f| f.is_exact("web")).is_some());
}

#[test]
fn a_new_version_is_brought_to_what_runs_without_a_restart() {
    let mut flock = with_holder(3, 3);
    let all: Vec<NodeId> = (0..3).map(node_id).collect();
    flock.secret("pw", "one", &all);
    assert!(flock.run_until(20_000, |f| f.is_exact("web")).is_some());
    let before = flock.running();
    flock.refreshed.clear();
    flock.secret("pw", "two", &all[..1]);
    let holders = flock.claims().count();
    let done = |f: &Flock| f.refreshed.len() >= holders;
    let took = flock.run_until(20_000, done);
    assert!(took.is_some(), "{:?}", flock.refreshed);
    assert_eq!(flock.running(), before, "nothing was restarted");
}

#[test]
fn a_node_without_a_slot_is_not_given_the_key() {
    let mut flock = with_holder(3, 1);
    flock.edit(|d| {
        let service = d.services.get_mut(&key("web")).unwrap();
        let mut spec = ServiceSpec::clone(&service.spec);
        spec.placement.constraints = vec![Constraint::new(
            "node.id",
            ConstraintOp::Equal,
            node_id(0).to_string(),
        )];
        service.spec = spec.into();
    });
    assert!(flock.run_until(20_000, |f| f.is_exact("web")).is_some());
    flock.given.clear();
    let content = flock.desired.items.secrets[&"default/pw".parse().unwrap()].content;
    let now = flock.now();
    let want = || Message::Want {
        secret: "default/pw".parse().unwrap(),
        content,
        proof: None,
    };
    let holder = flock.nodes.get_mut(&node_id(0)).unwrap();
    let agent = holder.agent.as_mut().unwrap();
    assert!(agent.secret_message(node_id(1), want(), now).is_empty());
    // It lies: it claims the slot with a greater epoch, which the constraint does not let it have.
    let mut register = agent
        .registers()
        .find(|r| r.node == node_id(1))
        .map(|r| (**r).clone())
        .unwrap();
    let mut claim = agent.report().claims[0].clone();
    claim.slot = SlotId {
        service: key("web"),
        slot: Slot::Replica(0),
    };
    claim.epoch += 100;
    register.report.claims = vec![claim];
    register.version.seq += 100;
    let _told = agent.registers_changed([&register.into()], now);
    assert!(agent.secret_message(node_id(1), want(), now).is_empty());
    // A certificate that is none, of whatever length, proves nothing.
    for length in [0, 1, 40, 4_096] {
        let message = Message::Want {
            secret: "default/pw".parse().unwrap(),
            content,
            proof: Some(vec![1; length].into()),
        };
        assert!(agent.secret_message(node_id(1), message, now).is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever dies, comes back and is rotated: nothing starts without its secret, and once all
    /// nodes are there everything runs.
    #[test]
    fn secrets_follow_their_slots(
        steps in proptest::collection::vec((0..4_u8, 0..4_usize, 50..4_000_u64), 1..12),
    ) {
        let mut flock = Flock::new(4);
        let all: Vec<NodeId> = (0..4).map(node_id).collect();
        flock.secret("pw", "0", &all[..1]);
        flock.deploy("web", spec(), 2);
        for (count, (what, index, time)) in steps.into_iter().enumerate() {
            let id = node_id(index);
            let up = flock.nodes[&id].agent.is_some();
            match what {
                0 if up => flock.kill(id),
                1 if !up => flock.boot(id),
                2 => flock.secret("pw", &format!("{}", count + 1), &[id]),
                3 => flock.edit(|d| {
                    d.services.get_mut(&key("web")).unwrap().replicas = 1 + index as u32;
                }),
                _ => {}
            }
            flock.run(time);
        }
        for id in &all {
            if flock.nodes[id].agent.is_none() {
                flock.boot(*id);
            }
        }
        // Whoever wrote the last version may not run the service: written anew to all.
        flock.secret("pw", "last", &all);
        prop_assert!(flock.run_until(60_000, |f| f.is_exact("web")).is_some());
        prop_assert!(flock.blind_starts.is_empty(), "{:?}", flock.blind_starts);
    }
}

#[test]
fn events_of_attempts_that_never_started_change_nothing() {
    let mut flock = Flock::new(1);
    flock.deploy("web", spec(), 1);
    flock.run(2_500);
    let (_, claim) = flock.claims().next().unwrap();
    let id = crate::io::WorkloadId {
        slot: claim.slot.clone(),
        epoch: claim.epoch,
        attempt: 0,
    };
    let now = flock.now();
    let agent = flock
        .nodes
        .get_mut(&node_id(0))
        .unwrap()
        .agent
        .as_mut()
        .unwrap();
    let _told = agent.runtime(RuntimeEvent::Lost(id), now);
    assert_eq!(agent.report().claims[0].phase, Phase::Claimed);
}
