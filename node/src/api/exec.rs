//! Commands beside a replica, wherever that is: the request and the answer are streams of frames at
//! the same time, and pass through this node to the replica's.
//!
//! Nothing is spawned here: the answer's body is what moves both directions, so that whatever ends
//! the connection ends everything behind it.

use std::pin::Pin;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use dunlin_api::{EXEC_TYPE, ErrorBody, ErrorCode, ExecFrame, ExecStart, FrameReader, SILENCE};
use dunlin_core::engine::Engine;
use dunlin_state::model::{Claim, NodeRegister, Phase, ServiceKey, SlotId};
use futures::stream::{self, StreamExt as _};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::failure::Failure;
use super::services::{ServicePath, key};
use super::{Caller, Context};
use crate::streams::frames::{Frames, write};
use crate::streams::{Destination, Opening, Stream, Wish, unreachable};

/// Time for the first frame of the request.
const FIRST: Duration = Duration::from_secs(10);
/// Time for the replica's node to find the replica and say so.
const BEGIN: Duration = Duration::from_secs(15);
/// Time for the client to close the connection after the last frame.
const LINGER: Duration = Duration::from_secs(5);

pub(super) async fn exec(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    path: ServicePath,
    request: Request,
) -> Result<Response, Failure> {
    let service = key(path)?;
    let mut input = Input::new(request.into_body());
    let start = match timeout(FIRST, input.next()).await {
        Ok(Ok(Some(ExecFrame::Start(start)))) => *start,
        Ok(Ok(_)) => return Err(bad("the request does not begin with what to run")),
        Ok(Err(error)) => return Err(bad(&error)),
        Err(_elapsed) => return Err(bad("the request does not say what to run")),
    };
    let wanted = start.slot.clone();
    let asked = service.clone();
    let find = move |engine: &Engine| find(engine, &asked, wanted.as_deref());
    let (slot, to, chain) = context.engine.ask(find).await??;
    let opening = opening(slot, start, caller.author(), chain);
    converse(&context, input, to, opening).await
}

/// Passes frames on between a person and a node, once that has begun what is asked for.
pub(super) async fn converse(
    context: &Context,
    input: Input,
    to: Destination,
    opening: Opening,
) -> Result<Response, Failure> {
    let stream = context.streams.open(&to, &opening).await?;
    let (from, into) = tokio::io::split(stream);
    let mut frames = Frames::new(from);
    let first = match timeout(BEGIN, frames.next()).await {
        Ok(Ok(Some(ExecFrame::Failed(body)))) => return Err(Failure(body)),
        Ok(Ok(Some(first))) => first,
        Ok(Ok(None)) => return Err(unreachable(&to, &"it has closed the stream")),
        Ok(Err(error)) => return Err(unreachable(&to, &error)),
        Err(_elapsed) => return Err(unreachable(&to, &"it does not answer")),
    };
    let body = answer(input, into, frames, first, to);
    Ok(([(header::CONTENT_TYPE, EXEC_TYPE)], body).into_response())
}

fn bad(reason: &(impl std::fmt::Display + ?Sized)) -> Failure {
    Failure::new(ErrorCode::BadRequest, reason.to_string())
}

fn opening(slot: SlotId, start: ExecStart, author: String, chain: Option<String>) -> Opening {
    let start = Box::new(start);
    Opening {
        wish: Wish::Exec { slot, start },
        author,
        chain,
    }
}

/// A body whose polling moves both directions.
fn answer(
    input: Input,
    into: WriteHalf<Stream>,
    frames: Frames<ReadHalf<Stream>>,
    first: ExecFrame,
    to: Destination,
) -> Body {
    let outputs = stream::unfold(Some((frames, to)), |state| async move {
        let (mut frames, to) = state?;
        match timeout(SILENCE, frames.next()).await {
            Ok(Ok(Some(frame))) => {
                let ends = matches!(frame, ExecFrame::Exit(_) | ExecFrame::Failed(_));
                Some((Some(frame), (!ends).then_some((frames, to))))
            }
            Ok(Ok(None)) => Some((Some(lost(&to, "it has closed the stream")), None)),
            Ok(Err(error)) => Some((Some(lost(&to, &error)), None)),
            Err(_elapsed) => Some((Some(lost(&to, "nothing is heard from it")), None)),
        }
    });
    let outputs = stream::once(std::future::ready(Some(first))).chain(outputs);
    // The client closes the connection after the last frame. Closed from here, with something of
    // the client's still under way, the connection could lose that frame.
    let outputs = outputs.chain(stream::once(async {
        tokio::time::sleep(LINGER).await;
        None
    }));
    // A client that sends no more has gone.
    let pass = stream::once(pass_on(input, into));
    let both = stream::select(outputs, pass);
    let frames = both.take_while(|frame| std::future::ready(frame.is_some()));
    let bytes = frames.filter_map(|frame| {
        let bytes = frame.map(|frame| Ok::<Bytes, std::convert::Infallible>(frame.encode()));
        std::future::ready(bytes)
    });
    Body::from_stream(bytes)
}

