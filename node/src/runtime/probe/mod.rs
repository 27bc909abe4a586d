//! Trying whether replicas are well.
//!
//! Each probe is one task with a hard end: after its timeout it has failed, and whatever was
//! started for it has been killed. There is at most one task per check of a replica, a later probe
//! taking the place of an earlier one, and all of them end with the replica. How many work at the
//! same time is bounded; the rest wait, and their time starts when they do.

mod http;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dunlin_core::io::{Probe, ProbeOrder, RuntimeEvent, WorkloadId};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use super::Shared;

/// Connections and requests under way at the same time. Each holds a descriptor; a healthy replica
/// answers in milliseconds.
const PARALLEL_CALLS: usize = 64;

/// Commands that run at the same time: each is at least one process.
const PARALLEL_COMMANDS: usize = 8;

/// A check of one attempt.
type Key = (WorkloadId, u8);

/// The probes under way.
pub(super) struct Prober {
    tasks: JoinSet<()>,
    running: BTreeMap<Key, AbortHandle>,
    keys: BTreeMap<Id, Key>,
    calls: Arc<Semaphore>,
    commands: Arc<Semaphore>,
}

impl Prober {
    /// Nothing is under way.
    pub(super) fn new() -> Self {
        Self {
            tasks: JoinSet::new(),
            running: BTreeMap::new(),
            keys: BTreeMap::new(),
            calls: Arc::new(Semaphore::new(PARALLEL_CALLS)),
            commands: Arc::new(Semaphore::new(PARALLEL_COMMANDS)),
        }
    }

    /// Starts a probe.
    pub(super) fn start(
        &mut self,
        order: ProbeOrder,
        shared: Arc<Shared>,
        events: mpsc::Sender<RuntimeEvent>,
    ) {
        let key = (order.id.workload.clone(), order.id.check);
        let turns = match &order.probe {
            Probe::Tcp(_) | Probe::Http { .. } => self.calls.clone(),
            Probe::Exec(_) => self.commands.clone(),
        };
        let handle = self.tasks.spawn(async move {
            // The semaphore is never closed.
            let _turn = turns.acquire().await;
            let result = attempt(&order, &shared).await;
            // Without a receiver the daemon is ending.
            let _ = events
                .send(RuntimeEvent::Probed {
                    id: order.id,
                    result,
                })
                .await;
        });
        self.keys.insert(handle.id(), key.clone());
        if let Some(earlier) = self.running.insert(key, handle) {
            earlier.abort();
        }
    }

    /// Ends the probes of an attempt that has ended.
    pub(super) fn forget(&mut self, workload: &WorkloadId) {
        let all = (workload.clone(), 0)..=(workload.clone(), u8::MAX);
        self.running
            .range(all)
            .for_each(|(_, handle)| handle.abort());
    }

    /// Waits until a probe has ended; for ever while none is under way.
    pub(super) async fn ended(&mut self) -> Result<(), JoinError> {
        let (id, result) = match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => (id, Ok(())),
            Some(Err(error)) if error.is_cancelled() => (error.id(), Ok(())),
            Some(Err(error)) => (error.id(), Err(error)),
            None => std::future::pending().await,
        };
        if let Some(key) = self.keys.remove(&id)
            && self.running.get(&key).is_some_and(|h| h.id() == id)
        {
            self.running.remove(&key);
        }
        result
    }
}

async fn attempt(order: &ProbeOrder, shared: &Shared) -> Result<(), String> {
    let limit = Duration::from_millis(order.timeout_ms);
    let call = async {
        match &order.probe {
            Probe::Tcp(address) => connect(*address).await.map(drop),
            Probe::Http { address, test } => http::get(*address, test).await,
            // It ends by itself in time, with all that it has started.
            Probe::Exec(command) => shared.execute(&order.id.workload, command, limit).await,
        }
    };
    match &order.probe {
        Probe::Exec(_) => call.await,
        Probe::Tcp(_) | Probe::Http { .. } => tokio::time::timeout(limit, call)
            .await
            .unwrap_or_else(|_elapsed| Err(no_answer(limit))),
    }
}

/// The words for a probe that took too long.
pub(super) fn no_answer(limit: Duration) -> String {
    format!("no answer within {} s", limit.as_secs_f64())
}

async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    TcpStream::connect(address)
        .await
        .map_err(|error| format!("cannot connect to {address}: {error}"))
}

impl Shared {
    /// Runs a command beside a replica; an error unless it ends with code 0.
    async fn execute(
        &self,
        id: &WorkloadId,
        command: &[String],
        limit: Duration,
    ) -> Result<(), String> {
        for runtime in self.all() {
            match runtime.execute(id, command, limit).await {
                None => {}
                Some(Ok(done)) if done.code == 0 => return Ok(()),
                Some(Ok(done)) => return Err(done.describe()),
                Some(Err(reason)) => return Err(reason),
            }
        }
        Err("the replica does not run any more".to_owned())
    }
}
