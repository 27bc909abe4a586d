mod net;

use std::collections::BTreeSet;

use bytes::Bytes;

use super::Engine;
use crate::io::{Effect, Input, Recovered, Write};
use net::{Net, deploy, node_id, seal};

#[test]
fn thirty_replicas_on_three_nodes_run_within_a_third_of_a_second() {
    let mut net = Net::new(3);
    net.propose(1, deploy(30, "1"));
    let took = net.run_until(5_000, Net::is_settled).unwrap();
    assert!(took <= 300, "took {took} ms");
    assert_eq!(net.host(1).answers.as_slice(), [Ok(true)]);
    assert!(net.hosts.values().all(|h| h.running.len() == 10));
}

#[test]
fn a_dead_nodes_work_is_taken_over() {
    let mut net = Net::new(3);
    net.propose(0, deploy(30, "1"));
    net.run_until(5_000, Net::is_settled).unwrap();
    net.run(2_000);
    net.kill(2);
    let replaced = |net: &Net| net.running_count() == 30 && net.is_settled();
    let took = net.run_until(20_000, replaced).unwrap();
    assert!((1_500..=2_500).contains(&took), "took {took} ms");
}

#[test]
fn both_sides_of_a_partition_work_and_heal_to_one() {
    let mut net = Net::new(5);
    net.propose(0, deploy(10, "1"));
    net.run_until(5_000, Net::is_settled).unwrap();
    net.run(1_000);
    net.split(&[3, 4]);
    net.run(10_000);
    assert_eq!(net.running_count(), 20);
    // Both sides go on editing.
    net.propose(4, deploy(12, "1"));
    net.run(2_000);
    net.heal();
    net.run_until(60_000, Net::is_settled).expect("it heals");
    net.run(5_000);
    assert!(net.is_settled());
    assert_eq!(net.running_count(), 12);
    let prints: BTreeSet<_> = net.engines().map(Engine::fingerprint).collect();
    assert_eq!(prints.len(), 1);
}

#[test]
fn after_a_power_loss_all_work_comes_back_once() {
    let mut net = Net::new(3);
    net.propose(0, deploy(9, "1"));
    net.run_until(5_000, Net::is_settled).unwrap();
    net.run(10_000);
    for index in 0..3 {
        net.kill(index);
    }
    net.run(10_000);
    for index in 0..3 {
        net.boot(index);
    }
    let took = net.run_until(30_000, Net::is_settled).unwrap();
    assert!(took <= 10_000, "took {took} ms");
    net.run(10_000);
    assert!(net.is_settled());
    assert_eq!(net.running_count(), 9);
}

#[test]
fn a_node_that_leaves_is_replaced_at_once() {
    let mut net = Net::new(3);
    net.propose(0, deploy(9, "1"));
    net.run_until(5_000, Net::is_settled).unwrap();
    net.run(1_000);
    net.input(node_id(2), Input::Leave);
    net.run(300);
    net.kill(2);
    let replaced = |net: &Net| net.running_count() == 9 && net.is_settled();
    let took = net.run_until(5_000, replaced).unwrap();
    assert!(took <= 1_000, "took {took} ms");
}

#[test]
fn the_same_seed_gives_the_same_log() {
    let run = || {
        let mut net = Net::new(4);
        net.propose(0, deploy(8, "1"));
        net.run(3_000);
        net.kill(1);
        net.propose(2, deploy(10, "2"));
        net.run(10_000);
        net.boot(1);
        net.run(5_000);
        net.log.finalize()
    };
    assert_eq!(run(), run());
}

#[test]
fn a_damaged_document_is_an_error_and_a_damaged_end_a_warning() {
    let mut net = Net::new(1);
    net.propose(0, deploy(1, "1"));
    net.run_until(5_000, Net::is_settled).unwrap();
    net.propose(0, deploy(2, "1"));
    net.run(1_000);
    let engine = net.engines().next().unwrap();
    let config = engine.config().clone();
    let now = net.time();
    let (saved, changes) = net.host(0).document.clone().unwrap();
    let mut broken = saved.to_vec();
    let middle = broken.len() / 2;
    broken[middle] ^= 0xff;
    let start = |document| {
        let recovered = Recovered {
            document: Some(document),
            ..Recovered::default()
        };
        Engine::new(config.clone(), seal(config.member.node), recovered, now)
    };
    let error = start((broken.into(), Vec::new())).err().unwrap();
    assert!(error.to_string().contains("cannot be read"), "{error}");
    let mut cut = changes;
    let last = cut.pop().unwrap();
    cut.push(last.slice(..last.len() / 2));
    let (engine, effects) = start((saved, cut)).unwrap();
    assert!(!engine.desired().services.is_empty());
    let warned = effects
        .iter()
        .any(|e| matches!(e, Effect::Event(e) if e.warning));
    let saved = effects.iter().any(|e| match e {
        Effect::Persist { writes, .. } => matches!(writes.as_slice(), [Write::Document(_)]),
        _ => false,
    });
    assert!(warned && saved);
}

#[test]
fn rubbish_from_a_peer_is_told_once_and_harmless() {
    let mut net = Net::new(2);
    for length in 0..50u8 {
        let bytes = Bytes::from(vec![length; usize::from(length)]);
        net.input(
            node_id(0),
            Input::Message {
                from: node_id(1),
                bytes,
            },
        );
    }
    let told = net
        .events
        .iter()
        .filter(|e| e.contains("cannot be read"))
        .count();
    assert_eq!(told, 1);
    net.propose(0, deploy(2, "1"));
    assert!(net.run_until(5_000, Net::is_settled).is_some());
}
