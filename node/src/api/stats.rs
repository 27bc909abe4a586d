//! What replicas use, over all nodes: each node is asked for its own, twice, and what lies between
//! is the rate.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use dunlin_api::{StatsQuery, StatsRecord};
use dunlin_core::engine::Engine;
use dunlin_state::model::{NodeId, Phase, SlotId};
use futures::future::join_all;
use futures::stream;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};

use super::asked::PeerQuestion;
use super::events::line;
use super::failure::{Failure, Query};
use super::{Caller, Context};
use crate::daemon::handle::EngineHandle;
use crate::runtime::{RuntimesHandle, Usage};
use crate::streams::Destination;

/// How long another node may take.
const PEER_DEADLINE: Duration = Duration::from_secs(5);
/// Time between two looks: short enough to watch, long enough for a rate to mean something.
const EVERY: Duration = Duration::from_secs(1);
/// Replicas that a node is asked about at once; their names fit into a request.
const MAX_SLOTS: usize = 200;
/// Replicas of this node whose usage is read at a time.
const AT_ONCE: usize = 8;

/// What one node asks another.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct UsageQuery {
    slots: Vec<SlotId>,
}

/// What the other answers: those that run there.
pub(super) type Used = Vec<(SlotId, Result<Usage, String>)>;

/// Reads what replicas of this node use.
pub(super) async fn read_here(
    runtimes: &RuntimesHandle,
    engine: &EngineHandle,
    mut query: UsageQuery,
) -> Used {
    query.slots.truncate(MAX_SLOTS);
    let find = move |engine: &Engine| {
        let slots = query.slots.into_iter();
        let found = slots.filter_map(|slot| engine.running(&slot));
        found.collect::<Vec<_>>()
    };
    let running = engine.ask(find).await.unwrap_or_default();
    let mut used = Vec::new();
    for some in running.chunks(AT_ONCE) {
        let read = some.iter().map(|id| runtimes.usage(id));
        let read = join_all(read).await;
        used.extend(some.iter().map(|id| id.slot.clone()).zip(read));
    }
    used
}

pub(super) async fn stream(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<StatsQuery>,
) -> Result<Response, Failure> {
    let named = query.service.as_ref().map(|service| service.namespace());
    for namespace in query.namespace.as_deref().into_iter().chain(named) {
        caller.may_read(namespace)?;
    }
    if let Some(service) = query.service.clone() {
        let key = service.clone();
        let known = move |engine: &Engine| engine.desired().services.contains_key(&key);
        if !context.engine.ask(known).await? {
            return Err(Failure::no_such_service(&service));
        }
    }
    let follow = query.follow;
    let watch = Watch {
        context,
        caller,
        query,
        before: BTreeMap::new(),
        due: None,
    };
    let body = stream::unfold(Some(watch), move |watch| async move {
        let mut watch = watch?;
        let lines = watch.next().await;
        Some((
            Ok::<_, std::convert::Infallible>(lines),
            follow.then_some(watch),
        ))
    });
    Ok((
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(body),
    )
        .into_response())
}

/// A replica to ask about.
#[derive(Debug, Clone)]
struct Asked {
    slot: SlotId,
    limit: Option<u64>,
}

/// One stream of statistics.
struct Watch {
    context: Context,
    caller: Caller,
    query: StatsQuery,
    before: BTreeMap<(NodeId, SlotId), (Instant, Usage)>,
    due: Option<Instant>,
}

impl Watch {
    /// What all replicas use now, as lines.
    async fn next(&mut self) -> Bytes {
        if self.due.is_none() {
            // Counters alone make no rate.
            self.look().await;
        }
        if let Some(due) = self.due {
            sleep_until(due).await;
        }
        let mut records = self.look().await;
        records.push(StatsRecord::End);
        records.iter().flat_map(|r| line(r).to_vec()).collect()
    }

