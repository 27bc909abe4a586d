//! The rules by which load becomes a number of replicas.

use std::collections::BTreeMap;

use dunlin_state::Now;
use dunlin_state::model::{Aim, Autoscale, Metric, Resources};
use proptest::prelude::*;

use crate::autoscale::{Scaler, Seen};

const SECOND: u64 = 1_000;
const DAY: u64 = 86_400 * SECOND;

fn policy() -> Autoscale {
    Autoscale {
        min: 1,
        max: 10,
        targets: BTreeMap::from([(Metric::Connections, Aim::Each(100))]),
        down_window_ms: Some(60 * SECOND),
        ..Autoscale::default()
    }
}

fn seen(connections: u64) -> Seen {
    Seen {
        amounts: BTreeMap::from([(Metric::Connections, connections)]),
        may_shrink: true,
        ..Seen::default()
    }
}

/// Looks every five seconds, and follows what is wished.
struct Follower {
    policy: Autoscale,
    scaler: Scaler,
    replicas: u32,
    now: u64,
    changes: u32,
}

impl Follower {
    fn new(policy: Autoscale, replicas: u32) -> Self {
        Self {
            policy,
            scaler: Scaler::default(),
            replicas,
            now: 0,
            changes: 0,
        }
    }

    fn look(&mut self, seen: &Seen) -> u32 {
        let now = Now {
            mono: self.now,
            wall: self.now,
        };
        let none = Resources::ZERO;
        let wish = self
            .scaler
            .step(&self.policy, none, seen, self.replicas, now);
        self.changes += u32::from(wish.replicas != self.replicas);
        self.replicas = wish.replicas;
        self.now += 5 * SECOND;
        self.replicas
    }

    fn look_for(&mut self, seconds: u64, seen: &Seen) -> u32 {
        let until = self.now + seconds * SECOND;
        while self.now < until {
            self.look(seen);
        }
        self.replicas
    }
}

#[test]
fn goes_up_at_once_and_down_after_the_window() {
    let mut web = Follower::new(policy(), 1);
    assert_eq!(web.look(&seen(350)), 4);
    assert_eq!(web.look_for(55, &seen(120)), 4, "the window is not over");
    assert_eq!(web.look_for(15, &seen(120)), 2);
    assert_eq!(web.look(&seen(5_000)), 10, "the maximum");
    assert_eq!(web.look_for(70, &seen(0)), 1, "the minimum");
}

#[test]
fn a_tenth_more_or_less_changes_nothing() {
    let mut web = Follower::new(policy(), 5);
    assert_eq!(web.look_for(600, &seen(540)), 5);
    assert_eq!(web.look_for(600, &seen(460)), 5);
    assert_eq!(web.look(&seen(551)), 6);
}

#[test]
fn the_up_window_wants_more_for_its_whole_length() {
    let mut policy = policy();
    policy.up_window_ms = 30 * SECOND;
    let mut web = Follower::new(policy, 1);
    assert_eq!(web.look_for(25, &seen(900)), 1);
    assert_eq!(web.look(&seen(50)), 1, "a moment of rest begins it anew");
    assert_eq!(web.look_for(25, &seen(900)), 1);
    assert_eq!(web.look_for(15, &seen(900)), 9);
}

#[test]
fn what_is_missing_takes_nothing_away() {
    let mut web = Follower::new(policy(), 8);
    let mut missing = seen(100);
    missing.missing = true;
    assert_eq!(web.look_for(3_600, &missing), 8);
    missing.amounts.insert(Metric::Connections, 900);
    assert_eq!(web.look(&missing), 9, "what is seen is needed all the same");
    assert_eq!(
        web.look_for(55, &seen(100)),
        9,
        "the window begins with sight"
    );
    assert_eq!(web.look_for(20, &seen(100)), 1);
}

#[test]
fn a_rollout_takes_nothing_away() {
    let mut web = Follower::new(policy(), 8);
    let rolling = Seen {
        may_shrink: false,
        ..seen(100)
    };
    assert_eq!(web.look_for(3_600, &rolling), 8);
    assert_eq!(web.look(&seen(100)), 1, "the window has passed meanwhile");
}

#[test]
fn whoever_begins_takes_what_is_there_for_right() {
    let mut web = Follower::new(policy(), 9);
    assert_eq!(web.look_for(55, &seen(100)), 9);
    assert_eq!(web.look_for(15, &seen(100)), 1);
}

