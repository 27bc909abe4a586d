//! Length-prefixed frames on a stream: four bytes of length, big-endian, then as many bytes.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes allocated on the word of the other side; more only as its bytes arrive.
const TRUSTED: usize = 64 * 1024;

/// Reads a frame's length; refuses one over `max`.
pub(crate) async fn read_length<R>(reader: &mut R, max: usize) -> io::Result<usize>
where
    R: AsyncRead + Unpin,
{
    let mut prefix = [0; 4];
    reader.read_exact(&mut prefix).await?;
    let len = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    if len > max {
        let text = format!("a frame of {len} bytes is over the limit of {max}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(len)
}

/// Reads a frame's bytes after its length.
pub(crate) async fn read_body<R>(reader: &mut R, len: usize) -> io::Result<Vec<u8>>
where
    R: AsyncRead + Unpin,
{
    let mut body = Vec::with_capacity(len.min(TRUSTED));
    let limit = u64::try_from(len).unwrap_or(u64::MAX);
    reader.take(limit).read_to_end(&mut body).await?;
    if body.len() < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(body)
}

/// Reads a whole frame of at most `max` bytes.
pub(crate) async fn read<R>(reader: &mut R, max: usize) -> io::Result<Vec<u8>>
where
    R: AsyncRead + Unpin,
{
    let len = read_length(reader, max).await?;
    read_body(reader, len).await
}

/// Writes a frame, and does not flush. One over `max` bytes is refused and nothing is written.
pub(crate) async fn write<W>(writer: &mut W, body: &[u8], max: usize) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    let too_long = || {
        let text = format!("a frame of {} bytes is over the limit of {max}", body.len());
        io::Error::new(io::ErrorKind::InvalidInput, text)
    };
    if body.len() > max {
        return Err(too_long());
    }
    let len = u32::try_from(body.len()).map_err(|_overflow| too_long())?;
    writer.write_all(&len.to_be_bytes()).await?;
    writer.write_all(body).await
}

/// Reads the frames, of at most `max` bytes each, that a stream with these bytes would bring, and
/// writes them again. For tests with hostile input.
pub fn reread(bytes: &[u8], max: usize) -> Vec<u8> {
    let mut stream = futures::io::Cursor::new(bytes);
    let mut again = Vec::new();
    // Neither ever waits: all bytes are there.
    futures::executor::block_on(async {
        while let Ok(frame) = read(&mut stream, max).await {
            if write(&mut again, &frame, max).await.is_err() {
                break;
            }
        }
    });
    again
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use futures::io::Cursor;
    use proptest::prelude::*;

    #[test]
    fn a_frame_over_the_limit_is_refused_on_both_sides() {
        let mut written = Vec::new();
        assert!(block_on(write(&mut written, &[0; 11], 10)).is_err());
        assert!(written.is_empty());
        let claimed = 11u32.to_be_bytes();
        let refused = block_on(read(&mut Cursor::new(claimed), 10)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_claimed_length_without_bytes_is_the_end_and_no_panic() {
        let claimed = u32::MAX.to_be_bytes();
        let ended = block_on(read(&mut Cursor::new(claimed), usize::MAX)).unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::UnexpectedEof);
    }

    proptest! {
        #[test]
        fn frames_arrive_as_sent_and_in_order(frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..10)) {
            let mut wire = Vec::new();
            for frame in &frames {
                block_on(write(&mut wire, frame, 100)).unwrap();
            }
            let mut wire = Cursor::new(wire);
            for frame in &frames {
                prop_assert_eq!(&block_on(read(&mut wire, 100)).unwrap(), frame);
            }
        }

        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = block_on(read(&mut Cursor::new(noise), 1_000));
        }
    }
}
