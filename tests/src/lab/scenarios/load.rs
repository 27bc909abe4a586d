//! Steady load through a published port while a service is updated and a host is drained: no
//! request may fail.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dunlin_api::AvailabilityRequest;
use dunlin_state::model::{Availability, ServiceKey, ServiceSpec};

use super::{deploy, exactly, key, remove, whoami};
use crate::lab::net::LabError;
use crate::lab::{Figures, Lab, eventually};

/// The port that every host answers.
const PORT: u16 = 18_080;
/// Replicas under load.
const REPLICAS: u32 = 12;
/// Callers, each with one request under way.
const CALLERS: usize = 4;
/// A pause after each request: some hundreds a second on two cores, which leaves the daemons room.
const PAUSE: Duration = Duration::from_millis(5);
/// A request that takes longer has failed. Long: what counts is whether an answer comes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Hosts are drained until so many requests were made.
const ENOUGH: u64 = 20_000;

pub(super) async fn run(lab: &mut Lab, figures: &mut Figures) -> Result<(), LabError> {
    let service = key("busy")?;
    let all: Vec<SocketAddr> = (0..lab.hosts.len())
        .map(|host| lab.network.address(host))
        .filter_map(|ip| Some(SocketAddr::new(ip.parse().ok()?, PORT)))
        .collect();
    deploy(lab, 0, "busy", version(1), REPLICAS).await?;
    exactly(lab, "busy", REPLICAS as usize, 60).await?;
    for address in &all {
        eventually("every host answers the published port", 30, async || {
            Ok(call(*address).is_ok())
        })
        .await?;
    }
    let load = Load::start(&all);
    let began = Instant::now();
    deploy(lab, 0, "busy", version(2), REPLICAS).await?;
    let wanted = lab.hosts[0].client().inspect(&service).await;
    let wanted = wanted.map_err(|e| LabError::new("inspect", e))?.revision;
    eventually("the update is complete", 180, async || {
        let status = lab.hosts[0].client().rollout(&service).await;
        Ok(status.is_ok_and(|s| s.revision == wanted && s.proven == REPLICAS))
    })
    .await?;
    figures.add("load: rolling update of 12 replicas", began.elapsed());
    println!("lab: {} requests during the update", load.sent());
    let mut host = 0;
    while host == 0 || load.sent() < ENOUGH {
        host += 1;
        drain(lab, host % lab.hosts.len(), &service, figures).await?;
    }
    let told = load.end();
    println!("lab: {} requests, {} failed", told.sent, told.failed);
    if told.failed > 0 {
        return Err(LabError::broken(format!(
            "{} of {} requests failed, the first with: {}",
            told.failed, told.sent, told.first
        )));
    }
    remove(lab, "busy").await
}

/// Empties a host, and lets it have replicas again.
async fn drain(
    lab: &Lab,
    host: usize,
    service: &ServiceKey,
    figures: &mut Figures,
) -> Result<(), LabError> {
    let began = Instant::now();
    set(lab, host, Availability::Drained).await?;
    let name = lab.hosts[host].name();
    eventually("the drained host is empty", 120, async || {
        let replicas = lab.hosts[0].replicas().await?;
        let left = replicas.iter().filter(|r| r.service == *service);
        Ok(left.filter(|r| r.node_name == name).count() == 0)
    })
    .await?;
    figures.add("load: drain of a host", began.elapsed());
    set(lab, host, Availability::Active).await
}

fn version(number: u32) -> ServiceSpec {
    let mut spec = whoami();
    spec.ports[0].published = Some(PORT);
    spec.environment
        .insert("VERSION".to_owned(), number.to_string());
    spec
}

async fn set(lab: &Lab, host: usize, availability: Availability) -> Result<(), LabError> {
    let request = AvailabilityRequest { availability };
    let name = lab.hosts[host].name();
    let answer = lab.hosts[0].client().set_availability(&name, request).await;
    answer.map(drop).map_err(|e| LabError::new("drain", e))
}

/// Callers at work.
struct Load {
    stop: Arc<AtomicBool>,
    told: Arc<Told>,
    callers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Told {
    sent: AtomicU64,
    failed: AtomicU64,
    first: Mutex<Option<String>>,
}

/// What came of it.
struct Summary {
    sent: u64,
    failed: u64,
    first: String,
}

impl Load {
    fn start(addresses: &[SocketAddr]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::new(Told::default());
        let callers = (0..CALLERS).map(|caller| {
            let (stop, told) = (stop.clone(), told.clone());
            let addresses = addresses.to_vec();
            thread::spawn(move || {
                let mut turn = caller;
                while !stop.load(Ordering::Relaxed) {
                    told.note(call(addresses[turn % addresses.len()]));
                    turn += 1;
                    thread::sleep(PAUSE);
                }
            })
        });
        Self {
            callers: callers.collect(),
            stop,
            told,
        }
    }

    fn sent(&self) -> u64 {
        self.told.sent.load(Ordering::Relaxed)
    }

    fn end(mut self) -> Summary {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers.drain(..) {
            if caller.join().is_err() {
                self.told.note(Err("a caller panicked".to_owned()));
            }
        }
        let first = self
            .told
            .first
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Summary {
            sent: self.told.sent.load(Ordering::Relaxed),
            failed: self.told.failed.load(Ordering::Relaxed),
            first: first.clone().unwrap_or_default(),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Also when the scenario fails: nobody calls on.
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Told {
    fn note(&self, result: Result<(), String>) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = result {
            self.failed.fetch_add(1, Ordering::Relaxed);
            let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(error);
        }
    }
}

/// One request over a connection of its own, answered in full.
fn call(address: SocketAddr) -> Result<(), String> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: std::io::Error| format!("{address}: {what}: {error}")
    };
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(failed("connect"))?;
    let bounds = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
    bounds.map_err(failed("bounds"))?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
        .map_err(failed("write"))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed("read"))?;
    match answer.starts_with("HTTP/1.1 200") {
        true => Ok(()),
        false => Err(format!("{address}: not an answer: {answer:.80}")),
    }
}
