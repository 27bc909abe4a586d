//! Carrying bytes both ways until both directions have ended.
//!
//! The end of one direction is carried as the end of that direction alone, and a reset as a reset,
//! so that nobody takes what it has for everything. A direction is read only as fast as the other
//! side takes what was read: each holds at most one buffer, and that only while the other side is
//! slow. A connection that is idle holds none at all, since all of a thread share one.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use quinn::{RecvStream, SendStream, VarInt};
use tokio::io::{AsyncRead, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::counters::{Counters, add};

/// Bytes read at a time: a fast sender fills it, and it fits into a core's cache.
const BUFFER: usize = 64 * 1024;

/// Packets' worth of a stream that are written with one system call: what a fast sender delivers
/// between two looks.
const CHUNKS: usize = 32;

/// The code with which a stream between nodes is reset when the connection that it carries is.
const RESET: VarInt = VarInt::from_u32(1);

thread_local! {
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into_boxed_slice());
}

/// Lends the buffer of this thread.
pub(crate) fn with_shared<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    SHARED.with_borrow_mut(|shared| work(shared))
}

/// One side of a connection.
#[derive(Debug)]
pub(crate) enum Wire {
    /// A client's or a replica's own connection.
    Tcp(TcpStream),
    /// A stream to another node.
    Hop(SendStream, RecvStream),
}

impl Wire {
    /// Ends it as broken.
    pub(crate) fn reset(&mut self) {
        match self {
            Self::Tcp(stream) => {
                let _gone_already = stream.set_zero_linger();
            }
            Self::Hop(send, recv) => {
                let _gone_already = send.reset(RESET);
                let _gone_already = recv.stop(RESET);
            }
        }
    }

    fn split(&mut self) -> (Source<'_>, Sink<'_>) {
        match self {
            Self::Tcp(stream) => {
                let (read, write) = stream.split();
                (Source::Tcp(read), Sink::Tcp(write))
            }
            Self::Hop(send, recv) => (Source::Hop(recv), Sink::Hop(send)),
        }
    }
}

enum Source<'a> {
    Tcp(ReadHalf<'a>),
    Hop(&'a mut RecvStream),
}

enum Sink<'a> {
    Tcp(WriteHalf<'a>),
    Hop(&'a mut SendStream),
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// Both directions to their end.
    Done,
    /// One side broke it, or is gone.
    Broken(io::Error),
    /// Nothing was said for too long.
    Idle,
    /// Its time was over.
    Cut,
}

/// What one connection has carried.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    up: AtomicU64,
    down: AtomicU64,
    touched: AtomicBool,
}

impl Carried {
    /// Bytes from the client.
    pub(crate) fn up(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }

    /// Bytes to the client.
    pub(crate) fn down(&self) -> u64 {
        self.down.load(Ordering::Relaxed)
    }
}

/// Counts what one direction carries.
struct Meter<'a> {
    bytes: &'a AtomicU64,
    touched: &'a AtomicBool,
    total: &'a AtomicU64,
}

impl Meter<'_> {
    fn add(&self, count: usize) {
        let count = count as u64;
        add(self.bytes, count);
        add(self.total, count);
        self.touched.store(true, Ordering::Relaxed);
    }
}

/// Resets both sides unless the connection came to its end: also when its task is cut off, since
/// whoever sees an orderly end takes what it has for everything.
struct Both<'a> {
    client: &'a mut Wire,
    server: &'a mut Wire,
    done: bool,
}

impl Drop for Both<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.client.reset();
            self.server.reset();
        }
    }
}

/// Carries a connection to its end. It ends after `idle` to twice as long without a byte, and when
/// `cut` is cancelled. Unless it is done, both sides are reset.
pub(crate) async fn relay(
    client: &mut Wire,
    server: &mut Wire,
    carried: &Carried,
    counters: &Counters,
    idle: Duration,
    cut: &CancellationToken,
) -> End {
    let mut wires = Both {
        client,
        server,
        done: false,
    };
    let end = {
        let (from_client, to_client) = wires.client.split();
        let (from_server, to_server) = wires.server.split();
        let touched = &carried.touched;
        let up = Meter {
            bytes: &carried.up,
            touched,
            total: &counters.received,
        };
        let down = Meter {
            bytes: &carried.down,
            touched,
            total: &counters.sent,
        };
        let both = async {
            tokio::try_join!(
                pump(from_client, to_server, &up),
                pump(from_server, to_client, &down)
            )
        };
        let mut both = pin!(both);
        tokio::select! {
            biased;
            ended = &mut both => match ended {
                Ok(_both) => End::Done,
                Err(error) => End::Broken(error),
            },
            () = cut.cancelled() => End::Cut,
            () = quiet(touched, idle) => End::Idle,
        }
    };
    wires.done = matches!(end, End::Done);
    end
}

