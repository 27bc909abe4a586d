use proptest::prelude::*;

use super::*;
use crate::desired::Actor;

fn key(n: usize) -> ServiceKey {
    format!("s{n}").parse().unwrap()
}

fn stamp(counter: u64) -> Stamp {
    let actor = Actor::default();
    Stamp { counter, actor }
}

/// Two services that draw the same number.
pub(in super::super) fn clashing() -> (ServiceKey, ServiceKey) {
    let mut drawn = BTreeMap::new();
    (0..)
        .find_map(|n| {
            let index = free(&key(n), &BTreeSet::new())?;
            Some((drawn.insert(index, key(n))?, key(n)))
        })
        .expect("there are fewer numbers than names")
}

#[test]
fn what_was_written_earlier_keeps_its_number() {
    let (a, b) = clashing();
    let index = free(&a, &BTreeSet::new()).unwrap();
    let of = |first, second| {
        let written = [
            (&a, Some((stamp(first), index))),
            (&b, Some((stamp(second), index))),
        ];
        settle(written.into_iter())
    };
    let (older, newer) = (of(1, 2), of(2, 1));
    assert_eq!((older[&a].index, older[&a].written), (index, true));
    assert_eq!((newer[&b].index, newer[&b].written), (index, true));
    assert_eq!(older[&b], newer[&a]);
    assert!(older[&b].index != index && !older[&b].written);
}

#[test]
fn all_services_that_may_be_find_a_number() {
    let services: Vec<ServiceKey> = (0..crate::desired::MAX_SERVICES).map(key).collect();
    let assigned = settle(services.iter().map(|s| (s, None)));
    let numbers: BTreeSet<VipIndex> = assigned.values().map(|a| a.index).collect();
    assert_eq!(numbers.len(), services.len());
}

proptest! {
    /// Whatever was written, no two services share a number, the order in which services are
    /// named does not matter, and writing down what came out changes nothing any more.
    #[test]
    fn numbers_are_unique_and_last(
        written in prop::collection::btree_map(
            0..40_usize, prop::option::of((0..4_u64, 0..12_u64)), 0..40),
        rotate in 0..40_usize,
    ) {
        let mut cells: Vec<(ServiceKey, Option<(Stamp, VipIndex)>)> = written
            .into_iter()
            .map(|(n, w)| (key(n), w.map(|(c, i)| (stamp(c), VipIndex::nth(i)))))
            .collect();
        let assigned = settle(cells.iter().map(|(k, w)| (k, *w)));
        let middle = rotate.min(cells.len());
        cells.rotate_left(middle);
        prop_assert_eq!(&assigned, &settle(cells.iter().map(|(k, w)| (k, *w))));
        let numbers: BTreeSet<VipIndex> = assigned.values().map(|a| a.index).collect();
        prop_assert_eq!(numbers.len(), cells.len());
        let again = settle(assigned.iter().map(|(k, a)| {
            let kept = cells.iter().find(|(c, _)| c == k).and_then(|(_, w)| *w);
            let fresh = (stamp(9), a.index);
            (k, Some(if a.written { kept.unwrap_or(fresh) } else { fresh }))
        }));
        for (service, a) in &again {
            prop_assert_eq!((a.index, a.written), (assigned[service].index, true));
        }
    }
}
