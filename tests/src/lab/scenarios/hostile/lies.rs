//! What a member with a valid certificate can say that is not so.

use std::time::Duration;

use bytes::Bytes;
use dunlin_core::bidding::{self, RoundId};
use dunlin_core::secrets;
use dunlin_core::wire::PeerMessage;
use dunlin_gossip::membership::{Effect, Input, MemberId, MemberState, Membership, Profile};
use dunlin_gossip::replication::{self, ProposalId, Pushed};
use dunlin_state::desired::{Command, Rules};
use dunlin_state::model::{
    Claim, ItemKey, NodeId, NodeReport, Phase, Resources, ServiceKey, Slot, SlotId, Trial, Version,
};
use dunlin_state::observed::Register;
use dunlin_trust::{Credential, Founding, SecretKey};

use super::mallory::{Mallory, seconds};
use super::peace::Honest;
use super::{EVIL, GUARDED, KEEPER};
use crate::lab::net::LabError;

/// Claims of a register near its bound.
const MANY: u32 = 1_500;

/// Versions of such a register.
const VERSIONS: u64 = 30;

/// A lie, and how long it takes to work if it does.
pub(super) struct Lie {
    pub(super) name: &'static str,
    pub(super) tell: fn(&mut Mallory, &[Honest]) -> Result<(), LabError>,
    pub(super) takes: Duration,
    /// What the liar's own machine has to believe of the last honest node first.
    pub(super) believes: Option<MemberState>,
}

const fn lie(
    name: &'static str,
    tell: fn(&mut Mallory, &[Honest]) -> Result<(), LabError>,
    seconds: u64,
) -> Lie {
    Lie {
        name,
        tell,
        takes: Duration::from_secs(seconds),
        believes: None,
    }
}

impl Lie {
    const fn believing(mut self, state: MemberState) -> Self {
        self.believes = Some(state);
        self
    }
}

/// All of them. What is signed for another cluster comes last: who has signed it believes nobody of
/// this one any more.
pub(super) const LIES: &[Lie] = &[
    lie("a life that never was", later_life, 3).believing(MemberState::Down),
    lie("a goodbye in another's name", goodbye, 3).believing(MemberState::Left),
    lie("deaths that were none", death, 3).believing(MemberState::Down),
    lie("a register in another's name", forged_register, 2),
    lie("a claim to what is another's by name", stolen_claim, 3),
    lie("registers as large as can be", huge_registers, 3),
    lie("awards that nobody has bid for", stale_awards, 2),
    lie("what others have said, again", replays, 2),
    lie("messages that are none", junk, 3),
    lie("a deploy without a signature", unsigned_deploy, 2),
    lie("a deploy signed for another cluster", foreign_deploy, 2),
];

/// Has Mallory's machine believe something about a victim, so that it says so to all: a machine in
/// the victim's name talks to it directly, without a seal.
fn whisper(mallory: &mut Mallory, false_self: MemberId) {
    let (now, address) = (mallory.now(), mallory.me.address);
    let mut puppet = Membership::new(false_self, Profile::Lan, 1, now);
    for effect in puppet.handle(Input::Join { address }, now) {
        if let Effect::Send { bytes, .. } = effect {
            let from = false_self.address;
            mallory.tell_members(Input::Datagram { from, bytes });
        }
    }
}

fn victim(honest: &[Honest]) -> Result<&Honest, LabError> {
    honest
        .last()
        .ok_or_else(|| LabError::broken("there is nobody"))
}

fn later_life(mallory: &mut Mallory, honest: &[Honest]) -> Result<(), LabError> {
    for victim in honest {
        let mut address = mallory.me.address;
        address.set_port(9);
        let never = MemberId {
            node: victim.node,
            boot: u64::MAX - 1,
            address,
        };
        whisper(mallory, never);
    }
    Ok(())
}

