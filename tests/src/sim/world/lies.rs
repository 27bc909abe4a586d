//! A member that lies: beside its honest daemon, somebody on its host speaks in its name.
//!
//! What it says is made by the project's own machines, which somebody has told what is not so. It
//! can sign for its own host only: in the simulator seals are checksums, and a datagram that comes in
//! another's name is what a daemon drops before its engine sees it.

use std::collections::VecDeque;
use std::sync::Arc;

use dunlin_core::bidding::{self, RoundId};
use dunlin_core::wire::PeerMessage;
use dunlin_gossip::membership::{Effect, Input, MemberId, Membership, Profile};
use dunlin_gossip::replication::{Message, Pushed};
use dunlin_state::Now;
use dunlin_state::model::{NodeReport, Slot, Version};
use dunlin_state::observed::Register;
use rand::RngExt as _;

use super::World;
use crate::sim::node::address;

/// For how long a machine is told what is not so before its gossip is taken, in milliseconds: until
/// it is convinced that somebody is gone.
const CONVINCED_MS: u64 = 4_000;

/// Messages to the liar that it remembers, to say them again.
const REMEMBERED: usize = 64;

/// Datagrams of one lie that reach their victim.
const SAID: usize = 40;

/// Who lies.
#[derive(Debug, Default)]
pub(in crate::sim) struct Liar {
    host: Option<usize>,
    /// What it was told last.
    heard: VecDeque<PeerMessage>,
}

impl World {
    /// Makes a liar of a host.
    pub(in crate::sim) fn corrupt(&mut self, host: usize) {
        self.liar.host = Some(host);
    }

    /// The liar tells everybody something.
    pub(in crate::sim) fn lie(&mut self, liar: usize) {
        let victim = self.rng.random_range(0..self.hosts.len());
        let kind = self.rng.random_range(0..5);
        if victim == liar || !self.hosts[liar].is_up() {
            return;
        }
        for to in (0..self.hosts.len()).filter(|to| *to != liar) {
            match kind {
                0 => self.gossip_of(liar, to, self.false_life(victim, to)),
                1 => self.gossip_of(liar, to, self.identity(victim)),
                2 => self.forge_register(liar, to, victim),
                3 => self.award_in_vain(liar, to),
                _ => self.say_again(liar, to),
            }
        }
    }

    /// What the liar is told, it remembers.
    pub(super) fn overhear(&mut self, to: usize, message: &PeerMessage) {
        if self.liar.host != Some(to) {
            return;
        }
        if self.liar.heard.len() == REMEMBERED {
            self.liar.heard.pop_front();
        }
        self.liar.heard.push_back(message.clone());
    }

    fn identity(&self, host: usize) -> MemberId {
        MemberId {
            node: self.hosts[host].id,
            boot: self.hosts[host].life,
            address: address(host),
        }
    }

    /// A life of the victim that never was, where somebody else lives.
    fn false_life(&self, victim: usize, at: usize) -> MemberId {
        MemberId {
            boot: u64::MAX - 1,
            address: address(at),
            ..self.identity(victim)
        }
    }

    /// Gossip of the liar about somebody it has only been told of: that there is such a life, and
    /// then, since nobody answers, that it is over.
    fn gossip_of(&mut self, liar: usize, to: usize, about: MemberId) {
        let me = self.identity(liar);
        let start = 1_000;
        let at = |mono| Now { mono, wall: 0 };
        let seed = self.rng.random();
        let mut machine = Membership::new(me, Profile::Lan, seed, at(start));
        for known in [self.identity(to), about] {
            let mut puppet = Membership::new(known, Profile::Lan, seed, at(start));
            let join = Input::Join {
                address: me.address,
            };
            for effect in puppet.handle(join, at(start)) {
                if let Effect::Send { bytes, .. } = effect {
                    let from = known.address;
                    // What it answers is for a puppet, which does not listen.
                    let _unsaid = machine.handle(Input::Datagram { from, bytes }, at(start));
                }
            }
        }
        let mut said = 0;
        while let Some(due) = machine
            .poll_timeout()
            .filter(|due| *due < start + CONVINCED_MS)
        {
            // Whom it speaks to is alive, also in the eyes of this machine.
            let node = self.hosts[to].id;
            let heard = Input::Heard { node };
            let mut effects = machine.handle(heard, at(due));
            effects.extend(machine.handle_timeout(at(due)));
            for effect in effects {
                match effect {
                    Effect::Send {
                        to: where_to,
                        bytes,
                    } if where_to == address(to) && said < SAID => {
                        said += 1;
                        self.send_datagram(liar, where_to, &bytes);
                    }
                    Effect::Send { .. } | Effect::SendReliable { .. } | Effect::Event(_) => {}
                }
            }
        }
    }

    /// A register of the victim, in which it has given up everything.
    fn forge_register(&mut self, liar: usize, to: usize, victim: usize) {
        let seal = self.hosts[liar].seal();
        let version = Version {
            boot: u64::MAX,
            seq: u64::MAX,
        };
        let report = NodeReport::default();
        let forged = Register::first(self.hosts[victim].id, version, report, &*seal);
        if let Ok(register) = forged {
            let pushed = Pushed::to(&Arc::new(register), None);
            let message = Message::Registers(vec![pushed]);
            self.send_message(liar, self.hosts[to].id, PeerMessage::Replication(message));
        }
    }

    /// Slots for which nobody has bid, and bids for which nobody has asked.
    fn award_in_vain(&mut self, liar: usize, to: usize) {
        let round = RoundId {
            boot: self.hosts[to].life,
            seq: self.rng.random_range(0..50),
        };
        let slots = vec![(Slot::Replica(self.rng.random_range(0..4)), u64::MAX)];
        let bid = bidding::Message::Bid {
            round,
            scores: vec![i64::MAX; 8],
        };
        for message in [bidding::Message::Award { round, slots }, bid] {
            let to = self.hosts[to].id;
            self.send_message(liar, to, PeerMessage::Bidding(message));
        }
    }

    fn say_again(&mut self, liar: usize, to: usize) {
        for message in self.liar.heard.clone() {
            let to = self.hosts[to].id;
            self.send_message(liar, to, message);
        }
    }
}
