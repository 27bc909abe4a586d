//! What an agent's orders do on its host: replicas start and stop, keys are kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use dunlin_state::desired::Item;
use dunlin_state::model::{
    BadOutputs, ContentId, ItemKey, Load, NodeId, Outputs, ServiceKey, Slot, VolumeId,
};

use super::{Delivery, Flock, RUNTIME};
use crate::io::{Adopted, Running, RuntimeCommand, RuntimeEvent, Workload, WorkloadId};
use crate::secrets::{self, Order};

impl Flock {
    pub(super) fn run_command(&mut self, id: NodeId, command: RuntimeCommand) {
        let event = match command {
            RuntimeCommand::Adopt => {
                let node = &self.nodes[&id];
                let found = node.running.iter().map(|w| Adopted {
                    running: running(w),
                    revision: node.revisions[w].clone(),
                    exited: None,
                    outputs: Ok(Outputs::default()),
                });
                RuntimeEvent::Adopted(found.collect())
            }
            RuntimeCommand::Refresh { id: workload, .. } => {
                self.refreshed.push((id, workload));
                return;
            }
            RuntimeCommand::Start(workload) => {
                self.judge_start(id, &workload);
                let broken = self.broken.contains(&workload.spec.image);
                if broken || self.broken_nodes.contains(&id) {
                    RuntimeEvent::StartFailed {
                        id: workload.id,
                        reason: "no such program".to_owned(),
                        hopeless: true,
                    }
                } else {
                    let node = self.nodes.get_mut(&id).unwrap();
                    node.running.insert(workload.id.clone());
                    if let Some(ms) = workload.lease_ms {
                        let until = self.now + ms;
                        self.leased.insert((id, workload.id.clone()), until);
                    }
                    let node = self.nodes.get_mut(&id).unwrap();
                    self.started.push(workload.id.clone());
                    self.environments
                        .insert(workload.id.clone(), workload.given.clone());
                    node.revisions
                        .insert(workload.id.clone(), workload.revision);
                    RuntimeEvent::Started(running(&workload.id))
                }
            }
            RuntimeCommand::Stop { id: workload, .. } => {
                self.judge_stop(id, &workload);
                self.nodes.get_mut(&id).unwrap().running.remove(&workload);
                RuntimeEvent::Exited {
                    id: workload,
                    code: 143,
                    oom: false,
                    last_words: Vec::new(),
                    outputs: Ok(Outputs::default()),
                }
            }
            RuntimeCommand::Extend {
                id: workload,
                lease_ms,
            } => {
                let until = self.now + lease_ms;
                self.leased.insert((id, workload), until);
                return;
            }
            RuntimeCommand::Remove { .. } => return,
            RuntimeCommand::Probe(order) => RuntimeEvent::Probed {
                id: order.id,
                result: Ok(()),
            },
        };
        self.push(RUNTIME, id, Delivery::Runtime(event));
    }

    /// The holder of keys, with boxes that are the bytes of whom they are for.
    pub(super) fn keep_keys(&mut self, id: NodeId, order: Order) {
        let vault = self.vaults.entry(id).or_default();
        let answer = match order {
            Order::Open {
                secret,
                item,
                sealed,
            } => {
                let own = |sealed: &[u8]| sealed == id.as_bytes();
                let opened = vault.get(&secret) == Some(&item.content)
                    || item.boxes.get(&id).is_some_and(|b| own(b))
                    || sealed.is_some_and(|b| own(&b));
                let content = item.content;
                if opened {
                    vault.insert(secret.clone(), content);
                }
                secrets::Answer::Opened {
                    secret,
                    content,
                    opened,
                }
            }
            Order::Seal {
                to,
                secret,
                content,
            } => {
                assert_eq!(vault.get(&secret), Some(&content), "it has not got the key");
                self.given.insert(to);
                secrets::Answer::Sealed {
                    to,
                    secret,
                    content,
                    sealed: to.as_bytes().to_vec().into(),
                }
            }
            Order::Forget(secret) => {
                vault.remove(&secret);
                return;
            }
        };
        self.push(0, id, Delivery::Answer(answer));
    }

