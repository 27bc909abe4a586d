//! What is compared, in which words, and how one comparison is run.

use super::results::{Circumstances, Comparison};
use super::{Bench, containers, idle, machine, members, scripts, single, soak};
use crate::lab::LabError;

/// All comparisons, in the order of the page.
pub const ALL: [Kind; 10] = [
    Kind::Deploy,
    Kind::Loss,
    Kind::Detection,
    Kind::Spread,
    Kind::Idle,
    Kind::Soak,
    Kind::Start,
    Kind::Names,
    Kind::Proxy,
    Kind::Simulator,
];

/// One comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// From the command to all replicas running.
    Deploy,
    /// From the loss of a host to its replicas running elsewhere.
    Loss,
    /// From a death to all others knowing.
    Detection,
    /// From a write to all showing it.
    Spread,
    /// What doing nothing costs.
    Idle,
    /// What being busy for long costs.
    Soak,
    /// One daemon by itself.
    Start,
    /// Answers to DNS questions.
    Names,
    /// Connections through the proxy.
    Proxy,
    /// Simulated clusters.
    Simulator,
}

impl Kind {
    /// Its name on the command line and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Loss => "loss",
            Self::Detection => "detection",
            Self::Spread => "spread",
            Self::Idle => "idle",
            Self::Soak => "soak",
            Self::Start => "start",
            Self::Names => "names",
            Self::Proxy => "proxy",
            Self::Simulator => "simulator",
        }
    }

    /// The comparison of that name.
    pub fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Deploy => "Deploying, beside Docker Swarm",
            Self::Loss => "Losing a host, beside Docker Swarm",
            Self::Detection => "Noticing a death, beside serf",
            Self::Spread => "Spreading a write, beside serf",
            Self::Idle => "Doing nothing",
            Self::Soak => "Being busy for long",
            Self::Start => "One daemon",
            Self::Names => "Names, beside unbound, knot and dnsmasq",
            Self::Proxy => "Connections, beside haproxy",
            Self::Simulator => "Simulated clusters",
        }
    }

    /// How it is measured.
    pub(super) const fn story(self) -> &'static str {
        match self {
            Self::Deploy => {
                "Three hosts, each a network namespace with a dockerd of its own; a Dunlin daemon on each, and a Swarm of the same three\n\
                 dockerds (one manager, two workers). `dunlin deploy --detach` and `docker service create -d` start the same image (in place on\n\
                 all three) with the same command. The clock runs from the start of the command until the three dockerds, asked\n\
                 over their sockets every 20 ms, have all containers running. Processes (`dunlin whoami`, a port each) have no peer here: the clock\n\
                 runs until Dunlin says that all are ready, which takes a TCP connect to each."
            }
            Self::Loss => {
                "The same lab with six containers. A host that is not the Swarm's manager loses its power (all its processes are killed), its cable,\n\
                 or is frozen (SIGSTOP to all its processes). The clock runs until the other two dockerds have six containers running."
            }
            Self::Detection => {
                "As many hosts as the axis says, each with a Dunlin daemon (default profile `lan`) and a serf agent (`-profile=lan`, memberlist's\n\
                 defaults). *Killed*: SIGKILL to the one daemon, then, in another round, to the one agent. *Cable*: both at once, by\n\
                 pulling the cable. The clock runs until all other daemons say `down` (asked over their sockets), or all other agents have logged\n\
                 the failure."
            }
            Self::Spread => {
                "The same hosts. Dunlin: from the answer to a deploy, which is on disk by then, until all daemons show it. serf: from\n\
                 the answer to a user event, which is on no disk, until all agents have logged it. The two do different things; both are the\n\
                 fastest way to tell all members something."
            }
            Self::Idle => {
                "Daemons with as many one-process services as the axis says, after they came to rest: resident memory and processor time of each\n\
                 daemon, and of serf agents and Swarm's dockerds in the same labs. A sample is a daemon."
            }
            Self::Soak => {
                "`scripts/soak`: three daemons on one host, some two changes a second (deploys, scales, removals) through all three in turn; then\n\
                 everything is removed, and nothing is asked for. Sampled every 10 s; a point of the axis is two minutes, *idle* the time after."
            }
            Self::Start => {
                "A daemon alone in a new data directory: from its start until its API answers, and again with the data of the first\n\
                 start; and the size of the binary as it is built (stripped)."
            }
            Self::Names => {
                "`scripts/bench-dns`: 1,000 names over UDP, one thread each, the server on one processor and dnsperf on the other; 4 sockets with 400\n\
                 questions in flight. Answers that travel together are cheap for Dunlin; with one question in flight for each socket it\n\
                 gains nothing (docs/measurements.md has those figures)."
            }
            Self::Proxy => {
                "`scripts/bench-proxy`: one thread for each node's proxy on one processor, clients and replica on the other. Between two nodes: QUIC against\n\
                 haproxy, TLS 1.3, haproxy."
            }
            Self::Simulator => {
                "`sim --scenario scale`: whole engines with a virtual network, as many services as nodes, ten replicas each, deployed within a second;\n\
                 one core, one seed a sample. The cost of a node is the processor time of the whole run, divided by the nodes; flat is what it should be."
            }
        }
    }

    /// What stands at the axis.
    pub(super) const fn axis(self) -> &'static str {
        match self {
            Self::Deploy => "replicas",
            Self::Loss => "loss",
            Self::Detection | Self::Spread => "hosts",
            Self::Idle => "hosts / services",
            Self::Soak => "minutes",
            Self::Start => "start",
            Self::Names => "server",
            Self::Proxy => "load",
            Self::Simulator => "nodes",
        }
    }

    /// Runs it.
    pub async fn run(self, bench: &Bench) -> Result<Comparison, LabError> {
        let watch = machine::Watch::begin();
        let mut taken = Comparison::default();
        taken.versions.insert(
            "dunlin".to_owned(),
            machine::version(&bench.binary, &["--version"]),
        );
        match self {
            Self::Deploy => containers::deploy(bench, &mut taken).await?,
            Self::Loss => containers::loss(bench, &mut taken).await?,
            Self::Detection => members::detection(bench, &mut taken).await?,
            Self::Spread => members::spread(bench, &mut taken).await?,
            Self::Idle => idle::run(bench, &mut taken).await?,
            Self::Soak => soak::run(bench, &mut taken)?,
            Self::Start => single::run(bench, &mut taken).await?,
            Self::Names => scripts::names(bench, &mut taken)?,
            Self::Proxy => scripts::proxy(bench, &mut taken)?,
            Self::Simulator => scripts::simulator(bench, &mut taken)?,
        }
        taken.circumstances = Circumstances {
            quick: bench.quick,
            ..watch.end(&bench.root)
        };
        Ok(taken)
    }
}
