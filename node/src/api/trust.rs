//! Who belongs: tickets, removals, and who changed what.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use dunlin_api::{
    AuditEntry, AuditList, ChangeResponse, ErrorCode, NodeState, RemoveQuery,
    Ticket as TicketAnswer, TicketRequest,
};
use dunlin_state::desired::{Command, TrustCommand};
use dunlin_state::model::NodeId;
use dunlin_trust::{InviteKey, MAX_ADDRESSES, PublicKey, Role, Ticket};

use super::failure::{Answer, Body, Failure, Query};
use super::{Caller, Context, nodes, views};
use crate::daemon::clock::wall_millis;

/// How long a ticket is good unless said otherwise.
const TTL: Duration = Duration::from_secs(3_600);
/// The longest life of a ticket: one that lies around for longer is found by somebody else.
const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 3_600);

pub(super) async fn ticket(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<TicketRequest>,
) -> Answer<TicketAnswer> {
    let ttl = request.ttl_ms.map_or(TTL, Duration::from_millis);
    if ttl > MAX_TTL || ttl.is_zero() {
        let text = format!(
            "--ttl must be between 1 s and {} days",
            MAX_TTL.as_secs() / 86_400
        );
        return Err(Failure::new(ErrorCode::BadRequest, text));
    }
    let role = request.role.as_deref().unwrap_or("node");
    let role: Role = role
        .parse()
        .map_err(|e| Failure::new(ErrorCode::Invalid, format!("--role: {e}")))?;
    let mut secret = [0; 16];
    getrandom::fill(&mut secret)
        .map_err(|e| Failure::new(ErrorCode::Internal, format!("no randomness: {e}")))?;
    let not_after = wall_millis() / 1_000 + ttl.as_secs().max(1);
    let command = TrustCommand::Invite {
        invite: InviteKey::of(&secret).id().to_string(),
        role: role.to_string(),
        not_after,
        uses: request
            .uses
            .unwrap_or(if role == Role::Node { 0 } else { 1 }),
    };
    let commands = vec![Command::Trust(command)];
    context.engine.propose(commands, caller.author()).await?;
    let ticket = Ticket {
        cluster: context.info.cluster,
        secret,
        addresses: addresses(&context).await?,
    };
    Ok(Json(TicketAnswer {
        ticket: ticket.to_string(),
        expires_at: Some(not_after * 1_000),
        role: role.to_string(),
    }))
}

/// This node's first: it knows of the ticket already.
async fn addresses(context: &Context) -> Result<Vec<std::net::SocketAddr>, Failure> {
    let own = context.info.address;
    let mut addresses = context
        .engine
        .ask(move |engine| {
            let others = engine
                .members()
                .into_iter()
                .filter(|m| views::node_state(m.state) == NodeState::Alive && m.id.address != own);
            others
                .map(|m| m.id.address)
                .take(MAX_ADDRESSES - 1)
                .collect::<Vec<_>>()
        })
        .await?;
    addresses.insert(0, own);
    Ok(addresses)
}

pub(super) async fn remove(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    Path(word): Path<String>,
    Query(query): Query<RemoveQuery>,
) -> Answer<ChangeResponse> {
    let asked = word.clone();
    let resolved = context
        .engine
        .ask(move |engine| nodes::resolve(engine, &asked))
        .await?;
    // A member that has not been heard of for long is known by its whole id only.
    let node = match (resolved, word.parse::<NodeId>()) {
        (Ok(node), _) => node,
        (Err(_unknown), Ok(node)) if query.force => node,
        (Err(unknown), _) => return Err(unknown),
    };
    let me = context.engine.ask(|engine| engine.me().node).await?;
    if !query.force && node == me {
        return Err(Failure::new(
            ErrorCode::Refused,
            "this is the node you are speaking to: `dunlin leave` takes it out with a goodbye; to remove it for good, ask another node, or add --force".to_owned(),
        ));
    }
    let command = Command::Trust(TrustCommand::Revoke {
        key: PublicKey(*node.as_bytes()).to_string(),
        reason: query.reason.unwrap_or_default(),
    });
    let changed = context
        .engine
        .propose(vec![command], caller.author())
        .await?;
    Ok(Json(ChangeResponse { changed }))
}

pub(super) async fn audit(State(context): State<Context>) -> Answer<AuditList> {
    let entries = context.engine.ask(|engine| engine.audit()).await?;
    let entries = entries.into_iter().map(|entry| AuditEntry {
        at: entry.time,
        what: entry.key,
        removed: entry.removed,
        author: entry.author,
        key: entry.signer.map(|key| key.to_string()),
        role: entry.role,
        void: entry.void,
    });
    Ok(Json(AuditList {
        entries: entries.collect(),
    }))
}
