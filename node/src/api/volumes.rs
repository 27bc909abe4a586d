//! Volumes: who has their data, and how it comes and goes. Archives pass through this node to the
//! one that has or gets the data.

mod begin;

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::{Extension, Json};
use dunlin_api::{
    ErrorBody, ErrorCode, ExecFrame, Volume, VolumeCopy, VolumeCreated, VolumeList, VolumeQuery,
    VolumeRemoval, VolumeTarget,
};
use dunlin_core::engine::Engine;
use dunlin_core::liveness::Standing;
use dunlin_state::model::{NodeId, VolumeId};
use tokio::time::timeout;

use super::exec::{Input, chain, converse};
use super::failure::{Answer, Failure, Query};
use super::{Caller, Context, nodes};
use crate::streams::frames::Frames;
use crate::streams::{Destination, Opening, VolumeAct, Wish, unreachable};
use begin::Beginning;

/// Time for a node to make an empty volume, or to delete the data of a volume, beside which it gives signs of life.
const REMOVE: Duration = Duration::from_secs(300);

type VolumePath = Result<Path<(String, String)>, PathRejection>;

pub(super) async fn list(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<VolumeQuery>,
) -> Answer<VolumeList> {
    if let Some(namespace) = &query.namespace {
        caller.may_read(namespace)?;
    }
    let mut volumes = context.engine.ask(all).await?;
    volumes.retain(|v| {
        let namespace = v.volume.namespace();
        caller.sees(namespace) && query.namespace.as_ref().is_none_or(|n| n == namespace)
    });
    Ok(Json(VolumeList { volumes }))
}

pub(super) async fn inspect(State(context): State<Context>, path: VolumePath) -> Answer<Volume> {
    let volume = id(path)?;
    let found = context.engine.ask(move |engine| find(engine, &volume));
    Ok(Json(found.await??))
}