/// Returns when nothing has been carried for `idle`. It looks once in that time instead of noting
/// the time of every byte.
pub(crate) async fn quiet(touched: &AtomicBool, idle: Duration) {
    loop {
        sleep(idle).await;
        if !touched.swap(false, Ordering::Relaxed) {
            return;
        }
    }
}

async fn pump(from: Source<'_>, to: Sink<'_>, meter: &Meter<'_>) -> io::Result<()> {
    match (from, to) {
        (Source::Tcp(from), Sink::Tcp(to)) => between_sockets(from, to, meter).await,
        (Source::Tcp(from), Sink::Hop(to)) => into_hop(from, to, meter).await,
        // Its list of chunks would make every connection larger by 3 kB, also those that need none.
        (Source::Hop(from), Sink::Tcp(to)) => Box::pin(out_of_hop(from, to, meter)).await,
        (Source::Hop(from), Sink::Hop(to)) => between_hops(from, to, meter).await,
    }
}

/// What came of one read.
enum Step {
    End,
    /// All of it has been passed on.
    Moved(usize),
    /// Some of it is left.
    Left(usize, Vec<u8>),
}

async fn between_sockets(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    meter: &Meter<'_>,
) -> io::Result<()> {
    loop {
        match std::future::poll_fn(|cx| move_some(cx, &mut from, &to)).await? {
            Step::End => break,
            Step::Moved(count) => meter.add(count),
            Step::Left(count, rest) => {
                meter.add(count);
                to.write_all(&rest).await?;
            }
        }
    }
    to.shutdown().await
}

/// Reads once and writes at once what can be written. Only what cannot is copied.
fn move_some(
    cx: &mut Context<'_>,
    from: &mut ReadHalf<'_>,
    to: &WriteHalf<'_>,
) -> Poll<io::Result<Step>> {
    with_shared(|shared| {
        let mut buffer = ReadBuf::new(shared);
        ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
        let bytes = buffer.filled();
        if bytes.is_empty() {
            return Poll::Ready(Ok(Step::End));
        }
        let written = match to.try_write(bytes) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Poll::Ready(Err(error)),
        };
        Poll::Ready(Ok(match bytes.get(written..) {
            Some([]) | None => Step::Moved(bytes.len()),
            Some(rest) => Step::Left(bytes.len(), rest.to_vec()),
        }))
    })
}

async fn into_hop(
    mut from: ReadHalf<'_>,
    to: &mut SendStream,
    meter: &Meter<'_>,
) -> io::Result<()> {
    loop {
        let bytes = std::future::poll_fn(|cx| read_some(cx, &mut from)).await?;
        if bytes.is_empty() {
            break;
        }
        meter.add(bytes.len());
        to.write_chunk(bytes).await?;
    }
    to.finish().map_err(io::Error::other)
}

fn read_some(cx: &mut Context<'_>, from: &mut ReadHalf<'_>) -> Poll<io::Result<Bytes>> {
    with_shared(|shared| {
        let mut buffer = ReadBuf::new(shared);
        ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
    })
}

async fn out_of_hop(
    from: &mut RecvStream,
    mut to: WriteHalf<'_>,
    meter: &Meter<'_>,
) -> io::Result<()> {
    let mut chunks: [Bytes; CHUNKS] = std::array::from_fn(|_| Bytes::new());
    while let Some(count) = from.read_chunks(&mut chunks).await? {
        let chunks = &mut chunks[..count];
        write_together(&mut to, chunks, meter).await?;
        chunks.fill(Bytes::new());
    }
    to.shutdown().await
}

/// Writes these with as few system calls as the socket takes them in.
async fn write_together(
    to: &mut WriteHalf<'_>,
    chunks: &[Bytes],
    meter: &Meter<'_>,
) -> io::Result<()> {
    let mut slices = [IoSlice::new(&[]); CHUNKS];
    let mut total = 0;
    for (slice, chunk) in slices.iter_mut().zip(chunks) {
        *slice = IoSlice::new(chunk);
        total += chunk.len();
    }
    meter.add(total);
    let mut rest = &mut slices[..chunks.len()];
    while total > 0 {
        let written = to.write_vectored(rest).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        total -= written;
        IoSlice::advance_slices(&mut rest, written);
    }
    Ok(())
}

async fn between_hops(
    from: &mut RecvStream,
    to: &mut SendStream,
    meter: &Meter<'_>,
) -> io::Result<()> {
    while let Some(chunk) = from.read_chunk(BUFFER, true).await? {
        meter.add(chunk.bytes.len());
        to.write_chunk(chunk.bytes).await?;
    }
    to.finish().map_err(io::Error::other)
}
