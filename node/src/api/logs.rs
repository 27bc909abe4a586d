//! Logs of a service, merged over its replicas, wherever they are.
//!
//! Reading is by pulling: each replica's node is asked for the piece after a cursor. A node that
//! does not answer is named in the stream once, and the others go on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use dunlin_api::{ErrorCode, LogQuery as Asked, LogRecord, LogStream};
use dunlin_core::engine::Engine;
use dunlin_gossip::net::Control;
use dunlin_state::model::{NodeId, ServiceKey, Slot, SlotId};
use futures::future::join_all;
use futures::stream;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::asked::PeerQuestion;
use super::events::line;
use super::failure::{Failure, Query};
use super::{Context, services};
use crate::daemon::clock::wall_millis;
use crate::runtime::{LogChunk, LogLine, LogQuery, LogStream as From, RuntimesHandle};

/// How long another node may take for one piece.
const PEER_DEADLINE: Duration = Duration::from_secs(3);
/// A follower looks for news this often.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);
/// Replicas read at a time; more in one stream are of no use to a person.
const MAX_SOURCES: usize = 256;
/// Bytes of log asked for at a time. JSON makes it larger, and a peer's answer is capped at 1 MiB.
const PIECE: usize = 64 * 1024;

/// Reads logs from this node and from others.
#[derive(Clone)]
pub(crate) struct LogSource {
    pub(crate) node: NodeId,
    pub(crate) runtimes: RuntimesHandle,
    pub(crate) control: Control,
}

/// What one node asks another.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PeerQuery {
    slot: SlotId,
    attempt: Option<(u64, u32)>,
    cursor: Option<u64>,
    tail: Option<u32>,
}

/// What the other answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Piece {
    attempt: (u64, u32),
    lines: Vec<Line>,
    next: u64,
    eof: bool,
    /// When it was read, in milliseconds since the Unix epoch by the clock that stamps its lines.
    read_at: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    at: u64,
    error: bool,
    text: String,
}

pub(super) async fn read_here(
    runtimes: &RuntimesHandle,
    query: PeerQuery,
) -> Result<Piece, String> {
    let PeerQuery {
        slot,
        attempt,
        cursor,
        tail,
    } = query;
    let query = LogQuery {
        slot,
        attempt,
        cursor,
        tail,
        max_bytes: PIECE,
    };
    runtimes
        .logs(&query)
        .await
        .map(Piece::from)
        .map_err(|e| e.to_string())
}

impl std::convert::From<LogChunk> for Piece {
    fn from(chunk: LogChunk) -> Self {
        Self {
            attempt: (chunk.id.epoch, chunk.id.attempt),
            lines: chunk.lines.into_iter().map(Line::from).collect(),
            next: chunk.next,
            eof: chunk.eof,
            read_at: wall_millis(),
        }
    }
}

impl std::convert::From<LogLine> for Line {
    fn from(line: LogLine) -> Self {
        Self {
            at: line.at,
            error: line.stream == From::Err,
            text: String::from_utf8_lossy(&line.text).into_owned(),
        }
    }
}

impl LogSource {
    async fn read(&self, holder: &Holder, query: PeerQuery) -> Result<Piece, Unread> {
        if holder.node == self.node {
            return read_here(&self.runtimes, query)
                .await
                .map_err(Unread::Refused);
        }
        let Some(address) = holder.address else {
            return Err(Unread::Unreachable("its address is not known".to_owned()));
        };
        let question = line(&PeerQuestion::Log(query));
        let answer = self
            .control
            .rpc(holder.node, address, question, PEER_DEADLINE)
            .await
            .map_err(|e| Unread::Unreachable(e.to_string()))?;
        serde_json::from_slice::<Result<Piece, String>>(&answer)
            .map_err(|e| Unread::Refused(format!("its answer is not understood: {e}")))?
            .map_err(Unread::Refused)
    }
}

/// Why a piece could not be had.
enum Unread {
    Unreachable(String),
    Refused(String),
}

/// A replica and where it is.
#[derive(Debug, Clone)]
struct Holder {
    slot: Slot,
    node: NodeId,
    name: String,
    address: Option<SocketAddr>,
}

/// Where reading a replica's log stands.
#[derive(Debug, Clone, Copy, Default)]
struct Position {
    attempt: Option<(u64, u32)>,
    cursor: Option<u64>,
    ended: bool,
    /// When its first piece was read. Who does not follow wants nothing that was written later, of
    /// which there may be no end.
    begun: Option<u64>,
}

pub(super) async fn stream(
    State(context): State<Context>,
    path: Result<Path<(String, String)>, PathRejection>,
    Query(asked): Query<Asked>,
) -> Result<Response, Failure> {
    let service = services::key(path)?;
    let reader = Reader::new(context, service, asked);
    reader.check().await?;
    let body = stream::unfold(reader, |mut reader| async move {
        let lines = reader.next().await?;
        Some((Ok::<_, std::convert::Infallible>(lines), reader))
    });
    Ok((
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(body),
    )
        .into_response())
}

/// One stream of logs.
struct Reader {
    context: Context,
    service: ServiceKey,
    asked: Asked,
    positions: BTreeMap<(Slot, NodeId), Position>,
    complained: BTreeSet<(Slot, NodeId)>,
    rounds: u64,
}

impl Reader {
    fn new(context: Context, service: ServiceKey, asked: Asked) -> Self {
        Self {
            context,
            service,
            asked,
            positions: BTreeMap::new(),
            complained: BTreeSet::new(),
            rounds: 0,
        }
    }

