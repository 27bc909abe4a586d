//! The two ends of a UDP session between nodes.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use quinn::{ReadExactError, RecvStream, SendStream, VarInt};

use super::link::{Inbox, Link};

/// Sends the datagrams of a session.
pub(crate) struct FarSink {
    link: Arc<Link>,
    session: u64,
    stream: SendStream,
}

/// Receives those that were too large for a packet.
pub(crate) struct FarStream(RecvStream);

/// A session over this stream: where its datagrams go in, and the two places where they come out.
pub(crate) fn far(
    link: Arc<Link>,
    send: SendStream,
    recv: RecvStream,
) -> (FarSink, Inbox, FarStream) {
    let session = VarInt::from(send.id()).into_inner();
    let inbox = link.listen(session);
    let sink = FarSink {
        link,
        session,
        stream: send,
    };
    (sink, inbox, FarStream(recv))
}

impl FarSink {
    /// Sends one. It may be lost, as any datagram.
    pub(crate) async fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        if self.link.send(self.session, payload) {
            return Ok(());
        }
        let Ok(length) = u16::try_from(payload.len()) else {
            return Ok(());
        };
        self.stream.write_all(&length.to_be_bytes()).await?;
        self.stream.write_all(payload).await?;
        Ok(())
    }

    /// Writes the answer to the request of the session.
    pub(super) async fn answer(&mut self, answer: u8) -> io::Result<()> {
        Ok(self.stream.write_all(&[answer]).await?)
    }
}

impl FarStream {
    /// The next one; `None` when the session has ended.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut length = [0; 2];
        match self.0.read_exact(&mut length).await {
            Ok(()) => {}
            Err(ReadExactError::FinishedEarly(_)) => return Ok(None),
            Err(ReadExactError::ReadError(error)) => return Err(error.into()),
        }
        let mut payload = vec![0; usize::from(u16::from_be_bytes(length))];
        self.0
            .read_exact(&mut payload)
            .await
            .map_err(io::Error::other)?;
        Ok(Some(Bytes::from(payload)))
    }
}
