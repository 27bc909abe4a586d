//! The registers as values: what automerge's bytes mean, kept up to date key by key.
//!
//! The table is a pure function of the document. After a change only the keys it touched are read
//! again, so that one write among thousands of services costs one service.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::change::DesiredChange;
use super::document::MAX_REVISIONS;
use super::engine::Engine;
use super::items::ItemValue;
use super::jobs::{Ask, Jobs, JobsValue};
use super::keys::{Aspect, FORMAT_KEY, Key, NodeAspect};
use super::rebase::differences;
use super::register::{Register, Stamp, newest};
use super::rules::Voids;
use super::snapshot::{Desired, NodeIntent, Service};
use super::trust::TrustRecords;
use super::value::{Cell, ImageValue, RolloutValue, ScaleValue, SpecValue, Value};
use super::vips::settle;
use crate::model::{
    Availability, ItemKey, ItemKind, NodeId, Quota, Rebalancing, RunId, ServiceKey, VipIndex,
    Window,
};

/// The aspects of one service.
#[derive(Debug, Clone, Default)]
pub(super) struct ServiceCells {
    pub(super) spec: Option<Cell<SpecValue>>,
    pub(super) image: Option<Cell<ImageValue>>,
    pub(super) scale: Option<Cell<ScaleValue>>,
    pub(super) run: Option<Cell<bool>>,
    pub(super) rollout: Option<Cell<RolloutValue>>,
    jobs: Option<Cell<JobsValue>>,
    asks: BTreeMap<RunId, Cell<Ask>>,
}

impl ServiceCells {
    /// The stamp of an aspect's register, live or tombstone.
    pub(super) fn stamp(&self, aspect: Aspect) -> Option<Stamp> {
        match aspect {
            Aspect::Spec => self.spec.as_ref().map(|c| c.stamp),
            Aspect::Image => self.image.as_ref().map(|c| c.stamp),
            Aspect::Scale => self.scale.as_ref().map(|c| c.stamp),
            Aspect::Run => self.run.as_ref().map(|c| c.stamp),
            Aspect::Rollout => self.rollout.as_ref().map(|c| c.stamp),
            Aspect::Jobs => self.jobs.as_ref().map(|c| c.stamp),
        }
    }

    fn is_empty(&self) -> bool {
        self.asks.is_empty() && Aspect::ALL.iter().all(|a| self.stamp(*a).is_none())
    }

    /// The service that these registers describe, if it exists. Missing aspects take the values of
    /// a service that nobody scaled or stopped, and the image that came with the specification.
    pub(super) fn service(&self) -> Option<Service> {
        let spec = self.spec.as_ref()?.value.as_ref()?;
        let image = self.image.as_ref().and_then(|c| c.value.as_ref());
        let mut service = spec.service(
            image.map(|i| i.0.as_str()),
            self.scale.as_ref().and_then(|c| c.value).map_or(1, |s| s.0),
            self.run.as_ref().and_then(|c| c.value).unwrap_or(true),
        );
        // One about another revision is of a rollout that a concurrent deploy has overtaken.
        let rollout = self.rollout.as_ref().and_then(|c| c.value.as_ref());
        if let Some(rollout) = rollout.filter(|r| r.revision == service.revision) {
            service.rollout = Arc::clone(&rollout.rollout);
        }
        if service.has_runs() {
            service.jobs = Arc::new(self.jobs());
        }
        Some(service)
    }

    fn jobs(&self) -> Jobs {
        let stored = self.jobs.as_ref().and_then(|c| c.value.clone());
        let stored = stored.unwrap_or_default();
        let asks = self.asks.iter();
        Jobs {
            since: self.spec.as_ref().map_or(0, |c| c.time),
            until: stored.until,
            runs: stored.runs,
            told: stored.told,
            asks: asks
                .filter_map(|(id, c)| Some((id.clone(), c.value?)))
                .collect(),
            run: None,
        }
    }
}

