//! One question to a daemon's DNS server, as a stub resolver asks it: over UDP, and over TCP when
//! the answer fits no datagram (RFC 7766, 5).

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dunlin_state::model::{ServiceKey, Slot};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

/// The domain that service names are under, as daemons have it that are told nothing else.
const SUFFIX: &str = "dunlin.internal";

/// A server on this host that has not answered by then does not answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Largest datagram that is asked for, in bytes: what the server grants, and what IPv6 carries
/// unfragmented everywhere (DNS flag day 2020).
const MAX_DATAGRAM: u16 = 1232;

/// The number of a query. Each goes out of a socket of its own that is connected to the server, on
/// this host, so that nobody else's answer can arrive.
const ID: u16 = 0x4455;

/// What a name gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Resolved {
    /// What the name itself gives: the service's virtual address.
    pub(super) given: BTreeSet<IpAddr>,
    /// The addresses of its replicas.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// The target names, in lower case and with their final dot, and ports of the SRV records.
    pub(super) targets: BTreeSet<(String, u16)>,
}

/// Why a name was not resolved.
#[derive(Debug, Error)]
pub(crate) enum ResolveError {
    #[error("DNS server {server} cannot be asked: {source}")]
    Io {
        server: SocketAddr,
        source: io::Error,
    },
    #[error("DNS server {0} does not answer")]
    Silent(SocketAddr),
    #[error("DNS server {server} answers what is no answer: {reason}")]
    Garbage { server: SocketAddr, reason: String },
    #[error("DNS server {server} refuses to resolve {name}: {code}")]
    Refused {
        server: SocketAddr,
        name: String,
        code: ResponseCode,
    },
}

/// The name of a service, as programs ask for it.
pub(super) fn name_of(service: &ServiceKey) -> String {
    let (name, namespace) = (service.name(), service.namespace());
    format!("{name}.{namespace}.{SUFFIX}")
}

/// The name of one replica, as SRV records give it.
pub(super) fn name_of_slot(slot: Slot, service: &ServiceKey) -> String {
    format!("{slot}.{}.", name_of(service))
}

/// What `server` says of `name`: its addresses, those of its replicas, and its SRV records.
pub(super) async fn resolve(server: SocketAddr, name: &str) -> Result<Resolved, ResolveError> {
    let mut resolved = Resolved::default();
    let asking = async |name: &str, kind| {
        let answer = tokio::time::timeout(TIMEOUT, ask(server, name, kind)).await;
        answer.map_err(|_elapsed| ResolveError::Silent(server))?
    };
    take(&asking(name, RecordType::A).await?, &mut resolved);
    resolved.given = std::mem::take(&mut resolved.addresses);
    let replicas = format!("tasks.{name}");
    take(&asking(&replicas, RecordType::A).await?, &mut resolved);
    take(&asking(name, RecordType::SRV).await?, &mut resolved);
    Ok(resolved)
}

/// One question and its answer, with records of any kind. NXDOMAIN is an error.
pub(crate) async fn ask(
    server: SocketAddr,
    name: &str,
    kind: RecordType,
) -> Result<Message, ResolveError> {
    let garbage = |reason: String| ResolveError::Garbage { server, reason };
    let failed = |source| ResolveError::Io { server, source };
    let query = query(name, kind).map_err(garbage)?;
    let answer = over_udp(server, &query).await.map_err(failed)?;
    let mut answer = checked(&answer).map_err(garbage)?;
    if answer.metadata.truncation {
        let whole = over_tcp(server, &query).await.map_err(failed)?;
        answer = checked(&whole).map_err(garbage)?;
    }
    match answer.metadata.response_code {
        ResponseCode::NoError => Ok(answer),
        code => Err(ResolveError::Refused {
            server,
            name: name.to_owned(),
            code,
        }),
    }
}

fn query(name: &str, kind: RecordType) -> Result<Vec<u8>, String> {
    let mut name = Name::from_ascii(name).map_err(|e| e.to_string())?;
    name.set_fqdn(true);
    let mut message = Message::new(ID, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(name, kind));
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_DATAGRAM);
    message.set_edns(edns);
    message.to_vec().map_err(|e| e.to_string())
}

/// The answer in these bytes, if it is one to our query.
fn checked(bytes: &[u8]) -> Result<Message, String> {
    let message = Message::from_vec(bytes).map_err(|e| e.to_string())?;
    if message.metadata.id != ID || message.metadata.message_type != MessageType::Response {
        return Err("it answers another query".to_owned());
    }
    Ok(message)
}

