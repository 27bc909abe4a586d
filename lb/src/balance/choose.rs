//! The policies.

use std::net::IpAddr;

use dunlin_state::model::Slot;

use super::{Ask, Balancer, Policy, Target};

impl Balancer {
    /// One of `from`, which is not empty.
    pub(super) fn choose(&mut self, from: &[Target], ask: &Ask<'_>) -> Option<Target> {
        let (high, low) = (ask.entropy >> 32, ask.entropy & 0xffff_ffff);
        let draw = |random: u64, of: usize| ((random * of as u64) >> 32) as usize;
        match self.rules.policy {
            Policy::RoundRobin => {
                let next = from.iter().position(|t| Some(*t) > self.last);
                from.get(next.unwrap_or(0)).copied()
            }
            Policy::LeastConnections => {
                // The search begins anywhere, so that ties do not all go to the first.
                let start = draw(low, from.len());
                let (before, after) = from.split_at(start.min(from.len()));
                let around = after.iter().chain(before);
                around.min_by_key(|t| self.open(t)).copied()
            }
            Policy::RandomOfTwo if from.len() < 2 => from.first().copied(),
            // Nearly as even as the best of all, and proxies that do not know of each other do not
            // all rush to the same replica (Mitzenmacher, The Power of Two Choices in Randomized
            // Load Balancing, 2001).
            Policy::RandomOfTwo => {
                let first = draw(low, from.len());
                let second = (first + 1 + draw(high, from.len() - 1)) % from.len();
                let (a, b) = (from.get(first)?, from.get(second)?);
                let cost = |t: &Target| self.targets.get(t).map_or(u64::MAX, |s| s.cost(ask.now));
                Some(if cost(b) < cost(a) { *b } else { *a })
            }
            Policy::Weighted => self.choose_by_weight(from),
            // Rendezvous hashing (Thaler and Ravishankar, 1998): when a replica goes, only its own
            // clients move.
            Policy::SourceHash => from
                .iter()
                .max_by_key(|t| mix(ask.source ^ slot_hash(t.slot)))
                .copied(),
        }
    }

    /// Smooth weighted round robin, as nginx does it: each gets credit by its weight, and the one
    /// with the most pays for all.
    fn choose_by_weight(&mut self, from: &[Target]) -> Option<Target> {
        let mut total = 0;
        let mut best: Option<(i64, Target)> = None;
        for target in from {
            let state = self.targets.get_mut(target)?;
            let weight = i64::from(state.weight);
            state.credit = state.credit.saturating_add(weight);
            total += weight;
            if weight > 0 && best.is_none_or(|(credit, _)| state.credit > credit) {
                best = Some((state.credit, *target));
            }
        }
        // Weights of zero mean "only when there is nobody else".
        let Some((_, chosen)) = best else {
            return from.first().copied();
        };
        if let Some(state) = self.targets.get_mut(&chosen) {
            state.credit = state.credit.saturating_sub(total);
        }
        Some(chosen)
    }
}

/// Whether a connection goes to the other service of a split of `percent`. `entropy` is any
/// uniformly random number.
pub fn goes_aside(percent: u8, entropy: u64) -> bool {
    let drawn = (u128::from(entropy) * 100) >> 64;
    drawn < u128::from(percent)
}

/// A number for a source address, for policies that go by it.
pub fn source_hash(source: IpAddr) -> u64 {
    match source.to_canonical() {
        IpAddr::V4(a) => mix(u64::from(a.to_bits())),
        IpAddr::V6(a) => {
            let bits = a.to_bits();
            mix((bits >> 64) as u64 ^ mix(bits as u64))
        }
    }
}

/// A slot keeps its clients when its replica moves.
fn slot_hash(slot: Slot) -> u64 {
    match slot {
        Slot::Replica(number) => mix(u64::from(number)),
        Slot::Node(node) => node.as_bytes().chunks(8).fold(0, |hash, part| {
            let mut bytes = [0; 8];
            bytes[..part.len()].copy_from_slice(part);
            mix(hash ^ u64::from_le_bytes(bytes))
        }),
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): every bit of the input reaches every
/// bit of the result.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
