//! The task of one attempt: start, watch, stop, in the order asked.

use std::sync::Arc;
use std::time::Duration;

use dunlin_core::io::{RuntimeEvent, Workload, WorkloadId};
use dunlin_state::model::{BadOutputs, MAX_LAST_WORDS, Outputs, ServiceSpec};
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::deadline::Deadline;
use super::logs::LogQuery;
use super::select::{self, Choice};
use super::{Ending, Live, Runtime, Shared, StartContext, StartError};

/// Orders that may wait for an attempt that is busy. The engine sends a start, a stop and a
/// removal; the rest is room for repetitions.
pub(super) const QUEUE: usize = 16;

/// How long the news of an end may wait for the last lines of the log.
const LAST_WORDS_LIMIT: Duration = Duration::from_millis(500);

/// What an attempt may be told.
#[derive(Debug)]
pub(super) enum Order {
    /// Start it, or say again that it runs.
    Start(Box<Workload>, Option<Deadline>),
    /// It may live until then.
    Extend(Deadline),
    /// Ask, wait, kill.
    Stop {
        /// Signal name.
        signal: Option<String>,
        /// Milliseconds.
        grace_ms: u64,
    },
    /// Bring its secrets and configs up to date.
    Refresh(Arc<ServiceSpec>),
    /// Delete what is left of it.
    Remove,
}

/// Where a task begins.
pub(super) enum Begin {
    /// With a start.
    Start(Box<Workload>, Option<Deadline>),
    /// With one that runs, once the token says that the engine has been told of it.
    Adopted(Box<Live>, Arc<dyn Runtime>, CancellationToken),
}

/// What remains of a task.
pub(super) struct Done {
    pub(super) id: WorkloadId,
    /// Absent when it was never started.
    pub(super) ending: Option<Ending>,
    /// Orders that came too late.
    pub(super) rest: mpsc::Receiver<Order>,
}

/// An attempt's task.
pub(super) struct Attempt {
    pub(super) id: WorkloadId,
    pub(super) shared: Arc<Shared>,
    pub(super) events: mpsc::Sender<RuntimeEvent>,
    pub(super) orders: mpsc::Receiver<Order>,
}

/// A stop that came during the start.
type Stop = (Option<String>, u64);

impl Attempt {
    /// Lives as long as the attempt does.
    pub(super) async fn run(mut self, begin: Begin) -> Done {
        let ending = match begin {
            Begin::Start(workload, dead_by) => self.start(&workload, dead_by).await,
            Begin::Adopted(live, runtime, announced) => {
                announced.cancelled().await;
                self.watch(*live, runtime, None, None).await
            }
        };
        // When the daemon ends, the replica goes on, and needs its files.
        if !self.orders.is_closed() {
            self.shared.remove_files(&self.id).await;
        }
        if let Some(ending) = ending {
            let event = self.last_event(ending).await;
            self.tell(event).await;
        }
        Done {
            id: self.id,
            ending,
            rest: self.orders,
        }
    }

    async fn start(
        &mut self,
        workload: &Workload,
        mut dead_by: Option<Deadline>,
    ) -> Option<Ending> {
        let (choice, runtime) = match self.shared.runtime_for(workload) {
            Ok(chosen) => chosen,
            Err(error) => return self.not_started(error).await,
        };
        if let Err(error) = self.shared.prepare_files(workload, choice).await {
            return self.not_started(error).await;
        }
        let cancel = CancellationToken::new();
        let (mut stop, mut refresh) = (None, None);
        let events = self.events.clone();
        let context = StartContext {
            events: &events,
            cancel: &cancel,
            dead_by,
        };
        let mut starting = runtime.start(workload, context);
        let result = loop {
            tokio::select! {
                result = &mut starting => break result,
                Some(order) = self.orders.recv() => match order {
                    Order::Stop { signal, grace_ms } => {
                        cancel.cancel();
                        stop = Some((signal, grace_ms));
                    }
                    // It is being started; and what is about to live is not removed.
                    Order::Start(..) | Order::Remove => {}
                    Order::Extend(later) => dead_by = Some(later),
                    // What comes while it starts is brought to it when it runs.
                    Order::Refresh(spec) => refresh = Some(spec),
                },
            }
        };
        drop(starting);
        match result {
            Ok(live) => {
                let running = live.running.clone();
                self.tell(RuntimeEvent::Started(running)).await;
                if let Some(spec) = refresh {
                    self.refresh(&spec, &runtime).await;
                }
                if let Some(dead_by) = dead_by {
                    runtime.extend(&self.id, dead_by).await;
                }
                self.watch(live, runtime, stop, dead_by).await
            }
            Err(error) => self.not_started(error).await,
        }
    }

    async fn not_started(&self, error: StartError) -> Option<Ending> {
        match error {
            StartError::Cancelled => Some(Ending::Lost),
            StartError::Failed { reason, hopeless } => {
                self.tell(RuntimeEvent::StartFailed {
                    id: self.id.clone(),
                    reason,
                    hopeless,
                })
                .await;
                None
            }
        }
    }

