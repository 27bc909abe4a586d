//! Requests from node to node, `/dunlin/rpc/1`, and the question whether one lives,
//! `/dunlin/probe/1`.
//!
//! They are separate protocols with separate limits, so that a node busy with requests still
//! answers whether it lives.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::{AsyncRead, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response::{self, Codec, ProtocolSupport};

use super::frames;

/// Bytes of the largest request.
pub const MAX_REQUEST: usize = 64 * 1024;

/// Bytes of the largest answer.
pub const MAX_RESPONSE: usize = 1024 * 1024;

/// The longest that a request may take; deadlines over it are cut to it.
pub const MAX_RPC_TIME: Duration = Duration::from_secs(30);

/// The longest that a probe takes.
pub const PROBE_TIME: Duration = Duration::from_secs(1);

/// Requests in flight on one connection, in both directions together.
const RPC_STREAMS: usize = 64;

/// Probes in flight on one connection, in both directions together.
const PROBE_STREAMS: usize = 16;

const RPC: StreamProtocol = StreamProtocol::new("/dunlin/rpc/1");
const PROBE: StreamProtocol = StreamProtocol::new("/dunlin/probe/1");

pub(super) type RpcBehaviour = request_response::Behaviour<Opaque>;

/// Opaque bytes under length caps.
#[derive(Debug, Clone)]
pub(super) struct Opaque {
    max_request: usize,
    max_response: usize,
}

pub(super) fn rpc_behaviour() -> RpcBehaviour {
    let codec = Opaque {
        max_request: MAX_REQUEST,
        max_response: MAX_RESPONSE,
    };
    let config = request_response::Config::default()
        .with_request_timeout(MAX_RPC_TIME)
        .with_max_concurrent_streams(RPC_STREAMS);
    RpcBehaviour::with_codec(codec, [(RPC, ProtocolSupport::Full)], config)
}

pub(super) fn probe_behaviour() -> RpcBehaviour {
    let codec = Opaque {
        max_request: 0,
        max_response: 0,
    };
    let config = request_response::Config::default()
        .with_request_timeout(PROBE_TIME)
        .with_max_concurrent_streams(PROBE_STREAMS);
    RpcBehaviour::with_codec(codec, [(PROBE, ProtocolSupport::Full)], config)
}

impl Codec for Opaque {
    type Protocol = StreamProtocol;
    type Request = Bytes;
    type Response = Bytes;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Bytes>
    where
        T: AsyncRead + Unpin + Send,
    {
        frames::read(io, self.max_request).await.map(Bytes::from)
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Bytes>
    where
        T: AsyncRead + Unpin + Send,
    {
        frames::read(io, self.max_response).await.map(Bytes::from)
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        request: Bytes,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        frames::write(io, &request, self.max_request).await?;
        io.flush().await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        response: Bytes,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        frames::write(io, &response, self.max_response).await?;
        io.flush().await
    }
}
