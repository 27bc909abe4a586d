//! Runs of the simulator that have failed once, and the proof that a seed says everything.

use dunlin_tests::sim::{Outcome, Scenario, run};

/// The size of the cluster in which the seeds below have failed.
const NODES: usize = 9;
const SERVICES: usize = 6;

fn replay(scenario: Scenario, seed: u64) -> Outcome {
    run(scenario, NODES, SERVICES, seed, None)
}

fn assert_holds(scenario: Scenario, seed: u64) {
    let outcome = replay(scenario, seed);
    assert_eq!(
        outcome.violations,
        Vec::<String>::new(),
        "{} with seed {seed}; the story:\n{}",
        scenario.name(),
        outcome.trace.join("\n")
    );
}

/// I8: what happens follows from the seed alone.
#[test]
fn the_same_seed_gives_the_same_run() {
    for scenario in [Scenario::Churn, Scenario::Disk] {
        let (once, again) = (replay(scenario, 5), replay(scenario, 5));
        assert_eq!(once.digest, again.digest, "{}", scenario.name());
        assert_eq!(once.trace, again.trace, "{}", scenario.name());
        let other = replay(scenario, 6);
        assert_ne!(once.digest, other.digest, "the digest tells runs apart");
    }
}

/// A fault scenario that injects nothing would pass every check.
#[test]
fn faults_do_happen() {
    for scenario in [
        Scenario::Crash,
        Scenario::Partition,
        Scenario::Lossy,
        Scenario::Disk,
        Scenario::Runtime,
        Scenario::Clock,
        Scenario::Health,
        Scenario::Liar,
        Scenario::Churn,
    ] {
        let outcome = replay(scenario, 1);
        assert!(outcome.faults > 0, "{} has faults", scenario.name());
        assert!(outcome.awards > 0, "{} places work", scenario.name());
    }
}

/// A member that lies moves nothing, and nobody falls silent for what it says.
#[test]
fn a_liar_moves_nothing() {
    for seed in 1..=3 {
        assert_holds(Scenario::Liar, seed);
    }
}

/// The runtime's answer to a start was lost, and the claim waited for it for ever.
#[test]
fn a_start_that_is_not_answered_is_asked_for_again() {
    assert_holds(Scenario::Runtime, 2);
    assert_holds(Scenario::Runtime, 3);
    assert_holds(Scenario::Runtime, 4);
}

/// Silence was counted from before anybody had asked: members of a quiet cluster hear nothing of
/// each other for more than the hold time, so a stall of one second cost a node its replicas.
#[test]
fn a_stall_at_a_fifth_of_loss_moves_nothing() {
    for seed in [23, 43, 163] {
        assert_holds(Scenario::Lossy, seed);
    }
}

/// Updates alone, and updates while nodes die and the network splits, end at one revision.
#[test]
fn rollouts_end_at_one_revision() {
    for seed in 1..5 {
        assert_holds(Scenario::Rollout, seed);
    }
}

/// Nothing starts before what it waits for was there, and everything starts in the end.
#[test]
fn services_start_in_order() {
    for seed in 1..4 {
        assert_holds(Scenario::Depend, seed);
    }
}

/// Every part of every run is done, once where nothing goes wrong.
#[test]
fn jobs_are_done() {
    // 104: an award for a revision that was replaced before it came started the next one before its
    // hook.
    for seed in [1, 2, 3, 104] {
        assert_holds(Scenario::Jobs, seed);
    }
    let run = replay(Scenario::Jobs, 1);
    assert!(run.succeeded > 0, "work is done at all");
    assert!(run.given > 0, "and told to what waits for it");
    assert!(run.hooks > 0, "which has hooks");
}

/// Who is worth more finds room, and drives out nobody else, and no more than it has to.
#[test]
fn higher_priorities_find_room() {
    let runs: Vec<Outcome> = (1..3).map(|seed| replay(Scenario::Ranks, seed)).collect();
    for run in &runs {
        let story = run.trace.join("\n");
        assert_eq!(run.violations, Vec::<String>::new(), "{story}");
    }
    let preempted = runs.iter().map(|run| run.preempted);
    assert!(preempted.sum::<u64>() > 0, "somebody makes way");
}

/// Replicas are moved to hosts that join while others die, and nothing is amiss.
#[test]
fn replicas_are_moved_to_hosts_that_join() {
    let runs: Vec<Outcome> = (1..4)
        .map(|seed| replay(Scenario::Rebalance, seed))
        .collect();
    for run in &runs {
        let story = run.trace.join("\n");
        assert_eq!(run.violations, Vec::<String>::new(), "{story}");
        assert!(run.rebalanced > 0, "something is moved");
    }
}

/// What services may want together is kept to, and going over it stops nothing.
#[test]
fn quotas_are_kept_to() {
    for seed in 1..4 {
        assert_holds(Scenario::Quota, seed);
    }
    assert!(replay(Scenario::Quota, 1).refused > 0, "quotas are met");
}

/// Of what must never run twice there are never two, whatever dies, freezes or is cut off.
#[test]
fn strict_singletons_are_never_two() {
    for seed in 1..3 {
        assert_holds(Scenario::Strict, seed);
    }
}

/// Data stays where it is, and nobody begins anew without it, also after the loss of all power.
#[test]
fn slots_stay_with_their_data() {
    for seed in 1..4 {
        assert_holds(Scenario::Volumes, seed);
    }
}

/// A replica that drained for its update was not counted among those of its node, so that a third
/// one came to a node that may have two.
#[test]
fn what_is_updated_in_its_place_is_still_there() {
    assert_holds(Scenario::Partition, 122);
    assert_holds(Scenario::Churn, 191);
}

/// The old holder of a slot waited for the better one to be updated first, and the better one for a
/// rollout that was halted: both ran for ever.
#[test]
fn nobody_waits_for_an_update_that_does_not_come() {
    assert_holds(Scenario::Churn, 719);
}

/// Scaled down and up again while connections still ended: others had the slots by then.
#[test]
fn what_was_given_up_may_be_filled_elsewhere() {
    assert_holds(Scenario::Calm, 60);
    assert_holds(Scenario::Calm, 156);
    assert_holds(Scenario::Runtime, 125);
}

/// The answer to a health check came while the replica drained for an update that was then called
/// off: it was not heard, and nothing was asked again for half a minute.
#[test]
fn health_is_watched_again_after_an_update_that_was_called_off() {
    assert_holds(Scenario::Health, 332);
}