/// What people said about one node.
#[derive(Debug, Clone, Default)]
pub(super) struct NodeCells {
    pub(super) availability: Option<Cell<Availability>>,
    pub(super) labels: Option<Cell<BTreeMap<String, String>>>,
    pub(super) windows: Option<Cell<Vec<Window>>>,
}

/// All registers that this version understands.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    services: BTreeMap<ServiceKey, ServiceCells>,
    nodes: BTreeMap<NodeId, NodeCells>,
    vips: BTreeMap<ServiceKey, Cell<VipIndex>>,
    items: BTreeMap<(ItemKind, ItemKey), Cell<ItemValue>>,
    quotas: BTreeMap<String, Cell<Quota>>,
    rebalancing: Option<Cell<Rebalancing>>,
    /// The kept versions of every aspect, by the key of its newest register.
    revisions: BTreeMap<Key, BTreeSet<Stamp>>,
    /// Authors that were removed.
    voids: Voids,
    /// Registers that are not used, with the reason.
    invalid: BTreeMap<String, String>,
    /// The greatest stamp counter anywhere in the document, losers and revisions included.
    max_counter: u64,
    desired: Arc<Desired>,
}

impl Table {
    /// Reads a whole document.
    pub(super) fn read(engine: &Engine) -> Self {
        let mut table = Self {
            voids: Voids::read(engine),
            ..Self::default()
        };
        table.refresh_keys(engine, engine.keys());
        let trust = TrustRecords::read(engine, &table.voids);
        Arc::make_mut(&mut table.desired).trust = Arc::new(trust);
        table
    }

    /// The snapshot of all live services and nodes.
    pub(super) fn desired(&self) -> &Arc<Desired> {
        &self.desired
    }

    /// The registers of a service, also of one that has been removed.
    pub(super) fn service(&self, service: &ServiceKey) -> Option<&ServiceCells> {
        self.services.get(service)
    }

    /// All services with registers, also removed ones.
    pub(super) fn service_keys(&self) -> impl Iterator<Item = &ServiceKey> {
        self.services.keys()
    }

    /// The kept versions of an aspect, oldest first.
    pub(super) fn revisions(
        &self,
        service: &ServiceKey,
        aspect: Aspect,
    ) -> impl DoubleEndedIterator<Item = Stamp> + use<> {
        self.versions(&Key::Service(service.clone(), aspect))
    }

    /// The kept versions of a register, oldest first.
    fn versions(&self, key: &Key) -> impl DoubleEndedIterator<Item = Stamp> + use<> {
        let stamps = self.revisions.get(key);
        let stamps = stamps.into_iter().flatten().copied().rev();
        stamps
            .take(MAX_REVISIONS)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
    }

    /// Whose writings count for nothing.
    pub(super) fn voids(&self) -> &Voids {
        &self.voids
    }

    /// The stamp counter for a new write.
    pub(super) fn next_counter(&self) -> u64 {
        self.max_counter.saturating_add(1)
    }

    /// The greatest stamp counter seen.
    pub(super) fn max_counter(&self) -> u64 {
        self.max_counter
    }

    /// Registers that are not used, with the reason.
    pub(super) fn invalid(&self) -> &BTreeMap<String, String> {
        &self.invalid
    }

    /// Reads these keys again and says what that changed for readers.
    pub(super) fn refresh(
        &mut self,
        engine: &Engine,
        keys: impl IntoIterator<Item = String>,
    ) -> Vec<DesiredChange> {
        let keys: Vec<String> = keys.into_iter().collect();
        let trust = keys.iter().any(|key| key.starts_with("trust/"));
        if trust && Voids::read(engine) != self.voids {
            // Somebody was removed, whose registers may be anywhere.
            let before = Arc::clone(&self.desired);
            *self = Self::read(engine);
            return differences(&before, &self.desired);
        }
        let mut changes = self.refresh_keys(engine, keys);
        if trust {
            let records = TrustRecords::read(engine, &self.voids);
            if records != *self.desired.trust {
                Arc::make_mut(&mut self.desired).trust = Arc::new(records);
                changes.push(DesiredChange::TrustChanged);
            }
        }
        changes
    }

