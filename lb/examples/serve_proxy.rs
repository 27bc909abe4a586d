//! The proxy by itself, on one thread for each node, to be measured by `scripts/bench-proxy`:
//!
//! ```text
//! serve_proxy local LISTEN BACKEND…   a node with these replicas
//! serve_proxy hop LISTEN BACKEND      a node without, and another one with this replica
//! serve_proxy quinn SECONDS           bytes through a bare QUIC connection between two threads
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use dunlin_lb::Proxy;
use dunlin_lb::proxy::hop::{Hop, HopConfig, HopTask, PORT_OFFSET};
use dunlin_lb::publish::room;
use dunlin_state::model::{Endpoint, NodeId, PortSpec, Protocol, ServiceKey, Slot};
use dunlin_state::route::{Backend, NodeRoute, RouteTable, ServiceRoute};
use quinn::rustls::RootCertStore;
use quinn::rustls::pki_types::PrivatePkcs8KeyDer;
use rustix::net::sockopt::{
    set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, set_socket_send_buffer_size,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn Error + Send + Sync>;

/// Pairs of ed25519 seed and public key, from RFC 8032 (7.1, tests 1 and 2).
const KEYS: [(&str, &str); 2] = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
    ),
];

/// The port as the specification calls it.
const TARGET: u16 = 80;

const USAGE: &str = "usage: serve_proxy local LISTEN BACKEND… | hop LISTEN BACKEND | quinn SECONDS";

fn main() -> Result<(), Failure> {
    let most = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: most,
        maximum: most,
    };
    setrlimit(Resource::Nofile, raised)?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["local", listen, backends @ ..] if !backends.is_empty() => local(listen, backends),
        ["hop", listen, backend] => hop(listen, backend),
        ["quinn", seconds] => bare_quinn(Duration::from_secs(seconds.parse()?)),
        _ => Err(USAGE.into()),
    }
}

fn on_one_thread<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work)
}

fn service() -> Result<ServiceKey, Failure> {
    Ok("web".parse()?)
}

fn node(n: usize) -> Result<(NodeId, [u8; 32]), Failure> {
    let bytes = |hex: &str| -> Result<[u8; 32], Failure> {
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[i * 2..i * 2 + 2], 16)?;
        }
        Ok(bytes)
    };
    let (seed, public) = KEYS[n];
    Ok((NodeId::from_bytes(bytes(public)?), bytes(seed)?))
}

/// Replicas of the second node.
fn table(backends: &[&str]) -> Result<RouteTable, Failure> {
    let (node, _) = node(1)?;
    let mut all = Vec::new();
    for (slot, address) in (0..).zip(backends) {
        all.push(Backend {
            slot: Slot::Replica(slot),
            node,
            epoch: 1,
            endpoints: vec![Endpoint {
                target: TARGET,
                protocol: Protocol::Tcp,
                address: address.parse()?,
            }],
        });
    }
    let route = ServiceRoute {
        ports: vec![PortSpec {
            target: TARGET,
            ..PortSpec::default()
        }],
        backends: all,
        ..ServiceRoute::default()
    };
    Ok(RouteTable {
        services: BTreeMap::from([(service()?, route)]),
        ..RouteTable::default()
    })
}

fn local(listen: &str, backends: &[&str]) -> Result<(), Failure> {
    let table = table(backends)?;
    on_one_thread(async {
        let listener = TcpListener::bind(listen).await?;
        let (_keep, routes) = watch::channel(Arc::new(table));
        let proxy = Proxy::new(service()?, TARGET);
        println!("carrying to {backends:?}");
        proxy.run(listener, routes, CancellationToken::new()).await;
        Ok(())
    })
}

