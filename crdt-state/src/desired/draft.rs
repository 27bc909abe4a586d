//! Commands turned into the registers they write.
//!
//! The commands of one proposal are tried in order on a working copy of the snapshot. The first
//! that is refused ends it, and nothing has happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::command::Command;
use super::keys::{Aspect, Key, NodeAspect};
use super::rejection::{Rejection, similar};
use super::snapshot::{Desired, Service};
use super::validate::{MAX_REPLICAS, check_labels, check_spec};
use super::vips::{MAX_SETTLED, free};
use crate::model::{Availability, Mode, NodeId, ServiceKey, ServiceSpec, VipIndex};

/// Services in a cluster: ten times the design size of 1,000 nodes with one service each.
pub const MAX_SERVICES: usize = 10_000;

/// Commands in one proposal. A Compose file with more services belongs into several requests.
pub const MAX_COMMANDS: usize = 1_000;

/// The registers that a proposal writes; a null value is a tombstone.
pub(super) type Writes = BTreeMap<Key, serde_json::Value>;

/// Checks all commands and says what to write: nothing when everything is so already.
pub(super) fn draft(current: &Desired, commands: &[Command]) -> Result<Writes, Rejection> {
    if commands.len() > MAX_COMMANDS {
        return Err(Rejection::TooManyCommands {
            count: commands.len(),
            max: MAX_COMMANDS,
        });
    }
    let mut draft = Draft {
        desired: current.clone(),
        writes: Writes::new(),
    };
    for command in commands {
        draft.run(command)?;
    }
    if !draft.writes.is_empty() {
        draft.number_services();
    }
    Ok(draft.writes)
}

struct Draft {
    desired: Desired,
    writes: Writes,
}

impl Draft {
    fn run(&mut self, command: &Command) -> Result<(), Rejection> {
        match command {
            Command::Deploy {
                service,
                spec,
                replicas,
            } => self.deploy(service, spec, *replicas),
            Command::Scale { service, replicas } => self.scale(service, *replicas),
            Command::SetRunning { service, running } => self.set_running(service, *running),
            Command::Remove { service } => self.remove(service),
            Command::SetAvailability { node, availability } => {
                self.set_availability(*node, *availability);
                Ok(())
            }
            Command::SetLabels { node, labels } => self.set_labels(*node, labels),
        }
    }

    fn deploy(
        &mut self,
        key: &ServiceKey,
        spec: &ServiceSpec,
        replicas: Option<u32>,
    ) -> Result<(), Rejection> {
        check_spec(spec).map_err(|fault| Rejection::InvalidSpec {
            service: key.clone(),
            fault,
        })?;
        check_replicas(key, replicas.unwrap_or(1))?;
        self.check_published(key, spec)?;
        let Some(service) = self.desired.services.get_mut(key) else {
            return self.create(key, spec, replicas.unwrap_or(1));
        };
        if !same_but_image(&service.spec, spec) {
            let value = spec_json(spec);
            self.writes
                .insert(Key::Service(key.clone(), Aspect::Spec), value);
        }
        if service.spec.image != spec.image {
            let value = json(&spec.image);
            self.writes
                .insert(Key::Service(key.clone(), Aspect::Image), value);
        }
        service.spec = Arc::new(spec.clone());
        match replicas {
            Some(replicas) => self.scale_to(key, replicas),
            None => Ok(()),
        }
    }

    /// A new service writes every aspect: what is left in the registers of an earlier service of
    /// that name must not shine through.
    fn create(
        &mut self,
        key: &ServiceKey,
        spec: &ServiceSpec,
        replicas: u32,
    ) -> Result<(), Rejection> {
        if self.desired.services.len() >= MAX_SERVICES {
            return Err(Rejection::TooManyServices { max: MAX_SERVICES });
        }
        let values = [
            (Aspect::Spec, spec_json(spec)),
            (Aspect::Image, json(&spec.image)),
            (Aspect::Scale, json(&replicas)),
            (Aspect::Run, json(&true)),
        ];
        for (aspect, value) in values {
            self.writes.insert(Key::Service(key.clone(), aspect), value);
        }
        let service = Service {
            spec: Arc::new(spec.clone()),
            revision: String::new(),
            replicas,
            running: true,
        };
        self.desired.services.insert(key.clone(), service);
        Ok(())
    }

    fn scale(&mut self, key: &ServiceKey, replicas: u32) -> Result<(), Rejection> {
        if self.existing(key)?.spec.mode == Mode::Global {
            return Err(Rejection::GlobalHasNoScale(key.clone()));
        }
        self.scale_to(key, replicas)
    }

    fn scale_to(&mut self, key: &ServiceKey, replicas: u32) -> Result<(), Rejection> {
        check_replicas(key, replicas)?;
        let service = self.existing(key)?;
        if service.replicas != replicas {
            service.replicas = replicas;
            let value = json(&replicas);
            self.writes
                .insert(Key::Service(key.clone(), Aspect::Scale), value);
        }
        Ok(())
    }

