//! A command beside a replica of this node, with somebody at the other end of a stream.

use dunlin_api::{
    ErrorBody, ErrorCode, EventRecord, ExecFrame, ExecStart, ExecStarted, PING_EVERY, SILENCE,
};
use dunlin_core::io::WorkloadId;
use dunlin_state::model::SlotId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Stream;
use super::desk::Desk;
use super::frames::{self, Frames};
use crate::daemon::clock::wall_millis;
use crate::runtime::{ExecInput, ExecOrder, ExecOutput, Wires};

/// Pieces of input or output that wait on the way: with pieces of 16 KiB, 128 KiB each.
const PIECES: usize = 8;
/// Characters of a command that events tell.
const TOLD: usize = 200;

/// What to run, and for whom.
pub(super) struct Order {
    pub(super) slot: SlotId,
    pub(super) start: ExecStart,
    pub(super) author: String,
}

/// Runs the command to its end, or until the other side or the daemon has gone.
pub(super) async fn serve(
    desk: &Desk,
    stream: Stream,
    order: Order,
    refused: Option<ErrorBody>,
    stop: CancellationToken,
) {
    let (from, mut to) = tokio::io::split(stream);
    let begun = match refused {
        Some(body) => Err(body),
        None => find(desk, &order).await,
    };
    let id = match begun {
        Ok(id) => id,
        Err(body) => {
            // The other side may have gone.
            let _gone = frames::write(&mut to, &ExecFrame::Failed(body)).await;
            return;
        }
    };
    let started = ExecStarted {
        slot: order.slot.slot,
        node: desk.node,
        node_name: desk.name.clone(),
    };
    let started = ExecFrame::Started(Box::new(started));
    if frames::write(&mut to, &started).await.is_err() {
        return;
    }
    let told = told(&order);
    tell(desk, &order.slot, format!("{} runs {told}", order.author));
    let last = converse(desk, &id, order.start, (from, &mut to), &stop).await;
    let how = match &last {
        ExecFrame::Exit(code) => format!("exit code {code}"),
        ExecFrame::Failed(body) => body.message.clone(),
        _ => String::new(),
    };
    tell(desk, &order.slot, format!("{told} has ended: {how}"));
    // The other side may have gone.
    let _gone = frames::write(&mut to, &last).await;
    let _gone = tokio::io::AsyncWriteExt::shutdown(&mut to).await;
}

async fn find(desk: &Desk, order: &Order) -> Result<WorkloadId, ErrorBody> {
    if order.start.command.is_empty() {
        return Err(ErrorBody::new(ErrorCode::BadRequest, "no command is named"));
    }
    let slot = order.slot.clone();
    let running = desk.engine.ask(move |engine| engine.running(&slot)).await;
    match running {
        Ok(Some(id)) => Ok(id),
        Ok(None) => Err(ErrorBody::new(
            ErrorCode::NoSuchSlot,
            format!("{} does not run on {} any more", order.slot, desk.name),
        )),
        Err(error) => Err(ErrorBody::new(ErrorCode::Unavailable, error.to_string())),
    }
}

/// The command in few words.
fn told(order: &Order) -> String {
    let words = order.start.command.join(" ");
    let cut: String = words.chars().take(TOLD).collect();
    let more = if cut.len() < words.len() { "…" } else { "" };
    format!("'{}{more}' in {}", cut.escape_debug(), order.slot)
}

fn tell(desk: &Desk, slot: &SlotId, text: String) {
    tracing::info!("{text}");
    desk.events.push(EventRecord {
        at: wall_millis(),
        warning: false,
        text,
        service: Some(slot.service.clone()),
        slot: Some(slot.slot),
        node: Some(desk.node),
    });
}

/// Runs the command. Returns the last frame.
async fn converse(
    desk: &Desk,
    id: &WorkloadId,
    start: ExecStart,
    (from, to): (impl AsyncRead + Unpin, &mut (impl AsyncWrite + Unpin)),
    stop: &CancellationToken,
) -> ExecFrame {
    let (sender, input) = mpsc::channel(PIECES);
    let (output, mut printed) = mpsc::channel(PIECES);
    let cut = CancellationToken::new();
    let wires = Wires {
        input,
        output,
        cut: cut.clone(),
    };
    let order = order(start);
    let mut running = std::pin::pin!(desk.runtimes.exec(id, &order, wires));
    let mut listening = std::pin::pin!(listen(from, &sender));
    let mut writing = std::pin::pin!(print(&mut printed, to));
    let (mut listens, mut writes) = (true, true);
    let ended = loop {
        tokio::select! {
            ended = &mut running => break ended,
            () = &mut listening, if listens => {
                listens = false;
                cut.cancel();
            }
            // While the command runs this ends only when nobody reads.
            () = &mut writing, if writes => {
                writes = false;
                cut.cancel();
            }
            () = stop.cancelled(), if !cut.is_cancelled() => cut.cancel(),
        }
    };
    if writes {
        // What it said last, unless nobody reads.
        tokio::select! {
            () = &mut writing => {}
            () = &mut listening, if listens => {}
            () = stop.cancelled() => {}
        }
    }
    match ended {
        Ok(code) => ExecFrame::Exit(code),
        Err(reason) => ExecFrame::Failed(ErrorBody::new(ErrorCode::Refused, reason)),
    }
}

fn order(start: ExecStart) -> ExecOrder {
    ExecOrder {
        command: start.command,
        stdin: start.stdin,
        terminal: start.terminal.map(|size| (size.rows, size.columns)),
        environment: start.environment,
        user: start.user,
        working_dir: start.working_dir,
    }
}

/// Hands on what comes, until the other side has gone.
async fn listen(from: impl AsyncRead + Unpin, to: &mpsc::Sender<ExecInput>) {
    let mut frames = Frames::new(from);
    loop {
        let input = match timeout(SILENCE, frames.next()).await {
            Ok(Ok(Some(ExecFrame::Input(bytes)))) => ExecInput::Bytes(bytes),
            Ok(Ok(Some(ExecFrame::InputEnd))) => ExecInput::End,
            Ok(Ok(Some(ExecFrame::Resize(size)))) => ExecInput::Resize(size.rows, size.columns),
            Ok(Ok(Some(ExecFrame::Ping))) => continue,
            // Gone, silent for too long, or nobody of ours.
            Ok(Ok(_) | Err(_)) | Err(_) => return,
        };
        if to.send(input).await.is_err() {
            // The command reads no more; the end of the connection still counts.
            std::future::pending::<()>().await;
        }
    }
}

/// Passes on what the command prints, and tells the other side that somebody is there.
async fn print(from: &mut mpsc::Receiver<ExecOutput>, to: &mut (impl AsyncWrite + Unpin)) {
    loop {
        let frame = match timeout(PING_EVERY, from.recv()).await {
            Ok(Some(ExecOutput::Out(bytes))) => ExecFrame::Output(bytes),
            Ok(Some(ExecOutput::Err(bytes))) => ExecFrame::Error(bytes),
            Ok(None) => return,
            Err(_elapsed) => ExecFrame::Ping,
        };
        if frames::write(to, &frame).await.is_err() {
            return;
        }
    }
}
