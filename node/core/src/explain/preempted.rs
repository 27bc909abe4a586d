//! Who had to make way for whom, and for whom room is being made.

use dunlin_state::model::{Preempted, ServiceKey, Slot};

use super::Sources;

/// What nodes say of a service, on either side.
pub(super) struct Preemptions<'a> {
    key: &'a ServiceKey,
    /// Where, and what was done there.
    told: Vec<(&'a str, &'a Preempted)>,
}

impl<'a> Preemptions<'a> {
    pub(super) fn of(key: &'a ServiceKey, sources: &Sources<'a>) -> Self {
        let nodes = sources.cluster.nodes();
        let heard = nodes.filter(|(_, known)| known.standing.holds_claims());
        let registers = heard.filter_map(|(_, known)| known.register.as_ref());
        let told = registers.flat_map(|register| {
            let report = &register.report;
            let mine = |p: &&Preempted| p.slot.service == *key || p.by.service == *key;
            let told = report.preempted.iter().filter(mine);
            told.map(|p| (report.name.as_str(), p))
        });
        Self {
            key,
            told: told.collect(),
        }
    }

    /// Why a slot that nobody holds waits, if it is for that.
    pub(super) fn of_slot(&self, slot: Slot) -> Option<String> {
        let mine = |id: &dunlin_state::model::SlotId| id.service == *self.key && id.slot == slot;
        let made_way = self.told.iter().filter(|(_, p)| mine(&p.slot));
        if let Some((node, p)) = made_way.max_by_key(|(_, p)| p.at) {
            return Some(format!(
                "preempted by {} on {node}; it comes back when there is room",
                p.by.service
            ));
        }
        let (node, p) = self.told.iter().find(|(_, p)| mine(&p.by))?;
        Some(format!("{node} makes room for it: {} has to go", p.slot))
    }

    /// The same for the service as a whole.
    pub(super) fn cause(&self) -> Option<String> {
        let mut made_way = self
            .told
            .iter()
            .filter(|(_, p)| p.slot.service == *self.key);
        let (node, p) = made_way.next()?;
        let text = format!("preempted by {} on {node}", p.by.service);
        let others = made_way.count();
        Some(match others {
            0 => text,
            _ => format!("{text} (and {others} more)"),
        })
    }
}
