//! Virtual addresses of single replicas: numbers in the upper half of the range.
//!
//! Nobody has to agree on them, since an address is only used on the host whose node gave it: its
//! DNS names it, and its proxy listens there. So no node writes them down. Each begins its search
//! at a hash of the replica's name, so that nodes, and a node's earlier life, mostly arrive at the
//! same number; and a number stays with its slot while there is room, so that a cached address
//! never leads to another replica.

use std::collections::BTreeMap;

use super::RouteTable;
use crate::model::{ServiceKey, Slot, VipIndex};

/// One more than the last number. The last of all is left out: it is the broadcast address of a
/// network of that size.
const END: u16 = u16::MAX;

/// Slots whose numbers are remembered, whether they have a replica or not. Half of all numbers, so
/// that a search finds a free one after two steps.
const MAX_KNOWN: usize = (END - VipIndex::END) as usize / 2;

/// Gives numbers to the replicas of route tables, one table after the other.
#[derive(Debug, Clone, Default)]
pub struct ReplicaNumbers {
    /// Most addresses and ports of replicas that are listened on.
    budget: usize,
    known: BTreeMap<(ServiceKey, Slot), Known>,
    holders: BTreeMap<u16, (ServiceKey, Slot)>,
    /// Tables so far.
    turn: u64,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    number: u16,
    /// The last table that it had a replica in.
    seen: u64,
}

impl ReplicaNumbers {
    /// With at most so many listeners for them all: one for each port at each address.
    pub fn new(budget: usize) -> Self {
        Self {
            // So that there always is a number for one more than are known.
            budget: budget.min(MAX_KNOWN),
            ..Self::default()
        }
    }

    /// Gives every replica of a table its addresses, as far as the budget goes: first those that
    /// had theirs before.
    pub fn assign(&mut self, table: &mut RouteTable) {
        self.turn += 1;
        let families = [table.range.v4().is_some(), table.range.v6().is_some()];
        let families = families.into_iter().filter(|has| *has).count();
        let mut left = self.budget;
        let mut newcomers = Vec::new();
        let range = table.range;
        for (key, route) in &mut table.services {
            let cost = families * route.ports.len();
            if cost == 0 {
                continue;
            }
            for backend in &route.backends {
                let id = (key.clone(), backend.slot);
                match self.known.get_mut(&id) {
                    Some(known) if known.seen + 1 == self.turn && cost <= left => {
                        known.seen = self.turn;
                        left -= cost;
                        let vip = range.at(known.number);
                        route.replicas.insert(backend.slot, vip);
                    }
                    // The second holder of a slot has its number too.
                    Some(known) if known.seen == self.turn => {}
                    Some(_) | None => newcomers.push((id, cost)),
                }
            }
        }
        for (id, cost) in newcomers {
            if cost <= left && !self.has_turn(&id) {
                left -= cost;
                let number = self.number(&id);
                if let Some(route) = table.services.get_mut(&id.0) {
                    route.replicas.insert(id.1, range.at(number));
                }
            }
        }
        self.forget();
    }

    fn has_turn(&self, id: &(ServiceKey, Slot)) -> bool {
        self.known.get(id).is_some_and(|k| k.seen == self.turn)
    }

    /// The number of a slot: the one that it had, or a free one.
    fn number(&mut self, id: &(ServiceKey, Slot)) -> u16 {
        if let Some(known) = self.known.get_mut(id) {
            known.seen = self.turn;
            return known.number;
        }
        let count = END - VipIndex::END;
        let first = hash(id) % count;
        let numbers = (0..count).map(|step| VipIndex::END + (first + step) % count);
        let mut free = numbers.filter(|number| !self.holders.contains_key(number));
        // There is always one: fewer are known than there are.
        let number = free.next().unwrap_or(VipIndex::END);
        let seen = self.turn;
        self.known.insert(id.clone(), Known { number, seen });
        self.holders.insert(number, id.clone());
        number
    }

    /// Forgets those that have been without a replica for longest when too many are known.
    fn forget(&mut self) {
        let excess = self.known.len().saturating_sub(MAX_KNOWN);
        if excess == 0 {
            return;
        }
        let mut unused: Vec<(u64, u16)> = self
            .known
            .values()
            .filter(|known| known.seen < self.turn)
            .map(|known| (known.seen, known.number))
            .collect();
        unused.sort_unstable();
        for (_, number) in unused.into_iter().take(excess) {
            if let Some(id) = self.holders.remove(&number) {
                self.known.remove(&id);
            }
        }
    }
}