    async fn look(&mut self) -> Vec<StatsRecord> {
        self.due = Some(Instant::now() + EVERY);
        let targets = self.targets().await;
        let asks = targets.into_iter().map(|(to, asked)| async {
            let used = ask(&self.context, &to, &asked).await;
            (to, asked, used, Instant::now())
        });
        let answers = join_all(asks).await;
        let mut records = Vec::new();
        let mut seen = BTreeSet::new();
        for (to, asked, used, at) in answers {
            match used {
                Ok(used) => {
                    for (slot, usage) in used {
                        let limit = asked.iter().find(|a| a.slot == slot).and_then(|a| a.limit);
                        seen.insert((to.node, slot.clone()));
                        records.push(self.record(&to, slot, limit, usage, at));
                    }
                }
                Err(reason) => records.push(StatsRecord::Unreachable {
                    node: to.node,
                    node_name: to.name,
                    reason,
                }),
            }
        }
        self.before.retain(|key, _| seen.contains(key));
        records
    }

    fn record(
        &mut self,
        to: &Destination,
        slot: SlotId,
        limit: Option<u64>,
        usage: Result<Usage, String>,
        at: Instant,
    ) -> StatsRecord {
        let usage = match usage {
            Ok(usage) => usage,
            Err(reason) => {
                return StatsRecord::Unknown {
                    slot,
                    node: to.node,
                    node_name: to.name.clone(),
                    reason,
                };
            }
        };
        let key = (to.node, slot.clone());
        let before = self.before.insert(key, (at, usage));
        StatsRecord::Replica {
            slot,
            node: to.node,
            node_name: to.name.clone(),
            cpu_millis: before
                .and_then(|(then, before)| usage.cpu_millis_since(&before, at - then)),
            memory: usage.memory,
            memory_limit: limit,
            processes: usage.processes,
            received: usage.network.map(|(received, _)| received),
            sent: usage.network.map(|(_, sent)| sent),
        }
    }

    /// The nodes to ask, and about what.
    async fn targets(&self) -> Vec<(Destination, Vec<Asked>)> {
        let (query, caller) = (self.query.clone(), self.caller.clone());
        let find = move |engine: &Engine| targets(engine, &query, &caller);
        self.context.engine.ask(find).await.unwrap_or_default()
    }
}

fn targets(engine: &Engine, query: &StatsQuery, caller: &Caller) -> Vec<(Destination, Vec<Asked>)> {
    let mut targets = Vec::new();
    for register in engine.observed() {
        let claims = register.report.claims.iter();
        let wanted = claims.filter(|claim| {
            let service = &claim.slot.service;
            let in_namespace = |namespace: &String| namespace == service.namespace();
            claim.phase == Phase::Running
                && query.service.as_ref().is_none_or(|only| only == service)
                && query.namespace.as_ref().is_none_or(in_namespace)
                && caller.sees(service.namespace())
        });
        let asked: Vec<Asked> = wanted
            .map(|claim| {
                let service = engine.desired().services.get(&claim.slot.service);
                let limit = service.map_or(0, |service| service.spec.limit.memory);
                Asked {
                    slot: claim.slot.clone(),
                    limit: (limit > 0).then_some(limit),
                }
            })
            .collect();
        let to = Destination {
            node: register.node,
            name: register.report.name.clone(),
            address: register.report.address,
        };
        targets.extend(
            asked
                .chunks(MAX_SLOTS)
                .map(|some| (to.clone(), some.to_vec())),
        );
    }
    targets
}

async fn ask(context: &Context, to: &Destination, asked: &[Asked]) -> Result<Used, String> {
    let slots = asked.iter().map(|asked| asked.slot.clone()).collect();
    let query = UsageQuery { slots };
    let logs = &context.logs;
    if to.node == logs.node {
        return Ok(read_here(&logs.runtimes, &context.engine, query).await);
    }
    let address = to.address.ok_or("its address is not known")?;
    let question = line(&PeerQuestion::Usage(query));
    let answer = logs
        .control
        .rpc(to.node, address, question, PEER_DEADLINE)
        .await
        .map_err(|error| error.to_string())?;
    serde_json::from_slice::<Result<Used, String>>(&answer)
        .map_err(|error| format!("its answer is not understood: {error}"))?
}
