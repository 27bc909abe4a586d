//! Nodes that are worked on at a time: drained by the clock, and back by the clock.

use dunlin_state::model::{Availability, Opens, Window};

use super::flock::{Flock, key, node_id, process_spec};
use crate::placement::Verdict;

const MINUTE: u64 = 60_000;

fn on(flock: &Flock, node: usize) -> usize {
    let running = flock.running().into_iter();
    running.filter(|(id, _)| *id == node_id(node)).count()
}

fn open_in(flock: &Flock, wait: u64, lasts_ms: u64) -> Window {
    Window {
        opens: Opens::At(flock.now().wall + wait),
        lasts_ms,
    }
}

fn set(flock: &mut Flock, node: usize, windows: Vec<Window>) {
    flock.edit(|d| d.nodes.entry(node_id(node)).or_default().windows = windows);
}

fn available(flock: &Flock, asked: usize, about: usize) -> Availability {
    let nodes = &flock.agent(asked).desired().nodes;
    nodes
        .get(&node_id(about))
        .map(|n| n.availability)
        .unwrap_or_default()
}

/// Work goes elsewhere without a gap when the window opens, and may come back when it closes. Nobody
/// has to do anything, and a node that restarts in between is in it too.
#[test]
fn a_node_is_drained_in_its_window_and_comes_back() {
    let mut flock = Flock::new(3);
    flock.deploy("web", process_spec(), 6);
    assert!(flock.run_until(10_000, |f| f.is_exact("web")).is_some());
    let window = open_in(&flock, 10 * MINUTE, 60 * MINUTE);
    set(&mut flock, 0, vec![window]);
    flock.run(9 * MINUTE);
    assert_eq!(on(&flock, 0), 2);
    flock.lowest = usize::MAX;
    flock.run(3 * MINUTE);
    assert_eq!(on(&flock, 0), 0);
    assert_eq!(flock.lowest, 6, "no gap");
    assert!(flock.is_exact("web"));
    for asked in 0..3 {
        assert_eq!(available(&flock, asked, 0), Availability::Drained);
    }
    let explanation = flock.agent(1).explain(&key("web"), flock.now).unwrap();
    let reasons = explanation.nodes.iter().flat_map(|n| match &n.verdict {
        Verdict::Refused(reasons) => reasons.as_slice(),
        Verdict::Fit { .. } => &[],
    });
    let texts: Vec<String> = reasons.map(ToString::to_string).collect();
    assert!(
        texts.iter().any(|t| t.contains("in maintenance until")),
        "{texts:?}"
    );
    flock.kill(node_id(0));
    flock.run(MINUTE);
    flock.boot(node_id(0));
    flock.deploy("late", process_spec(), 6);
    flock.run(5 * MINUTE);
    assert_eq!(on(&flock, 0), 0);
    flock.run(60 * MINUTE);
    assert_eq!(available(&flock, 1, 0), Availability::Active);
    flock.deploy("later", process_spec(), 3);
    assert!(flock.run_until(10_000, |f| f.is_exact("later")).is_some());
    assert!(on(&flock, 0) > 0);
}

/// A node that is worked on every night is not filled again by day, so that nothing moves to and fro;
/// one that is done for good is.
#[test]
fn nothing_moves_back_to_where_it_has_to_go_again() {
    for again in [true, false] {
        let mut flock = Flock::new(3);
        let mut spec = process_spec();
        spec.reservation.cpu_millis = 500;
        flock.deploy("web", spec, 6);
        assert!(flock.run_until(10_000, |f| f.is_exact("web")).is_some());
        let mut windows = vec![open_in(&flock, MINUTE, 20 * MINUTE)];
        if again {
            windows.push(open_in(&flock, 12 * 60 * MINUTE, 60 * MINUTE));
        }
        set(&mut flock, 0, windows);
        flock.run(20 * MINUTE);
        assert_eq!(on(&flock, 0), 0);
        flock.run(10 * 60 * MINUTE);
        assert_eq!(on(&flock, 0) > 0, !again, "again: {again}");
        assert!(flock.is_exact("web"));
    }
}
