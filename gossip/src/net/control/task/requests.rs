//! What expects an answer: this node's requests and probes, and other nodes' to it.

use std::collections::HashMap;
use std::net::SocketAddr;

use bytes::Bytes;
use dunlin_state::model::NodeId;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use libp2p::PeerId;
use libp2p::request_response::{
    Event as RpcEvent, Message as RpcMessage, OutboundFailure, OutboundRequestId, ResponseChannel,
};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::super::peers::Waiting;
use super::super::rpc::{MAX_RESPONSE, MAX_RPC_TIME};
use super::super::{ControlEvent, RpcError, identity, streams};
use super::ControlTask;

/// Requests of other nodes that wait for this node's answer.
const MAX_UNANSWERED: usize = 256;

/// Requests of this node that wait for an answer, over all peers.
const MAX_ASKED: usize = 1_024;

/// Something that expects an answer.
#[derive(Debug)]
pub(in crate::net::control) enum Request {
    Rpc {
        bytes: Bytes,
        reply: oneshot::Sender<Result<Bytes, RpcError>>,
    },
    Probe {
        address: SocketAddr,
        reply: oneshot::Sender<bool>,
        /// Whether this one may start over on a new connection: a peer that has restarted resets
        /// the old one, and lives.
        retry: bool,
    },
    Stream(streams::Reply),
}

impl Request {
    pub(in crate::net::control) fn len(&self) -> usize {
        match self {
            Self::Rpc { bytes, .. } => bytes.len(),
            Self::Probe { .. } | Self::Stream(_) => 0,
        }
    }

    pub(super) fn fail(self, error: RpcError) {
        // Whoever asked may have stopped waiting.
        match self {
            Self::Rpc { reply, .. } => drop(reply.send(Err(error))),
            Self::Probe { reply, .. } => drop(reply.send(false)),
            Self::Stream(reply) => drop(reply.send(Err(error))),
        }
    }
}

/// This node's answer to a request, once it has one.
pub(super) type Answer = (ResponseChannel<Bytes>, Option<Bytes>);

/// Everything that is under way.
#[derive(Default)]
pub(super) struct Requests {
    rpcs: HashMap<OutboundRequestId, oneshot::Sender<Result<Bytes, RpcError>>>,
    probes: HashMap<OutboundRequestId, Request>,
    pub(super) answers: FuturesUnordered<BoxFuture<'static, Answer>>,
}

impl ControlTask {
    /// Asks a connected node.
    pub(super) fn ask(&mut self, node: NodeId, request: Request) {
        let asked = self.requests.rpcs.len() + self.requests.probes.len();
        if asked >= MAX_ASKED {
            request.fail(RpcError::Unavailable);
            return;
        }
        let peer = identity::peer_id(&node);
        let behaviour = self.swarm.behaviour_mut();
        match request {
            Request::Rpc { bytes, reply } => {
                let id = behaviour.rpc.send_request(&peer, bytes);
                self.requests.rpcs.insert(id, reply);
            }
            probe @ Request::Probe { .. } => {
                let id = behaviour.probe.send_request(&peer, Bytes::new());
                self.requests.probes.insert(id, probe);
            }
            Request::Stream(reply) => behaviour.streams.open(&node, reply),
        }
    }

    pub(super) fn on_rpc_event(&mut self, event: RpcEvent<Bytes, Bytes>) {
        match event {
            RpcEvent::Message {
                peer,
                message:
                    RpcMessage::Request {
                        request, channel, ..
                    },
                ..
            } => self.on_request(&peer, request, channel),
            RpcEvent::Message {
                message:
                    RpcMessage::Response {
                        request_id,
                        response,
                    },
                ..
            } => self.finish_rpc(request_id, Ok(response)),
            RpcEvent::OutboundFailure {
                request_id, error, ..
            } => self.finish_rpc(request_id, Err(rpc_error(error))),
            RpcEvent::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a request was not answered");
            }
            RpcEvent::ResponseSent { .. } => {}
        }
    }

    fn finish_rpc(&mut self, id: OutboundRequestId, answer: Result<Bytes, RpcError>) {
        if let Some(reply) = self.requests.rpcs.remove(&id) {
            // Whoever asked may have stopped waiting.
            let _ = reply.send(answer);
        }
    }

    fn on_request(&mut self, peer: &PeerId, bytes: Bytes, channel: ResponseChannel<Bytes>) {
        let Some(from) = identity::node_id(peer) else {
            return;
        };
        self.peers.used(&from, Instant::now());
        if self.requests.answers.len() >= MAX_UNANSWERED {
            // Dropping the channel tells the peer.
            self.counters.requests_refused.add_one();
            return;
        }
        let (reply, answer) = oneshot::channel();
        self.outbox
            .push_back(ControlEvent::RpcRequest { from, bytes, reply });
        self.requests.answers.push(Box::pin(async move {
            let answer = timeout(MAX_RPC_TIME, answer).await;
            (channel, answer.ok().and_then(Result::ok))
        }));
    }

    pub(super) fn on_answer(&mut self, (channel, answer): Answer) {
        match answer {
            Some(bytes) if bytes.len() <= MAX_RESPONSE => {
                // Fails when the asker has gone.
                let _ = self.swarm.behaviour_mut().rpc.send_response(channel, bytes);
            }
            Some(bytes) => {
                let len = bytes.len();
                tracing::warn!(len, max = MAX_RESPONSE, "an answer is too large to be sent");
            }
            None => {}
        }
    }

    pub(super) fn on_probe_event(&mut self, event: RpcEvent<Bytes, Bytes>) {
        match event {
            RpcEvent::Message {
                message: RpcMessage::Request { channel, .. },
                ..
            } => {
                // Fails when the asker has gone.
                let probe = &mut self.swarm.behaviour_mut().probe;
                let _ = probe.send_response(channel, Bytes::new());
            }
            RpcEvent::Message {
                peer,
                message: RpcMessage::Response { request_id, .. },
                ..
            } => self.finish_probe(&peer, request_id, true),
            RpcEvent::OutboundFailure {
                peer, request_id, ..
            } => self.finish_probe(&peer, request_id, false),
            RpcEvent::InboundFailure { .. } | RpcEvent::ResponseSent { .. } => {}
        }
    }

    fn finish_probe(&mut self, peer: &PeerId, id: OutboundRequestId, alive: bool) {
        let Some(Request::Probe {
            address,
            reply,
            retry,
        }) = self.requests.probes.remove(&id)
        else {
            return;
        };
        let Some(node) = identity::node_id(peer) else {
            return;
        };
        if alive || !retry || reply.is_closed() {
            // Whoever asked may have stopped waiting.
            let _ = reply.send(alive);
            return;
        }
        let again = Request::Probe {
            address,
            reply,
            retry: false,
        };
        self.submit(node, address, Waiting::Request(again));
    }
}

fn rpc_error(failure: OutboundFailure) -> RpcError {
    match failure {
        OutboundFailure::DialFailure => {
            RpcError::Unreachable("the connection has just gone".into())
        }
        OutboundFailure::Timeout => RpcError::TimedOut,
        OutboundFailure::ConnectionClosed => RpcError::Disconnected,
        OutboundFailure::UnsupportedProtocols => {
            RpcError::Refused("it does not speak /dunlin/rpc/1".to_owned())
        }
        OutboundFailure::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            RpcError::Refused("it is overloaded or does not know this kind of request".to_owned())
        }
        OutboundFailure::Io(error) => RpcError::Refused(error.to_string()),
    }
}
