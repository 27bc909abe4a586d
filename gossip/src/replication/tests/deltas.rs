//! Changes of registers: what they cost, who asks for more, and what liars make of them.

use std::sync::Arc;

use dunlin_state::Now;
use dunlin_state::desired::{Actor, Document};
use dunlin_state::model::{Claim, NodeReport, Phase, Resources, Slot, SlotId, Version};
use dunlin_state::observed::{Envelope, Register};

use super::super::*;
use super::world::{World, encoded, node, seal, service, whole};

fn at(mono: u64) -> Now {
    Now { mono, wall: mono }
}

fn machine(number: usize) -> Replication {
    let me = node(number);
    let document = Document::new(Actor::new(me, 1));
    Replication::new(me, 1, document, seal(me), 7, at(0))
}

fn report(claims: u32, ready: bool) -> Box<NodeReport> {
    let claim = |index| Claim {
        slot: SlotId {
            service: service("web"),
            slot: Slot::Replica(index),
        },
        epoch: 3,
        revision: "0123456789abcdef".to_owned(),
        phase: Phase::Running,
        ready: ready || index > 0,
        leaving: false,
        since: 1_767_225_600_000,
        resources: Resources {
            cpu_millis: 250,
            memory: 64 << 20,
            disk: 0,
        },
        host_ports: Vec::new(),
        endpoints: Vec::new(),
        restarts: 0,
        last_exit: None,
        message: None,
        workload: Some("0123456789abcdef".to_owned()),
        started_at: Some(1_767_225_600_000),
        trial: Default::default(),
        moved_from: None,
        history: Vec::new(),
        outputs: dunlin_state::model::Outputs::default(),
    };
    Box::new(NodeReport {
        name: "host".to_owned(),
        claims: (0..claims).map(claim).collect(),
        ..NodeReport::default()
    })
}

/// The register messages in these effects.
fn pushes(effects: Vec<Effect>) -> Vec<(NodeId, Message)> {
    let pushes = effects.into_iter().filter_map(|effect| match effect {
        Effect::Send { to, message } => {
            let fits = matches!(message, Message::Registers(_) | Message::Want(_));
            fits.then_some((to, message))
        }
        _ => None,
    });
    pushes.collect()
}

fn flush(machine: &mut Replication, now: u64) -> Vec<(NodeId, Message)> {
    pushes(machine.handle_timeout(at(now)))
}

fn said(from: usize, message: Message) -> Input {
    // Everything here has been on the wire.
    let mut bytes = Vec::new();
    ciborium::into_writer(&message, &mut bytes).unwrap();
    Input::Message {
        from: node(from),
        message: ciborium::from_reader(&bytes[..]).unwrap(),
    }
}

/// Bytes of a message about one claim that becomes ready, of so many.
fn flip(claims: u32) -> (usize, usize) {
    let mut sender = machine(0);
    sender.handle(Input::Connected(node(1)), at(0));
    sender.handle(Input::Report(report(claims, false)), at(0));
    let first = flush(&mut sender, 10);
    sender.handle(Input::Report(report(claims, true)), at(1_000));
    let second = flush(&mut sender, 1_010);
    (encoded(&first[0].1), encoded(&second[0].1))
}

#[test]
fn a_flip_costs_the_same_however_many_claims_there_are() {
    let ((whole_10, flip_10), (whole_100, flip_100)) = (flip(10), flip(100));
    println!("10 claims: {flip_10} of {whole_10} bytes; 100: {flip_100} of {whole_100}");
    assert!(flip_10 < 600 && flip_100 < 600, "{flip_10}, {flip_100}");
    assert!(whole_10 > 3_000 && whole_100 > 25_000);
}

