//! Hands the engine's commands to the tasks of the attempts they are about.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use dunlin_core::io::{Adopted, RuntimeCommand, RuntimeEvent, WorkloadId};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::attempt::{Attempt, Begin, Done, Order, QUEUE};
use super::deadline::Deadline;
use super::probe::Prober;
use super::{Ending, Found, Live, Runtime, Runtimes, RuntimesError, Shared};

/// Endings that are remembered to answer a repeated command.
const MAX_ENDED: usize = 1024;

/// What is known of an attempt.
enum Entry {
    /// Its task.
    Active(mpsc::Sender<Order>),
    /// It ended so.
    Ended(Ending),
}

/// What a task of the set has done.
enum Finished {
    Attempt(Done),
    Adoption(Vec<(Found, Arc<dyn Runtime>)>),
    /// Nothing that concerns the others.
    Side,
}

struct Dispatch {
    shared: Arc<Shared>,
    events: mpsc::Sender<RuntimeEvent>,
    tasks: JoinSet<Finished>,
    entries: BTreeMap<WorkloadId, Entry>,
    /// The order in which entries ended.
    ended: VecDeque<WorkloadId>,
    prober: Prober,
}

impl Runtimes {
    /// Serves until `commands` is closed. Replicas go on running afterwards.
    pub async fn run(
        self,
        mut commands: mpsc::Receiver<RuntimeCommand>,
        events: mpsc::Sender<RuntimeEvent>,
    ) -> Result<(), RuntimesError> {
        let mut dispatch = Dispatch {
            shared: self.shared,
            events,
            tasks: JoinSet::new(),
            entries: BTreeMap::new(),
            ended: VecDeque::new(),
            prober: Prober::new(),
        };
        dispatch.follow_engine();
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => dispatch.command(command),
                    None => return Ok(()),
                },
                Some(finished) = dispatch.tasks.join_next() => dispatch.finished(finished?),
                ended = dispatch.prober.ended() => ended?,
            }
        }
    }
}

impl Dispatch {
    fn command(&mut self, command: RuntimeCommand) {
        match command {
            RuntimeCommand::Adopt => self.adopt(),
            RuntimeCommand::Start(workload) => {
                let dead_by = workload.lease_ms.map(Deadline::after);
                self.order(workload.id.clone(), Order::Start(workload, dead_by));
            }
            RuntimeCommand::Stop {
                id,
                signal,
                grace_ms,
            } => self.order(id, Order::Stop { signal, grace_ms }),
            RuntimeCommand::Extend { id, lease_ms } => {
                self.order(id, Order::Extend(Deadline::after(lease_ms)));
            }
            RuntimeCommand::Refresh { id, spec } => self.order(id, Order::Refresh(spec)),
            RuntimeCommand::Remove { id } => self.order(id, Order::Remove),
            RuntimeCommand::Probe(order) => {
                self.prober
                    .start(*order, self.shared.clone(), self.events.clone());
            }
        }
    }

    fn follow_engine(&mut self) {
        let Some(docker) = self.shared.docker.clone() else {
            return;
        };
        let following = docker.follow();
        self.tasks.spawn(async move {
            following.await;
            Finished::Side
        });
        let shared = self.shared.clone();
        self.tasks.spawn(async move {
            loop {
                let change = docker.changes();
                // Subscribed before this look: no change falls in between.
                shared.refresh_offer();
                change.await;
            }
        });
    }

    fn order(&mut self, id: WorkloadId, order: Order) {
        match (self.entries.get(&id), order) {
            (Some(Entry::Active(orders)), order) => {
                if orders.try_send(order).is_err() {
                    warn!(slot = %id.slot, "dropped an order: too many wait for this attempt");
                }
            }
            (Some(Entry::Ended(ending)), Order::Start(..) | Order::Stop { .. }) => {
                let (shared, ending) = (self.shared.clone(), *ending);
                self.tell(async move { shared.ended(&id, ending).await });
            }
            (Some(Entry::Ended(_)) | None, Order::Remove) => {
                self.entries.remove(&id);
                self.ended.retain(|other| *other != id);
                self.remove(id);
            }
            // It has ended, or has not been adopted yet, and then its adoption brings this again.
            (Some(Entry::Ended(_)) | None, Order::Refresh(_) | Order::Extend(_)) => {}
            (None, Order::Start(workload, dead_by)) => {
                self.spawn(id, Begin::Start(workload, dead_by));
            }
            (None, Order::Stop { .. }) => {
                self.tell(std::future::ready(RuntimeEvent::Lost(id)));
            }
        }
    }

