//! What a deploy would do.

use axum::Extension;
use axum::Json;
use axum::extract::State;
use dunlin_api::{
    DeployPlan, DeployRequest, NodeVerdict, OustedReplica, PlannedChange, PlannedService,
    PlannedSlot, PlannedStep, PlannedVolume, Verdict,
};
use dunlin_core::engine::Engine;
use dunlin_core::plan::{ServicePlan, SlotPlan, Step, VolumePlan};
use dunlin_state::model::NodeId;

use super::failure::{Answer, Body};
use super::{Caller, Context, services, views};
use crate::daemon::handle::Unanswered;

/// Answers as to a deploy, and changes nothing.
pub(super) async fn plan(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<DeployRequest>,
) -> Answer<DeployPlan> {
    let commands = services::commands(request, &caller)?;
    let services = context
        .engine
        .ask(move |engine| {
            let plan = engine.plan(&commands)?;
            let services = plan.services.into_iter();
            Ok(services.map(|service| show(engine, service)).collect())
        })
        .await?
        .map_err(Unanswered::Rejected)?;
    Ok(Json(DeployPlan { services }))
}

fn show(engine: &Engine, plan: ServicePlan) -> PlannedService {
    let ServicePlan {
        service,
        before,
        after,
        slots,
        refusals,
    } = plan;
    let change = match &before {
        None => PlannedChange::Create,
        Some(b) if b.spec == after.spec && b.replicas == after.replicas => PlannedChange::Unchanged,
        Some(_) => PlannedChange::Update,
    };
    let refusals = refusals.into_iter().map(|(node, reasons)| NodeVerdict {
        node,
        name: name(engine, node),
        verdict: Verdict::Refused,
        score: None,
        reasons: reasons.iter().map(views::refusal).collect(),
    });
    PlannedService {
        change,
        scale_before: before.as_ref().map(|b| b.replicas),
        before: before.map(|b| (*b.spec).clone()),
        scale_after: after.replicas,
        after: (*after.spec).clone(),
        revision: after.revision,
        slots: slots.iter().map(|slot| show_slot(engine, slot)).collect(),
        refusals: refusals.collect(),
        service,
    }
}

fn show_slot(engine: &Engine, plan: &SlotPlan) -> PlannedSlot {
    let ousts = plan.ousts.iter().map(|slot| OustedReplica {
        service: slot.service.clone(),
        slot: slot.slot,
    });
    PlannedSlot {
        slot: plan.slot,
        step: match plan.step {
            Step::Keep => PlannedStep::Keep,
            Step::Start => PlannedStep::Start,
            Step::Update => PlannedStep::Update,
            Step::Move => PlannedStep::Move,
            Step::Stop => PlannedStep::Stop,
            Step::Nowhere => PlannedStep::Nowhere,
        },
        node: plan.node,
        node_name: plan.node.map(|node| name(engine, node)),
        from: plan.from.map(|node| name(engine, node)),
        ousts: ousts.collect(),
        data: plan.data.iter().map(show_volume).collect(),
    }
}

fn show_volume(plan: &VolumePlan) -> PlannedVolume {
    PlannedVolume {
        volume: plan.volume.clone(),
        node_name: plan.name.clone(),
        begins: plan.begins,
        unused: plan.unused.clone(),
    }
}

fn name(engine: &Engine, node: NodeId) -> String {
    let register = engine.register(node);
    register.map_or_else(|| node.short(), |r| r.report.name.clone())
}