#[test]
fn who_lacks_the_base_asks_once_and_gets_everything() {
    let mut sender = machine(0);
    sender.handle(Input::Connected(node(1)), at(0));
    sender.handle(Input::Report(report(10, false)), at(0));
    flush(&mut sender, 10);
    sender.handle(Input::Report(report(10, true)), at(20));
    let changes = flush(&mut sender, 30).remove(0).1;
    let mut receiver = machine(1);
    receiver.handle(Input::Connected(node(0)), at(0));
    receiver.handle(Input::Connected(node(2)), at(0));
    let asked = pushes(receiver.handle(said(0, changes.clone()), at(31)));
    let [(to, Message::Want(wanted))] = &asked[..] else {
        panic!("one question: {asked:?}");
    };
    assert_eq!((*to, &wanted[..]), (node(0), &[(node(0), None)][..]));
    let again = pushes(receiver.handle(said(2, changes.clone()), at(32)));
    assert!(again.is_empty(), "the answer is on its way");
    let later = pushes(receiver.handle(said(2, changes), at(600)));
    assert_eq!(later.len(), 1, "it got lost");
    let answer = pushes(sender.handle(said(1, asked[0].1.clone()), at(33)));
    receiver.handle(said(0, answer[0].1.clone()), at(601));
    let known = receiver.observed().get(node(0)).unwrap();
    assert_eq!(known.version, Version { boot: 1, seq: 2 });
    assert_eq!(receiver.metrics().offences, 0);
}

#[test]
fn relays_pass_on_changes_and_late_peers_catch_up() {
    let mut world = World::mesh(5, 1);
    world.run(100);
    world.tell(0, Input::Report(report(50, false)));
    world.run(200);
    let before = world.bytes;
    world.tell(0, Input::Report(report(50, true)));
    world.run(100);
    for host in 1..5 {
        let known = world
            .machine(host)
            .observed()
            .get(node_of(&world, 0))
            .cloned();
        assert!(known.is_some_and(|r| r.report.claims[0].ready));
    }
    // Every node may tell every other one: whole registers would be 20 times 12 kB.
    let bytes = world.bytes - before;
    assert!(bytes < 30_000, "{bytes} bytes");
    assert_eq!(world.offences(), 0);
}

fn node_of(world: &World, host: usize) -> NodeId {
    world.ids[host]
}

fn signed(version: Version, report: NodeReport, by: usize) -> Arc<Register> {
    Arc::new(Register::first(node(9), version, report, &*seal(node(by))).unwrap())
}

#[test]
fn what_liars_send_is_refused_and_counted() {
    let version = |seq| Version { boot: 1, seq };
    let first = signed(version(1), *report(3, false), 9);
    let second = first.next(2, *report(3, true), &*seal(node(9))).unwrap();
    let changes = Envelope::decode(&second.encode(Some(1))).unwrap();
    let altered = |change: &dyn Fn(&mut Envelope)| {
        let mut envelope = changes.clone();
        change(&mut envelope);
        Pushed::from_bytes(envelope.encode())
    };
    let cut = second.encode(Some(1));
    let lies = [
        whole(&signed(version(2), *report(0, true), 1)),
        altered(&|e| e.header.version.seq = 9),
        altered(&|e| e.header.version.boot = 9),
        altered(&|e| e.parts.clear()),
        altered(&|e| e.proof = *first.proof()),
        Pushed::from_bytes(cut.slice(..cut.len() - 1)),
    ];
    let mut machine = machine(0);
    machine.handle(Input::Connected(node(1)), at(0));
    machine.handle(said(1, Message::Registers(vec![whole(&first)])), at(0));
    let mut offences = 0;
    for (lie, now) in lies.into_iter().zip(1..) {
        machine.handle(said(1, Message::Registers(vec![lie])), at(now));
        offences += 1;
        // One that changes the life looks like news that builds on something unknown.
        offences -= u64::from(now == 3);
        assert_eq!(machine.metrics().offences, offences, "lie {now}");
        assert_eq!(machine.observed().version(node(9)), Some(version(1)));
    }
    // The truth still gets in, and an old truth told again changes nothing.
    machine.handle(said(1, Message::Registers(vec![whole(&second)])), at(20));
    machine.handle(said(1, Message::Registers(vec![whole(&first)])), at(21));
    assert_eq!(machine.observed().version(node(9)), Some(version(2)));
    assert_eq!(machine.metrics().offences, offences);
}

#[test]
fn nobody_else_can_make_a_node_doubt_itself() {
    let mut machine = machine(0);
    machine.handle(Input::Connected(node(1)), at(0));
    machine.handle(Input::Report(report(1, true)), at(0));
    let version = Version { boot: 1, seq: 900 };
    let liar = seal(node(1));
    let forged = Register::first(node(0), version, *report(0, true), &*liar).unwrap();
    machine.handle(said(1, Message::Registers(vec![whole(&forged)])), at(1));
    machine.handle_timeout(at(5_000));
    assert_eq!(machine.observed().version(node(0)).unwrap().seq, 1);
    assert_eq!(machine.metrics().offences, 1);
}
