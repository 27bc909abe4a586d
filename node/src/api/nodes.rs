//! Nodes: listed, cordoned, drained, labelled.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use dunlin_api::{AvailabilityRequest, ChangeResponse, ErrorCode, LabelsRequest, NodeList};
use dunlin_core::engine::Engine;
use dunlin_state::desired::Command;
use dunlin_state::model::NodeId;

use super::failure::{Answer, Body, Failure};
use super::{Caller, Context, views};

pub(super) async fn list(State(context): State<Context>) -> Answer<NodeList> {
    let nodes = context.engine.ask(views::nodes).await?;
    Ok(Json(NodeList { nodes }))
}

pub(super) async fn set_availability(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    Path(node): Path<String>,
    Body(request): Body<AvailabilityRequest>,
) -> Answer<ChangeResponse> {
    let node = context
        .engine
        .ask(move |engine| resolve(engine, &node))
        .await??;
    let command = Command::SetAvailability {
        node,
        availability: request.availability,
    };
    let changed = context
        .engine
        .propose(vec![command], caller.author())
        .await?;
    Ok(Json(ChangeResponse { changed }))
}

pub(super) async fn set_labels(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    Path(node): Path<String>,
    Body(request): Body<LabelsRequest>,
) -> Answer<ChangeResponse> {
    let (node, mut labels) = context
        .engine
        .ask(move |engine| {
            let node = resolve(engine, &node)?;
            let intent = engine.desired().nodes.get(&node);
            Ok::<_, Failure>((node, intent.map(|i| i.labels.clone()).unwrap_or_default()))
        })
        .await??;
    labels.extend(request.set);
    for key in &request.remove {
        labels.remove(key);
    }
    let command = Command::SetLabels { node, labels };
    let changed = context
        .engine
        .propose(vec![command], caller.author())
        .await?;
    Ok(Json(ChangeResponse { changed }))
}

/// The node that a person means: by id, by name, or by an unambiguous beginning of the id.
pub(super) fn resolve(engine: &Engine, text: &str) -> Result<NodeId, Failure> {
    let nodes = views::nodes(engine);
    let exact: Vec<_> = nodes
        .iter()
        .filter(|node| node.name == text || node.id.to_string() == text)
        .collect();
    let found = if exact.is_empty() {
        nodes
            .iter()
            .filter(|n| !text.is_empty() && n.id.to_string().starts_with(text))
            .collect()
    } else {
        exact
    };
    match found[..] {
        [node] => Ok(node.id),
        [] => {
            let shown: String = text.chars().take(80).collect();
            let mut failure = Failure::new(
                ErrorCode::NoSuchNode,
                format!("no node is called '{shown}'"),
            );
            failure.0 = failure.0.with_hint("`dunlin nodes` lists all nodes");
            Err(failure)
        }
        [..] => {
            let ids: Vec<String> = found
                .iter()
                .map(|n| format!("{} ({})", n.id.short(), n.name))
                .collect();
            let mut failure = Failure::new(
                ErrorCode::Ambiguous,
                format!("'{text}' may be any of {}", ids.join(", ")),
            );
            failure.0 = failure.0.with_hint("use more characters of the id");
            Err(failure)
        }
    }
}
