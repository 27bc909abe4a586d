//! What is told of the load.

use std::collections::BTreeMap;

use dunlin_state::model::{Aim, Autoscale, Load, Metric, Resources};

use crate::autoscale::Meter;

fn sample(connections: u64) -> Load {
    Load {
        amounts: BTreeMap::from([(Metric::Connections, connections)]),
        ..Load::default()
    }
}

/// Counts what is told of these samples.
fn tell(samples: impl IntoIterator<Item = u64>) -> (u32, Option<u64>) {
    let policy = Autoscale {
        max: 5,
        targets: BTreeMap::from([(Metric::Connections, Aim::Each(100))]),
        ..Autoscale::default()
    };
    let (mut meter, mut told, mut times) = (Meter::default(), None, 0);
    for connections in samples {
        let load = meter.take(sample(connections), told.as_ref(), &policy, Resources::ZERO);
        times += u32::from(told.as_ref() != Some(&load));
        told = Some(load);
    }
    let last = told.and_then(|load| load.amounts.get(&Metric::Connections).copied());
    (times, last)
}

#[test]
fn a_steady_load_is_told_once() {
    let (times, last) = tell((0..1_000).map(|n| 200 + n % 7));
    assert_eq!((times, last), (1, Some(200)));
}

#[test]
fn a_change_is_told_with_what_it_has_settled_at() {
    let (times, last) = tell([100; 50].into_iter().chain([400; 50]));
    assert!((2..=5).contains(&times), "{times}");
    assert_eq!(last, Some(400));
}

#[test]
fn the_last_connection_that_ends_is_told() {
    let (_, last) = tell([1; 50].into_iter().chain([0; 50]));
    assert_eq!(last, None);
    let (times, _) = tell([0; 50]);
    assert_eq!(times, 1, "nothing is told of nothing but the first word");
}
