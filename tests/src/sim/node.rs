//! One host of the simulated cluster.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use dunlin_core::engine::Engine;
use dunlin_core::io::{Effect, NodeConfig};
use dunlin_gossip::membership::{MemberId, Profile};
use dunlin_state::Now;
use dunlin_state::model::{Facts, NodeId, Resources};
use dunlin_state::observed::SharedSecret;

use super::disk::Disk;
use super::runtime::{Runtime, Temper};

/// Wall clocks start here: 2026-01-01, in milliseconds since the Unix epoch.
const WALL_START: i64 = 1_767_225_600_000;

/// What simulated nodes sign with. Nothing in the simulator reads it but their seals.
const CLUSTER_SECRET: [u8; 32] = [0x5e; 32];

/// A host: its disk and its workloads outlive the daemon on it.
pub struct Host {
    /// Its place in the cluster.
    pub index: usize,
    /// Its key.
    pub id: NodeId,
    /// The daemon, when it runs.
    pub engine: Option<Engine>,
    /// When the daemon started, in microseconds.
    pub started_at: u64,
    /// Counts starts of the daemon; events for an earlier life die.
    pub life: u64,
    /// Survives everything.
    pub disk: Disk,
    /// Survives the daemon, not the power.
    pub runtime: Runtime,
    /// What its wall clock is wrong by, in milliseconds.
    pub skew: i64,
    /// The daemon is frozen until then, in microseconds.
    pub stalled_until: u64,
    /// The timer event that is under way.
    pub timer: Option<u64>,
}

/// The membership address of a host.
pub(super) fn address(index: usize) -> SocketAddr {
    let [_, _, high, low] = u32::try_from(index + 1).unwrap_or(u32::MAX).to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(10, 1, high, low), 7400))
}

/// The host that listens there.
pub(super) fn index_of(address: SocketAddr) -> Option<usize> {
    match address {
        SocketAddr::V4(v4) => {
            let [a, b, high, low] = v4.ip().octets();
            let index = usize::from(high) * 256 + usize::from(low);
            ((a, b) == (10, 1)).then(|| index.checked_sub(1)).flatten()
        }
        SocketAddr::V6(_) => None,
    }
}

/// The key of a host.
pub(super) fn identity(index: usize, seed: u64) -> NodeId {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(&seed.to_be_bytes())
        .update(&index.to_be_bytes());
    NodeId::from_bytes(*hasher.finalize().as_bytes())
}

/// A host as membership knows it.
pub(super) fn member(index: usize, node: NodeId, boot: u64) -> MemberId {
    let address = address(index);
    MemberId {
        node,
        boot,
        address,
    }
}

/// Both clocks when the world's shows `micros` and the wall clock is wrong by `skew` milliseconds.
pub(super) fn clock(micros: u64, skew: i64) -> Now {
    let mono = micros / 1_000;
    let wall = WALL_START
        .saturating_add(skew)
        .saturating_add_unsigned(mono);
    Now {
        mono,
        wall: u64::try_from(wall).unwrap_or(0),
    }
}

/// What every host is and has.
pub(super) fn config(index: usize, id: NodeId, boot: u64, seed: u64) -> NodeConfig {
    NodeConfig {
        member: member(index, id, boot),
        name: format!("n{index}"),
        profile: Profile::Lan,
        seed,
        labels: [("zone".to_owned(), zone(index))].into(),
        facts: Facts {
            os: "linux".to_owned(),
            arch: "amd64".to_owned(),
            kernel: format!("6.1.{}-sim", kernel_patch(index)),
            ..Facts::default()
        },
        capacity: Resources {
            cpu_millis: 8_000,
            memory: 16 << 30,
            disk: 100 << 30,
        },
        runtimes: vec!["process".to_owned(), "docker".to_owned()],
        dunlin_version: "simulated".to_owned(),
        vips: Default::default(),
    }
}

fn kernel_patch(index: usize) -> usize {
    7 + index
}

fn zone(index: usize) -> String {
    format!("z{}", index % 3)
}

impl Host {
    pub(super) fn new(index: usize, seed: u64, temper: Temper) -> Self {
        Self {
            index,
            id: identity(index, seed),
            engine: None,
            started_at: 0,
            life: 0,
            disk: Disk::default(),
            runtime: Runtime::new(index, temper),
            skew: 0,
            stalled_until: 0,
            timer: None,
        }
    }

    /// Both clocks of this host when the world's shows `micros`.
    pub(super) fn now(&self, micros: u64) -> Now {
        clock(micros, self.skew)
    }

    /// Starts the daemon from what is on disk.
    pub(super) fn start(&mut self, micros: u64, seed: u64) -> Result<Vec<Effect>, String> {
        self.life += 1;
        self.started_at = micros;
        self.timer = None;
        let salt = seed ^ (self.life << 32) ^ self.index as u64;
        let boot = self.disk.next_boot();
        let config = config(self.index, self.id, boot, salt);
        let (engine, effects) =
            Engine::new(config, self.seal(), self.disk.recover(), self.now(micros))
                .map_err(|e| e.to_string())?;
        self.engine = Some(engine);
        Ok(effects)
    }

    /// What it signs with.
    pub(super) fn seal(&self) -> Arc<SharedSecret> {
        Arc::new(SharedSecret::new(self.id, CLUSTER_SECRET))
    }

    /// Where it stands.
    pub(super) fn zone(&self) -> String {
        zone(self.index)
    }

    /// The last number of its kernel's version: on both sides of where it gets another digit.
    pub(super) fn kernel_patch(&self) -> usize {
        kernel_patch(self.index)
    }

    /// Whether its daemon runs.
    pub fn is_up(&self) -> bool {
        self.engine.is_some()
    }
}
