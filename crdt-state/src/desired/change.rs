//! What a change of the document means to those who act on desired state.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::same_but_image;
use super::items::Items;
use super::snapshot::{NodeIntent, Service};
use super::vips::Assigned;
use crate::model::{Availability, ItemKey, ItemKind, NodeId, Quota, ServiceKey};

/// One difference between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DesiredChange {
    /// A service exists that did not.
    ServiceCreated(ServiceKey),
    /// A service exists no longer.
    ServiceRemoved(ServiceKey),
    /// Its specification, image included, is another one.
    SpecChanged {
        /// Which service.
        service: ServiceKey,
        /// The revision that its replicas should have now.
        revision: String,
        /// Whether nothing but the image differs.
        image_only: bool,
    },
    /// Its rollout is steered otherwise.
    RolloutChanged(ServiceKey),
    /// What is said or recorded of the runs of a job is something else.
    JobsChanged(ServiceKey),
    /// It has another number of replicas.
    ScaleChanged {
        /// Which service.
        service: ServiceKey,
        /// The new number.
        replicas: u32,
    },
    /// It was stopped or started.
    RunningChanged {
        /// Which service.
        service: ServiceKey,
        /// Whether it runs now.
        running: bool,
    },
    /// Its virtual address is another one: somebody else had it first.
    VipMoved(ServiceKey),
    /// A node takes replicas, or does not.
    AvailabilityChanged {
        /// Which node.
        node: NodeId,
        /// What it shall do now.
        availability: Availability,
    },
    /// The labels that the cluster gives a node are others.
    LabelsChanged {
        /// Which node.
        node: NodeId,
        /// All of them now.
        labels: BTreeMap<String, String>,
    },
    /// A node is to be worked on at other times.
    WindowsChanged(NodeId),
    /// A secret or config has come, gone, or has another version.
    ItemChanged(ItemKind, ItemKey),
    /// A namespace has another quota.
    QuotaChanged(String),
    /// Replicas are moved to even out nodes, or are not.
    RebalancingChanged,
    /// Who belongs to the cluster has changed.
    TrustChanged,
}

impl DesiredChange {
    pub(super) fn of_service(
        key: &ServiceKey,
        old: Option<&Service>,
        new: Option<&Service>,
        changes: &mut Vec<Self>,
    ) {
        let (old, new) = match (old, new) {
            (None, None) => return,
            (None, Some(_)) => return changes.push(Self::ServiceCreated(key.clone())),
            (Some(_), None) => return changes.push(Self::ServiceRemoved(key.clone())),
            (Some(old), Some(new)) => (old, new),
        };
        if old.revision != new.revision || old.spec != new.spec {
            let image_only =
                old.spec.image != new.spec.image && same_but_image(&old.spec, &new.spec);
            changes.push(Self::SpecChanged {
                service: key.clone(),
                revision: new.revision.clone(),
                image_only,
            });
        }
        if old.rollout != new.rollout && old.revision == new.revision {
            changes.push(Self::RolloutChanged(key.clone()));
        }
        if old.jobs != new.jobs {
            changes.push(Self::JobsChanged(key.clone()));
        }
        if old.replicas != new.replicas {
            changes.push(Self::ScaleChanged {
                service: key.clone(),
                replicas: new.replicas,
            });
        }
        if old.running != new.running {
            changes.push(Self::RunningChanged {
                service: key.clone(),
                running: new.running,
            });
        }
    }

    /// Of services that are only in one of them, their creation or removal says enough.
    pub(super) fn of_vips(
        old: &BTreeMap<ServiceKey, Assigned>,
        new: &BTreeMap<ServiceKey, Assigned>,
        changes: &mut Vec<Self>,
    ) {
        for (service, assigned) in new {
            if old.get(service).is_some_and(|o| o.index != assigned.index) {
                changes.push(Self::VipMoved(service.clone()));
            }
        }
    }

    /// Walks over all of them, for when a whole document was replaced.
    pub(super) fn of_items(old: &Items, new: &Items, changes: &mut Vec<Self>) {
        for kind in ItemKind::ALL {
            let (old, new) = (old.of(kind), new.of(kind));
            let keys: BTreeSet<&ItemKey> = old.keys().chain(new.keys()).collect();
            let differ = keys.into_iter().filter(|key| old.get(key) != new.get(key));
            changes.extend(differ.map(|key| Self::ItemChanged(kind, key.clone())));
        }
    }

    /// Walks over all of them; there are few.
    pub(super) fn of_quotas(
        old: &BTreeMap<String, Quota>,
        new: &BTreeMap<String, Quota>,
        changes: &mut Vec<Self>,
    ) {
        let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let differ = names
            .into_iter()
            .filter(|name| old.get(*name) != new.get(*name));
        changes.extend(differ.map(|name| Self::QuotaChanged(name.clone())));
    }

    pub(super) fn of_node(
        node: NodeId,
        old: Option<&NodeIntent>,
        new: Option<&NodeIntent>,
        changes: &mut Vec<Self>,
    ) {
        let nothing = NodeIntent::default();
        let (old, new) = (old.unwrap_or(&nothing), new.unwrap_or(&nothing));
        if old.availability != new.availability {
            changes.push(Self::AvailabilityChanged {
                node,
                availability: new.availability,
            });
        }
        if old.windows != new.windows {
            changes.push(Self::WindowsChanged(node));
        }
        if old.labels != new.labels {
            changes.push(Self::LabelsChanged {
                node,
                labels: new.labels.clone(),
            });
        }
    }
}
