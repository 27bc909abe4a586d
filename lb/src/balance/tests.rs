use proptest::prelude::*;

use super::*;

fn target(n: u8) -> Target {
    Target {
        slot: Slot::Replica(n.into()),
        node: NodeId::from_bytes([n; 32]),
        address: ([10, 0, 0, n], 80).into(),
    }
}

fn balancer(policy: Policy, count: u8) -> Balancer {
    let mut balancer = Balancer::new(policy);
    balancer.update((0..count).map(target));
    balancer
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
        let picked = balancer.pick(&none, chance(&mut seed), 0).unwrap();
        balancer.connected(&picked);
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
    let next = |balancer: &mut Balancer| balancer.pick(&none, 0, 0).unwrap();
    assert_eq!(next(&mut balancer), target(0));
    assert_eq!(next(&mut balancer), target(1));
    balancer.update([0, 3, 5].map(target));
    assert_eq!(next(&mut balancer), target(3));
    assert_eq!(next(&mut balancer), target(5));
    assert_eq!(next(&mut balancer), target(0));
}

#[test]
fn the_fewest_connections_win() {
    let (mut balancer, none) = (balancer(Policy::LeastConnections, 3), BTreeSet::new());
    for _ in 0..3 {
        balancer.pick(&none, 5, 0).unwrap();
    }
    balancer.closed(&target(1));
    assert_eq!(balancer.pick(&none, 5, 0), Some(target(1)));
}

#[test]
fn a_failure_ejects_for_longer_each_time_until_a_trial_succeeds() {
    let (mut balancer, none) = (balancer(Policy::RoundRobin, 2), BTreeSet::new());
    let bad = target(0);
    let mut now = 0;
    for expected in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
        while balancer.pick(&none, 0, now) != Some(bad) {
            balancer.closed(&target(1));
        }
        fail(&mut balancer, &bad, now);
        let early = now + expected * 3 / 4 - 1;
        for _ in 0..4 {
            assert_eq!(balancer.pick(&none, 0, early), Some(target(1)));
            balancer.closed(&target(1));
        }
        now = early + 1;
    }
    assert_eq!(balancer.pick(&none, 0, now), Some(bad), "one trial");
    for _ in 0..4 {
        let during = balancer.pick(&none, 0, now);
        assert_eq!(during, Some(target(1)), "and only one");
    }
    balancer.connected(&bad);
    assert_eq!(balancer.pick(&none, 0, now), Some(bad));
    fail(&mut balancer, &bad, now);
    let soon = now + EJECTION * 3 / 4;
    let picked = [0; 2].map(|_| balancer.pick(&none, 0, soon).unwrap());
    assert!(picked.contains(&bad), "failures are counted anew");
}

#[test]
fn ejection_never_leaves_a_service_without_targets() {
    for policy in [
        Policy::RoundRobin,
        Policy::LeastConnections,
        Policy::RandomOfTwo,
    ] {
        let (mut balancer, none) = (balancer(policy, 2), BTreeSet::new());
        for _ in 0..2 {
            let picked = balancer.pick(&none, 0, 0).unwrap();
            fail(&mut balancer, &picked, 0);
        }
        assert!(balancer.pick(&none, 0, 1).is_some());
    }
}

#[test]
fn an_abandoned_trial_lets_the_next_one_try() {
    let (mut balancer, none) = (balancer(Policy::RoundRobin, 1), BTreeSet::new());
    balancer.pick(&none, 0, 0).unwrap();
    fail(&mut balancer, &target(0), 0);
    balancer.update([0, 1].map(target));
    let late = MAX_EJECTION * 2;
    for _ in 0..3 {
        while balancer.pick(&none, 0, late) != Some(target(0)) {}
        balancer.closed(&target(0));
    }
}

#[test]
fn one_that_leaves_and_returns_keeps_its_count() {
    let (mut balancer, none) = (balancer(Policy::LeastConnections, 1), BTreeSet::new());
    balancer.pick(&none, 0, 0).unwrap();
    balancer.update([]);
    assert_eq!(balancer.pick(&none, 0, 0), None);
    balancer.update([target(0)]);
    assert_eq!(balancer.open(&target(0)), 1);
    balancer.update([]);
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
            Just(Policy::RoundRobin), Just(Policy::LeastConnections), Just(Policy::RandomOfTwo)
        ],
        tried in prop::collection::btree_set(0..6_u8, 0..3),
    ) {
        let mut balancer = Balancer::new(policy);
        let tried: BTreeSet<Target> = tried.into_iter().map(target).collect();
        let (mut listed, mut open) = (BTreeSet::new(), Vec::new());
        for (now, step) in steps.into_iter().enumerate() {
            let now = now as u64 * 300;
            match step {
                Step::Update(ready) => {
                    listed = ready.into_iter().map(target).collect();
                    balancer.update(listed.iter().copied());
                }
                Step::Pick(entropy) => {
                    let picked = balancer.pick(&tried, entropy, now);
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
