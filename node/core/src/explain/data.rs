//! Slots that wait for data which is on another node.

use dunlin_state::desired::Service;
use dunlin_state::model::{NodeId, ServiceKey, Slot};

use super::{NodeExplanation, SlotExplanation, Sources};
use crate::placement::{Reason, Verdict};
use crate::volumes;

/// Adds to what nodes would say what stands against the first vacant slot, if anything does.
pub(super) fn refuse(
    key: &ServiceKey,
    service: &Service,
    slots: &[SlotExplanation],
    nodes: &mut [NodeExplanation],
    sources: &Sources<'_>,
) {
    let vacant = slots.iter().find(|slot| slot.node.is_none());
    let Some(slot) = vacant.map(|slot| slot.slot) else {
        return;
    };
    for node in nodes {
        let lacks = lacks(key, service, slot, node.node, sources);
        match &mut node.verdict {
            Verdict::Refused(reasons) => reasons.extend(lacks),
            Verdict::Fit { .. } if lacks.is_empty() => {}
            verdict @ Verdict::Fit { .. } => *verdict = Verdict::Refused(lacks),
        }
    }
}

/// Where the data of a slot is that nobody holds, when that node does not take it.
pub(super) fn vacancy(
    key: &ServiceKey,
    service: &Service,
    slot: Slot,
    sources: &Sources<'_>,
) -> Option<String> {
    let (_, spec) = service.target(slot);
    let homes = volumes::homes(sources.cluster, key, spec, slot);
    let mut others = sources.cluster.nodes().map(|(node, _)| node);
    let other = others.find(|node| !homes.contains(node))?;
    let reason = lacks(key, service, slot, other, sources)
        .into_iter()
        .next()?;
    Some(format!("{reason}: {}", reason.fix()))
}

fn lacks(
    key: &ServiceKey,
    service: &Service,
    slot: Slot,
    node: NodeId,
    sources: &Sources<'_>,
) -> Vec<Reason> {
    let (_, spec) = service.target(slot);
    volumes::lacks(sources.cluster, key, spec, slot, node)
}