    fn spawn(&mut self, id: WorkloadId, begin: Begin) {
        let (sender, orders) = mpsc::channel(QUEUE);
        self.entries.insert(id.clone(), Entry::Active(sender));
        let attempt = Attempt {
            id,
            shared: self.shared.clone(),
            events: self.events.clone(),
            orders,
        };
        self.tasks
            .spawn(async move { Finished::Attempt(attempt.run(begin).await) });
    }

    fn adopt(&mut self) {
        let shared = self.shared.clone();
        self.tasks.spawn(async move {
            let mut all = Vec::new();
            for runtime in shared.all() {
                let mut found = runtime.adopt().await;
                for found in &mut found {
                    let adopted = &mut found.adopted;
                    if adopted.exited.is_some() {
                        adopted.outputs = shared.read_outputs(&adopted.running.id).await;
                    }
                }
                all.extend(found.into_iter().map(|found| (found, runtime.clone())));
            }
            Finished::Adoption(all)
        });
    }

    /// Takes over what was found, then says so: a command about one of them, which can only follow
    /// the news, finds it known. Nothing is said of any one of them before.
    fn adopted(&mut self, all: Vec<(Found, Arc<dyn Runtime>)>) {
        let list: Vec<Adopted> = all.iter().map(|(found, _)| found.adopted.clone()).collect();
        let living = list
            .iter()
            .filter(|a| a.exited.is_none())
            .map(|a| a.running.id.clone());
        let living = living.chain(self.entries.keys().cloned()).collect();
        let known = list.iter().map(|a| a.running.id.clone());
        let known = known.chain(self.entries.keys().cloned()).collect();
        let (files, outputs) = (self.shared.files.clone(), self.shared.outputs.clone());
        let sweep = move || {
            files.sweep(&living);
            outputs.sweep(&known);
        };
        self.tasks.spawn(async move {
            // A failed sweep leaves files until the next start.
            let _swept = tokio::task::spawn_blocking(sweep).await;
            Finished::Side
        });
        let announced = CancellationToken::new();
        for (found, runtime) in all {
            self.take_over(found, runtime, &announced);
        }
        let events = self.events.clone();
        self.tasks.spawn(async move {
            let _ = events.send(RuntimeEvent::Adopted(list)).await;
            announced.cancel();
            Finished::Side
        });
    }

    fn finished(&mut self, finished: Finished) {
        match finished {
            Finished::Attempt(done) => self.attempt_done(done),
            Finished::Adoption(all) => self.adopted(all),
            Finished::Side => {}
        }
    }

    fn take_over(
        &mut self,
        found: Found,
        runtime: Arc<dyn Runtime>,
        announced: &CancellationToken,
    ) {
        let running = found.adopted.running;
        let id = running.id.clone();
        if let Some(ended) = found.ended
            && !self.entries.contains_key(&id)
        {
            let live = Live { running, ended };
            self.spawn(
                id,
                Begin::Adopted(Box::new(live), runtime, announced.clone()),
            );
        }
    }

    fn attempt_done(&mut self, mut done: Done) {
        self.entries.remove(&done.id);
        self.prober.forget(&done.id);
        if let Some(ending) = done.ending {
            self.entries.insert(done.id.clone(), Entry::Ended(ending));
            self.ended.push_back(done.id.clone());
            if self.ended.len() > MAX_ENDED
                && let Some(oldest) = self.ended.pop_front()
            {
                self.entries.remove(&oldest);
            }
        }
        while let Ok(order) = done.rest.try_recv() {
            self.order(done.id.clone(), order);
        }
    }

    fn remove(&mut self, id: WorkloadId) {
        let shared = self.shared.clone();
        self.tasks.spawn(async move {
            for runtime in shared.all() {
                runtime.remove(&id).await;
            }
            shared.remove_outputs(&id).await;
            Finished::Side
        });
    }

    /// From a task of its own: this loop never waits for the engine, which may wait for it.
    fn tell(&mut self, event: impl Future<Output = RuntimeEvent> + Send + 'static) {
        let events = self.events.clone();
        self.tasks.spawn(async move {
            let _ = events.send(event.await).await;
            Finished::Side
        });
    }
}
