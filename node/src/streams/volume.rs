//! The data of a volume of this node, with somebody at the other end of a stream.
//!
//! An archive travels in frames, piece by piece: at no time is more of it in memory than some pieces.
//! What comes is unpacked beside the volumes and takes its place only when it is whole.

use std::io::{self, BufWriter, Read, Write};
use std::path::PathBuf;

use bytes::Bytes;
use dunlin_api::{ErrorBody, ErrorCode, EventRecord, ExecFrame, PING_EVERY, SILENCE};
use dunlin_core::io::VolumeNews;
use dunlin_state::model::VolumeId;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::desk::Desk;
use super::frames::{self, Frames};
use super::{Stream, VolumeAct};
use crate::daemon::clock::wall_millis;
use crate::daemon::handle::Unanswered;
use crate::volumes::{discard, pack, put_in_place, scratch, set_aside, unpack};

/// Bytes of an archive in one frame.
const PIECE: usize = 32 * 1024;
/// Pieces that wait on the way.
const PIECES: usize = 8;

/// What is wanted of which volume, and for whom.
pub(super) struct Order {
    pub(super) volume: VolumeId,
    pub(super) act: VolumeAct,
    pub(super) author: String,
}

/// Does what is wanted, to its end, or until the other side or the daemon has gone.
pub(super) async fn serve(
    desk: &Desk,
    stream: Stream,
    order: Order,
    refused: Option<ErrorBody>,
    stop: CancellationToken,
) {
    let (from, mut to) = tokio::io::split(stream);
    let allowed = match refused {
        Some(body) => Err(body),
        None => allows(desk, &order).await,
    };
    let last = match allowed {
        Err(body) => ExecFrame::Failed(body),
        Ok(()) => {
            // Go ahead.
            if frames::write(&mut to, &ExecFrame::Ping).await.is_err() {
                return;
            }
            let done = tokio::select! {
                done = act(desk, &order, from, &mut to) => done,
                () = stop.cancelled() => Err(failed(&"the daemon stops")),
            };
            match done {
                Ok(()) => ExecFrame::Exit(0),
                Err(body) => ExecFrame::Failed(body),
            }
        }
    };
    tell(desk, &order, &last);
    // The other side may have gone.
    let _gone = frames::write(&mut to, &last).await;
    let _gone = to.shutdown().await;
}

fn failed(why: &(impl std::fmt::Display + ?Sized)) -> ErrorBody {
    ErrorBody::new(ErrorCode::Refused, why.to_string())
}

fn unanswered(error: Unanswered) -> ErrorBody {
    ErrorBody::new(ErrorCode::Unavailable, error.to_string())
}

/// Whether this node has what is wanted, and nobody uses what would go.
async fn allows(desk: &Desk, order: &Order) -> Result<(), ErrorBody> {
    let (volume, me) = (order.volume.clone(), desk.node);
    let asked = desk.engine.ask(move |engine| {
        let copies = engine.volumes().into_iter();
        let here = copies.filter(|c| c.node == me && c.held.volume == volume);
        (here.count() > 0, engine.volume_users(&volume))
    });
    let (here, users) = asked.await.map_err(unanswered)?;
    let (volume, name) = (&order.volume, &desk.name);
    match order.act {
        VolumeAct::Export if here => Ok(()),
        VolumeAct::Export | VolumeAct::Remove if !here => {
            let text = format!("{name} has no data of volume {volume}");
            Err(ErrorBody::new(ErrorCode::NoSuchItem, text))
        }
        VolumeAct::Import { force: false } if here => {
            let text = format!("{name} has data of volume {volume}, which would be lost");
            let hint = "use --force to take the archive in its place";
            Err(ErrorBody::new(ErrorCode::Conflict, text).with_hint(hint))
        }
        VolumeAct::Create if here => {
            let text = format!("{name} has data of volume {volume} already");
            let hint = format!("`dunlin volume rm --node {name} {volume}` deletes it");
            Err(ErrorBody::new(ErrorCode::Conflict, text).with_hint(hint))
        }
        VolumeAct::Import { .. } | VolumeAct::Create | VolumeAct::Remove | VolumeAct::Export => {
            match users.first() {
                Some(user) => {
                    let text = format!("{user} runs on {name} with volume {volume}");
                    let hint = format!("stop it first: `dunlin stop {}`", user.service);
                    Err(ErrorBody::new(ErrorCode::Refused, text).with_hint(hint))
                }
                None => Ok(()),
            }
        }
    }
}

