//! Namespaces and their quotas.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use dunlin_api::{ChangeResponse, NamespaceList, NamespaceSummary};
use dunlin_core::engine::Engine;
use dunlin_state::desired::Command;
use dunlin_state::model::Quota;

use super::failure::{Answer, Body};
use super::services::change;
use super::{Caller, Context};

pub(super) async fn list(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
) -> Answer<NamespaceList> {
    let mut namespaces = context.engine.ask(look).await?;
    namespaces.retain(|namespace| caller.sees(&namespace.name));
    Ok(Json(NamespaceList { namespaces }))
}

fn look(engine: &Engine) -> Vec<NamespaceSummary> {
    let desired = engine.desired();
    let namespaces = desired.namespaces().into_iter().map(|name| {
        let services = desired
            .services
            .keys()
            .filter(|key| key.namespace() == name);
        NamespaceSummary {
            name: name.to_owned(),
            services: u32::try_from(services.count()).unwrap_or(u32::MAX),
            usage: desired.usage(name),
            quota: desired.quotas.get(name).copied().unwrap_or_default(),
            over: desired.over_quota(name),
        }
    });
    namespaces.collect()
}

pub(super) async fn set_quota(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    Body(quota): Body<Quota>,
) -> Answer<ChangeResponse> {
    let Path(namespace) = path?;
    change(&context, caller, Command::SetQuota { namespace, quota }).await
}
