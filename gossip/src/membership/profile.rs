//! Timing presets: every constant with its unit and what it trades.

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::{Config, PeriodicParams};

use super::Profile;
use super::codec::MAX_BODY;

/// Most members a node keeps. Bounds memory (about 300 bytes each) against a peer that invents
/// members; far above the sizes this design is meant for.
pub(super) const MAX_MEMBERS: usize = 8192;

/// The constants of a preset. All times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timing {
    /// In each such period a node probes one random member and watches its neighbour. Shorter
    /// detects faster and costs datagrams in proportion.
    pub(super) probe_period: u64,
    /// Wait this long for a direct answer before asking others to probe, and as long for theirs
    /// before the neighbour is a suspect. Should be above nearly all round trips, and below half
    /// of `probe_period`.
    pub(super) probe_rtt: u64,
    /// Wait this long before the same question goes over the reliable path too. Lower saves
    /// suspicion on lossy paths, higher saves needless messages on slow ones.
    pub(super) fallback_after: u64,
    /// How long a suspect may take to answer before it is believed down. Longer forgives longer
    /// stalls, and is added to every detection. The core's hold (2 s of silence) comes after it.
    pub(super) suspicion: u64,
    /// The longest suspicion, for members which are known to stall.
    pub(super) suspicion_max: u64,
    /// How often news is passed on while there is any.
    pub(super) gossip_period: u64,
    /// To how many members each time. More is faster, and survives more loss.
    pub(super) gossip_fanout: usize,
    /// How many others are asked to probe for us, and are told urgent news at once.
    pub(super) indirect_probes: usize,
    /// How often members that are down, and seeds that are not members, are called. Sets how fast
    /// two halves find each other after a partition; costs a datagram or two each time, and only
    /// while there is anyone to call.
    pub(super) contact_period: u64,
    /// How often some member is asked for the members it knows: repairs views after lost news.
    pub(super) exchange_period: u64,
    /// How long a node's list of members must be quiet before a difference to another's counts,
    /// and the least time between two lists it sends. Must be well above the time gossip takes;
    /// longer leaves gaps open for longer.
    pub(super) view_gap: u64,
    /// How long members that are down stay listed. They are called for as long. Longer survives
    /// longer partitions, shorter forgets replaced machines sooner.
    pub(super) forget_after: u64,
    /// Time between the copies of a datagram. Longer escapes longer bursts of loss.
    pub(super) copy_gap: u64,
    /// A timer this late means that this process (or its host) stood still. Must be above the
    /// scheduling delay of a busy host and below the shortest stall that could convict somebody.
    pub(super) stall_after: u64,
    /// How long a stall counts as typical of a node. Longer forgives rare stalls too, at the
    /// price of slower detection of that one node.
    pub(super) stall_memory: u64,
}

const LAN: Timing = Timing {
    probe_period: 400,
    probe_rtt: 150,
    fallback_after: 75,
    suspicion: 750,
    suspicion_max: 2_200,
    gossip_period: 100,
    gossip_fanout: 3,
    indirect_probes: 3,
    contact_period: 1_000,
    exchange_period: 30_000,
    view_gap: 1_000,
    forget_after: 3_600_000,
    copy_gap: 5,
    stall_after: 200,
    stall_memory: 1_800_000,
};

const WAN: Timing = Timing {
    probe_period: 1_500,
    probe_rtt: 600,
    fallback_after: 350,
    suspicion: 3_000,
    suspicion_max: 6_000,
    gossip_period: 250,
    gossip_fanout: 4,
    indirect_probes: 4,
    contact_period: 3_000,
    exchange_period: 60_000,
    view_gap: 4_000,
    forget_after: 6 * 3_600_000,
    copy_gap: 15,
    stall_after: 500,
    stall_memory: 1_800_000,
};

const LOCAL: Timing = Timing {
    probe_period: 250,
    probe_rtt: 80,
    fallback_after: 40,
    suspicion: 600,
    suspicion_max: 2_200,
    gossip_period: 60,
    gossip_fanout: 3,
    indirect_probes: 3,
    contact_period: 500,
    exchange_period: 15_000,
    view_gap: 600,
    forget_after: 600_000,
    copy_gap: 2,
    stall_after: 200,
    stall_memory: 600_000,
};

impl Timing {
    /// The constants of `profile`.
    pub(super) const fn of(profile: Profile) -> Self {
        match profile {
            Profile::Lan => LAN,
            Profile::Wan => WAN,
            Profile::Local => LOCAL,
        }
    }

    /// How long a suspect that says it stalled for `stall` ms lately may take: such a stall, if it
    /// began just before the failed probe, must not convict it. Half as much again is added, since
    /// the longest stall so far is seldom the longest there will be.
    pub(super) fn suspicion_of(&self, stall: u64) -> u64 {
        if stall == 0 {
            return self.suspicion;
        }
        let needed = (stall + stall / 2).saturating_sub(self.probe_rtt);
        needed.clamp(self.suspicion, self.suspicion_max)
    }

    /// What foca should do in a cluster of `members`. Probe times cannot change while foca runs;
    /// they need not, because the stretching happens in our own timer queue.
    pub(super) fn foca_config(&self, members: usize) -> Config {
        Config {
            probe_period: Duration::from_millis(self.probe_period),
            probe_rtt: Duration::from_millis(self.probe_rtt),
            num_indirect_probes: at_least_one(self.indirect_probes),
            max_transmissions: transmissions(members),
            suspect_to_down_after: Duration::from_millis(self.suspicion),
            remove_down_after: Some(Duration::from_millis(self.forget_after)),
            max_packet_size: at_least_one(MAX_BODY),
            notify_down_members: true,
            periodic_announce: Some(PeriodicParams {
                frequency: Duration::from_millis(self.exchange_period),
                num_members: NonZeroUsize::MIN,
            }),
            // Done by our own contact task, which also knows the seeds.
            periodic_announce_to_down_members: None,
            periodic_gossip: Some(PeriodicParams {
                frequency: Duration::from_millis(self.gossip_period),
                num_members: at_least_one(self.gossip_fanout),
            }),
        }
    }
}

/// The size class of a cluster: the configuration is computed again when it changes.
pub(super) fn size_class(members: usize) -> u32 {
    members.max(1).ilog2()
}

/// How often each node repeats a piece of news: SWIM needs a multiple of log(n). Fewer leaves
/// nodes that never hear of it; more costs bytes for as long as there is news.
fn transmissions(members: usize) -> NonZeroU8 {
    let count = 6 + size_class(members);
    u8::try_from(count)
        .ok()
        .and_then(NonZeroU8::new)
        .unwrap_or(NonZeroU8::MAX)
}

fn at_least_one(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN)
}
