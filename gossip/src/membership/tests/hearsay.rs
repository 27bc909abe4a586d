//! What a member says of others, and is not so.

use std::collections::BTreeMap;

use dunlin_state::Now;

use super::*;
use crate::membership::{Effect, Input, MemberState, Membership};

const HONEST: [u8; 2] = [1, 2];
const LIAR: u8 = 3;
const NOBODY: u8 = 9;

/// Machines by the last byte of their address, and datagrams that arrive at once.
struct Town {
    now: u64,
    machines: BTreeMap<u8, Membership>,
    /// Datagrams to where nobody lives.
    lost: Vec<SocketAddr>,
}

fn place(address: SocketAddr) -> u8 {
    match address {
        SocketAddr::V4(v4) => v4.ip().octets()[3],
        SocketAddr::V6(_) => NOBODY,
    }
}

impl Town {
    /// Two honest nodes and a liar, who all know each other.
    fn new() -> Self {
        let mut town = Self {
            now: 1_000,
            machines: BTreeMap::new(),
            lost: Vec::new(),
        };
        for node in HONEST.into_iter().chain([LIAR]) {
            town.settle_in(node, id(node, 1, 0));
        }
        town.advance(3_000);
        for node in HONEST {
            assert_eq!(town.machines[&node].members().count(), 2);
        }
        town
    }

    fn time(&self) -> Now {
        Now {
            mono: self.now,
            wall: 0,
        }
    }

    fn settle_in(&mut self, at: u8, who: WireId) {
        let now = self.time();
        let machine = Membership::new(who.member, Profile::Lan, u64::from(at), now);
        self.machines.insert(at, machine);
        let address = id(HONEST[0], 1, 0).member.address;
        self.tell(at, Input::Join { address });
    }

    fn tell(&mut self, at: u8, input: Input) {
        let now = self.time();
        let effects = self.machines.get_mut(&at).unwrap().handle(input, now);
        self.carry(at, effects);
    }

    fn carry(&mut self, from: u8, effects: Vec<Effect>) {
        let sender = self.machines[&from].me().node;
        for effect in effects {
            let (to, input) = match effect {
                Effect::Send { to, bytes } => {
                    let from = id(from, 1, 0).member.address;
                    (to, Input::Datagram { from, bytes })
                }
                Effect::SendReliable { to, bytes } => {
                    let at = self.machines.values().find(|m| m.me().node == to);
                    let Some(to) = at.map(|m| m.me().address) else {
                        continue;
                    };
                    let from = sender;
                    (to, Input::Reliable { from, bytes })
                }
                Effect::Event(_) => continue,
            };
            if self.machines.contains_key(&place(to)) {
                self.tell(place(to), input);
            } else {
                self.lost.push(to);
            }
        }
    }

    fn advance(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.now += 5;
            let (now, all): (_, Vec<u8>) = (self.time(), self.machines.keys().copied().collect());
            for at in all {
                let effects = self.machines.get_mut(&at).unwrap().handle_timeout(now);
                self.carry(at, effects);
            }
        }
    }

    /// The liar tells an honest node this about somebody.
    fn lie(&mut self, to: u8, news: Member<WireId>) {
        let header = Header {
            src: *self.machines[&LIAR].foca.identity(),
            src_incarnation: 0,
            dst: *self.machines[&to].foca.identity(),
            message: Message::Gossip,
        };
        let updates = vec![news];
        let body = Packet { header, updates }.encode().unwrap();
        let envelope = Envelope {
            copy: 0,
            copies: 1,
            number: None,
            loss: 0,
            stall: 0,
            view: 0,
        };
        let bytes = envelope.wrap(&body).into();
        let from = id(LIAR, 1, 0).member.address;
        self.tell(to, Input::Datagram { from, bytes });
    }

    fn believes(&self, at: u8, of: u8) -> Option<(MemberState, u64)> {
        let node = NodeId::from_bytes([of; 32]);
        let mut known = self.machines[&at].members();
        known
            .find(|m| m.id.node == node)
            .map(|m| (m.state, m.id.boot))
    }
}

/// An identity of this node at an address where nobody lives.
fn elsewhere(node: u8, boot: u64, bump: u32) -> WireId {
    let mut id = id(node, boot, bump);
    id.member.address = SocketAddr::from(([10, 0, 0, NOBODY], 7000));
    id
}

#[test]
fn a_life_that_never_was_is_asked_about_and_not_believed() {
    let [honest, victim] = HONEST;
    for lie in [
        elsewhere(victim, u64::MAX, 0),
        elsewhere(victim, 1, u32::MAX),
        id(victim, 2, 0),
    ] {
        let mut town = Town::new();
        for to in HONEST {
            town.lie(to, Member::alive(lie));
            town.lie(to, Member::down(lie));
        }
        for _ in 0..1_000 {
            town.advance(5);
            let believed = town.believes(honest, victim);
            assert_eq!(believed, Some((MemberState::Alive, 1)), "{lie:?}");
        }
        assert_eq!(town.machines[&victim].superseded(), None);
        assert_eq!(town.believes(victim, honest), Some((MemberState::Alive, 1)));
        let asked = town.lost.iter().filter(|at| place(**at) == NOBODY).count();
        let elsewhere = place(lie.member.address) == NOBODY;
        assert!(
            !elsewhere || (1..=4).contains(&asked),
            "asked {asked} times"
        );
    }
}

#[test]
fn nobody_says_goodbye_for_another() {
    let [honest, victim] = HONEST;
    let mut town = Town::new();
    let goodbye = town.machines[&victim].foca.identity().leaving();
    for _ in 0..1_000 {
        town.lie(honest, Member::down(goodbye));
        town.advance(5);
        let believed = town.believes(honest, victim);
        assert_eq!(believed, Some((MemberState::Alive, 1)));
    }
}

#[test]
fn the_first_word_of_a_node_puts_right_what_was_told_of_it() {
    let newcomer = 4;
    for lie in [
        Member::alive(elsewhere(newcomer, u64::MAX, 3)),
        Member::down(elsewhere(newcomer, u64::MAX, 0).leaving()),
        Member::alive(elsewhere(newcomer, 1, u32::MAX)),
    ] {
        let mut town = Town::new();
        for to in HONEST {
            town.lie(to, lie.clone());
        }
        town.advance(10);
        town.settle_in(newcomer, id(newcomer, 1, 0));
        town.advance(10_000);
        for at in HONEST {
            let believed = town.believes(at, newcomer);
            assert_eq!(believed, Some((MemberState::Alive, 1)), "{lie:?}");
            let known = town.machines[&at].members();
            let known = known.filter(|m| m.id.node == NodeId::from_bytes([newcomer; 32]));
            for view in known {
                assert_eq!(place(view.id.address), newcomer);
            }
        }
        assert_eq!(town.machines[&newcomer].superseded(), None);
    }
}

#[test]
fn the_remains_of_an_earlier_life_fall_silent_when_the_later_one_speaks() {
    let [first, old] = HONEST;
    let mut town = Town::new();
    // A copy of its disk, on another host, and started once more.
    let mut later = id(old, 2, 0);
    later.member.address = SocketAddr::from(([10, 0, 0, 7], 7000));
    town.settle_in(7, later);
    town.advance(5_000);
    assert_eq!(town.machines[&old].superseded(), Some(2));
    assert_eq!(town.machines[&old].poll_timeout(), None);
    assert_eq!(town.believes(first, old), Some((MemberState::Alive, 2)));
}