    /// Refuses what can never be answered, before the stream begins.
    async fn check(&self) -> Result<(), Failure> {
        let service = self.service.clone();
        let known = self
            .context
            .engine
            .ask(move |engine| engine.desired().services.contains_key(&service))
            .await?;
        if !known {
            return Err(Failure::no_such_service(&self.service));
        }
        let holders = self.holders().await;
        match (&self.asked.slot, holders.is_empty()) {
            (Some(slot), true) => {
                let slot: String = slot.chars().take(80).collect();
                let text = format!("{} has no replica {slot}", self.service);
                Err(Failure::new(ErrorCode::NoSuchSlot, text))
            }
            (Some(_) | None, _) => Ok(()),
        }
    }

    /// The next lines, in the order of their time; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let (records, more) = self.round().await;
            self.rounds += 1;
            if !records.is_empty() {
                return Some(records.iter().flat_map(|r| line(r).to_vec()).collect());
            }
            if !more && !self.asked.follow {
                return None;
            }
            if !more {
                sleep(FOLLOW_EVERY).await;
            }
        }
    }

    /// Reads a piece of every replica. Whether some had more than a piece.
    async fn round(&mut self) -> (Vec<LogRecord>, bool) {
        let holders = self.holders().await;
        let reads = holders.iter().map(|holder| {
            let position = self.positions.get(&(holder.slot, holder.node)).copied();
            self.read(holder, position.unwrap_or_default())
        });
        let pieces = join_all(reads).await;
        let mut records = Vec::new();
        let mut more = false;
        for (holder, piece) in holders.iter().zip(pieces) {
            match piece {
                None => {}
                Some(Ok(piece)) => more |= self.take(holder, piece, &mut records),
                Some(Err(unread)) => records.extend(self.complain(holder, unread)),
            }
        }
        records.sort_by_key(|record| match record {
            LogRecord::Line { at, .. } => *at,
            LogRecord::Unreachable { .. } | LogRecord::Skipped { .. } => 0,
        });
        (records, more)
    }

    async fn read(&self, holder: &Holder, position: Position) -> Option<Result<Piece, Unread>> {
        if position.ended && !self.asked.follow {
            return None;
        }
        let slot = SlotId {
            service: self.service.clone(),
            slot: holder.slot,
        };
        // After the end of an attempt, its successor is asked for.
        let (attempt, cursor) = if position.ended {
            (None, None)
        } else {
            (position.attempt, position.cursor)
        };
        let tail = if position.attempt.is_none() {
            self.asked.tail
        } else {
            None
        };
        let query = PeerQuery {
            slot,
            attempt,
            cursor,
            tail,
        };
        Some(self.context.logs.read(holder, query).await)
    }

    fn take(&mut self, holder: &Holder, piece: Piece, records: &mut Vec<LogRecord>) -> bool {
        let key = (holder.slot, holder.node);
        self.complained.remove(&key);
        let position = self.positions.entry(key).or_default();
        if position.ended && position.attempt == Some(piece.attempt) {
            return false;
        }
        let advanced = position.cursor != Some(piece.next);
        let begun = *position.begun.get_or_insert(piece.read_at);
        let until = if self.asked.follow { u64::MAX } else { begun };
        let late = piece.lines.last().is_some_and(|line| line.at > until);
        *position = Position {
            attempt: Some(piece.attempt),
            cursor: Some(piece.next),
            // The end counts once everything before it has been read.
            ended: late || piece.eof && (piece.lines.is_empty() || !advanced),
            begun: Some(begun),
        };
        let more = advanced && !piece.lines.is_empty() && !late;
        let wanted = self.asked.since.unwrap_or(0)..=until;
        let lines = piece.lines.into_iter().filter(|l| wanted.contains(&l.at));
        records.extend(lines.map(|l| LogRecord::Line {
            slot: holder.slot,
            node: holder.node,
            node_name: holder.name.clone(),
            stream: if l.error {
                LogStream::Stderr
            } else {
                LogStream::Stdout
            },
            at: l.at,
            text: l.text,
        }));
        more
    }

    /// Says once that a replica's log cannot be had.
    fn complain(&mut self, holder: &Holder, unread: Unread) -> Option<LogRecord> {
        if !self.complained.insert((holder.slot, holder.node)) {
            return None;
        }
        let (node, node_name) = (holder.node, holder.name.clone());
        Some(match unread {
            Unread::Unreachable(reason) => LogRecord::Unreachable {
                node,
                node_name,
                reason,
            },
            Unread::Refused(reason) => LogRecord::Skipped {
                slot: holder.slot,
                node,
                reason,
            },
        })
    }

    async fn holders(&self) -> Vec<Holder> {
        let (service, slot) = (self.service.clone(), self.asked.slot.clone());
        let ask = move |engine: &Engine| holders(engine, &service, slot.as_deref());
        self.context.engine.ask(ask).await.unwrap_or_default()
    }
}

fn holders(engine: &Engine, service: &ServiceKey, slot: Option<&str>) -> Vec<Holder> {
    let mut holders = Vec::new();
    for register in engine.observed() {
        let claims = register
            .report
            .claims
            .iter()
            .filter(|c| c.slot.service == *service);
        for claim in claims {
            let text = claim.slot.slot.to_string();
            if slot.is_none_or(|wanted| wanted == text || wanted == register.report.name) {
                holders.push(Holder {
                    slot: claim.slot.slot,
                    node: register.node,
                    name: register.report.name.clone(),
                    address: register.report.address,
                });
            }
        }
    }
    holders.sort_by_key(|h| (h.slot, h.node));
    holders.truncate(MAX_SOURCES);
    holders
}
