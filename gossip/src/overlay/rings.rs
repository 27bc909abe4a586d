//! Which members are neighbours: a union of seeded rings.
//!
//! Every member stands on [`RINGS`] circles, at a place that a hash of its key and of the circle's
//! number decides. Its neighbours are the ones before and after it on each circle. Both ends of an
//! edge compute the same, one circle alone already connects everybody, and a handful of random
//! circles together have a small diameter (Law and Siu, "Distributed construction of random
//! expander networks", INFOCOM 2003). A member that comes or goes changes two edges per circle and
//! no others.

use std::collections::BTreeSet;
use std::ops::Bound;

use dunlin_state::model::NodeId;

/// Circles. Two neighbours on each: 12 edges per member when there are many members, less the few
/// that coincide.
pub(super) const RINGS: usize = 6;

/// A place on a circle; the key breaks ties between equal hashes.
type Place = (u64, NodeId);

/// The circles with everyone on them.
#[derive(Debug, Default)]
pub(super) struct Rings {
    circles: [BTreeSet<Place>; RINGS],
}

impl Rings {
    pub(super) fn insert(&mut self, node: NodeId) {
        for (circle, place) in self.circles.iter_mut().zip(places(node)) {
            circle.insert(place);
        }
    }

    pub(super) fn remove(&mut self, node: NodeId) {
        for (circle, place) in self.circles.iter_mut().zip(places(node)) {
            circle.remove(&place);
        }
    }

    /// The neighbours of `node` on all circles, without itself.
    pub(super) fn neighbours(&self, node: NodeId) -> BTreeSet<NodeId> {
        let mut found = BTreeSet::new();
        for (circle, here) in self.circles.iter().zip(places(node)) {
            let after = circle
                .range((Bound::Excluded(here), Bound::Unbounded))
                .next()
                .or_else(|| circle.first());
            let before = circle.range(..here).next_back().or_else(|| circle.last());
            found.extend(after.into_iter().chain(before).map(|place| place.1));
        }
        found.remove(&node);
        found
    }
}

/// The member's place on each circle, all from one hash.
fn places(node: NodeId) -> [Place; RINGS] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"dunlin overlay ring");
    hasher.update(node.as_bytes());
    let mut output = hasher.finalize_xof();
    std::array::from_fn(|_| {
        let mut bytes = [0; 8];
        output.fill(&mut bytes);
        (u64::from_le_bytes(bytes), node)
    })
}

/// The rank of an edge, the same from both ends: the smaller the better.
pub(super) fn edge_rank(a: NodeId, b: NodeId) -> u64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"dunlin overlay edge");
    hasher.update(low.as_bytes());
    hasher.update(high.as_bytes());
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
