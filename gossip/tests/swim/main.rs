//! The membership machine in a simulated network.

#[allow(dead_code, unreachable_pub)]
mod sim;

use bytes::Bytes;
use dunlin_gossip::membership::{
    Effect, Input, MemberEvent, MemberId, MemberState, Membership, Profile,
};
use dunlin_state::Now;
use proptest::prelude::*;
use sim::{Network, Sim, address, node_id};

const LOSSY: Network = Network {
    latency: (1, 30),
    loss: 0.2,
    duplicates: 0.05,
    reliable: true,
};

fn cluster(nodes: usize, network: Network, seed: u64) -> Sim {
    let mut sim = Sim::joined(nodes, Profile::Lan, network, seed);
    sim.advance(5_000);
    sim
}

fn all_say(index: usize, state: MemberState) -> impl Fn(&Sim) -> bool {
    move |sim| {
        sim.beliefs(index)
            .iter()
            .all(|belief| *belief == Some(state))
    }
}

#[test]
fn a_cluster_forms_through_any_member() {
    for nodes in [2, 3, 9, 40] {
        Sim::joined(nodes, Profile::Lan, Network::default(), nodes as u64);
    }
}

#[test]
fn a_first_call_that_finds_nobody_is_repeated() {
    let mut sim = Sim::new(2, Profile::Lan, Network::default(), 1);
    sim.kill(0);
    sim.join(1, 0);
    sim.advance(30_000);
    sim.restart(0, 0);
    assert!(sim.until(2_000, Sim::agreed).is_some());
}

#[test]
fn every_profile_detects_a_crash() {
    for (profile, bar) in [
        (Profile::Local, 2_500),
        (Profile::Lan, 3_000),
        (Profile::Wan, 12_000),
    ] {
        for seed in 0..10 {
            let mut sim = Sim::joined(5, profile, Network::default(), seed);
            sim.kill(2);
            let took = sim.until(bar, all_say(2, MemberState::Down));
            assert!(took.is_some(), "{profile:?} seed {seed}");
        }
    }
}

#[test]
fn a_black_hole_is_down_at_all_within_three_seconds() {
    for seed in 0..40 {
        let mut sim = cluster(9, Network::default(), seed);
        sim.isolate(4);
        let low = (0..9).filter(|index| *index != 4);
        let down = |sim: &Sim| {
            low.clone()
                .all(|at| sim.machine_of(at).state_of(node_id(4)) == Some(MemberState::Down))
        };
        assert!(sim.until(3_000, down).is_some(), "seed {seed}");
    }
}

#[test]
fn nobody_is_convicted_for_losing_a_fifth_of_its_datagrams() {
    for seed in 0..4 {
        let mut sim = cluster(9, LOSSY, seed);
        sim.advance(300_000);
        assert!(sim.figures.lost > 1_000, "the fault did not happen");
        assert_eq!(sim.figures.false_down, 0, "seed {seed}");
        assert!(sim.until(5_000, Sim::agreed).is_some(), "seed {seed}");
    }
}

#[test]
fn copies_alone_also_keep_the_living() {
    let network = Network {
        reliable: false,
        ..LOSSY
    };
    let mut sim = cluster(9, network, 2);
    sim.advance(300_000);
    assert_eq!(sim.figures.false_down, 0);
}

#[test]
fn a_lossy_path_gets_copies_and_a_clean_one_does_not() {
    let rate = |loss| {
        let network = Network { loss, ..LOSSY };
        let mut sim = cluster(9, network, 3);
        sim.advance(60_000);
        let before = sim.figures.datagrams;
        sim.advance(60_000);
        sim.figures.datagrams - before
    };
    let (clean, lossy) = (rate(0.0), rate(0.2));
    assert!(lossy > 2 * clean && lossy < 5 * clean, "{clean} {lossy}");
}

#[test]
fn a_dead_datagram_path_is_bridged_by_the_reliable_one() {
    let mut sim = cluster(5, Network::default(), 7);
    for other in [0, 2, 3, 4] {
        sim.cut_datagrams(other, 1);
        sim.cut_datagrams(1, other);
    }
    sim.advance(60_000);
    assert!(sim.figures.reliable > 20);
    assert_eq!(sim.figures.false_down, 0);
}

#[test]
fn one_dead_direction_between_two_convicts_nobody() {
    let mut sim = cluster(5, Network::default(), 8);
    sim.cut(0, 1);
    sim.advance(120_000);
    assert_eq!(sim.figures.false_down, 0);
}

