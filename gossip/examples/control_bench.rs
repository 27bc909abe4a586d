//! Measures the control plane on the loopback interface: latency of messages, requests and probes,
//! throughput, and memory of an idle node and per connection.
//!
//! `cargo run --release -p dunlin-gossip --features net --example control_bench [connections]`

use std::error::Error;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use dunlin_gossip::net::{Control, ControlEvent, Net, NetConfig, NodeSeed};
use dunlin_state::model::NodeId;
use dunlin_trust::{ClusterId, Founding, Gatekeeper, SecretKey, Standing};
use tokio::sync::mpsc;

const ROUNDS: usize = 2_000;
/// Messages sent at once: less than a connection's queue holds.
const BATCH: usize = 200;
const LONG: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    let connections: u16 = std::env::args().nth(1).map_or(Ok(16), |n| n.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(run(connections))
}

async fn run(connections: u16) -> Result<(), Box<dyn Error>> {
    println!("rss before              {:7.1} MB", rss_mb()?);
    let (a, here) = start(0)?;
    let idle = rss_mb()?;
    println!("rss with one idle node  {idle:7.1} MB");
    let (b, there) = start(1)?;
    let peer = Peer {
        control: a.control.clone(),
        node: b.node,
        address: there,
    };
    let (echoes, mut echoed) = mpsc::channel(1);
    tokio::spawn(answer(b.events, b.control.clone(), a.node, here));
    tokio::spawn(forward(a.events, echoes));
    let first = Instant::now();
    peer.probe().await?;
    println!("first probe, with dial  {:7.2} ms", ms(first.elapsed()));
    measure(&peer, &mut echoed).await?;

    let before = rss_mb()?;
    let mut nodes = Vec::new();
    for n in 0..connections {
        let (net, address) = start(n + 2)?;
        nodes.push((net, address));
    }
    let unconnected = rss_mb()?;
    let dialing = Instant::now();
    for (net, address) in &nodes {
        if !peer.control.probe(net.node, *address).await {
            return Err("a node does not answer".into());
        }
    }
    let each = dialing.elapsed() / u32::from(connections.max(1));
    println!("further probes, dialing {:7.2} ms", ms(each));
    let per_node = (unconnected - before) * 1024.0 / f64::from(connections);
    let per_connection = (rss_mb()? - unconnected) * 1024.0 / f64::from(connections) / 2.0;
    println!("per idle node           {per_node:7.0} kB");
    println!("per connection and end  {per_connection:7.0} kB");
    let ends = f64::from(connections) * 2.0;
    let before = cpu_ms()?;
    tokio::time::sleep(LONG).await;
    let permille = (cpu_ms()? - before) / LONG.as_secs_f64() / ends;
    println!(
        "idle, per end           {:7.4} % of a core",
        permille / 10.0
    );
    Ok(())
}

struct Peer {
    control: Control,
    node: NodeId,
    address: SocketAddr,
}

impl Peer {
    async fn probe(&self) -> Result<(), Box<dyn Error>> {
        let answered = self.control.probe(self.node, self.address).await;
        answered.then_some(()).ok_or("no answer to a probe".into())
    }

    async fn ask(&self, bytes: Bytes) -> Result<Bytes, Box<dyn Error>> {
        let answer = self.control.rpc(self.node, self.address, bytes, LONG);
        Ok(answer.await?)
    }

    fn send(&self, bytes: Bytes) {
        self.control.send(self.node, self.address, bytes);
    }
}

