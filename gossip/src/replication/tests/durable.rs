//! Local writes and the disk.

use dunlin_state::Now;
use dunlin_state::desired::{Actor, Document};

use super::super::*;
use super::world::{World, deploy, node, seal, service};

fn at(mono: u64) -> Now {
    Now { mono, wall: mono }
}

fn lone() -> Replication {
    let me = node(0);
    Replication::new(me, 1, Document::new(Actor::new(me, 1)), seal(me), 7, at(0))
}

fn propose(id: u64, name: &str) -> Input {
    Input::Propose {
        id: ProposalId(id),
        commands: vec![deploy(name)],
        author: "tester".to_owned(),
    }
}

/// The request in these effects.
fn request(effects: &[Effect]) -> (PersistId, Vec<Write>) {
    let mut found = effects.iter().filter_map(|effect| match effect {
        Effect::Persist { id, writes } => Some((*id, writes.clone())),
        _ => None,
    });
    let request = found.next().expect("a request to the disk");
    assert!(found.next().is_none(), "one request at a time");
    request
}

fn answers(effects: &[Effect]) -> Vec<(u64, bool)> {
    let answers = effects.iter().filter_map(|effect| match effect {
        Effect::Proposed { id, result } => Some((id.0, result.is_ok())),
        _ => None,
    });
    answers.collect()
}

fn has_changes(effects: &[Effect]) -> bool {
    let mut sent = effects.iter().filter_map(|effect| match effect {
        Effect::Send { message, .. } => Some(message),
        _ => None,
    });
    sent.any(|message| matches!(message, Message::Changes { .. }))
}

#[test]
fn a_write_is_durable_before_anyone_sees_it() {
    let mut machine = lone();
    machine.handle(Input::Connected(node(1)), at(0));
    let before = machine.fingerprint();
    let effects = machine.handle(propose(1, "a"), at(0));
    let (id, writes) = request(&effects);
    assert!(matches!(
        &writes[..],
        [Write::Document(_), Write::Change(_)]
    ));
    assert!(answers(&effects).is_empty() && !has_changes(&effects));
    assert!(machine.desired().services.is_empty());
    assert_eq!(machine.fingerprint(), before, "no summary may mention it");

    let effects = machine.handle(Input::Persisted(id), at(5));
    assert_eq!(answers(&effects), [(1, true)]);
    assert!(has_changes(&effects));
    assert!(effects.iter().any(|e| matches!(e, Effect::DesiredChanged)));
    assert!(machine.desired().services.contains_key(&service("a")));
}

#[test]
fn proposals_gather_behind_a_busy_disk() {
    let mut machine = lone();
    let (first, _) = request(&machine.handle(propose(0, "s0"), at(0)));
    for id in 1..=50 {
        assert!(
            machine
                .handle(propose(id, &format!("s{id}")), at(0))
                .is_empty()
        );
    }
    let effects = machine.handle(Input::Persisted(first), at(1));
    assert_eq!(answers(&effects), [(0, true)]);
    let (second, writes) = request(&effects);
    assert_eq!(writes.len(), 50, "one sync for all of them");
    let effects = machine.handle(Input::Persisted(second), at(2));
    assert_eq!(answers(&effects).len(), 50);
    assert_eq!(machine.desired().services.len(), 51);
}

#[test]
fn too_many_waiting_proposals_are_refused() {
    let mut machine = lone();
    machine.handle(propose(0, "first"), at(0));
    let mut refused = 0;
    for id in 1..=300 {
        refused += answers(&machine.handle(propose(id, "next"), at(0))).len();
    }
    assert_eq!(refused, 300 - 256);
    assert_eq!(machine.metrics().proposals_busy, 300 - 256);
}

#[test]
fn what_changes_nothing_or_is_invalid_needs_no_disk() {
    let mut machine = lone();
    let (id, _) = request(&machine.handle(propose(1, "a"), at(0)));
    machine.handle(Input::Persisted(id), at(1));
    let effects = machine.handle(propose(2, "a"), at(2));
    assert!(matches!(
        &effects[..],
        [Effect::Proposed {
            result: Ok(false),
            ..
        }]
    ));
    let scale = dunlin_state::desired::Command::Scale {
        service: service("nobody"),
        replicas: 2,
    };
    let input = Input::Propose {
        id: ProposalId(3),
        commands: vec![scale],
        author: "tester".to_owned(),
    };
    let effects = machine.handle(input, at(3));
    assert!(matches!(
        &effects[..],
        [Effect::Proposed { result: Err(_), .. }]
    ));
}

