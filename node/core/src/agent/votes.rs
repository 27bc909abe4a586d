//! Leases of what must never run twice.

use std::collections::BTreeMap;

use dunlin_state::Now;
use dunlin_state::model::{NodeId, SlotId};

use super::{Agent, Output, push_reconciled};
use crate::lease::{Effect, Message};

impl Agent {
    /// A message about votes.
    pub fn lease_message(&mut self, from: NodeId, message: Message, now: Now) -> Vec<Output> {
        let mut out = Vec::new();
        let effects = self.leases.handle(from, message, now.mono);
        self.on_leases(effects, now, &mut out);
        self.settle(now, &mut out);
        out
    }

    pub(super) fn leases_due(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.leases.poll_timeout().is_some_and(|at| at <= now.mono) {
            let effects = self.leases.handle_timeout(now.mono);
            self.on_leases(effects, now, out);
        }
    }

    /// Asks for votes for what this node holds, and gives back those for what it does not hold any more.
    pub(super) fn review_leases(&mut self, now: Now, out: &mut Vec<Output>) {
        if !self.any_strict && self.leases.is_idle() {
            return;
        }
        let wanted: BTreeMap<SlotId, Vec<NodeId>> = self
            .reconciler
            .claims()
            .filter_map(|claim| {
                let service = self.desired.services.get(&claim.slot.service)?;
                let policy = &service.spec.policy;
                let voters = policy.is_strict().then(|| policy.voters.clone())?;
                Some((claim.slot.clone(), voters))
            })
            .collect();
        let effects = self.leases.want(wanted, now.mono);
        self.on_leases(effects, now, out);
    }

    fn on_leases(&mut self, effects: Vec<Effect>, now: Now, out: &mut Vec<Output>) {
        for effect in effects {
            match effect {
                Effect::Send { to, message } => out.push(Output::Vote { to, message }),
                Effect::Changed(slot) => {
                    let until = self.leases.until(&slot);
                    let extended = self.reconciler.extend(&slot, until, now);
                    push_reconciled(extended.into_iter().collect(), out);
                    let effects = self.with_world(|r, world| r.lease_changed(&slot, world, now));
                    push_reconciled(effects, out);
                    self.dirty.insert(slot.service);
                }
            }
        }
    }
}
