//! What adds up in the records of runs.

use super::*;

fn state(done: &[u32]) -> RunState {
    RunState {
        since: 5,
        done: done.iter().copied().collect(),
        ..RunState::default()
    }
}

fn outputs(text: &str) -> Outputs {
    Outputs::parse(text.as_bytes()).unwrap()
}

#[test]
fn slots_are_stored_as_ranges() {
    let stored = serde_json::to_string(&state(&[0, 1, 2, 5, 7, 8])).unwrap();
    assert_eq!(stored, r#"{"since":5,"done":"0-2,5,7-8"}"#);
    let back: RunState = serde_json::from_str(&stored).unwrap();
    assert_eq!(back, state(&[0, 1, 2, 5, 7, 8]));
    for hostile in ["0-4000000000", "x", "3-", "1000"] {
        let text = format!(r#"{{"done":"{hostile}"}}"#);
        assert!(serde_json::from_str::<RunState>(&text).is_err(), "{text}");
    }
}

#[test]
fn records_add_up_and_the_first_end_stays() {
    let id = RunId::Instant(60);
    let ended = |outcome| RunResult {
        outcome,
        at: 9,
        reason: None,
    };
    let mut jobs = Jobs::default();
    let mut add = |done: &[u32], result| {
        let mut state = state(done);
        state.result = result;
        jobs.record(&RunRecord {
            until: 60_000,
            runs: BTreeMap::from([(id.clone(), state)]),
            forget: BTreeSet::new(),
        });
        jobs.runs[&id].clone()
    };
    add(&[1], None);
    add(&[0], Some(ended(Outcome::Succeeded)));
    let last = add(&[], Some(ended(Outcome::Failed)));
    assert_eq!(last.done.len(), 2);
    assert_eq!(last.result, Some(ended(Outcome::Succeeded)));
}

#[test]
fn the_highest_slot_counts_in_whichever_order_they_end() {
    let words = [(0, "A=0\nB=0"), (2, "A=2"), (1, "A=1\nC=1")];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut collected = Collected::default();
        for index in order {
            let (slot, text) = words[index];
            collected.add(slot, &outputs(text)).unwrap();
        }
        assert_eq!(*collected.outputs(), outputs("A=2\nB=0\nC=1"));
        let stored = serde_json::to_string(&collected).unwrap();
        assert_eq!(
            serde_json::from_str::<Collected>(&stored).unwrap(),
            collected
        );
    }
}

#[test]
fn what_a_run_has_told_outlives_it_until_another_succeeds() {
    let mut jobs = Jobs::default();
    let mut add = |seconds: u64, text: &str, outcome: Option<Outcome>, forget: &[u64]| {
        let mut state = state(&[0]);
        state.outputs.add(0, &outputs(text)).unwrap();
        state.result = outcome.map(|outcome| RunResult {
            outcome,
            at: seconds,
            reason: None,
        });
        jobs.record(&RunRecord {
            until: 0,
            runs: BTreeMap::from([(RunId::Instant(seconds), state)]),
            forget: forget.iter().map(|s| RunId::Instant(*s)).collect(),
        });
        let value = serde_json::to_value(jobs.stored()).unwrap();
        assert_eq!(JobsValue::read(value).unwrap(), jobs.stored());
        let told = jobs.told.as_ref().map(|told| told.outputs.clone());
        (
            told,
            jobs.runs
                .values()
                .filter(|run| !run.outputs.is_empty())
                .count(),
        )
    };
    assert_eq!(add(1, "A=1", None, &[]), (None, 1));
    let first = Some(outputs("A=1"));
    assert_eq!(
        add(1, "A=1", Some(Outcome::Succeeded), &[]),
        (first.clone(), 0)
    );
    assert_eq!(
        add(1, "A=9", Some(Outcome::Succeeded), &[]),
        (first.clone(), 0)
    );
    assert_eq!(add(2, "A=2", Some(Outcome::Failed), &[1]), (first, 0));
    let nothing = Some(Outputs::default());
    assert_eq!(add(3, "", Some(Outcome::Succeeded), &[]), (nothing, 0));
}

#[test]
fn two_records_that_fit_and_together_do_not_end_the_run() {
    let id = RunId::Instant(60);
    let mut jobs = Jobs::default();
    for slot in [0, 1] {
        let mut state = state(&[slot]);
        let text = format!("S{slot}={}", "x".repeat(3_000));
        state.outputs.add(slot, &outputs(&text)).unwrap();
        jobs.record(&RunRecord {
            until: 0,
            runs: BTreeMap::from([(id.clone(), state)]),
            forget: BTreeSet::new(),
        });
    }
    let result = jobs.runs[&id].result.clone().unwrap();
    assert_eq!(result.outcome, Outcome::Failed);
    assert!(result.reason.unwrap().contains("4096 bytes"));
    assert!(jobs.told.is_none() && jobs.runs[&id].outputs.is_empty());
}

#[test]
fn as_many_slots_are_open_as_may_run() {
    let run = Run {
        job: "a".parse().unwrap(),
        id: RunId::Asked(1),
        done: BTreeSet::from([0, 2]),
        parallelism: 2,
        result: None,
    };
    assert_eq!(run.closed(6), BTreeSet::from([0, 2, 4, 5]));
}