#[test]
fn goes_to_zero_when_nobody_connects_and_back_for_the_first() {
    let mut policy = policy();
    policy.min = 0;
    policy.zero_after_ms = Some(30 * SECOND);
    let mut web = Follower::new(policy, 1);
    assert_eq!(web.look_for(30, &seen(0)), 1);
    assert_eq!(web.look(&seen(0)), 0);
    assert_eq!(web.look_for(600, &seen(0)), 0);
    let waits = Seen {
        waits: true,
        ..seen(0)
    };
    assert_eq!(web.look(&waits), 1);
    assert_eq!(web.look_for(600, &seen(1)), 1, "one connection keeps it");
    let missing = Seen {
        missing: true,
        ..seen(0)
    };
    assert_eq!(web.look_for(600, &missing), 1, "who knows who connects");
    assert_eq!(web.look_for(40, &seen(0)), 0);
}

#[test]
fn the_measure_that_asks_for_most_decides() {
    let mut policy = policy();
    policy.targets.insert(Metric::Cpu, Aim::Percent(50));
    let reserved = Resources {
        cpu_millis: 1_000,
        ..Resources::ZERO
    };
    let mut load = seen(100);
    load.amounts.insert(Metric::Cpu, 2_600);
    let mut scaler = Scaler::default();
    let wish = scaler.step(&policy, reserved, &load, 1, Now::default());
    assert_eq!(wish.replicas, 6);
    assert_eq!(
        wish.reason,
        "2.60 cores, with a target of 0.50 cores a replica"
    );
}

#[test]
fn adds_replicas_ahead_of_a_morning_that_it_knows() {
    let mut policy = policy();
    policy.season_ms = Some(DAY);
    policy.max = 50;
    let mut web = Follower::new(policy, 1);
    let of_the_hour = |now: u64| {
        let busy = (8..18).contains(&(now % DAY / 3_600_000));
        seen(if busy { 2_000 } else { 100 })
    };
    while web.now < 3 * DAY + 8 * 3_600_000 - 60 * SECOND {
        let load = of_the_hour(web.now);
        web.look(&load);
    }
    assert!(web.replicas > 5, "{} a minute before eight", web.replicas);
    assert_eq!(of_the_hour(web.now), seen(100), "nobody is there yet");
}

prop_compose! {
    fn any_policy()(
        min in 0_u32..5,
        more in 0_u32..20,
        target in 1_u64..200,
        up in 0_u64..60,
        down in 0_u64..120,
        zero in 0_u64..120,
        season in prop::option::of(160_u64..7 * 86_400),
    ) -> Autoscale {
        Autoscale {
            min,
            max: (min + more).max(1),
            targets: BTreeMap::from([(Metric::Connections, Aim::Each(target))]),
            up_window_ms: up * SECOND,
            down_window_ms: Some(down * SECOND),
            zero_after_ms: Some(zero * SECOND),
            season_ms: season.map(|s| s * SECOND),
        }
    }
}

fn any_seen() -> impl Strategy<Value = Seen> {
    let amount = prop_oneof![Just(0), 0_u64..5_000, any::<u64>()];
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (amount, flags).prop_map(|(amount, (missing, waits, may_shrink))| Seen {
        missing,
        waits,
        may_shrink,
        ..seen(amount)
    })
}

proptest! {
    /// Whatever is told, and however far the clocks jump.
    #[test]
    fn never_leaves_the_bounds(
        policy in any_policy(),
        looks in prop::collection::vec((any_seen(), 0_u64..10_000_000), 1..80),
    ) {
        let (min, max) = (policy.min, policy.max);
        let mut web = Follower::new(policy, max);
        for (seen, later) in looks {
            let before = web.replicas;
            let after = web.look(&seen);
            prop_assert!((min..=max).contains(&after));
            if seen.missing || !seen.may_shrink {
                prop_assert!(after >= before, "taken away: {before} to {after}");
            }
            web.now += later;
        }
    }

    /// No flapping: a load that does not change changes the number once.
    #[test]
    fn a_steady_load_changes_it_once(
        mut policy in any_policy(),
        connections in 1_u64..4_000,
        start in 0_u32..20,
    ) {
        policy.season_ms = None;
        let start = policy.clamp(start);
        let mut web = Follower::new(policy, start);
        web.look_for(600, &seen(connections));
        prop_assert!(web.changes <= 1, "{} changes", web.changes);
        let settled = web.replicas;
        prop_assert_eq!(web.look_for(3_600, &seen(connections)), settled);
    }

    /// Noise within the window takes nothing away that is needed again.
    #[test]
    fn a_noisy_load_never_flaps(noise in prop::collection::vec(0_u64..60, 200)) {
        let mut web = Follower::new(policy(), 1);
        for more in noise {
            web.look(&seen(470 + more));
        }
        prop_assert!(web.changes <= 3, "{} changes", web.changes);
    }
}
