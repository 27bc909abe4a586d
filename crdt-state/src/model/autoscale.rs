//! How the number of replicas follows the load: what a person asks for, what nodes tell of the
//! load, and what is decided. None of it is a property of a running replica, so none of it is part
//! of the revision.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{NodeId, Resources};

/// Bounds and targets between which the number of replicas follows the load.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Autoscale {
    /// Fewest replicas. With 0 the service has none after a time without connections.
    pub min: u32,
    /// Most replicas.
    pub max: u32,
    /// What one replica shall have to do, of each measure that counts: the one that asks for most
    /// replicas decides.
    pub targets: BTreeMap<Metric, Aim>,
    /// Milliseconds for which more must have been asked for before replicas are added.
    pub up_window_ms: u64,
    /// Milliseconds for which fewer must have been enough before replicas are taken away; five
    /// minutes when absent.
    pub down_window_ms: Option<u64>,
    /// Milliseconds without a connection after which a service with a minimum of 0 has no replicas;
    /// ten minutes when absent.
    pub zero_after_ms: Option<u64>,
    /// Milliseconds after which the load repeats itself. Replicas are added ahead of what was seen
    /// then; only what is measured counts when absent.
    pub season_ms: Option<u64>,
}

impl Autoscale {
    /// The down window in milliseconds when none is named, as Kubernetes' autoscaler has it.
    pub const DEFAULT_DOWN_MS: u64 = 300_000;
    /// The time without connections in milliseconds when none is named.
    pub const DEFAULT_ZERO_MS: u64 = 600_000;
    /// The longest window or time without connections in milliseconds, a day.
    pub const MAX_WINDOW_MS: u64 = 86_400_000;
    /// The shortest season in milliseconds: a sixteenth of it is a forecast's shortest step, 10 s.
    pub const MIN_SEASON_MS: u64 = 160_000;
    /// The longest season in milliseconds, a week: beyond, the history would not fit a register.
    pub const MAX_SEASON_MS: u64 = 7 * 86_400_000;

    /// Milliseconds for which fewer replicas must have been enough.
    pub fn down_window_ms(&self) -> u64 {
        self.down_window_ms.unwrap_or(Self::DEFAULT_DOWN_MS)
    }

    /// Milliseconds without connections after which there are no replicas; never when absent.
    pub fn zero_after_ms(&self) -> Option<u64> {
        let usual = || self.zero_after_ms.unwrap_or(Self::DEFAULT_ZERO_MS);
        (self.min == 0).then(usual)
    }

    /// The number within the bounds that is nearest.
    pub fn clamp(&self, replicas: u32) -> u32 {
        replicas.max(self.min).min(self.max)
    }

    /// What nodes have to measure: what there are targets for, and whether anybody connects where
    /// that decides about having replicas at all.
    pub fn measured(&self) -> impl Iterator<Item = Metric> + '_ {
        let idle = (self.min == 0).then_some(Metric::Connections);
        let idle = idle.filter(|metric| !self.targets.contains_key(metric));
        self.targets.keys().copied().chain(idle)
    }

    /// What one replica shall have to do, in the unit of the measure; `None` when there is no
    /// target or it is a share of nothing.
    pub fn target(&self, metric: Metric, reservation: Resources) -> Option<u64> {
        let each = match *self.targets.get(&metric)? {
            Aim::Each(amount) => amount,
            Aim::Percent(percent) => {
                let whole = match metric {
                    Metric::Cpu => reservation.cpu_millis,
                    Metric::Memory => reservation.memory,
                    Metric::Connections | Metric::NewConnections => 0,
                };
                whole.saturating_mul(u64::from(percent)) / 100
            }
        };
        (each > 0).then_some(each)
    }
}

/// A measure of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Metric {
    /// CPU time that replicas use, in thousandths of a core.
    Cpu,
    /// Memory that replicas use, in bytes.
    Memory,
    /// Connections through the proxies that are open.
    Connections,
    /// Connections that the proxies accept, in thousandths a second. They carry TCP and UDP and do
    /// not look into it, so requests within a connection are not seen.
    NewConnections,
}

impl Metric {
    /// Whether the proxies see it; otherwise it is read of replicas.
    pub const fn is_of_proxies(self) -> bool {
        match self {
            Self::Cpu | Self::Memory => false,
            Self::Connections | Self::NewConnections => true,
        }
    }

    /// An amount in words.
    pub fn words(self, amount: u64) -> String {
        match self {
            Self::Cpu => format!("{}.{:02} cores", amount / 1_000, amount % 1_000 / 10),
            Self::Memory => format!("{} MiB of memory", amount >> 20),
            Self::Connections => format!("{amount} connections"),
            Self::NewConnections => {
                let (whole, tenth) = (amount / 1_000, amount % 1_000 / 100);
                format!("{whole}.{tenth} new connections/s")
            }
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Connections => "connections",
            Self::NewConnections => "new_connections",
        })
    }
}

/// What one replica shall have to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Aim {
    /// So much, in the unit of the measure.
    Each(u64),
    /// A share of what is reserved for it.
    Percent(u32),
}

/// What a node tells of the load of one service: its own proxies and its own replicas.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    /// What was measured, in the unit of each measure; what is absent is nothing.
    pub amounts: BTreeMap<Metric, u64>,
    /// How many of its replicas the measures of replicas cover.
    pub replicas: u32,
    /// Whether connections wait here because no replica is there.
    pub waits: bool,
}

impl Load {
    /// Whether it says nothing, so that it need not be told.
    pub fn is_nothing(&self) -> bool {
        self.amounts.values().all(|amount| *amount == 0) && self.replicas == 0 && !self.waits
    }
}

/// The order of decisions: of two, all nodes follow the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ScaleStamp {
    /// One more than the greatest that its author knew.
    pub counter: u64,
    /// Who decided.
    pub author: NodeId,
}

impl ScaleStamp {
    /// The greatest counter that is believed: one more decision each millisecond for ten thousand
    /// years. Beyond it somebody made it up, and nobody could decide after it.
    pub const MAX_COUNTER: u64 = 1 << 48;
}

/// How many replicas a service shall have, as one node has decided from what all have told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaleDecision {
    /// Its place in the order.
    pub stamp: ScaleStamp,
    /// How many.
    pub replicas: u32,
    /// The revision of the service that it was made for.
    pub revision: String,
    /// When the number changed, in milliseconds since the Unix epoch by the author's clock.
    pub since: u64,
    /// Why, in words: at most [`ScaleDecision::MAX_REASON`] bytes.
    pub reason: String,
    /// What the load was like, so that whoever decides next knows it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub season: Option<Box<Season>>,
}

impl ScaleDecision {
    /// Bytes of a reason at most.
    pub const MAX_REASON: usize = 240;
}

/// What is known of a load that repeats itself, in thousandths of replicas that it needs: the state
/// of an additive Holt-Winters smoothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Season {
    /// Identifies the targets and the season that it was learned under.
    pub basis: u64,
    /// The step that was learned last: steps since the Unix epoch.
    pub step: u64,
    /// How many steps were learned.
    pub learned: u32,
    /// What is needed on average.
    pub level: i64,
    /// How much more it is each step.
    pub trend: i64,
    /// How much more than the average each step of the season needs.
    pub cycle: Vec<i32>,
}

impl Season {
    /// Steps of a season at most: a week of quarters of an hour.
    pub const MAX_STEPS: usize = 672;
}

/// Loads and decisions of one register at most, each: three times the services that a host
/// sensibly runs.
pub const MAX_SCALED: usize = 512;