    fn refresh_keys(&mut self, engine: &Engine, keys: Vec<String>) -> Vec<DesiredChange> {
        let mut services = BTreeSet::new();
        let mut nodes = BTreeSet::new();
        let mut items = BTreeSet::new();
        let mut aspects = BTreeMap::new();
        let mut renumber = false;
        let mut quotas = false;
        let mut rebalancing = false;
        for text in keys {
            match Key::parse(&text) {
                Some(Key::Trust(_)) | None => self.refresh_foreign(engine, text),
                Some(key) => {
                    // A version may be newer than what stands there, or stand in for it.
                    if let Some(stamp) = key.stamp() {
                        self.refresh_revision(engine, &text, key.current(), stamp);
                    }
                    match &key {
                        Key::Service(service, _)
                        | Key::Revision(service, ..)
                        | Key::Ask(service, _) => {
                            services.insert(service.clone());
                        }
                        Key::Node(node, _) | Key::NodeRevision(node, ..) => {
                            nodes.insert(*node);
                        }
                        Key::Vip(_) => renumber = true,
                        Key::Item(kind, item) | Key::ItemRevision(kind, item, _) => {
                            items.insert((*kind, item.clone()));
                        }
                        Key::Quota(_) | Key::QuotaRevision(..) => quotas = true,
                        Key::Rebalancing | Key::RebalancingRevision(_) => rebalancing = true,
                        Key::Trust(_) => {}
                    }
                    let current = key.current();
                    aspects.insert(current.to_string(), current);
                }
            }
        }
        for (text, key) in aspects {
            self.refresh_aspect(engine, &text, key);
        }
        let mut changes = Vec::new();
        for service in services {
            self.derive_service(service, &mut changes);
        }
        for node in nodes {
            self.derive_node(node, &mut changes);
        }
        for (kind, item) in items {
            self.derive_item(kind, item, &mut changes);
        }
        if quotas {
            self.derive_quotas(&mut changes);
        }
        if rebalancing {
            self.derive_rebalancing(&mut changes);
        }
        let came_or_went = |change: &DesiredChange| {
            matches!(
                change,
                DesiredChange::ServiceCreated(_) | DesiredChange::ServiceRemoved(_)
            )
        };
        if renumber || changes.iter().any(came_or_went) {
            self.derive_vips(&mut changes);
        }
        changes
    }

    /// Keys of newer versions are only looked at for their stamps, so that ours stay greater.
    fn refresh_foreign(&mut self, engine: &Engine, key: String) {
        if key == FORMAT_KEY {
            return;
        }
        for value in engine.values(&key) {
            if let Ok(register) = Register::decode(&value) {
                self.max_counter = self.max_counter.max(register.stamp.counter);
            }
        }
    }

    fn refresh_revision(&mut self, engine: &Engine, text: &str, aspect: Key, stamp: Stamp) {
        if engine.values(text).is_empty() {
            if let Some(stamps) = self.revisions.get_mut(&aspect) {
                stamps.remove(&stamp);
                if stamps.is_empty() {
                    self.revisions.remove(&aspect);
                }
            }
        } else {
            self.max_counter = self.max_counter.max(stamp.counter);
            self.revisions.entry(aspect).or_default().insert(stamp);
        }
    }

