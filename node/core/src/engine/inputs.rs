//! What comes in.

use std::collections::BTreeMap;

use dunlin_gossip::membership::MemberEvent;
use dunlin_gossip::{membership, overlay, replication};
use dunlin_state::Now;
use dunlin_state::desired::{Command, Rules};
use dunlin_state::model::{Load, NodeId, ServiceKey};

use super::{Engine, FORGET_GONE_MS, FORGET_LEFT_MS, OWN_PERSIST, STALL_MS, note};
use crate::io::{Effect, Input, VolumeNews, Write};
use crate::liveness::Standing;
use crate::wire::{PeerMessage, decode};

/// Milliseconds between complaints about messages that cannot be read.
const COMPLAINT_INTERVAL_MS: u64 = 10_000;

/// Milliseconds before a failed write of the claims is tried again.
const CLAIMS_RETRY_MS: u64 = 5_000;

impl Engine {
    /// Takes one input; early timeouts are harmless.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Effect> {
        let mut out = Vec::new();
        let stood_still = now.mono > self.now.mono.saturating_add(STALL_MS);
        let missed = |due: u64| now.mono > due.saturating_add(STALL_MS);
        let stalled = stood_still && self.poll_timeout().is_some_and(missed);
        self.now = now;
        if stalled {
            let outputs = self.agent.stalled(now);
            self.carry_out(outputs, &mut out);
        }
        match self.removed_sender(&input) {
            Some(node) => out.push(Effect::Disconnect(node)),
            None => self.dispatch(input, &mut out),
        }
        self.finish(&mut out);
        out
    }

    /// Who sent this over a connection, if that node was removed from the cluster.
    fn removed_sender(&self, input: &Input) -> Option<NodeId> {
        match input {
            Input::Connected(node)
            | Input::Message { from: node, .. }
            | Input::Told { from: node, .. } => Some(*node).filter(|n| self.removed.contains(n)),
            Input::Datagram { .. }
            | Input::Disconnected(_)
            | Input::ProbeDone { .. }
            | Input::Propose { .. }
            | Input::Persisted(_)
            | Input::PersistFailed { .. }
            | Input::Runtime(_)
            | Input::Join(_)
            | Input::Seen(_)
            | Input::Rules(_)
            | Input::Volume(_)
            | Input::Secret(_)
            | Input::Removed
            | Input::Leave
            | Input::Host { .. }
            | Input::Measured(_)
            | Input::Timeout => None,
        }
    }

    fn dispatch(&mut self, input: Input, out: &mut Vec<Effect>) {
        let now = self.now;
        match input {
            Input::Datagram { from, bytes } => {
                self.tell_membership(membership::Input::Datagram { from, bytes }, out);
            }
            Input::Connected(node) => {
                self.heard(node, out);
                self.tell_overlay(overlay::Input::Connected(node), out);
                self.tell_replication(replication::Input::Connected(node), out);
                self.tell_holders(node, out);
            }
            Input::Disconnected(node) => {
                self.tell_overlay(overlay::Input::Disconnected(node), out);
                self.tell_replication(replication::Input::Disconnected(node), out);
            }
            Input::Message { from, bytes } => {
                self.heard(from, out);
                self.on_message(from, &bytes, out);
            }
            Input::Told { from, message } => {
                self.heard(from, out);
                self.on_peer(from, message, out);
            }
            Input::ProbeDone { node, reachable } => self.on_probed(node, reachable, out),
            Input::Propose {
                id,
                commands,
                author,
            } => {
                let input = replication::Input::Propose {
                    id,
                    commands: self.with_proofs(commands),
                    author,
                };
                self.tell_replication(input, out);
            }
            Input::Persisted(id) => self.on_persisted(id, out),
            Input::PersistFailed { id, reason } => self.on_persist_failed(id, reason, out),
            Input::Runtime(event) => {
                let outputs = self.agent.runtime(event, now);
                self.carry_out(outputs, out);
            }
            Input::Join(address) => self.tell_membership(membership::Input::Join { address }, out),
            Input::Seen(address) => self.tell_membership(membership::Input::Call { address }, out),
            Input::Rules(rules) => self.on_rules(rules, out),
            Input::Volume(news) => self.on_volume(news, out),
            Input::Secret(answer) => {
                let outputs = self.agent.secret_answer(answer, now);
                self.carry_out(outputs, out);
            }
            Input::Leave | Input::Removed => {
                let outputs = self.agent.leave(now);
                self.carry_out(outputs, out);
                self.tell_membership(membership::Input::Leave, out);
            }
            Input::Host {
                runtimes,
                disk_ok,
                engine,
            } => {
                let outputs = self.agent.host_changed(runtimes, disk_ok, engine, now);
                self.carry_out(outputs, out);
            }
            Input::Measured(samples) => self.on_measured(samples, out),
            Input::Timeout => self.on_timeout(out),
        }
    }

    fn on_measured(&mut self, samples: BTreeMap<ServiceKey, Load>, out: &mut Vec<Effect>) {
        let outputs = self.agent.measured(samples, self.now);
        self.carry_out(outputs, out);
    }

    fn on_persisted(&mut self, id: replication::PersistId, out: &mut Vec<Effect>) {
        if id.0 < OWN_PERSIST {
            self.tell_replication(replication::Input::Persisted(id), out);
        } else if self.volumes_request == Some(id) {
            let outputs = self.agent.volumes_written(true, self.now);
            self.carry_out(outputs, out);
        }
    }

    fn on_volume(&mut self, news: VolumeNews, out: &mut Vec<Effect>) {
        let outputs = match news {
            VolumeNews::Put(volume) => self.agent.put_volume(volume, self.now),
            VolumeNews::Dropped(volume) => self.agent.drop_volume(&volume, self.now),
        };
        self.carry_out(outputs, out);
    }

    fn on_probed(&mut self, node: NodeId, reachable: bool, out: &mut Vec<Effect>) {
        if reachable {
            self.heard(node, out);
        }
        let heard = |n| self.membership.last_heard(n);
        let outputs = self.agent.probed(node, reachable, &heard, self.now);
        self.carry_out(outputs, out);
    }

    fn on_rules(&mut self, rules: Box<Rules>, out: &mut Vec<Effect>) {
        let outputs = self.agent.set_authority(&rules, self.now);
        self.carry_out(outputs, out);
        self.tell_replication(replication::Input::Rules(rules), out);
    }

    /// Says before a deploy whether what it replaces has proven itself, which only claims tell.
    fn with_proofs(&self, commands: Vec<Command>) -> Vec<Command> {
        let mut all = Vec::with_capacity(commands.len());
        for mut command in commands {
            if let Command::Deploy {
                service,
                spec,
                replicas: replicas @ None,
            } = &mut command
                && spec.autoscale.is_none()
                && let Some(known) = self.agent.desired().services.get(service)
                && known.spec.autoscale.is_some()
            {
                // Whoever follows the load no more stays as large as it is.
                *replicas = Some(known.replicas);
            }
            if let Command::Deploy { service, .. } = &command
                && self.agent.is_proven(service)
            {
                let service = service.clone();
                all.push(Command::Proven { service });
            }
            all.push(command);
        }
        all
    }

    fn on_timeout(&mut self, out: &mut Vec<Effect>) {
        let now = self.now;
        let effects = self.membership.handle_timeout(now);
        self.on_membership(effects, out);
        let effects = self.overlay.handle_timeout(now);
        self.on_overlay(effects, out);
        let effects = self.replication.handle_timeout(now);
        self.on_replication(effects, out);
        let heard = |n| self.membership.last_heard(n);
        let outputs = self.agent.handle_timeout(&heard, now);
        self.carry_out(outputs, out);
        if self.peers.due.is_some_and(|due| due <= now.mono) {
            self.peers.due = None;
            self.peers.last = Some(now.mono);
            let addresses = self.peers.addresses.iter().copied().collect();
            self.persist(vec![Write::Peers(addresses)], out);
        }
        self.write_holders(out);
        self.forget_departed(out);
    }

    fn on_peer(&mut self, from: NodeId, message: PeerMessage, out: &mut Vec<Effect>) {
        match message {
            PeerMessage::Swim(bytes) => {
                self.tell_membership(membership::Input::Reliable { from, bytes }, out);
            }
            PeerMessage::Replication(message) => {
                self.tell_replication(replication::Input::Message { from, message }, out);
            }
            PeerMessage::Bidding(message) => {
                let outputs = self.agent.message(from, message, self.now);
                self.carry_out(outputs, out);
            }
            PeerMessage::Lease(message) => {
                let outputs = self.agent.lease_message(from, message, self.now);
                self.carry_out(outputs, out);
            }
            PeerMessage::Holder(bytes) => self.hear_of_holder(from, &bytes, out),
            PeerMessage::Secrets(message) => {
                let outputs = self.agent.secret_message(from, message, self.now);
                self.carry_out(outputs, out);
            }
        }
    }

    fn on_message(&mut self, from: NodeId, bytes: &[u8], out: &mut Vec<Effect>) {
        let now = self.now;
        match decode(bytes) {
            Ok(message) => self.on_peer(from, message, out),
            Err(error) => {
                if now.mono >= self.next_complaint {
                    self.next_complaint = now.mono.saturating_add(COMPLAINT_INTERVAL_MS);
                    let text = format!("{} sends what cannot be read: {error}", from.short());
                    out.push(note(from, true, text));
                }
            }
        }
    }

    fn on_persist_failed(
        &mut self,
        id: replication::PersistId,
        reason: String,
        out: &mut Vec<Effect>,
    ) {
        if id.0 < OWN_PERSIST {
            self.tell_replication(replication::Input::PersistFailed { id, reason }, out);
        } else if self.claims_request == Some(id) {
            let retry = self.now.mono.saturating_add(CLAIMS_RETRY_MS);
            self.agent.persist_again(retry);
        } else if self.volumes_request == Some(id) {
            let outputs = self.agent.volumes_written(false, self.now);
            self.carry_out(outputs, out);
        } else if id.0 == OWN_PERSIST {
            let text = format!("the cluster state could not be written to disk: {reason}");
            out.push(note(self.config.member.node, true, text));
        }
    }

    /// An authenticated sign of life outside membership's datagrams.
    fn heard(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        if self.removed.contains(&node) {
            return;
        }
        self.tell_membership(membership::Input::Heard { node }, out);
        let outputs = self.agent.heard(node, self.now);
        self.carry_out(outputs, out);
    }

    /// Cuts off whoever desired state says was removed, and that was not cut off yet.
    pub(super) fn expel_removed(&mut self, out: &mut Vec<Effect>) {
        let desired = self.replication.desired();
        let removed = desired.trust.revoked.keys();
        let removed: Vec<NodeId> = removed
            .map(|key| NodeId::from_bytes(key.0))
            .filter(|node| !self.removed.contains(node))
            .collect();
        for node in removed {
            self.removed.insert(node);
            if node == self.config.member.node {
                // What follows from that waits until the daemon has told the others.
                continue;
            }
            self.expel(node, out);
        }
    }

    fn expel(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        let known = self.membership.members().find(|m| m.id.node == node);
        self.tell_membership(membership::Input::Expel { node }, out);
        self.tell_overlay(overlay::Input::Disconnected(node), out);
        self.tell_replication(replication::Input::Expel(node), out);
        out.push(Effect::Disconnect(node));
        if let Some(known) = known {
            // Its replicas are placed elsewhere at once: nobody waits for it to come back.
            let outputs = self
                .agent
                .member(MemberEvent::Left(known.id), &|_| None, self.now);
            self.carry_out(outputs, out);
        }
        let text = "it was removed from the cluster; its replicas are placed elsewhere".to_owned();
        out.push(note(node, true, format!("node {}: {text}", node.short())));
        self.changed.members = true;
        self.changed.observed = true;
    }

    /// Remembers when to forget a node that has departed, and not to when it is back.
    pub(super) fn note_standing(&mut self, node: NodeId, standing: Standing) {
        let after = match standing {
            Standing::Alive | Standing::Suspect => {
                self.forget.remove(&node);
                return;
            }
            Standing::Gone => FORGET_GONE_MS,
            Standing::Left => FORGET_LEFT_MS,
        };
        let at = self.now.mono.saturating_add(after);
        self.forget.insert(node, at);
    }

    fn forget_departed(&mut self, out: &mut Vec<Effect>) {
        let now = self.now.mono;
        let due: Vec<NodeId> = self
            .forget
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(node, _)| *node)
            .collect();
        for node in due {
            self.forget.remove(&node);
            self.addresses.remove(&node);
            self.tell_replication(replication::Input::Forget(node), out);
            let outputs = self.agent.forget(node, self.now);
            self.carry_out(outputs, out);
            self.changed.members = true;
            self.changed.observed = true;
        }
    }
}
