//! Reading and writing one stream of messages.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::Stream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::{LARGE, MAX_MESSAGE, queue};
use crate::net::control::frames;

/// Time after which an empty frame is sent when nothing else was: TCP only.
pub(super) const BREATH: Duration = Duration::from_secs(3);

/// Time for one message to arrive after its length: 8 MiB at some 2 Mbit/s.
const ARRIVAL: Duration = Duration::from_secs(30);

/// Kibibytes of large messages that may be arriving at once over all connections: four documents.
const BUDGET_KIB: usize = 4 * MAX_MESSAGE / 1024;

/// Bounds the memory of large messages that have been announced and have not yet arrived.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<Semaphore>);

impl Budget {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET_KIB)))
    }

    /// Waits until `len` bytes may arrive; small messages always may.
    async fn claim(&self, len: usize) -> Option<SemaphorePermit<'_>> {
        if len < LARGE {
            return None;
        }
        let kib = u32::try_from(len.div_ceil(1024)).unwrap_or(u32::MAX);
        self.0.acquire_many(kib).await.ok()
    }
}

/// Writes what the queue brings until it ends or the stream breaks. With `breathe`, an empty frame
/// after every [`BREATH`] without a message.
///
/// After the queue's end it returns only when the other side has read everything: that one then
/// drops its end of the stream.
pub(super) async fn write_all(
    mut stream: Stream,
    mut queue: queue::Receiver,
    breathe: bool,
) -> io::Result<()> {
    loop {
        let next = if breathe {
            timeout(BREATH, queue.next()).await
        } else {
            Ok(queue.next().await)
        };
        let mut message = match next {
            Ok(Some(message)) => Some(message),
            Ok(None) => {
                stream.close().await?;
                return stream.read(&mut [0]).await.map(drop);
            }
            Err(_elapsed) => {
                frames::write(&mut stream, &[], MAX_MESSAGE).await?;
                None
            }
        };
        // Everything that waits goes out before the flush, so that small messages share packets.
        while let Some(bytes) = message {
            frames::write(&mut stream, &bytes, MAX_MESSAGE).await?;
            queue.written(bytes.len());
            message = queue.next_now();
        }
        stream.flush().await?;
    }
}

/// Reads the next frame. `Ok(None)` when the other side has closed the stream in good order.
pub(super) async fn read_next(stream: &mut Stream, budget: &Budget) -> io::Result<Option<Bytes>> {
    let len = match frames::read_length(stream, MAX_MESSAGE).await {
        Ok(len) => len,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let _arriving = budget.claim(len).await;
    let body = timeout(ARRIVAL, frames::read_body(stream, len)).await??;
    Ok(Some(body.into()))
}
