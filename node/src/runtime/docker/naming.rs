//! Names and labels of containers.

use std::collections::HashMap;

use dunlin_core::io::{Workload, WorkloadId};
use dunlin_state::model::{Networks, NodeId, ServiceKey, Slot, SlotId, VolumeId, networks_of};

use super::create::port_name;

/// Prefix of all our labels.
const PREFIX: &str = "io.dunlin.";
/// Characters of the node's id in container names, which may share one engine in tests and demos.
const NODE_CHARS: usize = 6;

/// Whose containers are ours.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    cluster: String,
    node: NodeId,
}

/// An attempt as a container's labels tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Labelled {
    pub(super) id: WorkloadId,
    pub(super) revision: String,
    /// Its ports as the engine writes them, in the order of the specification.
    pub(super) ports: Vec<String>,
    /// The networks of its service when it was created, by their full names.
    pub(super) networks: Networks,
}

impl Owner {
    /// The containers of this node in this cluster.
    pub(super) fn new(cluster: &str, node: NodeId) -> Self {
        Self {
            cluster: cluster.to_owned(),
            node,
        }
    }

    /// A name that no other attempt has, on this node or another of the same engine. Labels hold
    /// no dots, so namespace and service cannot be mixed up.
    pub(super) fn name(&self, id: &WorkloadId) -> String {
        let (service, node) = (&id.slot.service, self.node_part());
        format!(
            "dunlin-{}.{}.{}-{}-{}-{node}",
            service.namespace(),
            service.name(),
            id.slot.slot,
            id.epoch,
            id.attempt
        )
    }

    /// The name of the engine's volume that stands for the directory of ours. No label has a dot, so
    /// that no two volumes have one name.
    pub(super) fn volume_name(&self, volume: &VolumeId) -> String {
        let (node, namespace, name) = (self.node_part(), volume.namespace(), volume.name());
        match volume.replica() {
            None => format!("dunlin-n-{node}-{namespace}.{name}"),
            Some((service, slot)) => {
                format!("dunlin-r-{node}-{namespace}.{service}.{slot}.{name}")
            }
        }
    }

    /// The labels of that volume.
    pub(super) fn volume_labels(&self, volume: &VolumeId) -> HashMap<String, String> {
        let labels = [
            ("cluster", self.cluster.clone()),
            ("node", self.node.to_string()),
            ("volume", volume.to_string()),
        ];
        labels
            .map(|(key, value)| (format!("{PREFIX}{key}"), value))
            .into()
    }

    /// The name of the bridge for a network.
    pub(super) fn network_name(&self, network: &str) -> String {
        let network = network.replacen('/', ".", 1).replacen('*', "_", 1);
        format!("dunlin-{}-{network}", self.node_part())
    }

    /// The labels of such a bridge.
    pub(super) fn network_labels(&self, network: &str) -> HashMap<String, String> {
        let labels = [
            ("cluster", self.cluster.clone()),
            ("node", self.node.to_string()),
            ("network", network.to_owned()),
        ];
        labels
            .map(|(key, value)| (format!("{PREFIX}{key}"), value))
            .into()
    }

    fn node_part(&self) -> String {
        let mut node = self.node.to_string();
        node.truncate(NODE_CHARS);
        node
    }

    /// The labels of a container; ours win over those of the specification.
    pub(super) fn labels(&self, workload: &Workload) -> HashMap<String, String> {
        let id = &workload.id;
        let ports: Vec<String> = workload.spec.ports.iter().map(port_name).collect();
        let networks = networks_of(&id.slot.service, &workload.spec.networks);
        let own = [
            ("cluster", self.cluster.clone()),
            ("node", self.node.to_string()),
            ("namespace", id.slot.service.namespace().to_owned()),
            ("service", id.slot.service.name().to_owned()),
            ("slot", slot_text(&id.slot.slot)),
            ("epoch", id.epoch.to_string()),
            ("attempt", id.attempt.to_string()),
            ("revision", workload.revision.clone()),
            ("ports", ports.join(",")),
            (
                "networks",
                networks.into_iter().collect::<Vec<_>>().join(","),
            ),
        ];
        let spec = workload.spec.labels.clone().into_iter();
        spec.chain(own.map(|(key, value)| (format!("{PREFIX}{key}"), value)))
            .collect()
    }

