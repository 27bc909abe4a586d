//! Moving replicas so that nodes are evenly used.

use axum::extract::State;
use axum::{Extension, Json};
use dunlin_api::{
    ChangeResponse, NodeUse, PlannedMove, RebalancePlan, RebalanceRequest, StayingService,
};
use dunlin_core::engine::Engine;
use dunlin_core::rebalance::{ASKED_MS, Gain, Move};
use dunlin_state::desired::Command;
use dunlin_state::model::{NodeId, Rebalancing};

use super::failure::{Answer, Body};
use super::services::change;
use super::{Caller, Context};
use crate::daemon::clock::wall_millis;

/// Says what would be moved.
pub(super) async fn plan(State(context): State<Context>) -> Answer<RebalancePlan> {
    Ok(Json(context.engine.ask(look).await?))
}

/// Has replicas moved now, or says whether they are by themselves.
pub(super) async fn set(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<RebalanceRequest>,
) -> Answer<ChangeResponse> {
    let rules = context.engine.ask(move |engine| {
        let known = engine.desired().rebalancing;
        Rebalancing {
            manual: request
                .automatic
                .map_or(known.manual, |automatic| !automatic),
            asked: match request.now {
                true => Some(wall_millis()),
                false => known.asked,
            },
        }
    });
    let rules = rules.await?;
    change(&context, caller, Command::SetRebalancing(rules)).await
}

fn look(engine: &Engine) -> RebalancePlan {
    let forecast = engine.rebalance_forecast();
    let rules = engine.desired().rebalancing;
    let until = rules.asked.map(|at| at.saturating_add(ASKED_MS));
    let part = |ppm: u64| u32::try_from(ppm).unwrap_or(u32::MAX);
    let nodes = forecast.nodes.iter().map(|node| NodeUse {
        name: name(engine, node.node),
        replicas_before: node.replicas.0,
        replicas_after: node.replicas.1,
        full_before_ppm: part(node.full_ppm.0),
        full_after_ppm: part(node.full_ppm.1),
    });
    let stays = forecast.stays.iter().map(|(service, why)| StayingService {
        service: service.clone(),
        why: why.to_string(),
    });
    RebalancePlan {
        automatic: !rules.manual,
        asked_until: until.filter(|until| *until > wall_millis()),
        moving: u32::try_from(forecast.moving).unwrap_or(u32::MAX),
        moves: forecast.moves.iter().map(|m| show(engine, m)).collect(),
        more: forecast.more,
        nodes: nodes.collect(),
        stays: stays.collect(),
    }
}

fn show(engine: &Engine, planned: &Move) -> PlannedMove {
    PlannedMove {
        service: planned.slot.service.clone(),
        slot: planned.slot.slot,
        from: name(engine, planned.from),
        to: name(engine, planned.to),
        why: match planned.gain {
            Gain::Evenness(_) => "it would be spread more evenly over labels".to_owned(),
            Gain::Company(_) => {
                "it shares its node with more of its kind, or the other is preferred".to_owned()
            }
            Gain::Room(ppm) => format!("its node is fuller by {} points", ppm / 10_000),
        },
    }
}

fn name(engine: &Engine, node: NodeId) -> String {
    let register = engine.register(node);
    register.map_or_else(|| node.short(), |r| r.report.name.clone())
}
