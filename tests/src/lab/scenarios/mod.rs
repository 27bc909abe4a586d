//! What the labs put a cluster through. One file for each, all with the same shape: take a running
//! lab, do something to it, wait for what must follow, add what was measured.

mod blackout;
mod calls;
mod containers;
mod deploy;
mod hostile;
mod idle;
mod isolated;
mod kill;
mod load;
mod moved;
mod names;
mod partition;
mod removed;
mod spread;
mod torture;

pub use deploy::processes_ready;
pub use idle::deploy_services;
pub use spread::write_seen;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use dunlin_api::{DeployRequest, DeployService, Replica};
use dunlin_state::model::{PortSpec, Resources, RuntimeKind, ServiceKey, ServiceSpec, Slot};

use super::net::LabError;
use super::report::Figures;
use super::{Lab, Workloads, eventually};

/// How much of it, for those scenarios that can be had in several sizes.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Repetitions.
    pub times: usize,
    /// How long torture lasts, in seconds.
    pub seconds: u64,
    /// What torture does, and in which order.
    pub seed: u64,
}

/// A scenario of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Thirty replicas, and gone again.
    Deploy,
    /// A host loses power, or its cable; its work moves.
    Kill,
    /// A partition with edits on both sides.
    Partition,
    /// A host reboots while it is cut off.
    Isolated,
    /// All hosts lose power.
    Blackout,
    /// All hosts get other addresses, and one is new.
    Moved,
    /// Steady load while a service is updated and a host drained.
    Load,
    /// Strangers, liars, floods.
    Hostile,
    /// The same, with a hundred megabytes and ten thousand connections for each port.
    Siege,
    /// A host is removed for good, and comes back as a new node.
    Removed,
    /// A write reaches everyone.
    Spread,
    /// Names follow changes, and come back after a host has lost its network.
    Names,
    /// What doing nothing costs.
    Idle,
    /// A seeded mix of faults and changes, judged from outside.
    Torture,
    /// Thirty containers.
    DockerDeploy,
    /// A host with containers loses power, or its cable.
    DockerKill,
    /// Containers call each other by their short names, across hosts and networks.
    DockerNames,
}

impl Scenario {
    /// Those that check the rules, in the order of CI.
    pub const CI: [Self; 13] = [
        Self::Deploy,
        Self::Kill,
        Self::Partition,
        Self::Isolated,
        Self::Blackout,
        Self::Removed,
        Self::Hostile,
        Self::Moved,
        Self::Spread,
        Self::Names,
        Self::DockerDeploy,
        Self::DockerKill,
        Self::DockerNames,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Kill => "kill",
            Self::Load => "load",
            Self::Partition => "partition",
            Self::Isolated => "isolated",
            Self::Blackout => "blackout",
            Self::Moved => "moved",
            Self::Hostile => "hostile",
            Self::Siege => "siege",
            Self::Removed => "removed",
            Self::Spread => "spread",
            Self::Names => "names",
            Self::Idle => "idle",
            Self::Torture => "torture",
            Self::DockerDeploy => "docker-deploy",
            Self::DockerKill => "docker-kill",
            Self::DockerNames => "docker-names",
        }
    }

    /// The kind of lab that it needs.
    pub const fn workloads(self) -> Workloads {
        match self {
            Self::DockerDeploy | Self::DockerKill | Self::DockerNames => Workloads::Containers,
            Self::Deploy
            | Self::Kill
            | Self::Partition
            | Self::Isolated
            | Self::Blackout
            | Self::Load
            | Self::Hostile
            | Self::Siege
            | Self::Moved
            | Self::Removed
            | Self::Spread
            | Self::Names
            | Self::Idle => Workloads::Processes,
            Self::Torture => Workloads::Both,
        }
    }

    /// The scenario of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::CI
            .into_iter()
            .chain([Self::Idle, Self::Load, Self::Siege, Self::Torture])
            .find(|s| s.name() == name)
    }

    /// Puts the lab through it.
    pub async fn run(
        self,
        lab: &mut Lab,
        pace: &Pace,
        figures: &mut Figures,
    ) -> Result<(), LabError> {
        let times = pace.times;
        match self {
            Self::Deploy => deploy::run(lab, times, figures).await,
            Self::Kill => kill::run(lab, times, figures).await,
            Self::Load => load::run(lab, figures).await,
            Self::Partition => partition::run(lab, figures).await,
            Self::Isolated => isolated::run(lab, figures).await,
            Self::Blackout => blackout::run(lab, figures).await,
            Self::Moved => moved::run(lab, figures).await,
            Self::Hostile => hostile::run(lab, hostile::Force::SHORT, figures).await,
            Self::Siege => hostile::run(lab, hostile::Force::WHOLE, figures).await,
            Self::Removed => removed::run(lab, times, figures).await,
            Self::Spread => spread::run(lab, times, figures).await,
            Self::Names => names::run(lab, times, figures).await,
            Self::Idle => idle::run(lab, figures).await,
            Self::Torture => torture::run(lab, pace, figures).await,
            Self::DockerDeploy => containers::deploy_many(lab, times, figures).await,
            Self::DockerKill => containers::kill(lab, times, figures).await,
            Self::DockerNames => calls::run(lab, figures).await,
        }
    }
}

