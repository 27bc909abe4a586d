//! Commands turned into the registers they write.
//!
//! The commands of one proposal are tried in order on a working copy of the snapshot. The first
//! that is refused ends it, and nothing has happened.

mod items;
mod jobs;
mod rollouts;
mod trust;
mod voters;
mod windows;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::command::Command;
use super::depend::dependency_cycle;
use super::keys::{Aspect, Key, NodeAspect};
use super::quotas;
use super::rejection::{Rejection, similar};
use super::snapshot::{Desired, Previous, Rollout, Service};
use super::validate::{MAX_REPLICAS, check_labels, check_spec};
use super::value::{SpecValue, Value as _};
use super::vips::{MAX_SETTLED, free};
use crate::model::{
    Availability, Mode, NodeId, Quota, RunId, ServiceKey, ServiceSpec, VipIndex, check_label,
};

/// Services in a cluster: ten times the design size of 1,000 nodes with one service each.
pub const MAX_SERVICES: usize = 10_000;

/// Commands in one proposal. A Compose file with more services belongs into several requests.
pub const MAX_COMMANDS: usize = 1_000;

/// The registers that a proposal writes; a null value is a tombstone.
pub(super) type Writes = BTreeMap<Key, serde_json::Value>;

/// Checks all commands and says what to write: nothing when everything is so already.
pub(super) fn draft(current: &Desired, commands: &[Command]) -> Result<Writes, Rejection> {
    let mut draft = Draft::of(current, commands)?;
    // Services of one file may name those that come after them.
    for command in commands {
        draft.check_dependencies(command)?;
    }
    if !draft.writes.is_empty() {
        draft.number_services();
    }
    Ok(draft.writes)
}

/// What would be wanted after these commands, but for the virtual addresses of new services.
///
/// # Errors
/// What they would be refused with.
pub fn preview(current: &Desired, commands: &[Command]) -> Result<Desired, Rejection> {
    Draft::of(current, commands).map(|draft| draft.desired)
}

pub(super) struct Draft {
    pub(super) desired: Desired,
    pub(super) writes: Writes,
    /// Services whose present revision is proven.
    proven: BTreeSet<ServiceKey>,
}

impl Draft {
    /// The working copy after all commands.
    fn of(current: &Desired, commands: &[Command]) -> Result<Self, Rejection> {
        let asked = commands.iter();
        let count = asked
            .filter(|command| !matches!(command, Command::Proven { .. }))
            .count();
        if count > MAX_COMMANDS {
            return Err(Rejection::TooManyCommands {
                count,
                max: MAX_COMMANDS,
            });
        }
        let mut draft = Self {
            desired: current.clone(),
            writes: Writes::new(),
            proven: BTreeSet::new(),
        };
        for command in commands {
            draft.run(command)?;
        }
        quotas::check(current, &draft.desired, commands)?;
        Ok(draft)
    }

