//! From each machine's effects to the others and to the shell.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use dunlin_gossip::membership::MemberEvent;
use dunlin_gossip::replication::ProposalId;
use dunlin_gossip::{membership, overlay, replication};
use dunlin_state::desired::{Command, Rejection};
use dunlin_state::model::{NodeId, NodeRegister};

use super::OWN_PROPOSAL;
use super::{Engine, MAX_PEERS, PEERS_INTERVAL_MS, note, warning};
use crate::agent::Output;
use crate::io::{Effect, Write};
use crate::liveness::Standing;
use crate::wire::PeerMessage;

/// Stands for an address that nobody knows: the peer can only be reached over a connection that
/// it has opened itself.
const UNKNOWN_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl Engine {
    pub(super) fn tell_membership(&mut self, input: membership::Input, out: &mut Vec<Effect>) {
        let effects = self.membership.handle(input, self.now);
        self.on_membership(effects, out);
    }

    pub(super) fn tell_overlay(&mut self, input: overlay::Input, out: &mut Vec<Effect>) {
        let effects = self.overlay.handle(input, self.now);
        self.on_overlay(effects, out);
    }

    pub(super) fn tell_replication(&mut self, input: replication::Input, out: &mut Vec<Effect>) {
        let effects = self.replication.handle(input, self.now);
        self.on_replication(effects, out);
    }

    pub(super) fn on_membership(
        &mut self,
        effects: Vec<membership::Effect>,
        out: &mut Vec<Effect>,
    ) {
        for effect in effects {
            match effect {
                membership::Effect::Send { to, bytes } => {
                    out.push(Effect::SendDatagram { to, bytes });
                }
                membership::Effect::SendReliable { to, bytes } => {
                    self.send(to, PeerMessage::Swim(bytes), out);
                }
                membership::Effect::Event(event) => self.on_member_event(event, out),
            }
        }
    }

    fn on_member_event(&mut self, event: MemberEvent, out: &mut Vec<Effect>) {
        let (id, input) = match event {
            MemberEvent::Alive(id) => (id, overlay::Input::Alive(id.node)),
            // The connection is what may yet show that it lives.
            MemberEvent::Suspect(id) => (id, overlay::Input::Alive(id.node)),
            MemberEvent::Down(id) | MemberEvent::Left(id) => (id, overlay::Input::Gone(id.node)),
        };
        if matches!(event, MemberEvent::Alive(_)) {
            self.remember_peer(id.address);
        }
        self.addresses.insert(id.node, id.address);
        self.changed.members = true;
        self.tell_overlay(input, out);
        let heard = |n| self.membership.last_heard(n);
        let outputs = self.agent.member(event, &heard, self.now);
        self.carry_out(outputs, out);
    }

    fn remember_peer(&mut self, address: SocketAddr) {
        let known = &mut self.peers.addresses;
        if address == self.config.member.address || !known.insert(address) {
            return;
        }
        if known.len() > MAX_PEERS {
            // Any but the newcomer may go; the greatest or smallest is as good as another.
            let other = known.iter().find(|a| **a != address).copied();
            if let Some(other) = other {
                known.remove(&other);
            }
        }
        if self.peers.due.is_none() {
            let earliest = self.peers.last.map_or(0, |at| at + PEERS_INTERVAL_MS);
            self.peers.due = Some(earliest.max(self.now.mono));
        }
    }

    pub(super) fn on_overlay(&mut self, effects: Vec<overlay::Effect>, out: &mut Vec<Effect>) {
        for effect in effects {
            match effect {
                overlay::Effect::Connect(node) => {
                    // A member whose address nobody knows has to dial itself.
                    if let Some(address) = self.address_of(node) {
                        out.push(Effect::Connect { node, address });
                    }
                }
                overlay::Effect::Disconnect(node) => out.push(Effect::Disconnect(node)),
            }
        }
    }

    pub(super) fn on_replication(
        &mut self,
        effects: Vec<replication::Effect>,
        out: &mut Vec<Effect>,
    ) {
        for effect in effects {
            match effect {
                replication::Effect::Send { to, message } => {
                    self.send(to, PeerMessage::Replication(message), out);
                }
                replication::Effect::Persist { id, writes } => {
                    let writes = writes.into_iter().map(Write::from).collect();
                    out.push(Effect::Persist { id, writes });
                }
                replication::Effect::Proposed { id, result } if id.0 >= OWN_PROPOSAL => {
                    // A node that may not write there leaves it to one that may.
                    if let Err(rejection) = result
                        && !matches!(rejection, Rejection::NotAllowed { .. })
                    {
                        let text = format!("a rollout could not be steered: {rejection}");
                        out.push(warning(text));
                    }
                }
                replication::Effect::Proposed { id, result } => {
                    out.push(Effect::Proposed { id, result });
                }
                replication::Effect::DesiredChanged => {
                    self.changed.desired = true;
                    self.expel_removed(out);
                    let desired = self.replication.desired();
                    let outputs = self.agent.desired_changed(desired, self.now);
                    self.carry_out(outputs, out);
                }
                replication::Effect::ObservedChanged(nodes) => self.on_observed(&nodes, out),
                replication::Effect::Warning(text) => out.push(warning(text)),
            }
        }
    }

    fn on_observed(&mut self, nodes: &[NodeId], out: &mut Vec<Effect>) {
        self.changed.observed = true;
        self.note_holders(nodes);
        let table = self.replication.observed();
        let registers: Vec<Arc<NodeRegister>> = nodes
            .iter()
            .filter_map(|node| table.get(*node).cloned())
            .collect();
        let outputs = self.agent.registers_changed(&registers, self.now);
        self.carry_out(outputs, out);
    }

    /// Does what the agent decided.
    pub(super) fn carry_out(&mut self, outputs: Vec<Output>, out: &mut Vec<Effect>) {
        for output in outputs {
            match output {
                Output::Send { to, message } => {
                    self.send(to, PeerMessage::Bidding(message), out);
                }
                Output::Ask { to, message } => {
                    self.send(to, PeerMessage::Secrets(message), out);
                }
                Output::Vote { to, message } => {
                    self.send(to, PeerMessage::Lease(message), out);
                }
                Output::Secret(order) => out.push(Effect::Secret(order)),
                Output::Probe { node, address } => out.push(Effect::Probe { node, address }),
                Output::Runtime(command) => out.push(Effect::Runtime(command)),
                Output::Event(event) => out.push(Effect::Event(event)),
                Output::Report(report) => {
                    self.changed.observed = true;
                    self.tell_replication(replication::Input::Report(report), out);
                }
                Output::Propose(command) => self.propose_own(command, out),
                Output::Persist(claims) => {
                    let id = self.persist(vec![Write::Claims(claims)], out);
                    self.claims_request = Some(id);
                }
                Output::PersistVolumes(volumes) => {
                    let id = self.persist(vec![Write::Volumes(volumes)], out);
                    self.volumes_request = Some(id);
                }
                Output::RoutesChanged => self.changed.observed = true,
                Output::Standing { node, standing } => {
                    self.changed.members = true;
                    self.note_standing(node, standing);
                    out.push(self.tell_standing(node, standing));
                }
            }
        }
    }

    /// Proposes a change of this node's own accord; nobody waits for the answer.
    fn propose_own(&mut self, command: Command, out: &mut Vec<Effect>) {
        self.next_proposal = self.next_proposal.wrapping_add(1) | OWN_PROPOSAL;
        let input = replication::Input::Propose {
            id: ProposalId(self.next_proposal),
            commands: vec![command],
            author: format!("dunlin on {}", self.config.name),
        };
        self.tell_replication(input, out);
    }

    fn tell_standing(&self, node: NodeId, standing: Standing) -> Effect {
        let register = self.replication.observed().get(node);
        let name = register.map_or_else(|| node.short(), |r| r.report.name.clone());
        match standing {
            Standing::Alive => note(node, false, format!("node {name} is alive")),
            Standing::Suspect => note(node, true, format!("node {name} misses its probes")),
            Standing::Gone => note(
                node,
                true,
                format!("node {name} is gone; its replicas are placed elsewhere"),
            ),
            Standing::Left => note(node, false, format!("node {name} has left")),
        }
    }

    pub(super) fn send(&mut self, to: NodeId, message: PeerMessage, out: &mut Vec<Effect>) {
        let address = self.address_of(to).unwrap_or(UNKNOWN_ADDRESS);
        out.push(Effect::SendMessage {
            to,
            address,
            message,
        });
    }

    fn address_of(&self, node: NodeId) -> Option<SocketAddr> {
        self.addresses.get(&node).copied().or_else(|| {
            let register = self.replication.observed().get(node)?;
            register.report.address
        })
    }
}

impl From<replication::Write> for Write {
    fn from(write: replication::Write) -> Self {
        match write {
            replication::Write::Document(saved) => Self::Document(saved),
            replication::Write::Change(change) => Self::Change(change),
        }
    }
}
