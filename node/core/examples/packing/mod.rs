//! How much of a demand that hardly fits do auctions place? Random clusters of a hundred nodes of
//! mixed sizes are filled by the agents, and the same replicas by best-fit-decreasing, which sees all
//! nodes and all replicas at once and takes the largest first.

use std::sync::Arc;

use dunlin_core::io::NodeConfig;
use dunlin_state::desired::{Desired, Service};
use dunlin_state::model::{Facts, Placement, Resources, ServiceSpec, Strategy};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Bus, config};

const NODES: usize = 100;

/// Milliseconds, simulated, that the agents have: the longest pause between two rounds of an
/// auction nobody bids in is 5 s, and room that is offered elsewhere is free again after 3 s.
const PATIENCE: u64 = 40_000;

/// Cores and GiB of nodes.
const NODE_SIZES: [(u64, u64); 5] = [(4, 8), (8, 16), (8, 64), (16, 32), (32, 128)];

/// Thousandths of a core and MiB of replicas.
const REPLICA_SIZES: [(u64, u64); 8] = [
    (250, 256),
    (500, 512),
    (500, 4_096),
    (1_000, 1_024),
    (2_000, 2_048),
    (2_000, 8_192),
    (3_000, 3_072),
    (4_000, 8_192),
];

/// A cluster and what is wanted of it.
struct Instance {
    nodes: Vec<Resources>,
    services: Vec<(Resources, u32)>,
}

/// Prints the share of the demand that each way places, of `instances` clusters.
pub(super) fn run(instances: u64) {
    let mut sums = [0.0; 3];
    let mut worst = [f64::MAX; 2];
    println!("seed  demand  best-fit-decreasing  pack  spread");
    for seed in 0..instances {
        let instance = Instance::random(seed);
        let demand = instance.share(|(_, replicas)| *replicas);
        let best = best_fit_decreasing(&instance) / demand;
        let packed = auctioned(&instance, Strategy::Pack) / demand;
        let spread = auctioned(&instance, Strategy::Spread) / demand;
        println!("{seed:4}  {demand:6.3}  {best:19.4}  {packed:.4}  {spread:.4}");
        for (sum, value) in sums.iter_mut().zip([best, packed, spread]) {
            *sum += value;
        }
        for (least, value) in worst.iter_mut().zip([packed, spread]) {
            *least = least.min(value / best);
        }
    }
    let mean = sums.map(|sum| sum / instances as f64);
    println!(
        "mean of {instances}: best-fit-decreasing {:.4}, pack {:.4} ({:.4} of it, at worst {:.4}), spread \
         {:.4} ({:.4} of it, at worst {:.4})",
        mean[0],
        mean[1],
        mean[1] / mean[0],
        worst[0],
        mean[2],
        mean[2] / mean[0],
        worst[1],
    );
}

impl Instance {
    /// Services are added until they want between 0.95 and 1.05 of what there is, of the resource
    /// that is scarcer.
    fn random(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = |below: u64| rng.next_u64() % below;
        let nodes = (0..NODES).map(|_| {
            let (cores, gib) = NODE_SIZES[draw(NODE_SIZES.len() as u64) as usize];
            Resources {
                cpu_millis: cores * 1_000,
                memory: gib << 30,
                disk: 0,
            }
        });
        let mut instance = Self {
            nodes: nodes.collect(),
            services: Vec::new(),
        };
        let wanted = 0.95 + draw(100) as f64 / 1_000.0;
        while instance.load() < wanted {
            let (cpu_millis, mib) = REPLICA_SIZES[draw(REPLICA_SIZES.len() as u64) as usize];
            let reservation = Resources {
                cpu_millis,
                memory: mib << 20,
                disk: 0,
            };
            instance.services.push((reservation, 1 + draw(20) as u32));
        }
        instance
    }

    fn total(&self) -> Resources {
        self.nodes
            .iter()
            .fold(Resources::ZERO, |sum, node| sum.plus(*node))
    }