    fn run(&mut self, command: &Command) -> Result<(), Rejection> {
        match command {
            Command::Deploy {
                service,
                spec,
                replicas,
            } => self.deploy(service, spec, *replicas),
            Command::Scale { service, replicas } => self.scale(service, *replicas),
            Command::Rollout {
                service,
                revision,
                change,
            } => self.rollout(service, revision.as_deref(), change),
            Command::Proven { service } => {
                self.proven.insert(service.clone());
                Ok(())
            }
            Command::AskRun { service, run } => self.ask_run(service, run),
            Command::CancelRun { service, run } => self.cancel_run(service, run),
            Command::RecordRuns { service, record } => self.record_runs(service, record),
            Command::SetRunning { service, running } => self.set_running(service, *running),
            Command::Remove { service } => self.remove(service),
            Command::SetAvailability { node, availability } => {
                self.set_availability(*node, *availability);
                Ok(())
            }
            Command::SetLabels { node, labels } => self.set_labels(*node, labels),
            Command::SetWindows { node, windows } => self.set_windows(*node, windows),
            Command::SetQuota { namespace, quota } => self.set_quota(namespace, quota),
            Command::SetRebalancing(new) => {
                self.set_rebalancing(*new);
                Ok(())
            }
            Command::PutItem { kind, item, new } => self.put_item(*kind, item, new),
            Command::RemoveItem { kind, item } => self.remove_item(*kind, item),
            Command::Trust(command) => self.trust(command),
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
        jobs::check_name(key, spec)?;
        self.check_published(key, spec)?;
        let Some(service) = self.desired.services.get_mut(key) else {
            return self.create(key, spec, replicas.unwrap_or(1));
        };
        voters::check(key, service, spec)?;
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
        // Whoever follows the load does so across deploys.
        let followed = service.spec.autoscale.is_some() && spec.autoscale.is_some();
        let replicas = replicas.filter(|_| !followed);
        let revision = revision_of(spec);
        if *service.spec != *spec {
            let proven = self.proven.contains(key);
            let old = Previous {
                spec: Arc::clone(&service.spec),
                revision: std::mem::replace(&mut service.revision, revision),
            };
            // What an unfinished rollout was about to replace has proven itself; what it brings has
            // not.
            let earlier = service.rollout.previous.clone();
            let earlier = earlier.filter(|e| !proven && e.revision != service.revision);
            service.spec = Arc::new(spec.clone());
            service.rollout = Arc::new(Rollout {
                previous: Some(earlier.unwrap_or(old)),
                ..Rollout::default()
            });
            self.write_rollout(key);
        }
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
            revision: revision_of(spec),
            replicas,
            running: true,
            rollout: Arc::default(),
            jobs: Arc::default(),
        };
        self.desired.services.insert(key.clone(), service);
        Ok(())
    }

    fn scale(&mut self, key: &ServiceKey, replicas: u32) -> Result<(), Rejection> {
        if self.existing(key)?.spec.mode == Mode::Global {
            return Err(Rejection::GlobalHasNoScale(key.clone()));
        }
        if self.existing(key)?.spec.job.is_some() {
            return Err(Rejection::JobHasNoScale(key.clone()));
        }
        if let Some(autoscale) = self.existing(key)?.spec.autoscale.as_deref() {
            return Err(Rejection::FollowsLoad {
                service: key.clone(),
                min: autoscale.min,
                max: autoscale.max,
            });
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
        let asks: Vec<RunId> = self.existing(key)?.jobs.asks.keys().cloned().collect();
        for run in asks {
            self.writes
                .insert(Key::Ask(key.clone(), run), serde_json::Value::Null);
        }
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

    fn set_quota(&mut self, namespace: &str, quota: &Quota) -> Result<(), Rejection> {
        if let Err(fault) = check_label("namespace", namespace) {
            return Err(Rejection::BadNamespace(fault.to_string()));
        }
        let known = self
            .desired
            .quotas
            .get(namespace)
            .copied()
            .unwrap_or_default();
        if known == *quota {
            return Ok(());
        }
        let quotas = Arc::make_mut(&mut self.desired.quotas);
        let value = match quota.is_none() {
            true => {
                quotas.remove(namespace);
                serde_json::Value::Null
            }
            false => {
                quotas.insert(namespace.to_owned(), *quota);
                json(quota)
            }
        };
        self.writes.insert(Key::Quota(namespace.to_owned()), value);
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

    fn check_dependencies(&self, command: &Command) -> Result<(), Rejection> {
        let Command::Deploy { service, .. } = command else {
            return Ok(());
        };
        let spec = |key: &ServiceKey| self.desired.services.get(key).map(|s| &*s.spec);
        match dependency_cycle(service, spec) {
            Some(cycle) => Err(Rejection::DependencyCycle(cycle)),
            None => Ok(()),
        }
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

/// The revision of a specification, as the table will derive it once it is written.
pub fn revision_of(spec: &ServiceSpec) -> String {
    let value = SpecValue::read(spec_json(spec));
    value.map_or_else(|_| String::new(), |v| v.service(None, 1, true).revision)
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
pub(super) fn json(value: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}
