//! Registers.

use std::sync::Arc;

use dunlin_state::Now;
use dunlin_state::desired::{Actor, Document};
use dunlin_state::model::Version;
use dunlin_state::observed::Register;

use super::super::*;
use super::world::{World, encoded, named, node, seal, sealed, whole};

fn at(mono: u64) -> Now {
    Now { mono, wall: mono }
}

fn machine(number: usize, boot: u64) -> Replication {
    let me = node(number);
    let document = Document::new(Actor::new(me, boot));
    Replication::new(me, boot, document, seal(me), 7, at(0))
}

fn register(number: usize, boot: u64, seq: u64, name: &str) -> Arc<Register> {
    sealed(node(number), Version { boot, seq }, *named(name))
}

fn push(from: usize, registers: Vec<Arc<Register>>) -> Input {
    Input::Message {
        from: node(from),
        message: all(&registers),
    }
}

fn all(registers: &[Arc<Register>]) -> Message {
    Message::Registers(registers.iter().map(|r| whole(r)).collect())
}

/// A register that another node has signed.
fn forged(number: usize, boot: u64, seq: u64) -> Arc<Register> {
    let version = Version { boot, seq };
    let liar = seal(node(1));
    Arc::new(Register::first(node(number), version, *named("forged"), &*liar).unwrap())
}

/// Who gets which registers in these effects.
fn pushed(effects: &[Effect]) -> Vec<(NodeId, Vec<NodeId>)> {
    let pushed = effects.iter().filter_map(|effect| match effect {
        Effect::Send {
            to,
            message: Message::Registers(registers),
        } => {
            let nodes = registers.iter().map(|r| r.head().unwrap().0);
            Some((*to, nodes.collect()))
        }
        _ => None,
    });
    pushed.collect()
}

#[test]
fn a_report_reaches_everyone_and_equal_ones_are_not_repeated() {
    let mut world = World::mesh(5, 1);
    world.run(100);
    world.tell(0, Input::Report(named("first")));
    world.run(100);
    for host in 0..5 {
        let seen = world.machine(host).observed().get(node(0)).cloned();
        assert_eq!(
            seen.map(|r| r.report.name.clone()),
            Some("first".to_owned())
        );
    }
    let messages = world.messages;
    world.tell(0, Input::Report(named("first")));
    world.run(10);
    assert_eq!(world.machine(0).observed().version(node(0)).unwrap().seq, 1);
    assert!(world.messages <= messages + 4, "nothing but rounds");
}

#[test]
fn reports_of_one_moment_are_sent_as_one() {
    let mut sender = machine(0, 1);
    sender.handle(Input::Connected(node(1)), at(0));
    for step in 0..10 {
        sender.handle(Input::Report(named(&format!("step {step}"))), at(0));
    }
    let due = sender.poll_timeout().unwrap();
    assert!(due <= 2);
    let effects = sender.handle_timeout(at(due));
    assert_eq!(pushed(&effects), [(node(1), vec![node(0)])]);
}

#[test]
fn news_is_not_sent_back_and_repeated_news_goes_nowhere() {
    let mut middle = machine(0, 1);
    for peer in 1..=3 {
        middle.handle(Input::Connected(node(peer)), at(0));
    }
    let effects = middle.handle(push(1, vec![register(9, 1, 1, "x")]), at(10));
    assert!(matches!(&effects[..], [Effect::ObservedChanged(nodes)] if nodes == &[node(9)]));
    // Peer 2 turns out to have it before the flush.
    middle.handle(push(2, vec![register(9, 1, 1, "x")]), at(11));
    let effects = middle.handle_timeout(at(15));
    assert_eq!(pushed(&effects), [(node(3), vec![node(9)])]);
    assert!(
        middle
            .handle(push(3, vec![register(9, 1, 1, "x")]), at(20))
            .is_empty()
    );
    assert!(pushed(&middle.handle_timeout(at(30))).is_empty());
}

#[test]
fn who_passes_on_old_news_is_corrected() {
    let mut machine = machine(0, 1);
    machine.handle(Input::Connected(node(1)), at(0));
    machine.handle(push(1, vec![register(9, 1, 5, "new")]), at(0));
    machine.handle_timeout(at(10));
    machine.handle(push(1, vec![register(9, 1, 4, "old")]), at(10));
    let effects = machine.handle_timeout(at(15));
    assert_eq!(pushed(&effects), [(node(1), vec![node(9)])]);
    let known = machine.observed().get(node(9)).unwrap();
    assert_eq!(known.report.name, "new");
}

#[test]
fn an_impostor_of_this_life_is_overtaken_and_reported_once() {
    let mut machine = machine(0, 3);
    machine.handle(Input::Connected(node(1)), at(0));
    machine.handle(Input::Report(named("me")), at(0));
    let clone = register(0, 3, 40, "clone");
    let effects = machine.handle(push(1, vec![clone.clone(), clone]), at(10));
    let warnings = effects.iter().filter(|e| matches!(e, Effect::Warning(_)));
    assert_eq!(warnings.count(), 1);
    assert_eq!(machine.observed().get(node(0)).unwrap().report.name, "me");
    machine.handle_timeout(at(1_011));
    let own = machine.observed().get(node(0)).unwrap();
    assert!(own.version > Version { boot: 3, seq: 40 });
    assert_eq!(own.report.name, "me");
}