#[test]
fn two_that_cannot_reach_each_other_are_both_alive() {
    let mut sim = cluster(5, Network::default(), 9);
    sim.cut(0, 1);
    sim.cut(1, 0);
    sim.advance(120_000);
    for observer in 2..5 {
        for member in [0, 1] {
            let state = sim.machine_of(observer).state_of(node_id(member));
            assert_eq!(state, Some(MemberState::Alive));
        }
    }
    let down = |(_, _, event): &(u64, usize, MemberEvent)| matches!(event, MemberEvent::Down(_));
    assert!(!sim.log.iter().any(down), "somebody was declared down");
}

#[test]
fn a_wide_network_convicts_nobody_alive() {
    let network = Network {
        latency: (20, 200),
        loss: 0.05,
        ..Network::default()
    };
    let mut sim = Sim::joined(9, Profile::Wan, network, 1);
    sim.advance(600_000);
    assert_eq!(sim.figures.false_down, 0);
}

#[test]
fn the_smallest_clusters_survive_everything_too() {
    for nodes in [2, 3] {
        for seed in 0..5 {
            let mut sim = cluster(nodes, LOSSY, seed);
            sim.freeze(1, 4_000);
            sim.advance(4_000);
            assert!(
                sim.until(4_000, Sim::agreed).is_some(),
                "stall, seed {seed}"
            );
            sim.partition(1);
            sim.advance(20_000);
            sim.mend();
            assert!(
                sim.until(10_000, Sim::agreed).is_some(),
                "heal, seed {seed}"
            );
            sim.kill(0);
            assert!(sim.until(5_000, all_say(0, MemberState::Down)).is_some());
            sim.restart(0, 1);
            assert!(
                sim.until(5_000, Sim::agreed).is_some(),
                "restart, seed {seed}"
            );
        }
    }
}

#[test]
fn a_short_stall_convicts_nobody_and_the_stalled_accuses_nobody() {
    for seed in 0..20 {
        let mut sim = cluster(9, Network::default(), seed);
        sim.log.clear();
        sim.freeze(3, 700);
        sim.advance(10_000);
        assert_eq!(sim.figures.false_down, 0, "seed {seed}");
        let accused = sim.log.iter().any(|(_, observer, event)| {
            *observer == 3 && matches!(event, MemberEvent::Suspect(id) if id.node != node_id(3))
        });
        assert!(!accused, "seed {seed}: the stalled node accused somebody");
    }
}

#[test]
fn a_long_stall_ends_in_the_same_life() {
    for seed in 0..10 {
        let mut sim = cluster(9, Network::default(), seed);
        sim.freeze(3, 10_000);
        sim.advance(9_000);
        assert!(all_say(3, MemberState::Down)(&sim), "seed {seed}");
        sim.log.clear();
        sim.advance(1_000);
        assert!(sim.until(3_000, Sim::agreed).is_some(), "seed {seed}");
        for (_, observer, event) in &sim.log {
            let down = matches!(event, MemberEvent::Down(_));
            assert!(!down, "seed {seed}: {observer} says {event:?}");
        }
        let back = sim
            .machine_of(0)
            .members()
            .find(|view| view.id.node == node_id(3));
        assert_eq!(back.map(|view| view.id.boot), Some(1));
    }
}

#[test]
fn a_node_known_to_stall_gets_the_time_it_needs() {
    let mut sim = cluster(9, Network::default(), 5);
    sim.freeze(3, 1_900);
    sim.advance(30_000);
    sim.figures.false_down = 0;
    for _ in 0..20 {
        sim.freeze(3, 1_800);
        sim.advance(10_000);
    }
    assert_eq!(sim.figures.false_down, 0);
}

#[test]
fn a_crashed_node_comes_back_with_its_next_life() {
    for (seed, pause) in [(1, 200), (2, 1_000), (3, 20_000)] {
        let mut sim = cluster(5, Network::default(), seed);
        sim.kill(2);
        sim.advance(pause);
        sim.restart(2, 0);
        assert!(sim.until(2_000, Sim::agreed).is_some(), "pause {pause}");
        let view = sim
            .machine_of(4)
            .members()
            .find(|view| view.id.node == node_id(2));
        assert_eq!(view.map(|view| view.id.boot), Some(2));
    }
}

#[test]
fn a_goodbye_is_no_crash() {
    for seed in 0..10 {
        let mut sim = cluster(9, LOSSY, seed);
        sim.log.clear();
        sim.leave(6);
        sim.advance(50);
        sim.kill(6);
        let took = sim.until(1_500, all_say(6, MemberState::Left));
        assert!(took.is_some(), "seed {seed}");
        let wrong = sim.log.iter().any(|(_, _, event)| {
            matches!(event, MemberEvent::Down(id) | MemberEvent::Suspect(id) if id.node == node_id(6))
        });
        assert!(!wrong, "seed {seed}");
        sim.advance(5_000);
        sim.restart(6, 1);
        assert!(sim.until(3_000, Sim::agreed).is_some(), "seed {seed}");
    }
}

