//! Rollouts: how far they are, how they are steered, and what there is to go back to.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::{Extension, Json};
use dunlin_api::{
    ChangeResponse, RevisionEntry, RevisionList, RolloutRequest, RolloutStatus, RolloutStep,
};
use dunlin_core::engine::Engine;
use dunlin_state::desired::{Aspect, Command, HistoryEntry, RolloutChange, revision_of};
use dunlin_state::model::{Claim, Mode, Phase, ServiceKey, ServiceSpec, Slot, Trial};

use super::failure::{Answer, Body, Failure};
use super::services::{ServicePath, change, key};
use super::{Caller, Context};

pub(super) async fn steer(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    path: ServicePath,
    Body(request): Body<RolloutRequest>,
) -> Answer<ChangeResponse> {
    let by = Some(format!("by {}", caller.clone().author()));
    let command = Command::Rollout {
        service: key(path)?,
        revision: None,
        change: match request.step {
            RolloutStep::Pause => RolloutChange::Pause { reason: by },
            RolloutStep::Resume => RolloutChange::Resume,
            RolloutStep::Promote => RolloutChange::Promote,
            RolloutStep::Rollback => RolloutChange::Rollback { reason: by },
        },
    };
    change(&context, caller, command).await
}

pub(super) async fn status(
    State(context): State<Context>,
    path: ServicePath,
) -> Answer<RolloutStatus> {
    let service = key(path)?;
    let asked = service.clone();
    let status = context
        .engine
        .ask(move |engine| look(engine, &asked))
        .await?;
    status
        .map(Json)
        .ok_or_else(|| Failure::no_such_service(&service))
}

pub(super) async fn revisions(
    State(context): State<Context>,
    path: ServicePath,
) -> Answer<RevisionList> {
    let service = key(path)?;
    let asked = service.clone();
    let revisions = context
        .engine
        .ask(move |engine| {
            let current = engine.desired().services.get(&asked);
            let current = current.map(|s| s.revision.clone());
            trace(engine.history(&asked), current.as_deref())
        })
        .await?;
    if revisions.is_empty() {
        return Err(Failure::no_such_service(&service));
    }
    Ok(Json(RevisionList { revisions }))
}

/// How a slot stands, the best of its claims.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Outdated,
    Failed,
    Pending,
    Proven,
}

fn look(engine: &Engine, key: &ServiceKey) -> Option<RolloutStatus> {
    let service = engine.desired().services.get(key)?;
    let standing = |claim: &Claim| {
        let done = claim.trial == Trial::Proven || claim.phase == Phase::Completed;
        match claim.trial {
            _ if claim.revision != service.revision => Standing::Outdated,
            _ if done => Standing::Proven,
            Trial::Failed(round) if round == service.rollout.round => Standing::Failed,
            Trial::Pending | Trial::Failed(_) | Trial::Proven => Standing::Pending,
        }
    };
    let mut slots: BTreeMap<Slot, Standing> = BTreeMap::new();
    let registers = engine.observed();
    let living = registers.filter(|r| engine.standing(r.node).holds_claims());
    for claim in living.flat_map(|r| &r.report.claims) {
        if claim.slot.service == *key {
            let known = slots.entry(claim.slot.slot).or_insert(Standing::Outdated);
            *known = standing(claim).max(*known);
        }
    }
    let count = |which| {
        let all = slots.values().filter(|s| **s == which).count();
        u32::try_from(all).unwrap_or(u32::MAX)
    };
    let rollout = &service.rollout;
    Some(RolloutStatus {
        service: key.clone(),
        revision: service.revision.clone(),
        previous: rollout.previous.as_ref().map(|p| p.revision.clone()),
        paused: rollout.paused,
        canary: rollout.canary,
        rollback: rollout.is_rollback,
        reason: rollout.reason.clone(),
        wanted: match service.spec.mode {
            Mode::Replicated => service.wanted_replicas(),
            Mode::Global => u32::try_from(slots.len()).unwrap_or(u32::MAX),
        },
        proven: count(Standing::Proven),
        pending: count(Standing::Pending),
        failed: count(Standing::Failed),
        outdated: count(Standing::Outdated),
    })
}

/// The specifications that the kept versions of two aspects add up to, newest first.
fn trace(mut entries: Vec<HistoryEntry>, current: Option<&str>) -> Vec<RevisionEntry> {
    entries.retain(|e| matches!(e.aspect, Aspect::Spec | Aspect::Image));
    // Of one change, the specification goes before the image.
    entries.sort_by_key(|e| (e.counter, e.aspect));
    let mut list: Vec<RevisionEntry> = Vec::new();
    let mut spec: Option<ServiceSpec> = None;
    for entry in entries.iter().filter(|e| !e.lost) {
        match (entry.aspect, &entry.value) {
            (_, None) => spec = None,
            (Aspect::Image, Some(value)) => {
                if let (Some(spec), Some(image)) = (&mut spec, value.as_str()) {
                    image.clone_into(&mut spec.image);
                }
            }
            (_, Some(value)) => spec = serde_json::from_value(value.clone()).ok(),
        }
        let Some(spec) = &spec else { continue };
        let revision = revision_of(spec);
        let entry = RevisionEntry {
            current: Some(revision.as_str()) == current,
            revision,
            at: entry.time,
            author: entry.author.clone(),
            spec: spec.clone(),
        };
        match list.last_mut() {
            Some(last) if last.at == entry.at || last.revision == entry.revision => *last = entry,
            Some(_) | None => list.push(entry),
        }
    }
    list.reverse();
    list
}