    /// A filter for lists and events that lets only our containers through.
    pub(super) fn filter(&self) -> HashMap<String, Vec<String>> {
        let labels = vec![
            format!("{PREFIX}cluster={}", self.cluster),
            format!("{PREFIX}node={}", self.node),
        ];
        HashMap::from([("label".to_owned(), labels)])
    }

    /// The same for the attempts of one slot.
    pub(super) fn filter_slot(&self, slot: &SlotId) -> HashMap<String, Vec<String>> {
        let mut filter = self.filter();
        filter.entry("label".to_owned()).or_default().extend([
            format!("{PREFIX}namespace={}", slot.service.namespace()),
            format!("{PREFIX}service={}", slot.service.name()),
            format!("{PREFIX}slot={}", slot_text(&slot.slot)),
        ]);
        filter
    }

    /// Reads a container's labels; `None` when it is not ours.
    pub(super) fn read(&self, labels: &HashMap<String, String>) -> Option<Labelled> {
        let get = |key: &str| labels.get(&format!("{PREFIX}{key}")).map(String::as_str);
        if get("cluster")? != self.cluster || get("node")? != self.node.to_string() {
            return None;
        }
        let slot = get("slot")?;
        let slot = match slot.parse() {
            Ok(index) => Slot::Replica(index),
            Err(_) => Slot::Node(slot.parse().ok()?),
        };
        let service = ServiceKey::new(get("namespace")?, get("service")?).ok()?;
        Some(Labelled {
            id: WorkloadId {
                slot: SlotId { service, slot },
                epoch: get("epoch")?.parse().ok()?,
                attempt: get("attempt")?.parse().ok()?,
            },
            revision: get("revision").unwrap_or_default().to_owned(),
            ports: get("ports")
                .unwrap_or_default()
                .split_terminator(',')
                .map(str::to_owned)
                .collect(),
            networks: get("networks")
                .unwrap_or_default()
                .split_terminator(',')
                .map(str::to_owned)
                .collect(),
        })
    }
}

fn slot_text(slot: &Slot) -> String {
    match slot {
        Slot::Replica(index) => index.to_string(),
        Slot::Node(node) => node.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use dunlin_state::model::ServiceSpec;

    use super::*;

    fn workload(slot: Slot) -> Workload {
        let mut spec = ServiceSpec::default();
        spec.labels.insert("team".into(), "shore".into());
        spec.labels.insert("io.dunlin.node".into(), "forged".into());
        Workload {
            id: WorkloadId {
                slot: SlotId {
                    service: "shop/web".parse().unwrap(),
                    slot,
                },
                epoch: 7,
                attempt: 2,
            },
            revision: "abc".into(),
            spec: Arc::new(spec),
            node_name: "n".into(),
            node: NodeId::from_bytes([1; 32]),
            volumes: BTreeSet::new(),
            given: std::collections::BTreeMap::new(),
            tells: false,
            lease_ms: None,
        }
    }

    #[test]
    fn labels_tell_the_attempt_to_their_owner_only() {
        let node = NodeId::from_bytes([1; 32]);
        let owner = Owner::new("c1", node);
        for slot in [Slot::Replica(3), Slot::Node(node)] {
            let workload = workload(slot);
            let labels = owner.labels(&workload);
            assert_eq!(labels["team"], "shore");
            let read = owner.read(&labels).unwrap();
            assert_eq!((read.id, read.revision.as_str()), (workload.id, "abc"));
            assert_eq!(Owner::new("c2", node).read(&labels), None);
            let other = NodeId::from_bytes([2; 32]);
            assert_eq!(Owner::new("c1", other).read(&labels), None);
        }
        assert_eq!(owner.read(&HashMap::new()), None);
    }

    #[test]
    fn names_are_what_the_engine_accepts() {
        let owner = Owner::new("c1", NodeId::from_bytes([1; 32]));
        let name = owner.name(&workload(Slot::Replica(3)).id);
        assert_eq!(name, "dunlin-shop.web.3-7-2-aeaqca");
    }
}