fn hop(listen: &str, backend: &str) -> Result<(), Failure> {
    let sockets = [
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?,
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?,
    ];
    let mut table = table(&[backend])?;
    for (n, socket) in sockets.iter().enumerate() {
        let mut address = socket.local_addr()?;
        address.set_port(address.port() - PORT_OFFSET);
        let route = NodeRoute {
            address: Some(address),
            ..NodeRoute::default()
        };
        table.nodes.insert(node(n)?.0, route);
    }
    let table = Arc::new(table);
    let [near, far] = sockets;
    let other = Arc::clone(&table);
    let far = thread::spawn(move || {
        on_one_thread(async {
            let (_keep, routes) = watch::channel(other);
            let (_hop, task) = open(1, far, routes)?;
            task.run(CancellationToken::new(), Duration::ZERO).await;
            Ok(())
        })
    });
    on_one_thread(async {
        let (_keep, routes) = watch::channel(table);
        let (hop, task) = open(0, near, routes.clone())?;
        let listener = TcpListener::bind(listen).await?;
        let proxy = Proxy::new(service()?, TARGET).hop(node(0)?.0, hop);
        println!("carrying to {backend} by way of another node");
        let stop = CancellationToken::new();
        tokio::join!(
            task.run(stop.clone(), Duration::ZERO),
            proxy.run(listener, routes, stop)
        );
        Ok(())
    })?;
    far.join().map_err(|_panicked| "the other node failed")?
}

fn open(
    n: usize,
    socket: UdpSocket,
    routes: watch::Receiver<Arc<RouteTable>>,
) -> Result<(Arc<Hop>, HopTask), Failure> {
    let (node, seed) = node(n)?;
    let config = HopConfig { node, seed, socket };
    Ok(Hop::new(config, routes, room())?)
}

/// What quinn does with the settings of the hop that matter for bulk, and nothing around it.
fn bare_quinn(time: Duration) -> Result<(), Failure> {
    let made = rcgen::generate_simple_self_signed(vec!["node".to_owned()])?;
    let certificate = made.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(made.key_pair.serialize_der());
    let mut config = quinn::ServerConfig::with_single_cert(vec![certificate.clone()], key.into())?;
    config.transport_config(Arc::new(transport()));
    let socket = buffered()?;
    let address = socket.local_addr()?;
    let runtime = || Arc::new(quinn::TokioRuntime);
    let sender = thread::spawn(move || {
        on_one_thread(async {
            let settings = quinn::EndpointConfig::default();
            let endpoint = quinn::Endpoint::new(settings, Some(config), socket, runtime())?;
            let incoming = endpoint.accept().await.ok_or("closed")?;
            let (mut send, _) = incoming.await?.accept_bi().await?;
            let chunk = bytes::Bytes::from(vec![0; 64 * 1024]);
            while send.write_chunk(chunk.clone()).await.is_ok() {}
            Ok(())
        })
    });
    let received = on_one_thread(receive(address, certificate, time))?;
    let mib = received as f64 / f64::from(1 << 20) / time.as_secs_f64();
    println!("{mib:.0} MiB/s");
    sender.join().map_err(|_panicked| "the sender failed")?
}

async fn receive(
    address: SocketAddr,
    certificate: quinn::rustls::pki_types::CertificateDer<'static>,
    time: Duration,
) -> Result<u64, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate)?;
    let mut config = quinn::ClientConfig::with_root_certificates(Arc::new(roots))?;
    config.transport_config(Arc::new(transport()));
    let settings = quinn::EndpointConfig::default();
    let runtime = Arc::new(quinn::TokioRuntime);
    let endpoint = quinn::Endpoint::new(settings, None, buffered()?, runtime)?;
    let connection = endpoint.connect_with(config, address, "node")?.await?;
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(b"x").await?;
    let (start, mut received) = (Instant::now(), 0);
    while start.elapsed() < time {
        let chunk = recv.read_chunk(64 * 1024, true).await?.ok_or("it ended")?;
        received += chunk.bytes.len() as u64;
    }
    connection.close(0_u32.into(), b"");
    endpoint.wait_idle().await;
    Ok(received)
}

/// As the hop sets them.
fn transport() -> quinn::TransportConfig {
    let mut mtu = quinn::MtuDiscoveryConfig::default();
    mtu.upper_bound(8_928);
    let mut config = quinn::TransportConfig::default();
    config
        .stream_receive_window(quinn::VarInt::from_u32(1 << 20))
        .send_window(8 << 20)
        .mtu_discovery_config(Some(mtu));
    config
}

fn buffered() -> Result<UdpSocket, Failure> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    if set_socket_recv_buffer_size_force(&socket, 4 << 20).is_err() {
        let _granted = set_socket_recv_buffer_size(&socket, 4 << 20);
    }
    let _granted = set_socket_send_buffer_size(&socket, 4 << 20);
    socket.set_nonblocking(true)?;
    Ok(socket)
}
