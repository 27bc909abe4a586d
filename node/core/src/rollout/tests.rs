use dunlin_state::desired::{Command, Previous, Rollout, RolloutChange};
use dunlin_state::model::{FailureAction, Phase, ServiceSpec, Slot, Trial, UpdateOrder};
use std::sync::Arc;

use crate::agent::tests::flock::{Flock, key, process_spec, service};

fn version(number: u32) -> ServiceSpec {
    let mut spec = process_spec();
    spec.environment.insert("V".to_owned(), number.to_string());
    spec.update.monitor_ms = 100;
    spec
}

/// A service whose first specification has proven itself.
fn proven(nodes: usize, replicas: u32) -> Flock {
    let mut flock = Flock::new(nodes);
    flock.deploy("web", version(1), replicas);
    let done = |f: &Flock| f.is_exact("web") && trials(f).iter().all(|t| *t == Trial::Proven);
    assert!(flock.run_until(5_000, done).is_some());
    flock.lowest = usize::MAX;
    flock
}

fn trials(flock: &Flock) -> Vec<Trial> {
    flock.claims().map(|(_, claim)| claim.trial).collect()
}

/// Wants another specification, as a deploy writes it.
fn roll(flock: &mut Flock, spec: ServiceSpec, adjust: impl Fn(&mut Rollout)) {
    flock.edit(|desired| {
        let known = desired.services.get_mut(&key("web")).unwrap();
        let next = service(spec, known.replicas);
        let mut rollout = Rollout {
            previous: Some(Previous {
                spec: Arc::clone(&known.spec),
                revision: known.revision.clone(),
            }),
            ..Rollout::default()
        };
        adjust(&mut rollout);
        *known = next;
        known.rollout = Arc::new(rollout);
    });
}

fn steer(flock: &mut Flock, adjust: impl Fn(&mut Rollout)) {
    flock.edit(|desired| {
        let known = desired.services.get_mut(&key("web")).unwrap();
        let mut rollout = Rollout::clone(&known.rollout);
        adjust(&mut rollout);
        known.rollout = Arc::new(rollout);
    });
}

fn updated(flock: &Flock) -> Vec<Slot> {
    let revision = &flock.desired.services[&key("web")].revision;
    let mut slots: Vec<Slot> = flock
        .claims()
        .filter(|(_, c)| c.revision == *revision)
        .map(|(_, c)| c.slot.slot)
        .collect();
    slots.sort_unstable();
    slots
}

fn broken(flock: &mut Flock) -> ServiceSpec {
    let mut spec = version(2);
    spec.image = "nonsense".to_owned();
    flock.broken.insert(spec.image.clone());
    spec
}

#[test]
fn a_bad_specification_replaces_no_more_than_its_parallelism() {
    for parallelism in [1, 3] {
        let mut flock = proven(3, 9);
        let mut spec = broken(&mut flock);
        spec.update.parallelism = parallelism;
        roll(&mut flock, spec, |_| {});
        flock.run(30_000);
        assert_eq!(updated(&flock).len(), parallelism as usize);
        assert_eq!(flock.lowest, 9 - parallelism as usize);
        let paused = |command: &Command| {
            matches!(
                command,
                Command::Rollout {
                    change: RolloutChange::Pause { .. },
                    ..
                }
            )
        };
        assert!(flock.proposed.iter().all(paused), "{:?}", flock.proposed);
        assert!(!flock.proposed.is_empty(), "the failure is acted on");
    }
}

#[test]
fn a_failure_within_the_ratio_is_borne() {
    let mut flock = proven(3, 9);
    let mut spec = broken(&mut flock);
    spec.update.max_failure_permille = 250;
    spec.update.parallelism = 4;
    roll(&mut flock, spec, |_| {});
    flock.run(30_000);
    assert_eq!(updated(&flock).len(), 4, "three of nine are too many");
    let mut flock = proven(3, 4);
    let mut spec = broken(&mut flock);
    spec.update.failure_action = FailureAction::Continue;
    roll(&mut flock, spec, |_| {});
    flock.run(60_000);
    assert_eq!(updated(&flock).len(), 4, "it goes on whatever happens");
}

#[test]
fn a_failed_update_asks_for_the_specification_before() {
    let mut flock = proven(3, 6);
    let mut spec = broken(&mut flock);
    spec.update.failure_action = FailureAction::Rollback;
    let bad = service(spec.clone(), 6).revision;
    roll(&mut flock, spec, |_| {});
    let asked = |f: &Flock| !f.proposed.is_empty();
    assert!(flock.run_until(20_000, asked).is_some());
    let Command::Rollout {
        revision, change, ..
    } = &flock.proposed[0]
    else {
        panic!("{:?}", flock.proposed)
    };
    assert_eq!(revision.as_ref(), Some(&bad));
    assert!(
        matches!(change, RolloutChange::Rollback { reason: Some(r) } if r == "1 of 6 slots failed")
    );
    // The one before fails too: there is nowhere to go back to.
    flock.proposed.clear();
    steer(&mut flock, |r| r.is_rollback = true);
    assert!(flock.run_until(20_000, asked).is_some());
    let pause = |c: &Command| {
        matches!(
            c,
            Command::Rollout {
                change: RolloutChange::Pause { .. },
                ..
            }
        )
    };
    assert!(flock.proposed.iter().all(pause), "{:?}", flock.proposed);
}