#[test]
fn two_halves_find_each_other_again() {
    for (seed, network) in [(1, Network::default()), (2, LOSSY), (3, LOSSY)] {
        let mut sim = cluster(9, network, seed);
        sim.partition(4);
        sim.advance(60_000);
        assert_eq!(
            sim.machine_of(0).state_of(node_id(8)),
            Some(MemberState::Down)
        );
        sim.mend();
        assert!(sim.until(10_000, Sim::agreed).is_some(), "seed {seed}");
    }
}

#[test]
fn halves_that_forgot_each_other_meet_through_their_addresses() {
    let mut sim = Sim::joined(5, Profile::Local, Network::default(), 4);
    sim.partition(2);
    sim.advance(900_000);
    assert_eq!(sim.machine_of(0).state_of(node_id(4)), None);
    sim.mend();
    assert!(sim.until(10_000, Sim::agreed).is_some());
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut sim = cluster(9, LOSSY, seed);
        sim.freeze(1, 1_500);
        sim.partition(3);
        sim.advance(10_000);
        sim.mend();
        sim.kill(5);
        sim.advance(20_000);
        sim.restart(5, 0);
        sim.advance(10_000);
        (sim.hash(), sim.figures)
    };
    assert_eq!(run(11), run(11));
    assert_ne!(run(11).0, run(12).0);
}

/// Messages that three nodes really exchange.
fn real_messages() -> Vec<Bytes> {
    let mut out = Vec::new();
    let now = Now::default();
    let mut nodes: Vec<Membership> = (0..3)
        .map(|index| {
            let me = MemberId {
                node: node_id(index),
                boot: 1,
                address: address(index),
            };
            Membership::new(me, Profile::Lan, index as u64, now)
        })
        .collect();
    for time in 0..30u64 {
        let now = Now {
            mono: time * 100,
            wall: 0,
        };
        let mut work = Vec::new();
        for (index, node) in nodes.iter_mut().enumerate() {
            let mut effects = node.handle_timeout(now);
            if time == 0 && index > 0 {
                let address = address(0);
                effects.extend(node.handle(Input::Join { address }, now));
            }
            work.extend(effects.into_iter().map(|effect| (index, effect)));
        }
        while let Some((index, effect)) = work.pop() {
            let Effect::Send { to, bytes } = effect else {
                continue;
            };
            out.push(bytes.clone());
            let Some(to) = (0..3).find(|other| address(*other) == to) else {
                continue;
            };
            let from = address(index);
            let answers = nodes[to].handle(Input::Datagram { from, bytes }, now);
            work.extend(answers.into_iter().map(|answer| (to, answer)));
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_harm(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        reliable in any::<bool>(),
        noise in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let real = real_messages();
        let mut bytes = which.get(&real).to_vec();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut.index(4) == 0 {
            bytes.truncate(cut.index(bytes.len()));
            bytes.extend(noise);
        }
        let bytes = Bytes::from(bytes);
        let me = MemberId { node: node_id(0), boot: 1, address: address(0) };
        let now = Now::default();
        let mut victim = Membership::new(me, Profile::Lan, 9, now);
        for message in real.iter().take(8) {
            victim.handle(Input::Datagram { from: address(1), bytes: message.clone() }, now);
        }
        let input = if reliable {
            Input::Reliable { from: node_id(1), bytes }
        } else {
            Input::Datagram { from: address(1), bytes }
        };
        victim.handle(input, now);
        for step in 1..100u64 {
            let now = Now { mono: step * 50, wall: 0 };
            for effect in victim.handle_timeout(now) {
                if let Effect::Send { bytes, .. } = effect {
                    prop_assert!(bytes.len() <= 1150);
                }
            }
        }
        prop_assert!(victim.members().count() < 64);
    }

    #[test]
    fn a_timeout_that_is_too_early_does_nothing(early in 0u64..400) {
        let mut sim = Sim::new(1, Profile::Lan, Network::default(), 1);
        sim.advance(10);
        let me = *sim.machine_of(0).me();
        let now = Now { mono: 0, wall: 0 };
        let mut machine = Membership::new(me, Profile::Lan, 1, now);
        let due = machine.poll_timeout();
        let effects = machine.handle_timeout(Now { mono: early, wall: 0 });
        prop_assert!(effects.is_empty());
        prop_assert_eq!(machine.poll_timeout(), due);
    }
}