async fn act(
    desk: &Desk,
    order: &Order,
    from: impl AsyncRead + Unpin,
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<(), ErrorBody> {
    match order.act {
        VolumeAct::Export => export(desk.volumes.path(&order.volume), to).await,
        VolumeAct::Remove => remove(desk, &order.volume).await,
        VolumeAct::Import { .. } => import(desk, order, from, to).await,
        VolumeAct::Create => create(desk, &order.volume).await,
    }
}

/// Sends the archive, and a word now and then while a large file is read.
async fn export(path: PathBuf, to: &mut (impl AsyncWrite + Unpin)) -> Result<(), ErrorBody> {
    let (sender, mut pieces) = mpsc::channel(PIECES);
    let packing =
        spawn_blocking(move || pack(&path, BufWriter::with_capacity(PIECE, Pipe(sender))));
    loop {
        let frame = match timeout(PING_EVERY, pieces.recv()).await {
            Ok(Some(bytes)) => ExecFrame::Output(bytes),
            Ok(None) => break,
            Err(_elapsed) => ExecFrame::Ping,
        };
        // Dropping the receiver ends the packing.
        frames::write(to, &frame).await.map_err(|e| failed(&e))?;
    }
    let packed = packing.await.map_err(|panic| failed(&panic))?;
    let skipped = packed.map_err(|e| failed(&format!("the archive is not whole: {e}")))?;
    if skipped > 0 {
        let text = format!("{skipped} sockets or devices are not in the archive\n");
        let note = ExecFrame::Error(Bytes::from(text));
        frames::write(to, &note).await.map_err(|e| failed(&e))?;
    }
    Ok(())
}

/// The end of the archive's way that is written to without waiting.
struct Pipe(mpsc::Sender<Bytes>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE)];
        let sent = self.0.blocking_send(Bytes::copy_from_slice(piece));
        sent.map_err(|_gone| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn import(
    desk: &Desk,
    order: &Order,
    from: impl AsyncRead + Unpin,
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<(), ErrorBody> {
    let (sender, pieces) = mpsc::channel(PIECES);
    let root = desk.volumes.root().to_owned();
    let mut unpacking = spawn_blocking(move || {
        let new = scratch(&root)?;
        let mut pipe = Pieces {
            from: pieces,
            rest: Bytes::new(),
        };
        let unpacked = unpack(&mut pipe, &new).map_err(io::Error::other);
        // What follows the archive's end is read as well: its sender waits for that.
        let done = unpacked.and_then(|()| io::copy(&mut pipe, &mut io::sink()));
        match done {
            Ok(_) => Ok(new),
            Err(error) => {
                discard(&new)?;
                Err(error)
            }
        }
    });
    let mut taking = std::pin::pin!(take(from, sender));
    let mut takes = true;
    let unpacked = loop {
        tokio::select! {
            done = &mut unpacking => break done,
            () = &mut taking, if takes => takes = false,
            () = tokio::time::sleep(PING_EVERY) => {
                frames::write(to, &ExecFrame::Ping).await.map_err(|e| failed(&e))?;
            }
        }
    };
    let new = unpacked.map_err(|panic| failed(&panic))?;
    let new = new.map_err(|e| failed(&format!("nothing was changed: {e}")))?;
    let placed = match allows(desk, order).await {
        Ok(()) => place(desk, &order.volume, new.clone()).await,
        Err(body) => Err(body),
    };
    if placed.is_err() {
        let swept = spawn_blocking(move || discard(&new)).await;
        if !matches!(swept, Ok(Ok(()))) {
            tracing::warn!("what was unpacked for {} is left behind", order.volume);
        }
    }
    placed
}

/// An empty directory, which counts from now on.
async fn create(desk: &Desk, volume: &VolumeId) -> Result<(), ErrorBody> {
    let root = desk.volumes.root().to_owned();
    let made = spawn_blocking(move || scratch(&root)).await;
    let made = made.map_err(|panic| failed(&panic))?;
    let new = made.map_err(|e| failed(&format!("nothing was changed: {e}")))?;
    place(desk, volume, new).await
}

async fn place(desk: &Desk, volume: &VolumeId, new: PathBuf) -> Result<(), ErrorBody> {
    let (root, place) = (desk.volumes.root().to_owned(), desk.volumes.path(volume));
    let placed = spawn_blocking(move || {
        // The archive says nothing of the directory itself.
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755))?;
        put_in_place(&root, &new, &place)
    });
    let placed = placed.await.map_err(|panic| failed(&panic))?;
    placed.map_err(|e| failed(&e))?;
    let news = VolumeNews::Put(volume.clone());
    desk.engine.volume(news).map_err(unanswered)
}