async fn measure(peer: &Peer, echoed: &mut mpsc::Receiver<usize>) -> Result<(), Box<dyn Error>> {
    let (mut probes, mut rpcs, mut echoes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let asked = Instant::now();
        peer.probe().await?;
        probes.push(asked.elapsed());
        let asked = Instant::now();
        peer.ask(Bytes::from_static(&[1; 200])).await?;
        rpcs.push(asked.elapsed());
        let sent = Instant::now();
        peer.send(Bytes::from_static(&[1; 200]));
        echoed.recv().await.ok_or("no echo")?;
        // There and back: two messages.
        echoes.push(sent.elapsed() / 2);
    }
    report("probe", probes);
    report("rpc, 200 bytes", rpcs);
    report("message, 200 bytes", echoes);

    let started = Instant::now();
    for _ in 0..ROUNDS / 10 {
        for _ in 1..BATCH {
            peer.send(Bytes::from_static(&[0; 200]));
        }
        // Messages keep their order, so this echo says that the batch has arrived.
        peer.send(Bytes::from_static(&[1; 200]));
        echoed.recv().await.ok_or("no echo")?;
    }
    let rate = (ROUNDS / 10 * BATCH) as f64 / started.elapsed().as_secs_f64();
    println!("messages, in batches    {rate:7.0} /s");

    let started = Instant::now();
    peer.send(vec![1; 8 << 20].into());
    echoed.recv().await.ok_or("no echo")?;
    println!("8 MiB there and back    {:7.1} ms", ms(started.elapsed()));
    Ok(())
}

/// Answers requests, and echoes messages whose first byte is not zero.
async fn answer(
    mut events: mpsc::Receiver<ControlEvent>,
    control: Control,
    peer: NodeId,
    address: SocketAddr,
) {
    while let Some(event) = events.recv().await {
        match event {
            // The asker may have gone.
            ControlEvent::RpcRequest { bytes, reply, .. } => drop(reply.send(bytes)),
            ControlEvent::Message { bytes, .. } if bytes.first() != Some(&0) => {
                control.send(peer, address, bytes);
            }
            _ => {}
        }
    }
}

async fn forward(mut events: mpsc::Receiver<ControlEvent>, echoes: mpsc::Sender<usize>) {
    while let Some(event) = events.recv().await {
        if let ControlEvent::Message { bytes, .. } = event
            && echoes.send(bytes.len()).await.is_err()
        {
            return;
        }
    }
}

fn start(n: u16) -> Result<(Net, SocketAddr), Box<dyn Error>> {
    let mut seed = [7; 32];
    seed[..2].copy_from_slice(&n.to_be_bytes());
    loop {
        let membership = UdpSocket::bind("127.0.0.1:0")?;
        let address = membership.local_addr()?;
        let config = NetConfig {
            seed: NodeSeed(seed),
            boot: 1,
            gatekeeper: member(seed),
            membership,
            mdns: false,
        };
        // The next port may be taken: try another pair.
        if let Ok(net) = Net::start(config) {
            return Ok((net, address));
        }
    }
}

/// A member of the one cluster that this benchmark founds again for each of its nodes.
fn member(seed: [u8; 32]) -> Gatekeeper {
    let key = SecretKey::from_seed(seed);
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = since.unwrap_or_default().as_secs();
    let founding = Founding::new([1; 32], [2; 32], key.public(), now);
    let root = founding.root.public();
    let standing = Standing::Member {
        root,
        chain: founding.node,
        keyring: founding.keyring,
    };
    Gatekeeper::new(key, ClusterId::of(&root), standing)
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("{what:22}  {:7.3} ms p50, {:.3} ms p99", ms(p50), ms(p99));
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// Processor time of this process, from the kernel, in its ticks of 10 ms.
fn cpu_ms() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The second field, in parentheses, may hold anything; user and system time are the 14th and
    // the 15th.
    let (_, rest) = stat.rsplit_once(')').ok_or("no command in stat")?;
    let times = rest.split_whitespace().skip(11).take(2);
    let ticks: Result<Vec<f64>, _> = times.map(str::parse).collect();
    Ok(ticks?.iter().sum::<f64>() * 10.0)
}

/// Resident memory of this process, from the kernel.
fn rss_mb() -> Result<f64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kb: f64 = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .ok_or("no VmRSS")?
        .trim()
        .parse()?;
    Ok(kb / 1024.0)
}