/// What an honest machine does when an order of removal has come.
fn goodbye(mallory: &mut Mallory, honest: &[Honest]) -> Result<(), LabError> {
    let node = victim(honest)?.node;
    mallory.tell_members(Input::Expel { node });
    Ok(())
}

/// It hears nothing of anybody, also not what others have heard of them, and tells everybody that all
/// of them are gone.
fn death(mallory: &mut Mallory, honest: &[Honest]) -> Result<(), LabError> {
    let all = honest.iter().map(|honest| honest.node);
    mallory.deaf_to.extend(all);
    Ok(())
}

fn say_register(mallory: &Mallory, to: &[Honest], register: &Register) -> Result<(), LabError> {
    let pushed = Pushed::from_bytes(register.encode(None));
    let message = replication::Message::Registers(vec![pushed]);
    let message = PeerMessage::Replication(message);
    to.iter()
        .try_for_each(|honest| mallory.say(honest.node, &message))
}

fn register_of(
    mallory: &Mallory,
    node: NodeId,
    (boot, seq): (u64, u64),
    claims: Vec<Claim>,
) -> Result<Register, LabError> {
    let report = NodeReport {
        name: "mallory".to_owned(),
        claims,
        ..NodeReport::default()
    };
    let version = Version { boot, seq };
    let register = Register::first(node, version, report, &*mallory.seal);
    register.map_err(|e| LabError::new("make a register", e))
}

fn forged_register(mallory: &mut Mallory, honest: &[Honest]) -> Result<(), LabError> {
    for victim in honest {
        for boot in [victim.boot, victim.boot + 1, u64::MAX] {
            let register = register_of(mallory, victim.node, (boot, u64::MAX), Vec::new())?;
            say_register(mallory, honest, &register)?;
        }
    }
    Ok(())
}

fn claim(service: ServiceKey, index: u32, message: Option<String>) -> Claim {
    Claim {
        slot: SlotId {
            service,
            slot: Slot::Replica(index),
        },
        epoch: u64::MAX,
        revision: String::new(),
        phase: Phase::Running,
        ready: true,
        leaving: false,
        since: 0,
        resources: Resources::ZERO,
        host_ports: Vec::new(),
        endpoints: Vec::new(),
        restarts: 0,
        last_exit: None,
        message,
        workload: None,
        started_at: None,
        trial: Trial::Pending,
        moved_from: None,
        history: Vec::new(),
        outputs: dunlin_state::model::Outputs::default(),
    }
}

fn name(text: &str) -> Result<ServiceKey, LabError> {
    text.parse().map_err(|e| LabError::new("name a service", e))
}

/// The slot of a service that a specification gives to one node, and then the secret of it.
fn stolen_claim(mallory: &mut Mallory, honest: &[Honest]) -> Result<(), LabError> {
    let claims = vec![claim(name(KEEPER)?, 0, None)];
    let register = register_of(mallory, mallory.me.node, (mallory.me.boot, 1), claims)?;
    say_register(mallory, honest, &register)?;
    let secret: ItemKey = GUARDED
        .parse()
        .map_err(|e| LabError::new("name a secret", e))?;
    let desired = mallory.replication.desired();
    let item = desired.items.secrets.get(&secret);
    let content = item.ok_or_else(|| LabError::broken("the liar has not heard of the secret"))?;
    let proof = mallory
        .welcome
        .as_ref()
        .map(|w| Bytes::from(w.node.encode()));
    for proof in [None, proof] {
        let want = secrets::Message::Want {
            secret: secret.clone(),
            content: content.content,
            proof,
        };
        for honest in honest {
            mallory.say(honest.node, &PeerMessage::Secrets(want.clone()))?;
        }
    }
    Ok(())
}