/// Hands on the pieces of the archive, until all have come or the other side has gone.
async fn take(from: impl AsyncRead + Unpin, to: mpsc::Sender<io::Result<Bytes>>) {
    let mut frames = Frames::new(from);
    loop {
        let piece = match timeout(SILENCE, frames.next()).await {
            Ok(Ok(Some(ExecFrame::Input(bytes)))) => Ok(bytes),
            Ok(Ok(Some(ExecFrame::Ping))) => continue,
            Ok(Ok(Some(ExecFrame::InputEnd))) => return,
            Ok(Ok(_) | Err(_)) | Err(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        let last = piece.is_err();
        if to.send(piece).await.is_err() || last {
            return;
        }
    }
}

/// The end of the archive's way that is read from without waiting.
struct Pieces {
    from: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.from.blocking_recv() {
                Some(piece) => self.rest = piece?,
                None => return Ok(0),
            }
        }
        let count = self.rest.len().min(into.len());
        into[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}

/// The data leaves its place at once, and is deleted when this node has told that it has none.
async fn remove(desk: &Desk, volume: &VolumeId) -> Result<(), ErrorBody> {
    let (root, place) = (desk.volumes.root().to_owned(), desk.volumes.path(volume));
    let aside = spawn_blocking(move || set_aside(&root, &place)).await;
    let aside = aside.map_err(|panic| failed(&panic))?;
    let aside = aside.map_err(|e| failed(&format!("nothing was deleted: {e}")))?;
    let news = VolumeNews::Dropped(volume.clone());
    desk.engine.volume(news).map_err(unanswered)?;
    let removed = spawn_blocking(move || aside.map_or(Ok(()), |aside| discard(&aside))).await;
    let removed = removed.map_err(|panic| failed(&panic))?;
    desk.runtimes.forget_volume(volume).await;
    removed.map_err(|e| failed(&format!("not all of it could be deleted: {e}")))
}

fn tell(desk: &Desk, order: &Order, last: &ExecFrame) {
    let Order { volume, author, .. } = order;
    let word = match order.act {
        VolumeAct::Export => "exports",
        VolumeAct::Import { .. } => "imports",
        VolumeAct::Remove => "removes",
        VolumeAct::Create => "creates",
    };
    let how = match last {
        ExecFrame::Failed(body) => format!(", which failed: {}", body.message),
        _ => String::new(),
    };
    let text = format!("{author} {word} volume {volume}{how}");
    tracing::info!("{text}");
    desk.events.push(EventRecord {
        at: wall_millis(),
        warning: matches!(last, ExecFrame::Failed(_)),
        text,
        service: None,
        slot: None,
        node: Some(desk.node),
    });
}