#[test]
fn a_later_life_is_reported_and_an_earlier_one_is_superseded() {
    let mut machine = machine(0, 3);
    machine.handle(Input::Connected(node(1)), at(0));
    machine.handle(Input::Report(named("me")), at(0));
    let effects = machine.handle(push(1, vec![register(0, 4, 1, "later")]), at(10));
    assert!(matches!(&effects[..], [Effect::Warning(text)] if text.contains("start 4")));
    machine.handle_timeout(at(20));
    let effects = machine.handle(push(1, vec![register(0, 2, 900, "earlier")]), at(30));
    assert!(effects.is_empty());
    assert_eq!(
        machine.observed().version(node(0)),
        Some(Version { boot: 3, seq: 1 })
    );
    let effects = machine.handle_timeout(at(40));
    assert_eq!(pushed(&effects), [(node(1), vec![node(0)])]);
}

#[test]
fn extreme_versions_do_not_overflow() {
    let mut machine = machine(0, 3);
    machine.handle(Input::Connected(node(1)), at(0));
    machine.handle(Input::Report(named("me")), at(0));
    let extremes = vec![
        register(0, 3, u64::MAX, "clone"),
        register(5, u64::MAX, u64::MAX, "far"),
    ];
    machine.handle(push(1, extremes), at(10));
    machine.handle(Input::Report(named("me again")), at(20));
    machine.handle_timeout(at(5_000));
    machine.handle(Input::Report(named("me thrice")), at(5_001));
}

#[test]
fn a_forgotten_node_stays_forgotten_until_it_reports_anew() {
    let mut machine = machine(0, 1);
    machine.handle(Input::Connected(node(1)), at(0));
    machine.handle(push(1, vec![register(9, 1, 5, "gone")]), at(0));
    let effects = machine.handle(Input::Forget(node(9)), at(10));
    assert!(matches!(&effects[..], [Effect::ObservedChanged(nodes)] if nodes == &[node(9)]));
    assert!(pushed(&machine.handle_timeout(at(20))).is_empty());
    machine.handle(push(1, vec![register(9, 1, 5, "gone")]), at(30));
    assert!(machine.observed().get(node(9)).is_none());
    machine.handle(push(1, vec![register(9, 2, 1, "back")]), at(40));
    assert!(machine.observed().get(node(9)).is_some());
    // Nobody can make us forget ourselves.
    machine.handle(Input::Report(named("me")), at(50));
    assert!(machine.handle(Input::Forget(node(0)), at(60)).is_empty());
}

#[test]
fn hostile_registers_are_counted_and_reported_once_a_minute() {
    let mut machine = machine(0, 1);
    machine.handle(Input::Connected(node(1)), at(0));
    let bad = forged(9, 1, 1);
    let mut warnings = 0;
    for second in 0..120 {
        let effects = machine.handle(push(1, vec![bad.clone(); 10]), at(second * 1_000));
        warnings += effects
            .iter()
            .filter(|e| matches!(e, Effect::Warning(_)))
            .count();
    }
    assert_eq!(warnings, 2);
    assert_eq!(machine.metrics().offences, 1_200);
    assert!(machine.observed().is_empty());
}

#[test]
fn strangers_are_not_heard() {
    let mut machine = machine(0, 1);
    assert!(
        machine
            .handle(push(1, vec![register(9, 1, 1, "x")]), at(0))
            .is_empty()
    );
    assert!(machine.observed().is_empty());
}

#[test]
fn lost_registers_come_by_anti_entropy() {
    for size in [5, 90] {
        // Host 0 knows many nodes; host 1 joins it.
        let mut world = World::new(3, 3);
        world.link(0, 2);
        let known: Vec<_> = (100..100 + size).map(|n| register(n, 1, 1, "n")).collect();
        let from = world.ids[2];
        world.tell(
            0,
            Input::Message {
                from,
                message: all(&known),
            },
        );
        world.link(0, 1);
        world.run(200);
        assert_eq!(world.machine(1).observed().len(), size);
        assert!(world.agrees());
    }
}

#[test]
fn a_digest_of_a_thousand_nodes_costs_little_when_little_differs() {
    let mut world = World::new(3, 3);
    world.link(0, 2);
    world.link(1, 2);
    let from = world.ids[2];
    let mut known: Vec<_> = (100..1_100).map(|n| register(n, 1, 1, "n")).collect();
    for host in [0, 1] {
        let message = all(&known);
        world.tell(host, Input::Message { from, message });
        known.truncate(997);
    }
    world.unlink(0, 2);
    world.unlink(1, 2);
    // What was to be passed on finds nobody.
    world.run(200);
    let before = world.bytes;
    world.link(0, 1);
    world.run(300);
    assert_eq!(world.machine(1).observed().len(), 1_000);
    let bytes = world.bytes - before;
    assert!(bytes < 12_000, "{bytes} bytes to find 3 of 1,000");
    let before = world.bytes;
    world.run(20_000);
    let rounds = (world.bytes - before) / 20;
    assert!(
        rounds < 400,
        "{rounds} bytes per round when nothing differs"
    );
}

#[test]
fn the_estimated_size_of_a_register_keeps_pushes_below_the_bound() {
    let mut machine = machine(0, 1);
    machine.handle(Input::Connected(node(1)), at(0));
    machine.handle(Input::Connected(node(2)), at(0));
    let registers = (100..1_100)
        .map(|n| register(n, 1, 1, &"n".repeat(200)))
        .collect();
    machine.handle(push(1, registers), at(0));
    let due = machine.poll_timeout().unwrap();
    let effects = machine.handle_timeout(at(due));
    let mut sent = 0;
    for effect in &effects {
        if let Effect::Send { message, .. } = effect {
            assert!(encoded(message) <= MAX_PUSH_BYTES);
            sent += 1;
        }
    }
    assert!(sent > 1);
}