/// Deletes a volume that no service names, on all nodes that answer or on one.
pub(super) async fn remove(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    path: VolumePath,
    Query(target): Query<VolumeTarget>,
) -> Answer<VolumeRemoval> {
    let volume = id(path)?;
    let asked = volume.clone();
    let plan = context
        .engine
        .ask(move |engine| plan_removal(engine, &asked, &target));
    let (holders, chain) = plan.await??;
    let author = caller.author();
    let mut removal = VolumeRemoval::default();
    for (to, reachable) in holders {
        let name = to.name.clone();
        if !reachable {
            removal.unreachable.push(name);
            continue;
        }
        let opening = opening(&volume, VolumeAct::Remove, &author, chain.clone());
        match act_there(&context, &to, &opening).await {
            Ok(()) => removal.removed.push(name),
            Err(failure) if failure.0.code == ErrorCode::PeerUnreachable => {
                removal.unreachable.push(name);
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(Json(removal))
}

/// Begins an empty volume, unless it is there.
pub(super) async fn create(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    path: VolumePath,
    Query(target): Query<VolumeTarget>,
) -> Answer<VolumeCreated> {
    let volume = id(path)?;
    let asked = volume.clone();
    let planned = context
        .engine
        .ask(move |engine| begin::plan(engine, &asked, &target));
    let (to, chain, superseded) = match planned.await?? {
        Beginning::There(created) => return Ok(Json(created)),
        Beginning::At {
            to,
            chain,
            superseded,
        } => (to, chain, superseded),
    };
    let opening = opening(&volume, VolumeAct::Create, &caller.author(), chain);
    act_there(&context, &to, &opening).await?;
    Ok(Json(VolumeCreated {
        volume,
        node_name: to.name,
        created: true,
        superseded,
    }))
}

async fn act_there(context: &Context, to: &Destination, opening: &Opening) -> Result<(), Failure> {
    let stream = context.streams.open(to, opening).await?;
    let mut frames = Frames::new(stream);
    let ended = timeout(REMOVE, async {
        loop {
            match frames.next().await {
                Ok(Some(ExecFrame::Exit(_))) => return Ok(()),
                Ok(Some(ExecFrame::Failed(body))) => return Err(Failure(body)),
                Ok(Some(_)) => {}
                Ok(None) => return Err(unreachable(to, &"it has closed the stream")),
                Err(error) => return Err(unreachable(to, &error)),
            }
        }
    });
    ended
        .await
        .unwrap_or_else(|_elapsed| Err(unreachable(to, &"it does not answer")))
}

/// Sends the data of a volume as an archive.
pub(super) async fn export(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    path: VolumePath,
    Query(target): Query<VolumeTarget>,
    request: Request,
) -> Result<Response, Failure> {
    let volume = id(path)?;
    let asked = volume.clone();
    let found = context
        .engine
        .ask(move |engine| source(engine, &asked, &target));
    let (to, chain) = found.await??;
    let opening = opening(&volume, VolumeAct::Export, &caller.author(), chain);
    converse(&context, Input::new(request.into_body()), to, opening).await
}

/// Takes an archive as the data of a volume.
pub(super) async fn import(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    path: VolumePath,
    Query(target): Query<VolumeTarget>,
    request: Request,
) -> Result<Response, Failure> {
    let volume = id(path)?;
    let (asked, force) = (volume.clone(), target.force);
    let found = context
        .engine
        .ask(move |engine| destination(engine, &asked, &target));
    let (to, chain) = found.await??;
    let act = VolumeAct::Import { force };
    let opening = opening(&volume, act, &caller.author(), chain);
    converse(&context, Input::new(request.into_body()), to, opening).await
}

fn id(path: VolumePath) -> Result<VolumeId, Failure> {
    let Path((namespace, volume)) = path?;
    let parsed = format!("{namespace}/{volume}").parse();
    parsed.map_err(|bad: dunlin_state::model::BadVolumeName| {
        Failure::new(ErrorCode::BadRequest, bad.to_string())
    })
}

fn opening(volume: &VolumeId, act: VolumeAct, author: &str, chain: Option<String>) -> Opening {
    Opening {
        wish: Wish::Volume {
            volume: volume.clone(),
            act,
        },
        author: author.to_owned(),
        chain,
    }
}

fn all(engine: &Engine) -> Vec<Volume> {
    let mut volumes: BTreeMap<VolumeId, Volume> = BTreeMap::new();
    for copy in engine.volumes() {
        let volume = copy.held.volume;
        let entry = volumes.entry(volume.clone()).or_insert_with(|| Volume {
            used_by: users(engine, &volume),
            volume,
            copies: Vec::new(),
        });
        entry.copies.push(VolumeCopy {
            node: copy.node,
            node_name: copy.name,
            reachable: copy.standing == Standing::Alive,
            counts: copy.counts,
            used: copy.held.used,
            generation: copy.held.generation,
            since: copy.held.since,
        });
    }
    for volume in volumes.values_mut() {
        volume.copies.sort_by_key(|copy| (!copy.counts, copy.node));
    }
    volumes.into_values().collect()
}

fn users(engine: &Engine, volume: &VolumeId) -> Vec<dunlin_state::model::ServiceKey> {
    let services = engine.desired().services.iter();
    let users = services.filter(|(key, service)| {
        service.jobs.run.is_none() && volume.is_used_by(key, &service.spec.volumes)
    });
    users.map(|(key, _)| key.clone()).collect()
}

fn find(engine: &Engine, volume: &VolumeId) -> Result<Volume, Failure> {
    let found = all(engine).into_iter().find(|v| v.volume == *volume);
    found.ok_or_else(|| {
        let text = format!("no node has data of a volume '{volume}'");
        let hint = "`dunlin volume ls` lists the volumes of all namespaces";
        Failure(ErrorBody::new(ErrorCode::NoSuchItem, text).with_hint(hint))
    })
}

fn place(engine: &Engine, node: NodeId, name: &str) -> Destination {
    let report = engine.register(node).map(|register| &register.report);
    Destination {
        node,
        name: report.map_or(name, |report| &report.name).to_owned(),
        address: report.and_then(|report| report.address),
    }
}

type Found = (Destination, Option<String>);

/// Who sends the data: the node that is named, or the one whose copy counts.
fn source(engine: &Engine, volume: &VolumeId, target: &VolumeTarget) -> Result<Found, Failure> {
    let found = find(engine, volume)?;
    let node = match &target.node {
        Some(text) => Some(nodes::resolve(engine, text)?),
        None => None,
    };
    let mut copies = found.copies.iter();
    let copy = copies.find(|copy| node.map_or(copy.counts, |node| node == copy.node));
    let Some(copy) = copy else {
        let text = format!("that node has no data of volume {volume}");
        return Err(Failure::new(ErrorCode::NoSuchItem, text));
    };
    if !copy.reachable {
        let text = format!(
            "the data of volume {volume} is on {}, which does not answer",
            copy.node_name
        );
        return Err(Failure::new(ErrorCode::PeerUnreachable, text));
    }
    let to = place(engine, copy.node, &copy.node_name);
    Ok((to, chain(engine, volume.namespace())))
}

/// Who gets the data: the node that is named, the one whose copy counts, or this one.
fn destination(
    engine: &Engine,
    volume: &VolumeId,
    target: &VolumeTarget,
) -> Result<Found, Failure> {
    let known = find(engine, volume).ok();
    let home = known.as_ref().and_then(|known| known.copies.first());
    if let Some(copy) = home.filter(|_| !target.force) {
        let text = format!("{} has the data of volume {volume}", copy.node_name);
        let hint = "use --force if the archive shall count instead; data on other nodes stays there, unused";
        return Err(Failure(
            ErrorBody::new(ErrorCode::Conflict, text).with_hint(hint),
        ));
    }
    if let Some(slot) = running(engine, volume) {
        let text = format!("{slot} runs with volume {volume}");
        let hint = format!("stop it first: `dunlin stop {}`", slot.service);
        return Err(Failure(
            ErrorBody::new(ErrorCode::Refused, text).with_hint(hint),
        ));
    }
    let (node, name) = match (&target.node, home) {
        (Some(text), _) => (nodes::resolve(engine, text)?, text.as_str()),
        (None, Some(copy)) => (copy.node, copy.node_name.as_str()),
        (None, None) => (engine.me().node, ""),
    };
    Ok((place(engine, node, name), chain(engine, volume.namespace())))
}

/// A replica on a node that answers, which has or may soon have the volume.
fn running(engine: &Engine, volume: &VolumeId) -> Option<dunlin_state::model::SlotId> {
    let desired = engine.desired();
    let mut claims = engine.observed().flat_map(|register| {
        let alive =
            register.node == engine.me().node || engine.standing(register.node) == Standing::Alive;
        register.report.claims.iter().filter(move |_| alive)
    });
    let claim = claims.find(|claim| {
        let service = desired.services.get(&claim.slot.service);
        let spec = service.and_then(|service| service.spec_of(&claim.revision));
        let mounts = spec.iter().flat_map(|spec| &spec.volumes);
        let has = |mount: &dunlin_state::model::VolumeMount| {
            mount.volume(&claim.slot).as_ref() == Some(volume)
        };
        claim.workload.is_some() && mounts.into_iter().any(has)
    });
    claim.map(|claim| claim.slot.clone())
}

type Plan = (Vec<(Destination, bool)>, Option<String>);

/// Which copies are to be deleted; an error while somebody needs them.
fn plan_removal(
    engine: &Engine,
    volume: &VolumeId,
    target: &VolumeTarget,
) -> Result<Plan, Failure> {
    let found = find(engine, volume)?;
    let only = match &target.node {
        Some(text) => Some(nodes::resolve(engine, text)?),
        None => None,
    };
    let copies: Vec<&VolumeCopy> = found
        .copies
        .iter()
        .filter(|copy| only.is_none_or(|node| node == copy.node))
        .collect();
    if copies.is_empty() {
        let text = format!("that node has no data of volume {volume}");
        return Err(Failure::new(ErrorCode::NoSuchItem, text));
    }
    // A copy that does not count is nobody's.
    if let Some(user) = found.used_by.first()
        && copies.iter().any(|copy| copy.counts)
    {
        let text = format!("volume {volume} is used by {user}");
        let hint = format!("remove the service first: `dunlin rm {user}`");
        return Err(Failure(
            ErrorBody::new(ErrorCode::Refused, text).with_hint(hint),
        ));
    }
    let holders = copies.into_iter().map(|copy| {
        let to = place(engine, copy.node, &copy.node_name);
        (to, copy.reachable)
    });
    Ok((holders.collect(), chain(engine, volume.namespace())))
}
