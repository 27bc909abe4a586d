//! Services: what people deploy, change, list and ask about.

use axum::Json;
use axum::extract::{Path, State};
use axum::{Extension, extract::rejection::PathRejection};
use dunlin_api::{
    ChangeResponse, Convergence, ConvergenceQuery, DeployRequest, DeployResponse, DeployedService,
    ErrorCode, Explanation, History, RemoveRequest, ReplicaList, ReplicaQuery, ScaleRequest,
    ServiceDetail, ServiceList, ServiceQuery,
};
use dunlin_state::desired::{Command, RolloutChange};
use dunlin_state::model::ServiceKey;

use super::failure::{Answer, Body, Failure, Query};
use super::{Caller, Context, nodes, views};

/// A service's name in a path.
pub(super) type ServicePath = Result<Path<(String, String)>, PathRejection>;

/// Services in one request; a request is one change of the document.
const MAX_SERVICES: usize = 500;

pub(super) async fn deploy(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<DeployRequest>,
) -> Answer<DeployResponse> {
    let keys: Vec<ServiceKey> = request.services.iter().map(|s| s.service.clone()).collect();
    let commands = commands(request, &caller)?;
    let changed = context.engine.propose(commands, caller.author()).await?;
    let services = context
        .engine
        .ask(move |engine| {
            let services = &engine.desired().services;
            keys.into_iter()
                .filter_map(|service| {
                    let revision = services.get(&service)?.revision.clone();
                    Some(DeployedService { service, revision })
                })
                .collect()
        })
        .await?;
    Ok(Json(DeployResponse { changed, services }))
}

/// Whether so many services may be named in one request.
fn check_count(what: &str, count: usize) -> Result<(), Failure> {
    match (1..=MAX_SERVICES).contains(&count) {
        true => Ok(()),
        false => Err(Failure::new(
            ErrorCode::BadRequest,
            format!("{what} names 1 to {MAX_SERVICES} services, not {count}"),
        )),
    }
}

/// What a deploy asks for, if its caller may.
pub(super) fn commands(request: DeployRequest, caller: &Caller) -> Result<Vec<Command>, Failure> {
    check_count("a deploy", request.services.len())?;
    for named in &request.services {
        caller.may_write(named.service.namespace())?;
    }
    let commands = request
        .services
        .into_iter()
        .flat_map(|s| {
            let canary = s.canary.map(|slots| Command::Rollout {
                service: s.service.clone(),
                revision: None,
                change: RolloutChange::Canary(slots),
            });
            let deploy = Command::Deploy {
                service: s.service,
                spec: Box::new(s.spec),
                replicas: s.replicas,
            };
            [Some(deploy), canary].into_iter().flatten()
        })
        .collect();
    Ok(commands)
}

pub(super) async fn list(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ServiceQuery>,
) -> Answer<ServiceList> {
    if let Some(namespace) = &query.namespace {
        caller.may_read(namespace)?;
    }
    let mut services = context
        .engine
        .ask(move |engine| views::services(engine, query.namespace.as_deref()))
        .await?;
    services.retain(|s| caller.sees(s.service.namespace()));
    Ok(Json(ServiceList { services }))
}

pub(super) async fn inspect(
    State(context): State<Context>,
    path: ServicePath,
) -> Answer<ServiceDetail> {
    let service = key(path)?;
    let asked = service.clone();
    let detail = context
        .engine
        .ask(move |engine| views::detail(engine, &asked))
        .await?;
    detail
        .map(Json)
        .ok_or_else(|| Failure::no_such_service(&service))
}

pub(super) async fn scale(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    path: ServicePath,
    Body(request): Body<ScaleRequest>,
) -> Answer<ChangeResponse> {
    let command = Command::Scale {
        service: key(path)?,
        replicas: request.replicas,
    };
    change(&context, caller, command).await
}

pub(super) async fn stop(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    path: ServicePath,
) -> Answer<ChangeResponse> {
    let command = Command::SetRunning {
        service: key(path)?,
        running: false,
    };
    change(&context, caller, command).await
}

