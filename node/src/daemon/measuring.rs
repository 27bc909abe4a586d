//! What the replicas of this node use and what its proxies see, of services that follow their load.
//!
//! Without such services it sleeps. It measures every three seconds, and once more when a
//! connection begins to wait for a service that has no replica.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dunlin_core::engine::Engine;
use dunlin_core::io::WorkloadId;
use dunlin_lb::publish::Views;
use dunlin_state::model::{Load, Metric, Phase, ServiceKey};
use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::handle::EngineHandle;
use crate::runtime::{RuntimesHandle, Usage};

/// Time between two measurements: four of them are averaged before anybody acts on it.
const EVERY: Duration = Duration::from_secs(3);

/// Pause after a connection that waits, so that a flood of them is no flood of measurements.
const PAUSE: Duration = Duration::from_millis(250);

/// Replicas whose usage is read at a time.
const AT_ONCE: usize = 8;

/// Replicas whose usage is read at all: more than a host sensibly runs of services that follow
/// their CPU or memory.
const MAX_READ: usize = 512;

/// Services that follow their load, and what is to be measured of them.
pub(super) type Followed = Arc<BTreeMap<ServiceKey, BTreeSet<Metric>>>;

/// What is to be measured now.
pub(super) fn followed(engine: &Engine) -> Followed {
    let services = engine.followed().iter().filter_map(|key| {
        let service = engine.desired().services.get(key)?;
        let autoscale = service.spec.autoscale.as_deref()?;
        Some((key.clone(), autoscale.measured().collect()))
    });
    Arc::new(services.collect())
}

/// Measures, and tells the engine.
pub(super) struct Measuring {
    engine: EngineHandle,
    runtimes: RuntimesHandle,
    proxies: Views,
    followed: watch::Receiver<Followed>,
    /// Connections that each service had accepted at the last measurement.
    accepted: BTreeMap<ServiceKey, u64>,
    at: Option<Instant>,
    used: BTreeMap<WorkloadId, (Instant, Usage)>,
    /// The last measurement, of which a connection that waits changes one word.
    last: BTreeMap<ServiceKey, Load>,
}

impl Measuring {
    /// Nothing is to be measured until the sender says so.
    pub(super) fn new(
        engine: &EngineHandle,
        runtimes: &RuntimesHandle,
        proxies: &Views,
    ) -> (watch::Sender<Followed>, Self) {
        let (sender, followed) = watch::channel(Followed::default());
        let measuring = Self {
            engine: engine.clone(),
            runtimes: runtimes.clone(),
            proxies: proxies.clone(),
            followed,
            accepted: BTreeMap::new(),
            at: None,
            used: BTreeMap::new(),
            last: BTreeMap::new(),
        };
        (sender, measuring)
    }