#[test]
fn a_node_without_the_right_to_undo_an_update_is_no_obstacle() {
    let mut flock = proven(8, 1);
    let mut spec = broken(&mut flock);
    spec.update.failure_action = FailureAction::Rollback;
    roll(&mut flock, spec, |_| {});
    assert!(
        flock
            .run_until(20_000, |f| !f.proposed.is_empty())
            .is_some()
    );
    assert_eq!(flock.proposers.len(), 1, "others give it time");
    // Nothing comes of it. Most of the others neither hold the service nor auction it.
    let all = flock.run_until(20_000, |f| f.proposers.len() == 8);
    assert!(all.is_some(), "{:?}", flock.proposers);
}

#[test]
fn a_paused_rollout_goes_no_further_and_a_resumed_one_forgives() {
    let mut flock = proven(3, 6);
    let spec = broken(&mut flock);
    roll(&mut flock, spec, |_| {});
    flock.run(10_000);
    assert!(trials(&flock).contains(&Trial::Failed(0)));
    steer(&mut flock, |r| r.paused = true);
    flock.broken.clear();
    flock.run(10_000);
    assert_eq!(updated(&flock).len(), 1, "it is paused");
    steer(&mut flock, |r| {
        r.paused = false;
        r.round += 1;
    });
    assert!(flock.run_until(400_000, |f| f.is_exact("web")).is_some());
}

#[test]
fn a_canary_keeps_the_others_as_they_are_also_when_they_move() {
    let mut flock = proven(3, 6);
    roll(&mut flock, version(2), |r| r.canary = Some(2));
    flock.run(10_000);
    let two = [Slot::Replica(0), Slot::Replica(1)];
    assert_eq!(updated(&flock), two);
    let (node, _) = flock
        .claims()
        .find(|(_, c)| c.slot.slot == Slot::Replica(5))
        .unwrap();
    flock.kill(node);
    let served = |f: &Flock| f.served().len() == 6;
    assert!(flock.run_until(60_000, served).is_some());
    flock.run(2_000);
    assert_eq!(updated(&flock), two, "what moves keeps its specification");
    steer(&mut flock, |r| r.canary = None);
    assert!(flock.run_until(60_000, |f| f.is_exact("web")).is_some());
}

#[test]
fn started_first_there_are_never_fewer_ready_than_wanted() {
    let mut flock = proven(3, 6);
    let mut spec = version(2);
    spec.update.order = UpdateOrder::StartFirst;
    spec.update.parallelism = 2;
    roll(&mut flock, spec, |_| {});
    assert!(flock.run_until(60_000, |f| f.is_exact("web")).is_some());
    assert_eq!(flock.lowest, 6);
}

#[test]
fn a_node_that_is_alone_stops_first() {
    let mut flock = proven(1, 2);
    let mut spec = version(2);
    spec.update.order = UpdateOrder::StartFirst;
    roll(&mut flock, spec, |_| {});
    assert!(flock.run_until(60_000, |f| f.is_exact("web")).is_some());
    assert_eq!(flock.lowest, 1);
}

#[test]
fn a_slot_that_nobody_can_take_does_not_stall_a_rollout() {
    let mut flock = Flock::new(2);
    let mut first = version(1);
    first.placement.max_per_node = Some(1);
    flock.deploy("web", first.clone(), 3);
    flock.run(10_000);
    assert_eq!(flock.served().len(), 2, "the third has no place");
    first.environment.insert("V".to_owned(), "2".to_owned());
    roll(&mut flock, first, |_| {});
    let both = |f: &Flock| updated(f).len() == 2 && f.served().len() == 2;
    assert!(flock.run_until(60_000, both).is_some());
}

#[test]
fn connections_get_their_time_before_a_replica_stops() {
    let mut flock = proven(3, 3);
    let mut spec = version(2);
    spec.drain_ms = Some(700);
    roll(&mut flock, spec.clone(), |_| {});
    assert!(flock.run_until(60_000, |f| f.is_exact("web")).is_some());
    flock.run(1_000);
    flock.edit(|d| d.services.get_mut(&key("web")).unwrap().replicas = 2);
    let draining = |f: &Flock| f.claims().any(|(_, c)| c.phase == Phase::Stopping);
    assert!(flock.run_until(1_000, draining).is_some());
    flock.run(500);
    assert_eq!(flock.running().len(), 3, "it still runs");
    assert_eq!(flock.served().len(), 2, "and is offered to nobody");
    flock.edit(|d| d.services.get_mut(&key("web")).unwrap().replicas = 3);
    flock.run(50);
    assert_eq!(flock.served().len(), 3, "wanted again, it goes on");
    flock.edit(|d| d.services.get_mut(&key("web")).unwrap().replicas = 2);
    flock.run(1_000);
    assert_eq!(flock.running().len(), 2);
}