pub(super) async fn start(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    path: ServicePath,
) -> Answer<ChangeResponse> {
    let command = Command::SetRunning {
        service: key(path)?,
        running: true,
    };
    change(&context, caller, command).await
}

pub(super) async fn remove(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    path: ServicePath,
) -> Answer<ChangeResponse> {
    let command = Command::Remove {
        service: key(path)?,
    };
    change(&context, caller, command).await
}

/// Removes several services, all or none.
pub(super) async fn remove_all(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<RemoveRequest>,
) -> Answer<ChangeResponse> {
    check_count("a removal", request.services.len())?;
    for service in &request.services {
        caller.may_write(service.namespace())?;
    }
    let services = request.services.into_iter();
    let commands = services
        .map(|service| Command::Remove { service })
        .collect();
    let changed = context.engine.propose(commands, caller.author()).await?;
    Ok(Json(ChangeResponse { changed }))
}

pub(super) async fn replicas(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ReplicaQuery>,
) -> Answer<ReplicaList> {
    let service = query.service.as_ref().map(ServiceKey::namespace);
    for namespace in query.namespace.as_deref().into_iter().chain(service) {
        caller.may_read(namespace)?;
    }
    let mut list = context
        .engine
        .ask(move |engine| {
            let node = match &query.node {
                Some(text) => Some(nodes::resolve(engine, text)?),
                None => None,
            };
            if let Some(service) = &query.service
                && !engine.desired().services.contains_key(service)
            {
                return Err(Failure::no_such_service(service));
            }
            let wanted = views::Wanted {
                namespace: query.namespace,
                service: query.service,
                node,
            };
            Ok(views::replicas(engine, &wanted))
        })
        .await??;
    list.replicas.retain(|r| caller.sees(r.service.namespace()));
    list.vacant.retain(|v| caller.sees(v.service.namespace()));
    list.waiting.retain(|w| caller.sees(w.service.namespace()));
    Ok(Json(list))
}

pub(super) async fn convergence(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ConvergenceQuery>,
) -> Answer<Convergence> {
    let service = query.service.as_ref().map(ServiceKey::namespace);
    for namespace in query.namespace.as_deref().into_iter().chain(service) {
        caller.may_read(namespace)?;
    }
    let services = context
        .engine
        .ask(move |engine| {
            views::progress(engine, |key| {
                caller.sees(key.namespace())
                    && query
                        .namespace
                        .as_deref()
                        .is_none_or(|n| n == key.namespace())
                    && query.service.as_ref().is_none_or(|s| s == key)
            })
        })
        .await?;
    Ok(Json(Convergence { services }))
}

pub(super) async fn explain(
    State(context): State<Context>,
    path: ServicePath,
) -> Answer<Explanation> {
    let service = key(path)?;
    let asked = service.clone();
    let explanation = context
        .engine
        .ask(move |engine| views::explain(engine, &asked))
        .await?;
    explanation
        .map(Json)
        .ok_or_else(|| Failure::no_such_service(&service))
}

pub(super) async fn history(State(context): State<Context>, path: ServicePath) -> Answer<History> {
    let service = key(path)?;
    let asked = service.clone();
    let entries = context
        .engine
        .ask(move |engine| views::history(engine, &asked))
        .await?;
    if entries.is_empty() {
        return Err(Failure::no_such_service(&service));
    }
    Ok(Json(History { service, entries }))
}

pub(super) async fn change(
    context: &Context,
    caller: Caller,
    command: Command,
) -> Answer<ChangeResponse> {
    let changed = context
        .engine
        .propose(vec![command], caller.author())
        .await?;
    Ok(Json(ChangeResponse { changed }))
}

/// The service named in a path.
pub(super) fn key(path: ServicePath) -> Result<ServiceKey, Failure> {
    let Path((namespace, name)) = path?;
    Ok(ServiceKey::new(&namespace, &name)?)
}