    /// Measures until it is told to stop.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.measure_for_ever()).await;
        stop.cancelled().await;
    }

    async fn measure_for_ever(&mut self) {
        let bell = self.proxies.bell();
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let followed = Arc::clone(&self.followed.borrow_and_update());
            if followed.is_empty() {
                self.forget();
                if self.followed.changed().await.is_err() {
                    return;
                }
                tick.reset_immediately();
                continue;
            }
            tokio::select! {
                _ = tick.tick() => self.measure(&followed).await,
                () = bell.notified() => {
                    self.note_waiting(&followed);
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn forget(&mut self) {
        self.accepted.clear();
        self.used.clear();
        self.last.clear();
        self.at = None;
    }

    async fn measure(&mut self, followed: &Followed) {
        let used = self.usage(followed).await;
        let now = Instant::now();
        let passed = self.at.replace(now).map(|before| now - before);
        let mut samples = BTreeMap::new();
        let mut accepted = BTreeMap::new();
        for (service, metrics) in followed.iter() {
            let mut load = used.get(service).cloned().unwrap_or_default();
            let ports = self.proxies.ports(Some(service));
            let sum = |of: fn(&dunlin_lb::Tally) -> u64| ports.iter().map(|p| of(&p.tally)).sum();
            let (open, total): (u64, u64) = (sum(|t| t.active), sum(|t| t.connections));
            load.waits = ports.iter().any(|port| port.waits);
            let before = self.accepted.get(service).copied();
            let rate = passed.zip(before).map(|(passed, before)| {
                let new = total.saturating_sub(before);
                per_thousand_seconds(new, passed)
            });
            accepted.insert(service.clone(), total);
            for (metric, amount) in [
                (Metric::Connections, open),
                (Metric::NewConnections, rate.unwrap_or(0)),
            ] {
                if metrics.contains(&metric) && amount > 0 {
                    load.amounts.insert(metric, amount);
                }
            }
            samples.insert(service.clone(), load);
        }
        self.accepted = accepted;
        self.last = samples.clone();
        self.tell(samples);
    }

    fn note_waiting(&mut self, followed: &Followed) {
        for service in followed.keys() {
            let ports = self.proxies.ports(Some(service));
            self.last.entry(service.clone()).or_default().waits = ports.iter().any(|p| p.waits);
        }
        self.last
            .retain(|service, _| followed.contains_key(service));
        self.tell(self.last.clone());
    }

    fn tell(&self, samples: BTreeMap<ServiceKey, Load>) {
        // A busy engine hears the next one.
        if let Err(error) = self.engine.measured(samples) {
            tracing::debug!(%error, "what was measured is not told");
        }
    }

    /// What ready replicas of this node use, of services for which that counts.
    async fn usage(&mut self, followed: &Followed) -> BTreeMap<ServiceKey, Load> {
        let of_replicas = |metrics: &BTreeSet<Metric>| metrics.iter().any(|m| !m.is_of_proxies());
        let wanted: BTreeSet<ServiceKey> = followed
            .iter()
            .filter(|(_, metrics)| of_replicas(metrics))
            .map(|(service, _)| service.clone())
            .collect();
        if wanted.is_empty() {
            self.used.clear();
            return BTreeMap::new();
        }
        let find = move |engine: &Engine| ready_here(engine, &wanted);
        let running = self.engine.ask(find).await.unwrap_or_default();
        let mut fresh = BTreeMap::new();
        let mut loads: BTreeMap<ServiceKey, Load> = BTreeMap::new();
        for some in running.chunks(AT_ONCE) {
            let read = join_all(some.iter().map(|id| self.runtimes.usage(id))).await;
            let now = Instant::now();
            for (id, usage) in some.iter().zip(read) {
                let Ok(usage) = usage else { continue };
                let before = self.used.get(id);
                fresh.insert(id.clone(), (now, usage));
                let cpu =
                    before.and_then(|(then, before)| usage.cpu_millis_since(before, now - *then));
                let Some(metrics) = followed.get(&id.slot.service) else {
                    continue;
                };
                let load = loads.entry(id.slot.service.clone()).or_default();
                add_usage(load, metrics, cpu, usage.memory);
            }
        }
        self.used = fresh;
        loads
    }
}

/// Counts a replica only if all is known of it that counts.
fn add_usage(load: &mut Load, metrics: &BTreeSet<Metric>, cpu: Option<u64>, memory: Option<u64>) {
    let known = [(Metric::Cpu, cpu), (Metric::Memory, memory)];
    let mut wanted = known.into_iter().filter(|(m, _)| metrics.contains(m));
    if wanted.clone().any(|(_, amount)| amount.is_none()) {
        return;
    }
    load.replicas += 1;
    for (metric, amount) in wanted.by_ref() {
        *load.amounts.entry(metric).or_default() += amount.unwrap_or(0);
    }
}

/// The ready replicas of this node, of these services.
fn ready_here(engine: &Engine, wanted: &BTreeSet<ServiceKey>) -> Vec<WorkloadId> {
    let report = engine.report();
    let claims = report.claims.iter();
    let ready = claims.filter(|c| c.ready && c.phase == Phase::Running);
    let ready = ready.filter(|c| wanted.contains(&c.slot.service));
    let running = ready.filter_map(|c| engine.running(&c.slot));
    running.take(MAX_READ).collect()
}

/// How many there are in a thousand seconds.
fn per_thousand_seconds(count: u64, passed: Duration) -> u64 {
    let ms = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).max(1);
    count.saturating_mul(1_000_000) / ms
}
