//! Large replicas before small ones, when a cluster is nearly full.
//!
//! Auctions do not wait for each other, so in a cluster that is being filled small replicas would
//! take the room of which large ones need all. Best-fit-decreasing places large ones first, and that
//! is most of what it gains. Here every auctioneer derives from desired state and registers which
//! sizes still have vacant slots, and lets the larger ones go first: nobody hands out turns, nobody is
//! asked, and who waits does so for a bounded time. Where there is plenty of room nobody waits at all.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_state::desired::Service;
use dunlin_state::model::{Mode, Resources, ServiceKey};

use super::auctioneer::Floor;

/// Percent of the cluster's capacity that has to be wanted before the order of auctions matters: below,
/// large replicas find room in any case.
const CROWDED_PERCENT: u64 = 80;

/// Milliseconds that an auction waits for each larger size with vacant slots: a round, and the time
/// that claims take to everybody.
pub(super) const TURN_MS: u64 = 200;

/// Sizes that an auction waits for at most; with eight of them half an octave apart, the largest
/// replicas are sixteen times as large.
const MAX_TURNS: u64 = 8;

/// Milliseconds for which an answer holds. Counting claims costs up to a millisecond in a large
/// cluster, and an auctioneer asks for each of its services.
const LOOK_MS: u64 = 100;

/// Sizes of replicas with vacant slots, as last looked up.
#[derive(Debug, Default)]
pub(super) struct Turns {
    looked_at: Option<u64>,
    /// What there is, where it is scarce.
    scarce: Option<Resources>,
    vacant: BTreeSet<u32>,
}

impl Turns {
    /// For how long a service of such replicas should let larger ones go first, in milliseconds.
    pub(super) fn wait(&mut self, reservation: Resources, floor: Floor<'_>, now: u64) -> u64 {
        if reservation == Resources::ZERO {
            return 0;
        }
        self.look(floor, now);
        let Some(total) = self.scarce else { return 0 };
        let larger = self.vacant.range(size(reservation, total) + 1..).count();
        let larger = u64::try_from(larger).unwrap_or(u64::MAX);
        larger.min(MAX_TURNS) * TURN_MS
    }

    fn look(&mut self, floor: Floor<'_>, now: u64) {
        if self.looked_at.is_some_and(|at| now < at + LOOK_MS) {
            return;
        }
        self.looked_at = Some(now);
        let total = capacity(floor);
        self.scarce = is_crowded(floor, total).then_some(total);
        self.vacant = match self.scarce {
            Some(total) => vacant_sizes(floor, total),
            None => BTreeSet::new(),
        };
    }
}

/// A replica's share of the cluster, of the resource of which it takes most, in half octaves.
fn size(reservation: Resources, total: Resources) -> u32 {
    let share = |part: u64, whole: u64| (u128::from(part) << 32) / u128::from(whole.max(1));
    let largest = share(reservation.cpu_millis, total.cpu_millis)
        .max(share(reservation.memory, total.memory))
        .max(share(reservation.disk, total.disk));
    let Some(octave) = largest.checked_ilog2() else {
        return 0;
    };
    // The bit after the first one: whether it is in the upper half.
    let upper = octave > 0 && largest >> (octave - 1) & 1 == 1;
    2 * octave + u32::from(upper)
}

fn capacity(floor: Floor<'_>) -> Resources {
    let alive = floor.cluster.alive();
    let registers = alive.filter_map(|node| floor.cluster.register(node));
    registers.fold(Resources::ZERO, |sum, register| {
        sum.plus(register.report.capacity)
    })
}

fn is_crowded(floor: Floor<'_>, total: Resources) -> bool {
    let nodes = u64::try_from(floor.cluster.alive().len()).unwrap_or(u64::MAX);
    let services = floor.desired.services.values();
    let wanted = services.fold(Resources::ZERO, |sum, service| {
        sum.plus(times(service.spec.reservation, replicas(service, nodes)))
    });
    let crowds = |wanted: u64, total: u64| {
        u128::from(wanted) * 100 > u128::from(total) * u128::from(CROWDED_PERCENT)
    };
    crowds(wanted.cpu_millis, total.cpu_millis)
        || crowds(wanted.memory, total.memory)
        || crowds(wanted.disk, total.disk)
}

fn replicas(service: &Service, nodes: u64) -> u64 {
    match service.spec.mode {
        Mode::Replicated => u64::from(service.wanted_replicas()),
        Mode::Global if service.running => nodes,
        Mode::Global => 0,
    }
}

fn times(each: Resources, count: u64) -> Resources {
    Resources {
        cpu_millis: each.cpu_millis.saturating_mul(count),
        memory: each.memory.saturating_mul(count),
        disk: each.disk.saturating_mul(count),
    }
}

/// The sizes of which some service has fewer claims than it wants. A slot that is held twice hides
/// one that is not held; then its turn is not waited for.
fn vacant_sizes(floor: Floor<'_>, total: Resources) -> BTreeSet<u32> {
    let mut held: BTreeMap<&ServiceKey, u32> = BTreeMap::new();
    for (_, node) in floor.cluster.nodes() {
        let register = node.register.as_ref();
        let register = register.filter(|_| node.standing.holds_claims());
        for claim in register.iter().flat_map(|r| &r.report.claims) {
            if !claim.leaving {
                *held.entry(&claim.slot.service).or_default() += 1;
            }
        }
    }
    let services = floor.desired.services.iter();
    let short = services.filter(|(key, service)| match service.spec.mode {
        Mode::Replicated => {
            held.get(*key).copied().unwrap_or(0) < service.wanted_replicas()
                && service.spec.reservation != Resources::ZERO
        }
        Mode::Global => false,
    });
    short
        .map(|(_, service)| size(service.spec.reservation, total))
        .collect()
}
