//! The part that lives with one connection: two streams out, at most a few in.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, FuturesUnordered, SelectAll, StreamExt};
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::swarm::handler::{
    ConnectionEvent, ConnectionHandler, DialUpgradeError, FullyNegotiatedInbound,
    FullyNegotiatedOutbound,
};
use libp2p::swarm::{ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol};
use libp2p::{Stream, StreamProtocol};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::wire::{self, BREATH, Budget};
use super::{Lane, queue};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/dunlin/control/1");

/// Streams that the other side may open: its two, and two more while an old one is being forgotten.
const MAX_INBOUND: usize = 4;

/// Silence after which a TCP connection counts as dead: three breaths, so that one late one is no
/// verdict.
const SILENCE: Duration = Duration::from_secs(9);

type Open = ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, Lane, FromHandler>;

/// What a connection tells the behaviour.
#[derive(Debug)]
pub(in crate::net::control) enum FromHandler {
    /// A message has arrived.
    Message(Bytes),
    /// Everything that was ever queued has been read by the other side.
    Finished,
    /// The connection is of no use any more.
    Broken(io::Error),
}

/// See the module.
pub(in crate::net::control) struct Handler {
    /// Streams still to be opened.
    to_open: VecDeque<Lane>,
    small: Option<queue::Receiver>,
    large: Option<queue::Receiver>,
    writers: FuturesUnordered<BoxFuture<'static, io::Result<()>>>,
    readers: SelectAll<BoxStream<'static, io::Result<Bytes>>>,
    budget: Budget,
    pulse: Option<Pulse>,
    failure: Option<io::Error>,
    finished: bool,
    given_up: bool,
}

/// Notices a dead TCP connection.
struct Pulse {
    check: Interval,
    last_heard: Instant,
}

impl Pulse {
    fn new() -> Self {
        let mut check = tokio::time::interval(BREATH);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            check,
            last_heard: Instant::now(),
        }
    }

    fn is_dead(&mut self, cx: &mut Context<'_>) -> bool {
        while self.check.poll_tick(cx).is_ready() {
            if self.last_heard.elapsed() > SILENCE {
                return true;
            }
        }
        false
    }
}

impl Handler {
    pub(super) fn new(queues: [queue::Receiver; 2], tcp: bool, budget: Budget) -> Self {
        let [small, large] = queues;
        Self {
            to_open: VecDeque::from([Lane::Small, Lane::Large]),
            small: Some(small),
            large: Some(large),
            writers: FuturesUnordered::new(),
            readers: SelectAll::new(),
            budget,
            pulse: tcp.then(Pulse::new),
            failure: None,
            finished: false,
            given_up: false,
        }
    }

    fn opened(&mut self, lane: Lane, stream: Stream) {
        let queue = match lane {
            Lane::Small => self.small.take(),
            Lane::Large => self.large.take(),
        };
        let breathe = self.pulse.is_some() && lane == Lane::Small;
        if let Some(queue) = queue {
            let writer = wire::write_all(stream, queue, breathe);
            self.writers.push(Box::pin(writer));
        }
    }

    fn accepted(&mut self, stream: Stream) {
        if self.readers.len() >= MAX_INBOUND {
            tracing::debug!("a peer opens too many message streams; one is reset");
            return;
        }
        let budget = self.budget.clone();
        let reader = stream::unfold(Some((stream, budget)), async |state| {
            let (mut stream, budget) = state?;
            match wire::read_next(&mut stream, &budget).await {
                Ok(Some(bytes)) => Some((Ok(bytes), Some((stream, budget)))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        self.readers.push(Box::pin(reader));
    }

    fn poll_streams(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<FromHandler>> {
        if let Some(error) = self.failure.take() {
            return Poll::Ready(Err(error));
        }
        while let Poll::Ready(Some(written)) = self.writers.poll_next_unpin(cx) {
            written?;
        }
        let all_opened = self.small.is_none() && self.large.is_none();
        if all_opened && self.writers.is_empty() && !self.finished {
            self.finished = true;
            return Poll::Ready(Ok(FromHandler::Finished));
        }
        while let Poll::Ready(Some(read)) = self.readers.poll_next_unpin(cx) {
            let bytes = read?;
            if let Some(pulse) = &mut self.pulse {
                pulse.last_heard = Instant::now();
            }
            if !bytes.is_empty() {
                return Poll::Ready(Ok(FromHandler::Message(bytes)));
            }
        }
        if self.pulse.as_mut().is_some_and(|pulse| pulse.is_dead(cx)) {
            let text = format!("nothing was heard for {SILENCE:?}");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)));
        }
        Poll::Pending
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = std::convert::Infallible;
    type ToBehaviour = FromHandler;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Lane;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
    }

    /// Always: the swarm's owner decides which connections are idle, since only it knows which
    /// ones are wanted.
    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        match event {}
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Lane>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: stream,
                ..
            }) => self.accepted(stream),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info: lane,
            }) => self.opened(lane, stream),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => {
                self.failure = Some(match error {
                    StreamUpgradeError::Timeout => io::ErrorKind::TimedOut.into(),
                    StreamUpgradeError::Apply(never) => match never {},
                    StreamUpgradeError::NegotiationFailed => {
                        io::Error::other("the peer does not speak /dunlin/control/1")
                    }
                    StreamUpgradeError::Io(error) => error,
                });
            }
            _ => {}
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Open> {
        if let Some(lane) = self.to_open.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), lane),
            });
        }
        if self.given_up {
            return Poll::Pending;
        }
        self.poll_streams(cx).map(|news| {
            let event = news.unwrap_or_else(FromHandler::Broken);
            self.given_up = matches!(event, FromHandler::Broken(_));
            ConnectionHandlerEvent::NotifyBehaviour(event)
        })
    }
}