/// A service's name in the default namespace.
fn key(name: &str) -> Result<ServiceKey, LabError> {
    ServiceKey::new(ServiceKey::DEFAULT_NAMESPACE, name).map_err(|e| LabError::new("name", e))
}

/// The built-in workload with one port.
fn whoami() -> ServiceSpec {
    ServiceSpec {
        command: vec!["dunlin".to_owned(), "whoami".to_owned()],
        runtime: RuntimeKind::Process,
        ports: vec![PortSpec {
            target: 80,
            ..PortSpec::default()
        }],
        reservation: Resources {
            cpu_millis: 10,
            memory: 8 << 20,
            disk: 0,
        },
        stop_grace_ms: Some(2_000),
        ..ServiceSpec::default()
    }
}

/// Asks a host to run a service.
async fn deploy(
    lab: &Lab,
    at: usize,
    name: &str,
    spec: ServiceSpec,
    replicas: u32,
) -> Result<(), LabError> {
    let service = DeployService {
        service: key(name)?,
        spec,
        replicas: Some(replicas),
        canary: None,
    };
    let request = DeployRequest {
        services: vec![service],
    };
    let answer = lab.hosts[at].client().deploy(&request).await;
    answer
        .map(|_revision| ())
        .map_err(|e| LabError::new("deploy", e))
}

/// Removes a service and waits until nothing of it is left.
async fn remove(lab: &Lab, name: &str) -> Result<(), LabError> {
    let service = key(name)?;
    let answer = lab.hosts[0].client().remove(&service).await;
    answer.map_err(|e| LabError::new("remove", e))?;
    eventually("all replicas are gone", 30, async || {
        Ok(lab.hosts[0]
            .replicas()
            .await?
            .iter()
            .all(|r| r.service != service))
    })
    .await?;
    Ok(())
}

/// Replicas of a service that are ready on nodes that a host believes in, by slot.
async fn ready(
    lab: &Lab,
    at: usize,
    service: &ServiceKey,
) -> Result<BTreeMap<Slot, Vec<Replica>>, LabError> {
    let mut slots: BTreeMap<Slot, Vec<Replica>> = BTreeMap::new();
    for replica in lab.hosts[at].replicas().await? {
        let counts = replica.ready && replica.node_state == dunlin_api::NodeState::Alive;
        if replica.service == *service && counts {
            slots.entry(replica.slot).or_default().push(replica);
        }
    }
    Ok(slots)
}

/// Waits until a service has exactly so many slots, each ready once, as every host sees it.
async fn exactly(lab: &Lab, name: &str, replicas: usize, seconds: u64) -> Result<(), LabError> {
    let service = key(name)?;
    for at in 0..lab.hosts.len() {
        let what = format!(
            "{} sees {replicas} of {name}, each once",
            lab.hosts[at].name()
        );
        eventually(&what, seconds, async || {
            let slots = ready(lab, at, &service).await?;
            let listed = lab.hosts[at].replicas().await?;
            let claims = listed.iter().filter(|r| r.service == service).count();
            Ok(slots.len() == replicas && claims == replicas)
        })
        .await?;
    }
    Ok(())
}

/// Whether the replica answers on its port, and says that it is who it should be.
fn answers(replica: &Replica) -> bool {
    let Some(endpoint) = replica.endpoints.first() else {
        return false;
    };
    let slot = replica.slot.to_string();
    get(endpoint.address).is_some_and(|body| {
        body.contains(&format!("\"slot\":\"{slot}\"")) || body.contains(&format!("\"slot\":{slot}"))
    })
}

/// The answer of a replica.
fn get(address: SocketAddr) -> Option<String> {
    let bound = Duration::from_millis(500);
    let mut stream = TcpStream::connect_timeout(&address, bound).ok()?;
    stream.set_read_timeout(Some(bound)).ok()?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