fn huge_registers(mallory: &mut Mallory, honest: &[Honest]) -> Result<(), LabError> {
    for seq in 0..VERSIONS {
        let mut claims = Vec::new();
        for index in 0..MANY {
            let text = format!("{seq} {}", "x".repeat(200));
            claims.push(claim(name("ghosts/ghost")?, index, Some(text)));
        }
        let own = (mallory.me.boot, 10 + seq);
        let register = register_of(mallory, mallory.me.node, own, claims)?;
        say_register(mallory, honest, &register)?;
    }
    // And small again, as somebody who hopes that it was not noticed.
    let own = (mallory.me.boot, 10 + VERSIONS);
    let register = register_of(mallory, mallory.me.node, own, Vec::new())?;
    say_register(mallory, honest, &register)
}

fn stale_awards(mallory: &mut Mallory, honest: &[Honest]) -> Result<(), LabError> {
    for seq in 0..200 {
        for boot in [0, mallory.me.boot, u64::MAX] {
            let round = RoundId { boot, seq };
            let slots = vec![(Slot::Replica(0), u64::MAX), (Slot::Replica(1), 1)];
            let award = bidding::Message::Award { round, slots };
            let bid = bidding::Message::Bid {
                round,
                scores: vec![i64::MAX; 256],
            };
            for honest in honest {
                mallory.say(honest.node, &PeerMessage::Bidding(award.clone()))?;
                mallory.say(honest.node, &PeerMessage::Bidding(bid.clone()))?;
            }
        }
    }
    Ok(())
}

fn replays(mallory: &mut Mallory, honest: &[Honest]) -> Result<(), LabError> {
    let heard: Vec<PeerMessage> = mallory.heard.iter().map(|(_, m)| m.clone()).collect();
    for message in heard.iter().rev().take(500).chain(heard.iter().take(500)) {
        for honest in honest {
            mallory.say(honest.node, message)?;
        }
    }
    Ok(())
}

fn junk(mallory: &mut Mallory, honest: &[Honest]) -> Result<(), LabError> {
    let nested = [&[1][..], &[0x81; 100_000]].concat();
    let long = [&[1, 0xbb][..], &[0xff; 8], &[0; 4_000_000]].concat();
    let swim = PeerMessage::Swim(Bytes::from(vec![0x55; 20_000]));
    for honest in honest {
        for bytes in [&nested, &long] {
            mallory.say_bytes(honest.node, Bytes::from(bytes.clone()));
        }
        for length in 1..500_usize {
            let noise = (0..length).map(|at| (at * length % 251) as u8);
            mallory.say_bytes(honest.node, noise.collect());
        }
        mallory.say(honest.node, &swim)?;
    }
    Ok(())
}

fn propose(mallory: &mut Mallory, id: u64) -> Result<(), LabError> {
    let deploy = Command::Deploy {
        service: name(EVIL)?,
        spec: Box::new(super::whoami()),
        replicas: Some(3),
    };
    mallory.tell_replication(replication::Input::Propose {
        id: ProposalId(id),
        commands: vec![deploy],
        author: "root".to_owned(),
    });
    let known = mallory.replication.desired();
    match known.services.contains_key(&name(EVIL)?) {
        true => Ok(()),
        false => Err(LabError::broken("the liar does not believe itself")),
    }
}

fn unsigned_deploy(mallory: &mut Mallory, _honest: &[Honest]) -> Result<(), LabError> {
    propose(mallory, 1)
}

fn foreign_deploy(mallory: &mut Mallory, _honest: &[Honest]) -> Result<(), LabError> {
    let key = SecretKey::from_seed([0x77; 32]);
    let founding = Founding::new([0x77; 32], [0x77; 32], key.public(), seconds());
    let root = founding.root.public();
    let credential = Credential::new(key, founding.admin, &root);
    let credential = credential.map_err(|e| LabError::new("make a credential", e))?;
    let rules = Rules::new(Some(root), vec![credential]);
    mallory.tell_replication(replication::Input::Rules(Box::new(rules)));
    // It stands in the document of the liar already, without a signature.
    let remove = Command::Remove {
        service: name("web")?,
    };
    mallory.tell_replication(replication::Input::Propose {
        id: ProposalId(2),
        commands: vec![remove],
        author: "root".to_owned(),
    });
    Ok(())
}