    fn refresh_aspect(&mut self, engine: &Engine, text: &str, key: Key) {
        let values = engine.values(text);
        for value in &values {
            if let Ok(register) = Register::decode(value) {
                self.max_counter = self.max_counter.max(register.stamp.counter);
            }
        }
        let values = self.candidates(engine, &key, values);
        self.invalid.remove(text);
        match key {
            Key::Service(service, aspect) => {
                self.refresh_service(engine, text, service, aspect, values);
            }
            Key::Node(node, aspect) => {
                let mut cells = self.nodes.remove(&node).unwrap_or_default();
                match aspect {
                    NodeAspect::Availability => cells.availability = self.decode(text, values),
                    NodeAspect::Labels => cells.labels = self.decode(text, values),
                    NodeAspect::Windows => cells.windows = self.decode(text, values),
                }
                let said = cells.availability.is_some() || cells.labels.is_some();
                if said || cells.windows.is_some() {
                    self.nodes.insert(node, cells);
                }
            }
            Key::Ask(service, run) => {
                let mut cells = self.services.remove(&service).unwrap_or_default();
                match self.decode(text, values) {
                    Some(cell) => cells.asks.insert(run, cell),
                    None => cells.asks.remove(&run),
                };
                if !cells.is_empty() {
                    self.services.insert(service, cells);
                }
            }
            Key::Vip(service) => {
                match self.decode(text, values) {
                    Some(cell) => self.vips.insert(service, cell),
                    None => self.vips.remove(&service),
                };
            }
            Key::Item(kind, item) => {
                match self.decode(text, values) {
                    Some(cell) => self.items.insert((kind, item), cell),
                    None => self.items.remove(&(kind, item)),
                };
            }
            Key::Quota(namespace) => {
                match self.decode(text, values) {
                    Some(cell) => self.quotas.insert(namespace, cell),
                    None => self.quotas.remove(&namespace),
                };
            }
            Key::Rebalancing => self.rebalancing = self.decode(text, values),
            Key::Revision(..)
            | Key::NodeRevision(..)
            | Key::ItemRevision(..)
            | Key::QuotaRevision(..)
            | Key::RebalancingRevision(_)
            | Key::Trust(_) => {}
        }
    }

    fn refresh_service(
        &mut self,
        engine: &Engine,
        text: &str,
        service: ServiceKey,
        aspect: Aspect,
        values: Vec<Bytes>,
    ) {
        let mut cells = self.services.remove(&service).unwrap_or_default();
        match aspect {
            Aspect::Spec => cells.spec = self.cell(engine, text, &service, aspect, values),
            Aspect::Image => cells.image = self.cell(engine, text, &service, aspect, values),
            Aspect::Scale => cells.scale = self.cell(engine, text, &service, aspect, values),
            Aspect::Run => cells.run = self.cell(engine, text, &service, aspect, values),
            Aspect::Rollout => cells.rollout = self.cell(engine, text, &service, aspect, values),
            Aspect::Jobs => cells.jobs = self.cell(engine, text, &service, aspect, values),
        }
        if !cells.is_empty() {
            self.services.insert(service, cells);
        }
    }

    /// The registers of which the newest counts: what stands there, and the newest version kept
    /// beside it, in case somebody has put an older one back.
    fn candidates(&self, engine: &Engine, key: &Key, mut values: Vec<Bytes>) -> Vec<Bytes> {
        if values.is_empty() {
            return values;
        }
        values = self.voids.sift(values);
        for stamp in self.versions(key).rev() {
            let revision = key.revision(stamp).map(|key| key.to_string());
            let kept = revision.map_or_else(Vec::new, |text| engine.values(&text));
            let kept = self.voids.sift(kept);
            if !kept.is_empty() {
                values.extend(kept);
                break;
            }
        }
        values
    }

    /// The newest register, if it is valid; otherwise it is put aside with the reason.
    fn decode<T: Value>(&mut self, text: &str, values: Vec<Bytes>) -> Option<Cell<T>> {
        let (bytes, register) = newest(values)?;
        let cell = register
            .map_err(|e| format!("it is no register: {e}"))
            .and_then(|register| Cell::read(&bytes, register));
        cell.map_err(|reason| self.invalid.insert(text.to_owned(), reason))
            .ok()
    }

    /// The same for an aspect of a service, where the newest valid revision stands in for a
    /// register that is not valid: a service must not vanish because a newer version of Dunlin
    /// wrote something that this one cannot read.
    fn cell<T: Value>(
        &mut self,
        engine: &Engine,
        text: &str,
        service: &ServiceKey,
        aspect: Aspect,
        values: Vec<Bytes>,
    ) -> Option<Cell<T>> {
        if values.is_empty() {
            return None;
        }
        let cell = self.decode(text, values);
        if cell.is_some() {
            return cell;
        }
        self.revisions(service, aspect).rev().find_map(|stamp| {
            let key = Key::Revision(service.clone(), aspect, stamp).to_string();
            let (bytes, register) = newest(self.voids.sift(engine.values(&key)))?;
            Cell::read(&bytes, register.ok()?).ok()
        })
    }

