//! What the agent is told.

use std::cmp::Ordering;
use std::sync::Arc;

use dunlin_gossip::membership::MemberEvent;
use dunlin_state::Now;
use dunlin_state::desired::{Desired, Service};
use dunlin_state::model::{Mode, NodeId, NodeRegister, ServiceKey, ServiceSpec};

use super::{Agent, DISTRUST_MS, Output, floor, push_reconciled};
use crate::bidding::Message;
use crate::io::{Event, RuntimeEvent};
use crate::liveness::{self, Heard, Standing};

impl Agent {
    /// Desired state has changed.
    pub fn desired_changed(&mut self, desired: Arc<Desired>, now: Now) -> Vec<Output> {
        let mut out = Vec::new();
        self.desired_known = true;
        self.take_desired(desired, now, &mut out);
        self.settle(now, &mut out);
        out
    }

    pub(super) fn take_desired(&mut self, desired: Arc<Desired>, now: Now, out: &mut Vec<Output>) {
        let desired = self.with_runs(desired, now);
        let old = std::mem::replace(&mut self.desired, desired);
        let new = Arc::clone(&self.desired);
        let mut services = new.services.values();
        self.any_strict = services.any(|s| s.spec.policy.is_strict());
        for service in changed_services(&old, &new) {
            let mut mine = self.cluster.set_service(service, &new);
            let known = new.services.get(service);
            if known.is_some_and(|s| s.spec.mode == Mode::Global) {
                self.globals.insert(service.clone());
                mine = true;
            } else {
                self.globals.remove(service);
            }
            mine |= known.is_some_and(Service::has_runs);
            if mine {
                self.dirty.insert(service.clone());
            }
            out.extend(known.and_then(|s| tell_clash(&new, service, &s.spec)));
        }
        self.follow_items(&old, now, out);
        self.keys_dirty = true;
        if old.rebalancing != new.rebalancing {
            self.rebalancer.look_soon(now.mono);
        }
        if old.nodes != new.nodes {
            self.rebalancer.disturbed(now.mono);
            self.auctioneer.nudge(now.mono);
            if old.nodes.get(&self.me) != new.nodes.get(&self.me) {
                self.review_all_own();
            }
        }
        if self.bidder.is_waiting() {
            let effects = self.with_market(now, |bidder, market| {
                bidder.desired_changed(market, now.mono)
            });
            self.on_bidder(effects, now, out);
        }
    }

    /// Everything that this node holds, or might claim by itself, is looked at again.
    fn review_all_own(&mut self) {
        let held = self.reconciler.claims().map(|c| c.slot.service.clone());
        self.dirty.extend(held);
        self.dirty.extend(self.globals.iter().cloned());
    }