fn lost(to: &Destination, why: &(impl std::fmt::Display + ?Sized)) -> ExecFrame {
    let text = format!("lost {}, and the command with it: {why}", to.name);
    ExecFrame::Failed(ErrorBody::new(ErrorCode::PeerUnreachable, text))
}

/// Hands on what the client sends, until it sends no more; then nothing follows.
async fn pass_on(mut input: Input, mut into: WriteHalf<Stream>) -> Option<ExecFrame> {
    let mut takes = true;
    while let Ok(Some(frame)) = input.next().await {
        // A command that has ended takes nothing more.
        takes = takes && write(&mut into, &frame).await.is_ok();
    }
    None
}

/// The frames of a request.
pub(super) struct Input {
    body: Pin<Box<BodyDataStream>>,
    reader: FrameReader,
}

impl Input {
    pub(super) fn new(body: Body) -> Self {
        Self {
            body: Box::pin(body.into_data_stream()),
            reader: FrameReader::default(),
        }
    }

    async fn next(&mut self) -> Result<Option<ExecFrame>, String> {
        loop {
            if let Some(frame) = self.reader.take().map_err(|bad| bad.to_string())? {
                return Ok(Some(frame));
            }
            match self.body.next().await {
                Some(Ok(bytes)) => self.reader.push(&bytes),
                Some(Err(error)) => return Err(error.to_string()),
                None => return Ok(None),
            }
        }
    }
}

type Found = (SlotId, Destination, Option<String>);

/// The replica that is meant, its node, and the certificates by which this one may ask that one.
fn find(engine: &Engine, service: &ServiceKey, slot: Option<&str>) -> Result<Found, Failure> {
    if !engine.desired().services.contains_key(service) {
        return Err(Failure::no_such_service(service));
    }
    let me = engine.me().node;
    let mut found: Vec<(&NodeRegister, &Claim)> = Vec::new();
    for register in engine.observed() {
        let claims = register.report.claims.iter();
        let named = claims.filter(|claim| {
            let text = claim.slot.slot.to_string();
            let is = |wanted| wanted == text || wanted == register.report.name;
            claim.slot.service == *service && slot.is_none_or(is)
        });
        found.extend(named.map(|claim| (&**register, claim)));
    }
    let wanted = slot.map_or_else(String::new, |slot| format!(".{}", short(slot)));
    if found.is_empty() {
        let text = format!("{service} has no replica{}", wanted.replace('.', " "));
        return Err(Failure::new(ErrorCode::NoSuchSlot, text));
    }
    // Rather one that works than one that does not, and rather the newest holder of a slot, one of
    // this node, and the first slot.
    let best = found
        .into_iter()
        .filter(|(_, claim)| claim.phase == Phase::Running)
        .min_by_key(|(register, claim)| {
            let far = register.node != me;
            let newest = std::cmp::Reverse(claim.epoch);
            (!claim.ready, far, claim.slot.slot, newest, register.node)
        });
    let Some((register, claim)) = best else {
        let text = format!("{service}{wanted} does not run now");
        let hint = format!("`dunlin ps {service}` says what it does instead");
        let body = ErrorBody::new(ErrorCode::Refused, text).with_hint(hint);
        return Err(Failure(body));
    };
    let to = Destination {
        node: register.node,
        name: register.report.name.clone(),
        address: register.report.address,
    };
    Ok((claim.slot.clone(), to, chain(engine, service.namespace())))
}

fn short(slot: &str) -> String {
    slot.chars().take(80).collect()
}

/// The certificates that allow this node to write there, if it may.
pub(super) fn chain(engine: &Engine, namespace: &str) -> Option<String> {
    let mut all = engine.credentials().iter();
    let may = all.find(|credential| {
        let role = credential.verified().role();
        role.is_some_and(|role| role.may_write_in(namespace))
    });
    may.map(|credential| BASE64.encode(&credential.chain().encode()))
}
