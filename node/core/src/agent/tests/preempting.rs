//! Services of a higher priority find room where those of a lower one have to go.

use dunlin_state::model::{Policy, Resources, ServiceSpec};

use super::flock::{Flock, key, node_id, process_spec};

fn spec(cpu_millis: u64, priority: i32) -> ServiceSpec {
    ServiceSpec {
        reservation: Resources {
            cpu_millis,
            ..Resources::ZERO
        },
        policy: Policy {
            priority,
            ..Policy::default()
        },
        ..process_spec()
    }
}

fn served(flock: &Flock, name: &str) -> usize {
    let served = flock.served();
    served
        .iter()
        .filter(|(service, _)| *service == key(name))
        .count()
}

/// The cluster is full, then something more important comes: it runs soon, no more goes than has to,
/// and what had to go waits, says why, and comes back when there is room.
#[test]
fn a_higher_priority_takes_the_place_of_a_lower_one() {
    let mut flock = Flock::new(3);
    flock.deploy("batch", spec(2_000, 0), 6);
    assert!(flock.run_until(5_000, |f| f.is_exact("batch")).is_some());
    flock.deploy("shop", spec(2_000, 10), 2);
    assert!(flock.run_until(20_000, |f| f.is_exact("shop")).is_some());
    flock.run(30_000);
    assert_eq!((served(&flock, "shop"), served(&flock, "batch")), (2, 4));
    let explanation = flock.agent(1).explain(&key("batch"), flock.now).unwrap();
    let cause = explanation.cause.unwrap();
    assert!(cause.contains("preempted by default/shop"), "{cause}");
    let waits = explanation.slots.iter().filter_map(|s| s.message.as_ref());
    let waits: Vec<&String> = waits.filter(|m| m.contains("preempted")).collect();
    assert_eq!(waits.len(), 2, "{:?}", explanation.slots);
    flock.edit(|d| {
        d.services.remove(&key("shop"));
    });
    assert!(flock.run_until(10_000, |f| f.is_exact("batch")).is_some());
    flock.run(2_000);
    for node in 0..3 {
        assert!(flock.agent(node).report().preempted.is_empty());
    }
}

/// Who has to go looks for another node first, and loses nothing where there is one.
#[test]
fn who_makes_way_moves_start_first_where_there_is_room() {
    let mut flock = Flock::with(2, |config| {
        if config.name == "n1" {
            config.capacity.cpu_millis = 1_000;
        }
    });
    flock.deploy("small", spec(1_000, 0), 1);
    assert!(flock.run_until(5_000, |f| f.is_exact("small")).is_some());
    // It may sit on either; only the larger node can take what comes, and needs all of it.
    flock.lowest = usize::MAX;
    flock.deploy("large", spec(4_000, 1), 1);
    assert!(flock.run_until(20_000, |f| f.is_exact("large")).is_some());
    flock.run(5_000);
    assert!(flock.is_exact("small"));
    assert!(flock.lowest >= 1, "small was served all the time");
    assert_eq!(flock.claims().count(), 2);
}

#[test]
fn equal_priorities_wait_for_each_other() {
    let mut flock = Flock::new(2);
    flock.deploy("first", spec(4_000, 7), 2);
    assert!(flock.run_until(5_000, |f| f.is_exact("first")).is_some());
    flock.deploy("second", spec(4_000, 7), 1);
    flock.run(60_000);
    assert!(flock.is_exact("first"));
    assert_eq!(served(&flock, "second"), 0);
}

/// A replica that cannot run drives nobody out again and again.
#[test]
fn what_does_not_last_does_not_drive_out_one_after_the_other() {
    let mut flock = Flock::new(3);
    flock.deploy("batch", spec(4_000, 0), 3);
    assert!(flock.run_until(5_000, |f| f.is_exact("batch")).is_some());
    let started = flock.started.len();
    flock.broken.insert("broken".to_owned());
    let broken = ServiceSpec {
        image: "broken".to_owned(),
        ..spec(4_000, 10)
    };
    flock.deploy("shop", broken, 1);
    flock.run(50_000);
    assert!(served(&flock, "batch") >= 2);
    // One replica made way once, and came back once when the newcomer was given up.
    assert!(flock.started.len() <= started + 2, "{:?}", flock.started);
}

/// The node that makes room dies: another one does it.
#[test]
fn the_death_of_who_makes_room_is_survived() {
    let mut flock = Flock::new(3);
    flock.deploy("batch", spec(2_000, 0), 6);
    assert!(flock.run_until(5_000, |f| f.is_exact("batch")).is_some());
    flock.deploy("shop", spec(4_000, 10), 1);
    let makes_room = |f: &Flock| (0..3).find(|n| !f.agent(*n).report().preempted.is_empty());
    assert!(
        flock
            .run_until(10_000, |f| makes_room(f).is_some())
            .is_some()
    );
    let node = makes_room(&flock).unwrap();
    flock.kill(node_id(node));
    assert!(
        flock
            .run_until(90_000, |f| served(f, "shop") == 1)
            .is_some()
    );
}
