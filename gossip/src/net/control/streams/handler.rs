//! The part that lives with one connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use libp2p::StreamProtocol;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::swarm::handler::{
    ConnectionEvent, ConnectionHandler, DialUpgradeError, FullyNegotiatedInbound,
    FullyNegotiatedOutbound,
};
use libp2p::swarm::{ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol};

use super::super::RpcError;
use super::{PeerStream, Reply};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/dunlin/stream/1");

/// Streams on one connection, opened by either side: some people with a shell each. It leaves room
/// for requests and messages below the limit of all streams.
const MAX_OPEN: usize = 32;

/// A wish for a stream.
#[derive(Debug)]
pub(in crate::net::control) struct Open(pub(super) Reply);

/// See the module.
pub(in crate::net::control) struct Handler {
    to_open: VecDeque<Reply>,
    accepted: VecDeque<PeerStream>,
    open: Arc<()>,
    /// Wishes whose streams are being negotiated.
    opening: usize,
}

impl Handler {
    pub(super) fn new(open: Arc<()>) -> Self {
        Self {
            to_open: VecDeque::new(),
            accepted: VecDeque::new(),
            open,
            opening: 0,
        }
    }

    fn is_full(&self) -> bool {
        let open = Arc::strong_count(&self.open) - 1;
        open + self.opening + self.to_open.len() >= MAX_OPEN
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = PeerStream;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Reply;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
    }

    fn on_behaviour_event(&mut self, Open(reply): Open) {
        if self.is_full() {
            // Whoever asked may have stopped waiting.
            let _ = reply.send(Err(RpcError::Unavailable));
        } else {
            self.to_open.push_back(reply);
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Reply>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: stream,
                ..
            }) => {
                if self.is_full() {
                    tracing::debug!("a peer opens too many streams; one is reset");
                } else {
                    let stream = PeerStream::new(stream, &self.open);
                    self.accepted.push_back(stream);
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info: reply,
            }) => {
                self.opening -= 1;
                let _ = reply.send(Ok(PeerStream::new(stream, &self.open)));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, info: reply }) => {
                self.opening -= 1;
                let error = match error {
                    StreamUpgradeError::Timeout => RpcError::TimedOut,
                    StreamUpgradeError::Apply(never) => match never {},
                    StreamUpgradeError::NegotiationFailed => {
                        RpcError::Refused(format!("it does not speak {PROTOCOL}"))
                    }
                    StreamUpgradeError::Io(error) => {
                        tracing::debug!(%error, "a stream was not opened");
                        RpcError::Disconnected
                    }
                };
                let _ = reply.send(Err(error));
            }
            _ => {}
        }
    }

    fn poll(
        &mut self,
        _cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Reply, PeerStream>> {
        // Woken by the connection, which polls its handlers after every event.
        if let Some(stream) = self.accepted.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(stream));
        }
        if let Some(reply) = self.to_open.pop_front() {
            self.opening += 1;
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), reply),
            });
        }
        Poll::Pending
    }
}
