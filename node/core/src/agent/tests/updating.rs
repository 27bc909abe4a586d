use dunlin_state::model::{Availability, Constraint, ConstraintOp, Resources};

use super::flock::{Flock, key, node_id, process_spec};

fn deployed(nodes: usize, replicas: u32) -> Flock {
    let mut flock = Flock::new(nodes);
    flock.deploy("web", process_spec(), replicas);
    assert!(flock.run_until(1_000, |f| f.is_exact("web")).is_some());
    flock.run(100);
    flock.lowest = usize::MAX;
    flock
}

#[test]
fn a_new_specification_rolls_out_one_by_one() {
    let mut flock = deployed(3, 9);
    let mut spec = process_spec();
    spec.environment.insert("V".to_owned(), "2".to_owned());
    flock.deploy("web", spec.clone(), 9);
    assert!(flock.run_until(40_000, |f| f.is_exact("web")).is_some());
    assert_eq!(flock.lowest, 8);
    flock.lowest = usize::MAX;
    spec.environment.insert("V".to_owned(), "3".to_owned());
    spec.update.parallelism = 3;
    flock.deploy("web", spec, 9);
    assert!(flock.run_until(40_000, |f| f.is_exact("web")).is_some());
    assert!((6..9).contains(&flock.lowest), "{}", flock.lowest);
}

#[test]
fn a_broken_specification_stops_at_the_first_slot_and_a_good_one_supersedes_it() {
    let mut flock = deployed(3, 9);
    let mut spec = process_spec();
    spec.image = "nonsense".to_owned();
    flock.broken.insert(spec.image.clone());
    flock.deploy("web", spec.clone(), 9);
    flock.run(20_000);
    assert_eq!(flock.lowest, 8);
    assert_eq!(flock.served().len(), 8);
    spec.image = "sense".to_owned();
    flock.deploy("web", spec, 9);
    assert!(flock.run_until(40_000, |f| f.is_exact("web")).is_some());
    assert!(flock.lowest >= 7, "{}", flock.lowest);
}

#[test]
fn draining_hands_over_without_a_gap() {
    let mut flock = deployed(3, 9);
    flock.edit(|d| {
        d.nodes.entry(node_id(0)).or_default().availability = Availability::Drained;
    });
    let drained = |f: &Flock| f.claims().all(|(node, _)| node != node_id(0));
    assert!(
        flock
            .run_until(10_000, |f| drained(f) && f.is_exact("web"))
            .is_some()
    );
    assert_eq!(flock.lowest, 9);
    flock.run(1_000);
    assert_eq!(flock.running().len(), 9);
}

#[test]
fn draining_the_last_node_stops_nothing() {
    let mut flock = deployed(1, 3);
    let drain = |flock: &mut Flock, availability| {
        flock.edit(|d| d.nodes.entry(node_id(0)).or_default().availability = availability);
    };
    drain(&mut flock, Availability::Drained);
    flock.run(10_000);
    assert_eq!(flock.served().len(), 3);
    assert!(flock.claims().all(|(_, c)| c.leaving));
    drain(&mut flock, Availability::Active);
    flock.run(100);
    assert!(flock.is_exact("web"));
    assert_eq!(flock.lowest, 3);
}

#[test]
fn constraints_that_match_no_more_move_replicas_without_a_gap() {
    let mut flock = deployed(3, 6);
    let mut spec = process_spec();
    spec.placement.constraints = vec![Constraint::new(
        "node.hostname",
        ConstraintOp::NotEqual,
        "n1",
    )];
    flock.deploy("web", spec, 6);
    assert!(flock.run_until(40_000, |f| f.is_exact("web")).is_some());
    assert!(flock.claims().all(|(node, _)| node != node_id(1)));
    // In-place updates have a gap of one; moves have none.
    assert_eq!(flock.lowest, 5);
}

#[test]
fn a_bigger_reservation_that_fits_nowhere_keeps_the_old_replicas() {
    let mut flock = deployed(2, 2);
    let mut spec = process_spec();
    spec.reservation = Resources {
        cpu_millis: 5_000,
        ..Resources::ZERO
    };
    flock.deploy("web", spec, 2);
    flock.run(10_000);
    assert_eq!(flock.served().len(), 2);
    let explanation = flock.agent(0).explain(&key("web"), flock.now).unwrap();
    let told = explanation.slots.iter().any(|s| {
        s.message
            .as_deref()
            .is_some_and(|m| m.contains("needs 5.0 CPUs"))
    });
    assert!(told, "{explanation:#?}");
}
