//! The other side: streams of peers, carried to this node's own replicas.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dunlin_state::model::{NodeId, Protocol, ProxyProtocol};
use dunlin_state::route::RouteTable;
use quinn::{ReadExactError, RecvStream, SendStream};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::link::Link;
use super::session::far;
use super::wire::{Answer, MAX_REQUEST, Request};
use super::{CLOSED, is_stream};
use crate::proxy::counters::{Counters, Open, add};
use crate::proxy::header::header;
use crate::proxy::relay::{Carried, End, Wire, relay};
use crate::proxy::{DEFAULT_CONNECT, DEFAULT_IDLE, udp};

/// How long a peer may take to say what a stream is for: it is said in the first packet.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// How long an unused connection stays that is not to be used any more: what the peer has just
/// opened on it arrives within.
const RETIREMENT: Duration = Duration::from_secs(5);

/// Takes the streams of peers.
#[derive(Clone)]
pub(super) struct Server {
    node: NodeId,
    routes: watch::Receiver<Arc<RouteTable>>,
    places: Arc<Semaphore>,
    counters: Arc<Counters>,
}

/// Where a request leads.
struct Local {
    address: SocketAddr,
    proxy_protocol: Option<ProxyProtocol>,
    connect: Duration,
    idle: Duration,
}

impl Server {
    pub(super) fn new(
        node: NodeId,
        routes: watch::Receiver<Arc<RouteTable>>,
        places: Arc<Semaphore>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            node,
            routes,
            places,
            counters,
        }
    }

    /// Looks after one connection until it ends, or until its streams have after `stop`.
    pub(super) async fn serve(self, link: Arc<Link>, stop: CancellationToken, drain: Duration) {
        let mut streams = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                stream = link.connection.accept_bi() => match stream {
                    Ok((send, recv)) => {
                        let (server, link) = (self.clone(), Arc::clone(&link));
                        streams.spawn(server.stream(link, send, recv));
                    }
                    Err(error) => {
                        debug!(node = %link.node.short(), %error, "a connection with a node ended");
                        break;
                    }
                },
                datagram = link.connection.read_datagram() => match datagram {
                    Ok(datagram) => link.dispatch(datagram),
                    Err(_reported_by_the_streams) => break,
                },
                Some(ended) = streams.join_next() => {
                    if let Err(error) = ended {
                        warn!(%error, "the task of a stream failed");
                    }
                }
                () = retirement(&link), if streams.is_empty() => {
                    // Streams of this side are on it too; they keep it open.
                    if Arc::strong_count(&link) == 1 {
                        link.connection.close(CLOSED, b"superseded");
                        return;
                    }
                }
            }
        }
        let all = async { while streams.join_next().await.is_some() {} };
        if timeout(drain, all).await.is_err() {
            streams.shutdown().await;
        }
    }

    async fn stream(self, link: Arc<Link>, mut send: SendStream, mut recv: RecvStream) {
        let request = match timeout(REQUEST_TIME, read_request(&mut recv)).await {
            Ok(Ok(request)) => request,
            Ok(Err(reason)) => {
                debug!(node = %link.node.short(), reason, "a stream of a node is not understood");
                return;
            }
            Err(_too_slow) => return,
        };
        let counters = &self.counters;
        add(&counters.connections, 1);
        let _open = Open::count(&counters.active);
        let Ok(_place) = Arc::clone(&self.places).try_acquire_owned() else {
            add(&counters.overflowed, 1);
            return refuse(send, Answer::Busy).await;
        };
        let Some(local) = self.local(&request) else {
            add(&counters.unserved, 1);
            return refuse(send, Answer::Gone).await;
        };
        if !is_stream(request.protocol) {
            return session(link, send, recv, &local).await;
        }
        let taking = timeout(local.connect, take(&request, &local));
        let begun = Instant::now();
        let Ok(Ok(replica)) = taking.await else {
            add(&counters.unserved, 1);
            return refuse(send, Answer::Refused).await;
        };
        counters.connect_took(begun.elapsed());
        if send.write_all(&[Answer::Ready.byte()]).await.is_err() {
            return;
        }
        let (mut client, mut server) = (Wire::Hop(send, recv), Wire::Tcp(replica));
        let (carried, never) = (Carried::default(), CancellationToken::new());
        // The other side counts, knows the service's times and ends what has to end.
        let idle = local.idle.saturating_mul(2);
        let end = relay(&mut client, &mut server, &carried, counters, idle, &never).await;
        match end {
            End::Broken(_told_by_the_other_side) => add(&counters.broken, 1),
            End::Idle => add(&counters.idle, 1),
            End::Done | End::Cut => {}
        }
    }

    /// The replica of this node that a request means, if it is ready.
    fn local(&self, request: &Request) -> Option<Local> {
        let table = self.routes.borrow();
        let route = table.services.get(&request.service)?;
        let mut backends = route.backends.iter();
        let backend = backends
            .find(|b| b.node == self.node && b.slot == request.slot && b.epoch == request.epoch)?;
        let mut ends = backend.endpoints.iter();
        let end = ends.find(|e| e.target == request.target && e.protocol == request.protocol)?;
        let traffic = &route.traffic;
        let millis = |time: Option<u64>, default| time.map_or(default, Duration::from_millis);
        let idle = match request.protocol {
            Protocol::Tcp => DEFAULT_IDLE,
            Protocol::Udp => udp::IDLE,
        };
        Some(Local {
            address: end.address,
            proxy_protocol: traffic.proxy_protocol,
            connect: millis(traffic.connect_timeout_ms, DEFAULT_CONNECT),
            idle: millis(traffic.idle_timeout_ms, idle),
        })
    }
}

async fn retirement(link: &Link) {
    link.retired().await;
    sleep(RETIREMENT).await;
}

async fn take(request: &Request, local: &Local) -> io::Result<TcpStream> {
    let mut replica = TcpStream::connect(local.address).await?;
    replica.set_nodelay(true)?;
    if let Some(version) = local.proxy_protocol {
        let header = header(version, request.client, request.server);
        replica.write_all(&header).await?;
    }
    Ok(replica)
}

async fn read_request(recv: &mut RecvStream) -> Result<Request, String> {
    let text = |error: ReadExactError| error.to_string();
    let mut length = [0; 2];
    recv.read_exact(&mut length).await.map_err(text)?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > MAX_REQUEST {
        return Err(format!("a request of {length} bytes"));
    }
    let mut bytes = vec![0; length];
    recv.read_exact(&mut bytes).await.map_err(text)?;
    Request::decode(&bytes).map_err(|error| error.to_string())
}

/// Carries a UDP session.
async fn session(link: Arc<Link>, send: SendStream, recv: RecvStream, local: &Local) {
    let Ok(socket) = udp::socket_to(local.address).await else {
        return refuse(send, Answer::Refused).await;
    };
    let (mut sink, inbox, stream) = far(link, send, recv);
    if sink.answer(Answer::Ready.byte()).await.is_ok() {
        udp::serve_far(sink, inbox, stream, socket, local.idle.saturating_mul(2)).await;
    }
}

async fn refuse(mut send: SendStream, answer: Answer) {
    // Whoever asked may have gone.
    if send.write_all(&[answer.byte()]).await.is_ok() {
        let _gone = send.finish();
    }
}
