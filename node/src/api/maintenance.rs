//! When nodes are worked on.

use axum::Extension;
use axum::Json;
use axum::extract::{Path, State};
use dunlin_api::{ChangeResponse, ErrorCode, Maintenance, MaintenanceRequest, NamedWindow};
use dunlin_state::desired::{Command, NodeIntent};
use dunlin_state::model::Window;

use super::failure::{Answer, Body, Failure};
use super::nodes::resolve;
use super::{Caller, Context};

/// Adds and removes windows of a node.
pub(super) async fn set(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    Path(node): Path<String>,
    Body(request): Body<MaintenanceRequest>,
) -> Answer<ChangeResponse> {
    let (node, known) = context
        .engine
        .ask(move |engine| {
            let node = resolve(engine, &node)?;
            let intent = engine.desired().nodes.get(&node);
            Ok::<_, Failure>((node, intent.map(|i| i.windows.clone()).unwrap_or_default()))
        })
        .await??;
    let windows = merged(known, request)?;
    let command = Command::SetWindows { node, windows };
    let changed = context
        .engine
        .propose(vec![command], caller.author())
        .await?;
    Ok(Json(ChangeResponse { changed }))
}

fn merged(mut windows: Vec<Window>, request: MaintenanceRequest) -> Result<Vec<Window>, Failure> {
    for id in &request.remove {
        let before = windows.len();
        windows.retain(|window| window.id() != *id);
        if windows.len() == before {
            let shown: String = id.chars().take(40).collect();
            let text = format!("the node has no window '{shown}'");
            let mut failure = Failure::new(ErrorCode::BadRequest, text);
            failure.0 = failure.0.with_hint("`dunlin maintenance ls` lists them");
            return Err(failure);
        }
    }
    windows.extend(request.add);
    Ok(windows)
}

/// What is said of a node.
pub(super) fn of(intent: &NodeIntent) -> Maintenance {
    let windows = intent.windows.iter().map(|window| NamedWindow {
        id: window.id(),
        window: window.clone(),
    });
    Maintenance {
        windows: windows.collect(),
        until: intent.maintenance,
        next: intent.next_maintenance,
    }
}