    /// Registers of other nodes have changed.
    pub fn registers_changed<'a>(
        &mut self,
        registers: impl IntoIterator<Item = &'a Arc<NodeRegister>>,
        now: Now,
    ) -> Vec<Output> {
        let mut out = Vec::new();
        let mut rescaled = false;
        for register in registers {
            if register.node == self.me {
                continue;
            }
            rescaled |= self.note_scaling(register, now);
            if self.take_register(register, now) {
                let address = register.report.address;
                let effects = self.liveness.registered(register.node, address, now.mono);
                self.on_liveness(effects, now, &mut out);
            }
            self.opening.heard_register(now.mono);
        }
        if rescaled {
            let written = Arc::clone(&self.written);
            self.take_desired(written, now, &mut out);
        }
        self.try_open(now, &mut out);
        self.settle(now, &mut out);
        out
    }

    /// Membership has changed its mind about a node.
    pub fn member(&mut self, event: MemberEvent, heard: Heard<'_>, now: Now) -> Vec<Output> {
        let mut out = Vec::new();
        if let MemberEvent::Alive(id) = event {
            self.cluster.set_boot(id.node, id.boot);
        }
        let effects = self.liveness.member(event, heard, now.mono);
        self.on_liveness(effects, now, &mut out);
        self.try_open(now, &mut out);
        self.settle(now, &mut out);
        out
    }

    /// An authenticated sign of life outside membership.
    pub fn heard(&mut self, node: NodeId, now: Now) -> Vec<Output> {
        let effects = self.liveness.heard(node, now.mono);
        if effects.is_empty() {
            return Vec::new();
        }
        let mut out = Vec::new();
        self.on_liveness(effects, now, &mut out);
        self.settle(now, &mut out);
        out
    }

    /// The answer to [`Output::Probe`].
    pub fn probed(
        &mut self,
        node: NodeId,
        reachable: bool,
        heard: Heard<'_>,
        now: Now,
    ) -> Vec<Output> {
        let mut out = Vec::new();
        let effects = self.liveness.probed(node, reachable, heard, now.mono);
        self.on_liveness(effects, now, &mut out);
        self.settle(now, &mut out);
        out
    }

    /// This process stood still for a while.
    pub fn stalled(&mut self, now: Now) -> Vec<Output> {
        let mut out = Vec::new();
        let effects = self.liveness.stalled(now.mono);
        self.on_liveness(effects, now, &mut out);
        self.settle(now, &mut out);
        out
    }

    /// A message of another node's auctioneer or bidder.
    pub fn message(&mut self, from: NodeId, message: Message, now: Now) -> Vec<Output> {
        let mut out = Vec::new();
        self.deliver(from, message, now, &mut out);
        self.settle(now, &mut out);
        out
    }

    /// News from the runtimes.
    pub fn runtime(&mut self, event: RuntimeEvent, now: Now) -> Vec<Output> {
        let mut out = Vec::new();
        let adopted = self.reconciler.is_adopted();
        let effects = self.with_world(|r, world| r.runtime(event, world, now));
        push_reconciled(effects, &mut out);
        if !adopted && self.reconciler.is_adopted() {
            self.opening.allow_excess(self.reconciler.committed());
            self.review_all_own();
        }
        self.settle(now, &mut out);
        out
    }

    /// The runtimes on offer, the disk's health or the engine's version have changed.
    pub fn host_changed(
        &mut self,
        runtimes: Vec<String>,
        disk_ok: bool,
        engine: Option<String>,
        now: Now,
    ) -> Vec<Output> {
        let mut out = Vec::new();
        self.host.runtimes = runtimes;
        self.host.disk_ok = disk_ok;
        self.host.facts.engine = engine;
        self.publish_own(now);
        self.dirty.extend(self.globals.iter().cloned());
        self.settle(now, &mut out);
        out
    }

    /// This node is about to leave: it takes nothing more, and ends what it runs, which others
    /// start again once they have heard the goodbye.
    pub fn leave(&mut self, now: Now) -> Vec<Output> {
        let mut out = Vec::new();
        self.leaving = true;
        self.dirty
            .extend(self.reconciler.claims().map(|c| c.slot.service.clone()));
        self.settle(now, &mut out);
        out
    }

    /// A node that has been gone for long is forgotten.
    pub fn forget(&mut self, node: NodeId, now: Now) -> Vec<Output> {
        let mut out = Vec::new();
        self.liveness.forget(node);
        let touched = self.cluster.forget(node, &self.desired);
        self.dirty.extend(touched);
        self.settle(now, &mut out);
        out
    }

    pub(super) fn on_liveness(
        &mut self,
        effects: Vec<liveness::Effect>,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        for effect in effects {
            match effect {
                liveness::Effect::Probe { node, address } => {
                    out.push(Output::Probe { node, address });
                }
                liveness::Effect::Changed { node, standing } => {
                    if standing.holds_claims() && !self.cluster.is_trusted(node) {
                        self.distrusted.set(&node, Some(now.mono + DISTRUST_MS));
                    }
                    self.cluster.note_silence(node, standing, now.wall);
                    let touched = self.cluster.set_standing(node, standing, &self.desired);
                    self.dirty.extend(touched);
                    out.push(Output::Standing { node, standing });
                    self.observe_isolation(now);
                    self.rebalancer.disturbed(now.mono);
                    if standing == Standing::Alive {
                        self.auctioneer.nudge(now.mono);
                        continue;
                    }
                    let open = self.is_floor_open(now);
                    let floor = floor::floor(&self.cluster, &self.desired, open);
                    let effects = self.auctioneer.node_lost(node, floor, now);
                    self.on_auctioneer(effects, out);
                }
            }
        }
    }
}

/// Both sides of a partition may have given one port to two services: somebody has to decide.
fn tell_clash(desired: &Desired, service: &ServiceKey, spec: &ServiceSpec) -> Option<Output> {
    let (port, other) = desired.port_clash(service, spec)?;
    let text = format!(
        "{service} and {other} publish the same port {}, which was given to both while the cluster \
         was divided; give one of them another port, or remove it",
        port.published?
    );
    let (warning, slot, node) = (true, None, None);
    Some(Output::Event(Event {
        warning,
        text,
        slot,
        node,
    }))
}

/// Services that differ between two snapshots, found in one walk along both.
fn changed_services<'a>(old: &'a Desired, new: &'a Desired) -> Vec<&'a ServiceKey> {
    let mut changed = Vec::new();
    let mut olds = old.services.iter().peekable();
    for (key, service) in &new.services {
        let mut same = false;
        while let Some((known, before)) = olds.peek() {
            match known.cmp(&key) {
                Ordering::Less => changed.push(*known),
                Ordering::Equal => same = is_same(before, service),
                Ordering::Greater => break,
            }
            olds.next();
            if same {
                break;
            }
        }
        if !same {
            changed.push(key);
        }
    }
    changed.extend(olds.map(|(key, _)| key));
    changed
}

fn is_same(a: &Service, b: &Service) -> bool {
    // Snapshots share the specifications that have not changed.
    let same_spec = Arc::ptr_eq(&a.spec, &b.spec)
        || (a.revision == b.revision
            && a.spec.depends_on == b.spec.depends_on
            && a.spec.hooks == b.spec.hooks
            && a.spec.autoscale == b.spec.autoscale
            && a.spec.policy == b.spec.policy);
    same_spec
        && (a.replicas, a.running) == (b.replicas, b.running)
        && (Arc::ptr_eq(&a.rollout, &b.rollout) || a.rollout == b.rollout)
        && (Arc::ptr_eq(&a.jobs, &b.jobs) || a.jobs == b.jobs)
}