    /// A secret whose key lies beside it for these nodes.
    pub(crate) fn secret(&mut self, name: &str, value: &str, boxes: &[NodeId]) {
        let stored: Bytes = value.as_bytes().to_vec().into();
        let boxes = boxes.iter();
        let item = Item {
            version: 1,
            content: ContentId::of(&stored),
            stored,
            boxes: boxes.map(|n| (*n, n.as_bytes().to_vec().into())).collect(),
            labels: BTreeMap::new(),
            updated: 0,
        };
        let name: ItemKey = name.parse().unwrap();
        self.edit(|d| {
            Arc::make_mut(&mut d.items)
                .secrets
                .insert(name, Arc::new(item));
        });
    }

    fn judge_start(&mut self, id: NodeId, workload: &Workload) {
        let vault = self.vaults.get(&id);
        for mount in &workload.spec.secrets {
            let name: ItemKey = mount.source.parse().unwrap();
            if vault.is_none_or(|vault| !vault.contains_key(&name)) {
                self.blind_starts
                    .push(format!("{name} for {:?}", workload.id));
            }
        }
    }

    /// Invariant I2, as far as the stopping node can know: a replica that serves a wanted slot by
    /// the present specification on an active node is only stopped when another one serves it.
    fn judge_stop(&mut self, id: NodeId, workload: &WorkloadId) {
        let slot = &workload.slot;
        let revision = self.nodes[&id].revisions.get(workload);
        let Some(service) = self.desired.services.get(&slot.service) else {
            return;
        };
        let active =
            self.desired.nodes.get(&id).is_none_or(|intent| {
                intent.availability != dunlin_state::model::Availability::Drained
            });
        let wanted = match slot.slot {
            Slot::Replica(index) => index < service.wanted_replicas(),
            Slot::Node(_) => false,
        };
        let current = revision == Some(&service.revision);
        let elsewhere = self
            .nodes
            .iter()
            .any(|(other, node)| *other != id && node.running.iter().any(|w| w.slot == *slot));
        if active && wanted && current && !elsewhere {
            let text = format!("n{} at {}: {workload:?}", id.as_bytes()[7], self.now);
            self.wrong_stops.push(text);
        }
    }

    /// Data of a volume comes to a node from elsewhere.
    pub(crate) fn put_volume(&mut self, id: NodeId, volume: VolumeId) {
        let now = self.now();
        let node = self.nodes.get_mut(&id).unwrap();
        let out = node.agent.as_mut().unwrap().put_volume(volume, now);
        self.perform(id, out);
    }

    /// A node has measured something.
    pub(crate) fn measure(&mut self, id: NodeId, samples: BTreeMap<ServiceKey, Load>) {
        let now = self.now();
        let agent = self.nodes.get_mut(&id).and_then(|n| n.agent.as_mut());
        if let Some(agent) = agent {
            let out = agent.measured(samples, now);
            self.perform(id, out);
        }
    }

    /// A replica ends by itself.
    pub(crate) fn exit(&mut self, id: NodeId, workload: WorkloadId, code: i32) {
        self.tell_and_exit(id, workload, code, Ok(Outputs::default()));
    }

    /// A replica ends by itself and leaves its file of outputs.
    pub(crate) fn tell_and_exit(
        &mut self,
        id: NodeId,
        workload: WorkloadId,
        code: i32,
        outputs: Result<Outputs, BadOutputs>,
    ) {
        self.nodes.get_mut(&id).unwrap().running.remove(&workload);
        let event = RuntimeEvent::Exited {
            id: workload,
            code,
            oom: false,
            last_words: Vec::new(),
            outputs,
        };
        self.push(0, id, Delivery::Runtime(event));
    }
}

fn running(id: &WorkloadId) -> Running {
    Running {
        id: id.clone(),
        workload: format!("{id:?}"),
        endpoints: Vec::new(),
        image_health: None,
    }
}
