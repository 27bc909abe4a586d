//! What happened, for people: a bounded log in memory and a stream of what comes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use dunlin_api::{EventQuery, EventRecord};
use futures::stream;
use tokio::sync::broadcast;

use super::failure::Query;
use super::{Caller, Context};

/// Events kept for those who ask later.
const KEPT: usize = 512;
/// A follower that is further behind than this is told that it has missed some.
const FOLLOW_BUFFER: usize = 256;

/// The node's recent events.
#[derive(Debug, Clone)]
pub(crate) struct EventLog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    recent: Mutex<VecDeque<EventRecord>>,
    live: broadcast::Sender<EventRecord>,
}

impl EventLog {
    pub(crate) fn new() -> Self {
        let (live, _) = broadcast::channel(FOLLOW_BUFFER);
        Self {
            inner: Arc::new(Inner {
                recent: Mutex::default(),
                live,
            }),
        }
    }

    pub(crate) fn push(&self, record: EventRecord) {
        let mut recent = self
            .inner
            .recent
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(record.clone());
        drop(recent);
        // Nobody may be listening; that is no failure.
        let _listeners = self.inner.live.send(record);
    }

    pub(crate) fn recent(&self) -> Vec<EventRecord> {
        let recent = self
            .inner
            .recent
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        recent.iter().cloned().collect()
    }
}

pub(super) async fn stream(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    query: Query<EventQuery>,
) -> Response {
    let follow = query.0.follow;
    let live = context.events.inner.live.subscribe();
    let mut past = context.events.recent();
    past.retain(|record| is_for(&caller, record));
    let past: Vec<_> = past.iter().map(line).collect();
    let past = stream::iter(past.into_iter().map(Ok::<_, std::convert::Infallible>));
    let body = if follow {
        let coming = stream::unfold((live, caller), |(mut live, caller)| async {
            loop {
                match live.recv().await {
                    Ok(record) if is_for(&caller, &record) => {
                        return Some((Ok(line(&record)), (live, caller)));
                    }
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        Body::from_stream(futures::StreamExt::chain(past, coming))
    } else {
        Body::from_stream(past)
    };
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// Whether a caller may know of it. What is of no service may still name one in its text, so that
/// it is only for those who may read everywhere.
fn is_for(caller: &Caller, record: &EventRecord) -> bool {
    match &record.service {
        Some(service) => caller.sees(service.namespace()),
        None => caller.confined().is_none(),
    }
}

/// One record as a line of JSON.
pub(super) fn line<T: serde::Serialize>(record: &T) -> Bytes {
    let mut bytes = serde_json::to_vec(record).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}