fn take(answer: &Message, resolved: &mut Resolved) {
    for record in &answer.answers {
        if let RData::A(a) = &record.data {
            resolved.addresses.insert(a.0.into());
        } else if let RData::SRV(srv) = &record.data {
            let target = srv.target.to_lowercase().to_ascii();
            resolved.targets.insert((target, srv.port));
        }
    }
}

async fn over_udp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    // Bound to the server's own address, since that is of this host and of the right family.
    let socket = UdpSocket::bind((server.ip(), 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut answer = vec![0; MAX_DATAGRAM.into()];
    let length = socket.recv(&mut answer).await?;
    answer.truncate(length);
    Ok(answer)
}

async fn over_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).unwrap_or(u16::MAX);
    let framed = [&length.to_be_bytes(), query].concat();
    stream.write_all(&framed).await?;
    // Two bytes of length bound what is read.
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dunlin_dns::DnsServer;
    use dunlin_state::model::{Endpoint, NodeId, PortSpec, Protocol};
    use dunlin_state::route::{Backend, RouteTable, ServiceRoute};
    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn backend(slot: u32) -> Backend {
        let low = u8::try_from(slot % 250 + 1).unwrap();
        Backend {
            slot: Slot::Replica(slot),
            node: NodeId::from_bytes([low; 32]),
            epoch: 1,
            endpoints: vec![Endpoint {
                target: 80,
                protocol: Protocol::Tcp,
                address: ([127, 0, 9, low], u16::try_from(9_000 + slot).unwrap()).into(),
            }],
        }
    }

    async fn serving(replicas: u32) -> (SocketAddr, CancellationToken) {
        let server = DnsServer::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = server.addresses()[0];
        let mut table = RouteTable::default();
        let route = ServiceRoute {
            ports: vec![PortSpec {
                target: 80,
                ..PortSpec::default()
            }],
            backends: (0..replicas).map(backend).collect(),
            ..ServiceRoute::default()
        };
        table.services.insert("hello".parse().unwrap(), route);
        let stop = CancellationToken::new();
        let (routes, watched) = watch::channel(Arc::new(table));
        let (suffix, stopped) = (SUFFIX.parse().unwrap(), stop.clone());
        tokio::spawn(async move {
            let _routes = routes;
            server.serve(watched, suffix, stopped).await.unwrap();
        });
        (address, stop)
    }

    #[test]
    fn the_domain_is_the_one_that_daemons_use() {
        assert_eq!(dunlin_dns::Suffix::DEFAULT, SUFFIX);
        let service: ServiceKey = "hello".parse().unwrap();
        assert_eq!(name_of(&service), "hello.default.dunlin.internal");
    }

    #[tokio::test]
    async fn finds_few_replicas_and_many() {
        let service: ServiceKey = "hello".parse().unwrap();
        // So many SRV records fit no datagram.
        for replicas in [0, 3, 200] {
            let (server, stop) = serving(replicas).await;
            let found = loop {
                // The server may still be reading the table.
                match resolve(server, &name_of(&service)).await {
                    Ok(found) => break found,
                    Err(ResolveError::Refused { .. }) => tokio::task::yield_now().await,
                    Err(other) => panic!("{other}"),
                }
            };
            let targets: BTreeSet<(String, u16)> = (0..replicas)
                .map(|n| {
                    let name = name_of_slot(Slot::Replica(n), &service);
                    (name, u16::try_from(9_000 + n).unwrap())
                })
                .collect();
            assert_eq!(found.targets, targets);
            assert_eq!(found.given.len(), replicas.min(8) as usize);
            assert_eq!(found.addresses.len(), replicas as usize);
            let net = |a: &IpAddr| a.to_string().starts_with("127.0.9.");
            assert!(found.addresses.iter().all(net));
            stop.cancel();
        }
    }

    #[tokio::test]
    async fn says_what_is_wrong() {
        let (server, stop) = serving(1).await;
        let unknown = resolve(server, "other.default.dunlin.internal").await;
        let text = unknown.unwrap_err().to_string();
        assert!(text.contains("refuses to resolve other."), "{text}");
        stop.cancel();

        let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = closed.local_addr().unwrap();
        drop(closed);
        let text = resolve(address, "a.b").await.unwrap_err().to_string();
        assert!(text.contains("cannot be asked"), "{text}");

        let echo = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = echo.local_addr().unwrap();
        let echoing = tokio::spawn(async move {
            let mut packet = [0; 512];
            let (length, from) = echo.recv_from(&mut packet).await.unwrap();
            echo.send_to(&packet[..length], from).await.unwrap();
        });
        let text = resolve(address, "a.b").await.unwrap_err().to_string();
        assert!(text.contains("no answer"), "{text}");
        echoing.await.unwrap();
    }
}