    fn set_running(&mut self, key: &ServiceKey, running: bool) -> Result<(), Rejection> {
        let service = self.existing(key)?;
        if service.running != running {
            service.running = running;
            let value = json(&running);
            self.writes
                .insert(Key::Service(key.clone(), Aspect::Run), value);
        }
        Ok(())
    }

    fn remove(&mut self, key: &ServiceKey) -> Result<(), Rejection> {
        self.existing(key)?;
        self.desired.services.remove(key);
        for aspect in Aspect::ALL {
            let key = Key::Service(key.clone(), aspect);
            self.writes.insert(key, serde_json::Value::Null);
        }
        Ok(())
    }

    /// Writes the virtual addresses of new services, and of those that had to move because of a
    /// concurrent change.
    fn number_services(&mut self) {
        let Desired { services, vips, .. } = &self.desired;
        let known = |service: &&ServiceKey| services.contains_key(*service);
        let (kept, gone): (Vec<_>, Vec<_>) = vips.keys().partition(known);
        let mut taken: BTreeSet<VipIndex> = kept
            .into_iter()
            .filter_map(|service| vips.get(service))
            .map(|assigned| assigned.index)
            .collect();
        for service in gone {
            self.writes
                .insert(Key::Vip(service.clone()), serde_json::Value::Null);
        }
        let mut settled = 0;
        for service in services.keys() {
            let index = match vips.get(service) {
                Some(assigned) if assigned.written || settled == MAX_SETTLED => continue,
                Some(assigned) => {
                    settled += 1;
                    Some(assigned.index)
                }
                None => free(service, &taken),
            };
            if let Some(index) = index {
                taken.insert(index);
                self.writes.insert(Key::Vip(service.clone()), json(&index));
            }
        }
    }

    fn set_availability(&mut self, node: NodeId, availability: Availability) {
        let intent = self.desired.nodes.entry(node).or_default();
        if intent.availability == availability {
            return;
        }
        intent.availability = availability;
        // What everybody assumes anyway need not be kept for ever: a tombstone is purged.
        let value = match availability {
            Availability::Active => serde_json::Value::Null,
            Availability::Cordoned | Availability::Drained => json(&availability),
        };
        self.writes
            .insert(Key::Node(node, NodeAspect::Availability), value);
    }

    fn set_labels(
        &mut self,
        node: NodeId,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), Rejection> {
        check_labels(labels.iter()).map_err(|fault| Rejection::InvalidLabels { node, fault })?;
        let intent = self.desired.nodes.entry(node).or_default();
        if intent.labels == *labels {
            return Ok(());
        }
        intent.labels.clone_from(labels);
        let value = if labels.is_empty() {
            serde_json::Value::Null
        } else {
            json(labels)
        };
        self.writes
            .insert(Key::Node(node, NodeAspect::Labels), value);
        Ok(())
    }

    fn existing(&mut self, key: &ServiceKey) -> Result<&mut Service, Rejection> {
        let Desired { services, .. } = &mut self.desired;
        // Looked up before it is borrowed for writing, which would bar the search for names.
        let near = match services.contains_key(key) {
            true => Vec::new(),
            false => similar(key, services.keys()),
        };
        services
            .get_mut(key)
            .ok_or_else(|| Rejection::NoSuchService {
                service: key.clone(),
                similar: near,
            })
    }

    fn check_published(&self, key: &ServiceKey, spec: &ServiceSpec) -> Result<(), Rejection> {
        match self.desired.port_clash(key, spec) {
            None => Ok(()),
            Some((wanted, holder)) => Err(Rejection::PortTaken {
                service: key.clone(),
                port: wanted.published.unwrap_or_default(),
                protocol: wanted.protocol,
                holder: holder.clone(),
            }),
        }
    }
}

fn check_replicas(service: &ServiceKey, replicas: u32) -> Result<(), Rejection> {
    if replicas > MAX_REPLICAS {
        return Err(Rejection::TooManyReplicas {
            service: service.clone(),
            replicas,
        });
    }
    Ok(())
}

/// Whether two specifications differ in nothing but the image.
pub(super) fn same_but_image(a: &ServiceSpec, b: &ServiceSpec) -> bool {
    if a.image == b.image {
        return a == b;
    }
    let mut with_image = a.clone();
    b.image.clone_into(&mut with_image.image);
    with_image == *b
}

/// A specification without the fields that have their default value: registers stay small, and a
/// field that a newer version adds does not change the text, and with it the revision, of
/// specifications that do not use it.
fn spec_json(spec: &ServiceSpec) -> serde_json::Value {
    let mut value = json(spec);
    let default = json(&ServiceSpec::default());
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|name, value| default.get(name) != Some(value));
    }
    value
}

/// Our own values are structs, strings, numbers and maps with text keys, which always serialize.
fn json(value: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}