    async fn watch(
        &mut self,
        live: Live,
        runtime: Arc<dyn Runtime>,
        stop: Option<Stop>,
        mut dead_by: Option<Deadline>,
    ) -> Option<Ending> {
        let Live { running, mut ended } = live;
        let id = self.id.clone();
        let mut stopping: Option<BoxFuture<'_, ()>> =
            stop.map(|(signal, grace)| runtime.stop(&id, signal, grace));
        loop {
            tokio::select! {
                biased;
                ending = &mut ended => return Some(ending),
                order = self.orders.recv() => match order {
                    Some(Order::Start(..)) => {
                        self.tell(RuntimeEvent::Started(running.clone())).await;
                    }
                    Some(Order::Stop { signal, grace_ms }) => {
                        stopping = Some(runtime.stop(&id, signal, grace_ms));
                    }
                    Some(Order::Extend(later)) => {
                        dead_by = Some(later);
                        runtime.extend(&id, later).await;
                    }
                    Some(Order::Refresh(spec)) => self.refresh(&spec, &runtime).await,
                    // Only the dead are removed.
                    Some(Order::Remove) => {}
                    // The daemon ends; the replica does not.
                    None => return None,
                },
                () = lapse(dead_by), if dead_by.is_some() => {
                    dead_by = None;
                    let kill = Some("SIGKILL".to_owned());
                    stopping = Some(runtime.stop(&id, kill, 0));
                }
                () = wait_for(&mut stopping), if stopping.is_some() => stopping = None,
            }
        }
    }

    /// Brings its files up to date and tells it, if they were not.
    async fn refresh(&self, spec: &Arc<ServiceSpec>, runtime: &Arc<dyn Runtime>) {
        let choice = runtime.choice();
        let changed = self.shared.refresh_files(&self.id, spec, choice).await;
        if let Some(signal) = spec.secret_signal.as_deref().filter(|_| changed) {
            runtime.notify(&self.id, signal).await;
        }
    }

    /// The news of the end, with the last lines of the log if it was a failure.
    async fn last_event(&self, ending: Ending) -> RuntimeEvent {
        let mut event = self.shared.ended(&self.id, ending).await;
        if let RuntimeEvent::Exited {
            code,
            oom,
            last_words,
            ..
        } = &mut event
            && (*code != 0 || *oom)
        {
            let read = tokio::time::timeout(LAST_WORDS_LIMIT, self.last_words());
            *last_words = read.await.unwrap_or_default();
        }
        event
    }

    async fn last_words(&self) -> Vec<String> {
        let mut query = LogQuery::new(self.id.slot.clone());
        query.attempt = Some((self.id.epoch, self.id.attempt));
        query.tail = u32::try_from(MAX_LAST_WORDS).ok();
        for runtime in self.shared.all() {
            if let Ok(Some(chunk)) = runtime.logs(&query).await {
                let lines = chunk.lines.into_iter();
                let text = lines.map(|line| String::from_utf8_lossy(&line.text).into_owned());
                return text.collect();
            }
        }
        Vec::new()
    }

    async fn tell(&self, event: RuntimeEvent) {
        // Without a receiver the daemon is ending.
        let _ = self.events.send(event).await;
    }
}

/// Waits until a lease is over.
async fn lapse(dead_by: Option<Deadline>) {
    if let Some(dead_by) = dead_by {
        tokio::time::sleep(dead_by.left()).await;
    }
}

async fn wait_for(stopping: &mut Option<BoxFuture<'_, ()>>) {
    match stopping {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

impl Shared {
    async fn prepare_files(&self, workload: &Workload, choice: Choice) -> Result<(), StartError> {
        let (files, outputs) = (self.files.clone(), self.outputs.clone());
        let workload = workload.clone();
        let prepare = move || {
            files.prepare(&workload, choice)?;
            outputs.prepare(&workload, choice)
        };
        let prepared = tokio::task::spawn_blocking(prepare).await;
        prepared.unwrap_or_else(|_panic| Err(StartError::passing("writing its files failed")))
    }

    /// The news of an end, with what the attempt has told.
    pub(super) async fn ended(&self, id: &WorkloadId, ending: Ending) -> RuntimeEvent {
        let outputs = self.read_outputs(id).await;
        ending.event(id.clone(), outputs)
    }

    pub(super) async fn read_outputs(&self, id: &WorkloadId) -> Result<Outputs, BadOutputs> {
        let (outputs, id) = (self.outputs.clone(), id.clone());
        let read = tokio::task::spawn_blocking(move || outputs.read(&id)).await;
        read.unwrap_or_else(|error| Err(BadOutputs::Unreadable(error.to_string())))
    }

    pub(super) async fn remove_outputs(&self, id: &WorkloadId) {
        let (outputs, id) = (self.outputs.clone(), id.clone());
        let removed = tokio::task::spawn_blocking(move || outputs.remove(&id)).await;
        if removed.is_err() {
            tracing::error!("deleting a file of outputs panicked");
        }
    }

    async fn refresh_files(
        &self,
        id: &WorkloadId,
        spec: &Arc<ServiceSpec>,
        choice: Choice,
    ) -> bool {
        let (files, id, spec) = (self.files.clone(), id.clone(), Arc::clone(spec));
        let refreshed =
            tokio::task::spawn_blocking(move || files.refresh(&id, &spec, choice)).await;
        refreshed.unwrap_or(false)
    }

    async fn remove_files(&self, id: &WorkloadId) {
        let (files, id) = (self.files.clone(), id.clone());
        if tokio::task::spawn_blocking(move || files.remove(&id))
            .await
            .is_err()
        {
            tracing::error!("deleting the files of secrets panicked");
        }
    }

    fn runtime_for(&self, workload: &Workload) -> Result<(Choice, Arc<dyn Runtime>), StartError> {
        let docker = self.docker.as_ref();
        let engine_up = docker.is_some_and(|docker| docker.version().is_some());
        let choice = select::choose(&workload.spec, self.config.allowed, engine_up)?;
        let runtime = match choice {
            Choice::Process => self.process.clone().map(|r| r as Arc<dyn Runtime>),
            Choice::Docker => self.docker.clone().map(|r| r as Arc<dyn Runtime>),
        };
        let runtime =
            runtime.ok_or_else(|| StartError::passing("the runtime it needs has just gone"));
        Ok((choice, runtime?))
    }
}