    fn derive_service(&mut self, key: ServiceKey, changes: &mut Vec<DesiredChange>) {
        let new = self.services.get(&key).and_then(ServiceCells::service);
        let old = self.desired.services.get(&key);
        let before = changes.len();
        DesiredChange::of_service(&key, old, new.as_ref(), changes);
        if changes.len() == before {
            return;
        }
        let desired = Arc::make_mut(&mut self.desired);
        match new {
            Some(service) => desired.services.insert(key, service),
            None => desired.services.remove(&key),
        };
    }

    /// Gives the services that exist now their virtual addresses. It costs a walk over all of
    /// them, and is needed only when one came, went, or was given another number.
    fn derive_vips(&mut self, changes: &mut Vec<DesiredChange>) {
        let written = |service: &ServiceKey| {
            let cell = self.vips.get(service)?;
            Some((cell.stamp, cell.value?))
        };
        let assigned = settle(self.desired.services.keys().map(|s| (s, written(s))));
        if *self.desired.vips == assigned {
            return;
        }
        DesiredChange::of_vips(&self.desired.vips, &assigned, changes);
        Arc::make_mut(&mut self.desired).vips = Arc::new(assigned);
    }

    fn derive_item(&mut self, kind: ItemKind, key: ItemKey, changes: &mut Vec<DesiredChange>) {
        let cell = self.items.get(&(kind, key.clone()));
        let new = cell.and_then(|cell| Some(cell.value.clone()?.at(cell.time)));
        if self.desired.items.of(kind).get(&key) == new.as_ref() {
            return;
        }
        let desired = Arc::make_mut(&mut self.desired);
        let items = Arc::make_mut(&mut desired.items).of_mut(kind);
        match new {
            Some(item) => items.insert(key.clone(), item),
            None => items.remove(&key),
        };
        changes.push(DesiredChange::ItemChanged(kind, key));
    }

    fn derive_quotas(&mut self, changes: &mut Vec<DesiredChange>) {
        let quotas = self.quotas.iter();
        let set = quotas.filter_map(|(name, cell)| Some((name.clone(), cell.value?)));
        let new: BTreeMap<String, Quota> = set.collect();
        let before = changes.len();
        DesiredChange::of_quotas(&self.desired.quotas, &new, changes);
        if changes.len() > before {
            Arc::make_mut(&mut self.desired).quotas = Arc::new(new);
        }
    }

    fn derive_rebalancing(&mut self, changes: &mut Vec<DesiredChange>) {
        let new = self.rebalancing.as_ref().and_then(|cell| cell.value);
        let new = new.unwrap_or_default();
        if new != self.desired.rebalancing {
            Arc::make_mut(&mut self.desired).rebalancing = new;
            changes.push(DesiredChange::RebalancingChanged);
        }
    }

    fn derive_node(&mut self, node: NodeId, changes: &mut Vec<DesiredChange>) {
        let new = self.nodes.get(&node).and_then(|cells| {
            let availability = cells.availability.as_ref().and_then(|c| c.value);
            let labels = cells.labels.as_ref().and_then(|c| c.value.clone());
            let windows = cells.windows.as_ref().and_then(|c| c.value.clone());
            let said = availability.is_some() || labels.is_some() || windows.is_some();
            said.then(|| NodeIntent {
                availability: availability.unwrap_or_default(),
                labels: labels.unwrap_or_default(),
                windows: windows.unwrap_or_default(),
                maintenance: None,
                next_maintenance: None,
            })
        });
        let old = self.desired.nodes.get(&node);
        if old == new.as_ref() {
            return;
        }
        DesiredChange::of_node(node, old, new.as_ref(), changes);
        let desired = Arc::make_mut(&mut self.desired);
        match new {
            Some(intent) => desired.nodes.insert(node, intent),
            None => desired.nodes.remove(&node),
        };
    }
}