#[test]
fn a_refused_write_leaves_nothing_and_the_next_one_rewrites_the_disk() {
    let mut machine = lone();
    machine.handle(Input::Connected(node(1)), at(0));
    let (id, _) = request(&machine.handle(propose(1, "kept"), at(0)));
    machine.handle(Input::Persisted(id), at(1));
    let before = machine.fingerprint();

    let (id, writes) = request(&machine.handle(propose(2, "lost"), at(2)));
    assert!(matches!(&writes[..], [Write::Change(_)]));
    let lost = writes;
    let reason = "no space left on device".to_owned();
    let effects = machine.handle(Input::PersistFailed { id, reason }, at(3));
    assert_eq!(answers(&effects), [(2, false)]);
    assert!(effects.iter().any(|e| matches!(e, Effect::Warning(_))));
    assert!(!has_changes(&effects));
    assert_eq!(machine.fingerprint(), before);

    let effects = machine.handle(propose(3, "again"), at(4));
    let (id, writes) = request(&effects);
    let [Write::Document(saved), Write::Change(change)] = &writes[..] else {
        panic!("after a refusal the disk is written anew: {writes:?}");
    };
    let disk = Document::load(saved, std::slice::from_ref(change), Actor([9; 16])).unwrap();
    let names: Vec<String> = disk
        .snapshot()
        .services
        .keys()
        .map(|k| k.to_string())
        .collect();
    assert_eq!(names, ["default/again", "default/kept"]);
    assert_ne!(lost, [Write::Change(change.clone())]);
    let effects = machine.handle(Input::Persisted(id), at(5));
    assert_eq!(answers(&effects), [(3, true)]);
}

#[test]
fn a_refused_write_is_tried_again_unasked() {
    let mut machine = lone();
    let (id, _) = request(&machine.handle(propose(1, "a"), at(0)));
    let reason = "read-only file system".to_owned();
    let effects = machine.handle(Input::PersistFailed { id, reason }, at(1));
    assert!(effects.iter().all(|e| !matches!(e, Effect::Persist { .. })));
    assert!(
        machine
            .handle_timeout(at(100))
            .iter()
            .all(|e| !matches!(e, Effect::Persist { .. }))
    );
    let (_, writes) = request(&machine.handle_timeout(at(5_001)));
    assert!(matches!(&writes[..], [Write::Document(_)]));
}

#[test]
fn answers_of_the_disk_to_nobody_are_ignored() {
    let mut machine = lone();
    assert!(
        machine
            .handle(Input::Persisted(PersistId(99)), at(0))
            .is_empty()
    );
    let (id, _) = request(&machine.handle(propose(1, "a"), at(0)));
    assert!(
        machine
            .handle(Input::Persisted(PersistId(id.0 + 1)), at(1))
            .is_empty()
    );
    let effects = machine.handle(Input::Persisted(id), at(1));
    assert_eq!(answers(&effects), [(1, true)]);
    assert!(machine.handle(Input::Persisted(id), at(2)).is_empty());
}

#[test]
fn changes_of_others_are_used_while_the_disk_hangs() {
    let mut world = World::mesh(2, 1);
    world.run(100);
    world.propose(0, vec![deploy("before")]);
    world.run(100);
    world.sync_ms = (60_000, 60_000);
    world.propose(1, vec![deploy("hangs")]);
    world.sync_ms = (1, 1);
    world.propose(0, vec![deploy("fresh")]);
    world.run(100);
    let desired = world.machine(1).desired();
    assert!(desired.services.contains_key(&service("fresh")));
    assert!(!desired.services.contains_key(&service("hangs")));
    world.run(60_000);
    assert!(
        world
            .machine(0)
            .desired()
            .services
            .contains_key(&service("hangs"))
    );
    assert!(world.agrees());
}