fn hash((service, slot): &(ServiceKey, Slot)) -> u16 {
    let hash = blake3::hash(format!("{service} {slot}").as_bytes());
    let [a, b, ..] = *hash.as_bytes();
    u16::from_be_bytes([a, b])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{NodeId, PortSpec, Vip, VipRange};
    use crate::route::{Backend, ServiceRoute};

    fn range() -> VipRange {
        VipRange::new(Some([10, 93, 0, 0].into()), None)
    }

    /// A table of replicas, by service and slot; the first has another on a second node.
    fn table(replicas: &BTreeSet<(u8, u32)>) -> RouteTable {
        let mut table = RouteTable {
            range: range(),
            ..RouteTable::default()
        };
        for (service, slot) in replicas {
            let key = format!("s{service}").parse().unwrap();
            let route: &mut ServiceRoute = table.services.entry(key).or_default();
            route.ports = vec![PortSpec::default()];
            for node in 0..=u8::from(*slot == 0) {
                route.backends.push(Backend {
                    slot: Slot::Replica(*slot),
                    node: NodeId::from_bytes([node; 32]),
                    epoch: 1,
                    endpoints: Vec::new(),
                });
            }
        }
        table
    }

    type Given = BTreeMap<(ServiceKey, Slot), Vip>;

    fn given(table: &RouteTable) -> Given {
        let services = table.services.iter();
        let all = services.flat_map(|(key, route)| {
            let replicas = route.replicas.iter();
            replicas.map(|(slot, vip)| ((key.clone(), *slot), *vip))
        });
        all.collect()
    }

    fn assign(numbers: &mut ReplicaNumbers, replicas: &BTreeSet<(u8, u32)>) -> Given {
        let mut table = table(replicas);
        numbers.assign(&mut table);
        given(&table)
    }

    #[test]
    fn numbers_are_above_those_of_services_and_the_same_on_all_nodes() {
        let replicas = (0..20).map(|n| (n % 5, u32::from(n))).collect();
        let one = assign(&mut ReplicaNumbers::new(100), &replicas);
        assert_eq!(one.len(), 20);
        let half = range().at(VipIndex::END).v4;
        assert!(one.values().all(|vip| vip.v4 >= half && vip.v6.is_none()));
        let mut other = ReplicaNumbers::new(100);
        assign(&mut other, &BTreeSet::new());
        assert_eq!(assign(&mut other, &replicas), one);
    }

    #[test]
    fn what_has_no_port_or_no_range_needs_none() {
        let replicas = BTreeSet::from([(1, 1)]);
        let mut bare = table(&replicas);
        bare.services.values_mut().for_each(|s| s.ports.clear());
        let mut nowhere = table(&replicas);
        nowhere.range = VipRange::default();
        for mut table in [bare, nowhere] {
            ReplicaNumbers::new(100).assign(&mut table);
            assert_eq!(given(&table).len(), 0);
        }
    }

    #[test]
    fn those_who_have_theirs_go_before_newcomers() {
        let mut numbers = ReplicaNumbers::new(2);
        let before = assign(&mut numbers, &[(5, 0), (6, 0)].into());
        assert_eq!(before.len(), 2);
        let now = assign(&mut numbers, &[(1, 0), (5, 0), (6, 0)].into());
        assert_eq!(now, before);
        // One that leaves makes room.
        let then = assign(&mut numbers, &[(1, 0), (6, 0)].into());
        assert_eq!(then.len(), 2);
        assert!(then.values().any(|vip| before.values().any(|b| b == vip)));
    }

    #[test]
    fn what_is_known_is_bounded_and_the_oldest_goes_first() {
        let mut numbers = ReplicaNumbers::new(usize::MAX);
        let many = u32::try_from(MAX_KNOWN).unwrap();
        let first = assign(&mut numbers, &[(9, 7)].into());
        assign(&mut numbers, &(0..many).map(|n| (1, n)).collect());
        assert_eq!(numbers.known.len(), MAX_KNOWN);
        assert_eq!(numbers.holders.len(), MAX_KNOWN);
        assert!(!numbers.known.keys().any(|id| first.contains_key(id)));
    }

    proptest! {
        #[test]
        fn a_slot_keeps_its_number_and_shares_it_with_nobody(
            tables in prop::collection::vec(
                prop::collection::btree_set((0_u8..4, 0_u32..6), 0..16), 1..8,
            ),
            budget in 0_usize..20,
        ) {
            let mut numbers = ReplicaNumbers::new(budget);
            let mut ever = Given::new();
            for replicas in tables {
                let now = assign(&mut numbers, &replicas);
                prop_assert_eq!(now.len(), replicas.len().min(budget));
                ever.extend(now.clone());
                prop_assert!(now.iter().all(|(id, vip)| ever[id] == *vip));
                let distinct: BTreeSet<Vip> = ever.values().copied().collect();
                prop_assert_eq!(distinct.len(), ever.len());
            }
        }
    }
}
