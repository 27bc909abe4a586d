use proptest::prelude::*;

use super::*;

mod ejection;

fn target(n: u8) -> Target {
    Target {
        slot: Slot::Replica(n.into()),
        node: NodeId::from_bytes([n; 32]),
        epoch: 1,
        address: ([10, 0, 0, n], 80).into(),
    }
}

fn rules(policy: Policy) -> Rules {
    Rules {
        policy,
        ..Rules::default()
    }
}

fn balancer(policy: Policy, count: u8) -> Balancer {
    let mut balancer = Balancer::new(rules(policy));
    balancer.list((0..count).map(target));
    balancer
}

impl Balancer {
    fn list(&mut self, targets: impl IntoIterator<Item = Target>) {
        self.update(targets.into_iter().map(Candidate::from));
    }

    fn take(&mut self, tried: &BTreeSet<Target>, entropy: u64, now: u64) -> Option<Target> {
        let ask = Ask {
            tried,
            only: None,
            entropy,
            source: entropy,
            now,
        };
        match self.pick(&ask) {
            Pick::Chosen(target) => Some(target),
            Pick::Full | Pick::Nobody => None,
        }
    }
}

/// A stream of numbers from a seed (SplitMix64).
fn chance(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn fail(balancer: &mut Balancer, target: &Target, now: u64) {
    balancer.failed(target, 0, now);
    balancer.closed(target);
}

/// Open connections of each target after `connections` that all stay.
fn loads(policy: Policy, count: u8, connections: u32) -> Vec<u32> {
    let (mut balancer, mut seed, none) = (balancer(policy, count), 1, BTreeSet::new());
    for _ in 0..connections {
        let picked = balancer.take(&none, chance(&mut seed), 0).unwrap();
        balancer.connected(&picked, 300, 0);
    }
    (0..count).map(|n| balancer.open(&target(n))).collect()
}

#[test]
fn each_policy_is_as_even_as_it_says() {
    for (policy, spread) in [
        (Policy::RoundRobin, 0),
        (Policy::LeastConnections, 0),
        (Policy::RandomOfTwo, 6),
    ] {
        let loads = loads(policy, 10, 1000);
        let (most, fewest) = (loads.iter().max().unwrap(), loads.iter().min().unwrap());
        assert!(most - fewest <= spread, "{policy:?}: {loads:?}");
        assert_eq!(loads.iter().sum::<u32>(), 1000);
    }
}

#[test]
fn round_robin_goes_on_where_it_was_when_targets_change() {
    let (mut balancer, none) = (balancer(Policy::RoundRobin, 4), BTreeSet::new());
    let next = |balancer: &mut Balancer| balancer.take(&none, 0, 0).unwrap();
    assert_eq!(next(&mut balancer), target(0));
    assert_eq!(next(&mut balancer), target(1));
    balancer.list([0, 3, 5].map(target));
    assert_eq!(next(&mut balancer), target(3));
    assert_eq!(next(&mut balancer), target(5));
    assert_eq!(next(&mut balancer), target(0));
}

#[test]
fn the_fewest_connections_win() {
    let (mut balancer, none) = (balancer(Policy::LeastConnections, 3), BTreeSet::new());
    for _ in 0..3 {
        balancer.take(&none, 5, 0).unwrap();
    }
    balancer.closed(&target(1));
    assert_eq!(balancer.take(&none, 5, 0), Some(target(1)));
}

#[test]
fn one_that_leaves_and_returns_keeps_its_count() {
    let (mut balancer, none) = (balancer(Policy::LeastConnections, 1), BTreeSet::new());
    balancer.take(&none, 0, 0).unwrap();
    balancer.list([]);
    assert_eq!(balancer.take(&none, 0, 0), None);
    balancer.list([target(0)]);
    assert_eq!(balancer.open(&target(0)), 1);
    balancer.list([]);
    balancer.closed(&target(0));
    assert!(balancer.targets.is_empty(), "nothing is kept for ever");
}

#[derive(Debug, Clone)]
enum Step {
    Update(BTreeSet<u8>),
    Pick(u64),
    End(usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        prop::collection::btree_set(0..6_u8, 0..6).prop_map(Step::Update),
        any::<u64>().prop_map(Step::Pick),
        (0..8_usize, any::<bool>()).prop_map(|(n, failed)| Step::End(n, failed)),
    ]
}

proptest! {
    #[test]
    fn counts_match_the_connections(
        steps in prop::collection::vec(step(), 0..80),
        policy in prop_oneof![
            Just(Policy::RoundRobin), Just(Policy::LeastConnections), Just(Policy::RandomOfTwo),
            Just(Policy::Weighted), Just(Policy::SourceHash)
        ],
        tried in prop::collection::btree_set(0..6_u8, 0..3),
    ) {
        let mut balancer = Balancer::new(rules(policy));
        let tried: BTreeSet<Target> = tried.into_iter().map(target).collect();
        let (mut listed, mut open) = (BTreeSet::new(), Vec::new());
        for (now, step) in steps.into_iter().enumerate() {
            let now = now as u64 * 300;
            match step {
                Step::Update(ready) => {
                    listed = ready.into_iter().map(target).collect();
                    balancer.list(listed.iter().copied());
                }
                Step::Pick(entropy) => {
                    let picked = balancer.take(&tried, entropy, now);
                    prop_assert_eq!(picked.is_none(), listed.is_subset(&tried));
                    if let Some(picked) = picked {
                        prop_assert!(listed.contains(&picked) && !tried.contains(&picked));
                        open.push(picked);
                    }
                }
                Step::End(n, failed) if n < open.len() => {
                    let ended = open.swap_remove(n);
                    if failed {
                        balancer.failed(&ended, 7, now);
                    }
                    balancer.closed(&ended);
                }
                Step::End(..) => {}
            }
            for n in 0..6 {
                let expected = open.iter().filter(|t| **t == target(n)).count();
                prop_assert_eq!(balancer.open(&target(n)) as usize, expected);
            }
        }
    }
}

#[test]
fn the_quicker_of_two_gets_more() {
    let (mut balancer, mut seed, none) = (balancer(Policy::RandomOfTwo, 2), 1, BTreeSet::new());
    for (n, micros) in [(0, 4_000), (1, 1_000)] {
        let slow = target(n);
        while balancer.take(&none, chance(&mut seed), 0) != Some(slow) {}
        balancer.connected(&slow, micros, 0);
    }
    balancer.list([]);
    let mut balancer = Balancer {
        targets: std::mem::take(&mut balancer.targets),
        ..Balancer::default()
    };
    for state in balancer.targets.values_mut() {
        state.open = 0;
    }
    balancer.list([0, 1].map(target));
    for _ in 0..500 {
        balancer.take(&none, chance(&mut seed), 0).unwrap();
    }
    let (slow, quick) = (balancer.open(&target(0)), balancer.open(&target(1)));
    assert!(quick > slow * 3 && slow > 0, "{slow} {quick}");
}

#[test]
fn a_latency_of_long_ago_is_forgotten() {
    let (mut balancer, none) = (balancer(Policy::RandomOfTwo, 2), BTreeSet::new());
    for n in [0, 1] {
        while balancer.take(&none, 0, 0) != Some(target(n)) {
            balancer.closed(&target(1 - n));
            balancer.targets.get_mut(&target(1 - n)).unwrap().latency = 9_000_000;
        }
        balancer.connected(&target(n), 9_000_000, 0);
        balancer.closed(&target(n));
    }
    let state = &balancer.targets[&target(0)];
    assert!(state.cost(0) > 1_000_000);
    assert_eq!(state.cost(LATENCY_HALF_LIFE * 40), u64::from(LATENCY_FLOOR));
}

#[test]
fn the_nearest_come_first_and_others_when_they_are_gone() {
    let near = |n: u8, distance| Candidate {
        distance,
        ..target(n).into()
    };
    let all = [
        near(0, Distance::Node),
        near(1, Distance::Zone),
        near(2, Distance::Far),
    ];
    let mut tried = BTreeSet::new();
    for (prefer, order) in [(Locality::Node, [0, 1, 2]), (Locality::Zone, [0, 1, 2])] {
        let mut balancer = Balancer::new(Rules {
            prefer,
            ..rules(Policy::RoundRobin)
        });
        balancer.update(all);
        for n in order {
            let picked = balancer.take(&tried, 0, 0).unwrap();
            assert_eq!(picked, target(n));
            tried.insert(picked);
        }
        tried.clear();
    }
    let mut balancer = Balancer::new(Rules {
        prefer: Locality::Zone,
        ..rules(Policy::LeastConnections)
    });
    balancer.update(all);
    let mut loads = [0; 3];
    for _ in 0..10 {
        let picked = balancer.take(&tried, 0, 0).unwrap();
        loads[usize::from(picked.node.as_bytes()[0])] += 1;
    }
    assert_eq!(loads, [5, 5, 0], "this node is in its own zone");
}

#[test]
fn a_target_that_is_full_is_waited_for() {
    let mut balancer = Balancer::new(Rules {
        max_connections: Some(2),
        max_pending: Some(1),
        ..rules(Policy::RoundRobin)
    });
    balancer.list([0, 1].map(target));
    let tried = BTreeSet::new();
    let ask = Ask {
        tried: &tried,
        only: None,
        entropy: 0,
        source: 0,
        now: 0,
    };
    for _ in 0..4 {
        assert!(matches!(balancer.pick(&ask), Pick::Chosen(_)));
    }
    assert_eq!(balancer.pick(&ask), Pick::Full);
    assert!(balancer.wait() && !balancer.wait());
    balancer.closed(&target(1));
    assert_eq!(balancer.pick(&ask), Pick::Chosen(target(1)));
    balancer.waited();
    assert_eq!(balancer.pending(), 0);
    balancer.list([]);
    assert_eq!(balancer.pick(&ask), Pick::Nobody);
}

#[test]
fn a_target_that_never_says_anything_is_ejected() {
    let (mut balancer, none) = (balancer(Policy::RoundRobin, 2), BTreeSet::new());
    let mute = target(0);
    let round = |balancer: &mut Balancer, answered: bool| {
        while balancer.take(&none, 0, 0) != Some(mute) {
            balancer.closed(&target(1));
        }
        balancer.connected(&mute, 300, 0);
        balancer.judged(&mute, answered, 0, 0);
        balancer.closed(&mute);
    };
    for answered in [false, false, false, false, true, false, false, false, false] {
        round(&mut balancer, answered);
    }
    assert!(matches!(
        balancer.targets[&mute].health,
        Health::Good { strikes: 4 }
    ));
    round(&mut balancer, false);
    for _ in 0..4 {
        assert_eq!(balancer.take(&none, 0, 1), Some(target(1)));
    }
}

proptest! {
    #[test]
    fn weights_are_kept_to(weights in prop::collection::vec(0..20_u16, 1..6)) {
        let mut balancer = Balancer::new(rules(Policy::Weighted));
        let all = weights.iter().zip(0..).map(|(weight, n)| Candidate {
            weight: *weight,
            ..target(n).into()
        });
        balancer.update(all);
        let total: u32 = weights.iter().map(|w| u32::from(*w)).sum();
        let none = BTreeSet::new();
        for _ in 0..total * 3 {
            balancer.take(&none, 0, 0).unwrap();
        }
        for (weight, n) in weights.iter().zip(0..) {
            if total > 0 {
                prop_assert_eq!(balancer.open(&target(n)), u32::from(*weight) * 3);
            }
        }
    }

    /// Whoever stays keeps all of its clients but those of the one that went.
    #[test]
    fn sources_move_only_when_their_target_goes(
        source in any::<u32>(), count in 2..8_u8, gone in 0..8_u8,
    ) {
        let ask = |balancer: &mut Balancer| {
            let tried = BTreeSet::new();
            let source = source_hash(std::net::Ipv4Addr::from_bits(source).into());
            let ask = Ask { tried: &tried, only: None, entropy: 0, source, now: 0 };
            balancer.pick(&ask)
        };
        let mut balancer = balancer(Policy::SourceHash, count);
        let before = ask(&mut balancer);
        prop_assert_eq!(before, ask(&mut balancer));
        balancer.list((0..count).filter(|n| *n != gone % count).map(target));
        let after = ask(&mut balancer);
        if before != Pick::Chosen(target(gone % count)) {
            prop_assert_eq!(before, after);
        }
    }

    #[test]
    fn a_split_takes_its_share(percent in 0..=100_u8, mut seed in any::<u64>()) {
        let aside = (0..20_000).filter(|_| goes_aside(percent, chance(&mut seed))).count();
        let expected = usize::from(percent) * 200;
        prop_assert!(aside.abs_diff(expected) <= 400, "{} of {}", aside, expected);
        prop_assert!(!goes_aside(0, seed) && goes_aside(100, seed));
    }

    /// In any stretch of time a source gets no more than its burst and its rate, and never less
    /// when it stays below.
    #[test]
    fn a_source_is_held_to_its_rate(
        rate in 1..50_u32, burst in 1..20_u32, gaps in prop::collection::vec(0..500_u64, 1..200),
    ) {
        let mut limiter = Limiter::new(dunlin_state::model::RateLimit { per_second: rate, burst });
        let source = [192, 0, 2, 1].into();
        let (mut now, mut admitted) = (0, 0_u64);
        for gap in gaps {
            now += gap;
            admitted += u64::from(limiter.admit(source, now));
            let most = u64::from(burst) + now * u64::from(rate) / 1_000 + 1;
            prop_assert!(admitted <= most, "{} of {}", admitted, most);
        }
        now += 1_000 * u64::from(burst);
        for _ in 0..burst {
            prop_assert!(limiter.admit(source, now));
        }
        prop_assert!(!limiter.admit(source, now));
        prop_assert!(limiter.admit([192, 0, 2, 2].into(), now), "others are not concerned");
    }
}

#[test]
fn the_memory_of_sources_is_bounded() {
    let rate = dunlin_state::model::RateLimit {
        per_second: 1,
        burst: 1,
    };
    let mut limiter = Limiter::new(rate);
    let source = |n: usize| std::net::Ipv4Addr::from_bits(n as u32).into();
    for n in 0..MAX_SOURCES * 2 {
        assert!(limiter.admit(source(n), n as u64));
    }
    let now = MAX_SOURCES as u64 * 2;
    assert!(!limiter.admit(source(MAX_SOURCES * 2 - 1), now));
    assert!(limiter.admit(source(0), now), "long forgotten");
}

#[test]
fn what_is_denied_stays_out_even_when_it_is_allowed() {
    let list = |texts: &[&str]| -> Vec<dunlin_state::model::Cidr> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    };
    let (allow, deny) = (list(&["10.0.0.0/8", "fd00::/8"]), list(&["10.6.6.0/24"]));
    for (source, may) in [
        ("10.1.2.3", true),
        ("10.6.6.6", false),
        ("::ffff:10.6.6.6", false),
        ("192.0.2.1", false),
        ("fd00::1", true),
    ] {
        assert_eq!(
            admits(&allow, &deny, source.parse().unwrap()),
            may,
            "{source}"
        );
    }
    assert!(admits(&[], &[], [192, 0, 2, 1].into()));
}

#[test]
fn who_asks_for_a_slot_gets_no_other() {
    for policy in [Policy::RoundRobin, Policy::RandomOfTwo, Policy::SourceHash] {
        let mut balancer = Balancer::new(rules(policy));
        balancer.list([0, 1, 2].map(target));
        let none = BTreeSet::new();
        for entropy in 0..20 {
            let ask = Ask {
                tried: &none,
                only: Some(target(1).slot),
                entropy,
                source: entropy,
                now: 0,
            };
            assert_eq!(balancer.pick(&ask), Pick::Chosen(target(1)));
            let tried = BTreeSet::from([target(1)]);
            let again = Ask {
                tried: &tried,
                ..ask
            };
            assert_eq!(balancer.pick(&again), Pick::Nobody);
        }
        // Full is that replica, whatever the others have.
        balancer.set_rules(Rules {
            max_connections: Some(1),
            ..rules(policy)
        });
        let full = Ask {
            tried: &none,
            only: Some(target(1).slot),
            entropy: 0,
            source: 0,
            now: 0,
        };
        assert_eq!(balancer.pick(&full), Pick::Full);
    }
}