    fn load(&self) -> f64 {
        let mut wanted = Resources::ZERO;
        for (reservation, replicas) in &self.services {
            (0..*replicas).for_each(|_| wanted = wanted.plus(*reservation));
        }
        let total = self.total();
        let cpu = wanted.cpu_millis as f64 / total.cpu_millis as f64;
        cpu.max(wanted.memory as f64 / total.memory as f64)
    }

    /// How much so many replicas of each service take: the mean of the shares of CPU and memory.
    fn share(&self, replicas: impl Fn(&(Resources, u32)) -> u32) -> f64 {
        let total = self.total();
        let each = self.services.iter().map(|service| {
            let reservation = service.0;
            let cpu = reservation.cpu_millis as f64 / total.cpu_millis as f64;
            let memory = reservation.memory as f64 / total.memory as f64;
            f64::from(replicas(service)) * (cpu + memory) / 2.0
        });
        each.sum()
    }
}

/// The share that best-fit-decreasing places: by size, each replica onto the node on which it leaves
/// the least free.
fn best_fit_decreasing(instance: &Instance) -> f64 {
    let total = instance.total();
    let size = |r: &Resources| {
        let cpu = r.cpu_millis as f64 / total.cpu_millis as f64;
        cpu.max(r.memory as f64 / total.memory as f64)
    };
    let mut replicas: Vec<usize> = Vec::new();
    for (index, (_, count)) in instance.services.iter().enumerate() {
        replicas.extend(std::iter::repeat_n(index, *count as usize));
    }
    let reservation = |index: &usize| instance.services[*index].0;
    replicas.sort_by(|a, b| size(&reservation(b)).total_cmp(&size(&reservation(a))));
    let mut free = instance.nodes.clone();
    let mut placed = vec![0; instance.services.len()];
    for index in replicas {
        let need = reservation(&index);
        let fitting = free.iter_mut().filter(|node| need.fits_in(**node));
        let left = |node: &Resources| size(&node.minus(need));
        if let Some(node) = fitting.min_by(|a, b| left(a).total_cmp(&left(b))) {
            *node = node.minus(need);
            placed[index] += 1;
        }
    }
    share_of(instance, &placed)
}

fn share_of(instance: &Instance, counts: &[u32]) -> f64 {
    let counted = Instance {
        nodes: instance.nodes.clone(),
        services: instance
            .services
            .iter()
            .zip(counts)
            .map(|((r, _), n)| (*r, *n))
            .collect(),
    };
    counted.share(|(_, replicas)| *replicas)
}

/// The share that the agents place.
fn auctioned(instance: &Instance, strategy: Strategy) -> f64 {
    let mut bus = Bus::with(NODES, |index| NodeConfig {
        capacity: instance.nodes[index],
        facts: Facts {
            cpus: (instance.nodes[index].cpu_millis / 1_000) as u32,
            ..Facts::default()
        },
        ..config(index)
    });
    bus.introduce();
    bus.run_until(2_000, |_| false);
    let mut desired = Desired::default();
    for (index, (reservation, replicas)) in instance.services.iter().enumerate() {
        let spec = ServiceSpec {
            command: vec!["serve".to_owned()],
            reservation: *reservation,
            placement: Placement {
                strategy,
                ..Placement::default()
            },
            ..ServiceSpec::default()
        };
        let service = Service {
            spec: Arc::new(spec),
            revision: format!("revision-{index}"),
            replicas: *replicas,
            running: true,
            rollout: Default::default(),
            jobs: Default::default(),
        };
        if let Ok(name) = format!("s{index}").parse() {
            desired.services.insert(name, service);
        }
    }
    bus.want(desired);
    let wanted: u32 = instance.services.iter().map(|(_, replicas)| replicas).sum();
    bus.run_until(PATIENCE, |bus| bus.placed() >= wanted as usize);
    let mut counts = vec![0; instance.services.len()];
    for claim in bus.agents.iter().flat_map(|agent| agent.report().claims) {
        let index = claim
            .slot
            .service
            .name()
            .trim_start_matches('s')
            .parse::<usize>();
        if let Ok(index) = index {
            counts[index] += 1;
        }
    }
    share_of(instance, &counts)
}
