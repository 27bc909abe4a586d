//! Frames of commands on a stream.

use std::io;

use bytes::BytesMut;
use dunlin_api::{ExecFrame, FrameReader};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes read at a time.
const READ: usize = 16 * 1024;

/// Reads frames.
pub(crate) struct Frames<R> {
    from: R,
    reader: FrameReader,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(crate) fn new(from: R) -> Self {
        Self {
            from,
            reader: FrameReader::default(),
            buffer: BytesMut::with_capacity(READ),
        }
    }

    /// The next frame; `None` at the end. Nothing is lost when the wait is given up.
    pub(crate) async fn next(&mut self) -> io::Result<Option<ExecFrame>> {
        loop {
            if let Some(frame) = self.reader.take().map_err(io::Error::other)? {
                return Ok(Some(frame));
            }
            self.buffer.reserve(READ);
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
            self.reader.push(&self.buffer.split());
        }
    }
}

/// Writes a frame at once.
pub(crate) async fn write(to: &mut (impl AsyncWrite + Unpin), frame: &ExecFrame) -> io::Result<()> {
    to.write_all(&frame.encode()).await?;
    to.flush().await
}
