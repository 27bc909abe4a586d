//! The parts of the machine, each by itself. `tests/swim` has the whole.

mod hearsay;

use std::net::SocketAddr;

use dunlin_state::model::NodeId;
use foca::{Header, Identity, Member, Message, State};
use proptest::prelude::*;

use super::codec::{Envelope, MAX_DATAGRAM, Packet, WireError};
use super::health::LocalHealth;
use super::identity::WireId;
use super::path::{Arrival, Overall, Path};
use super::profile::Timing;
use super::queue::{Queue, Task};
use super::{MemberId, Profile};

fn id(node: u8, boot: u64, bump: u32) -> WireId {
    WireId {
        bump,
        ..WireId::new(MemberId {
            node: NodeId::from_bytes([node; 32]),
            boot,
            address: SocketAddr::from(([10, 0, 0, node], 7000)),
        })
    }
}

fn any_id() -> impl Strategy<Value = WireId> {
    let key = any::<[u8; 32]>();
    let address = (any::<std::net::IpAddr>(), any::<u16>());
    (key, any::<u64>(), address, any::<u32>(), any::<bool>()).prop_map(
        |(key, boot, (ip, port), bump, left)| WireId {
            member: MemberId {
                node: NodeId::from_bytes(key),
                boot,
                address: SocketAddr::new(ip, port),
            },
            bump,
            left,
        },
    )
}

fn any_message() -> impl Strategy<Value = Message<WireId>> {
    (0..11u8, any_id(), any::<u8>()).prop_map(|(kind, third, probe_number)| match kind {
        0 => Message::Ping(probe_number),
        1 => Message::Ack(probe_number),
        2 => Message::PingReq {
            target: third,
            probe_number,
        },
        3 => Message::IndirectPing {
            origin: third,
            probe_number,
        },
        4 => Message::IndirectAck {
            target: third,
            probe_number,
        },
        5 => Message::ForwardedAck {
            origin: third,
            probe_number,
        },
        6 => Message::Announce,
        7 => Message::Feed,
        8 => Message::Gossip,
        9 => Message::Broadcast,
        _ => Message::TurnUndead,
    })
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let state = prop::sample::select(vec![State::Alive, State::Suspect, State::Down]);
    let update = (any_id(), any::<u16>(), state).prop_map(|(id, inc, st)| Member::new(id, inc, st));
    let updates = prop::collection::vec(update, 0..10);
    (any_id(), any::<u16>(), any_id(), any_message(), updates).prop_map(
        |(src, src_incarnation, dst, message, mut updates)| {
            if message == Message::Announce {
                updates.clear();
            }
            let header = Header {
                src,
                src_incarnation,
                dst,
                message,
            };
            Packet { header, updates }
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_can_be_read(packet in any_packet(), number: Option<u16>, loss: u8, view: u32) {
        let body = packet.encode().expect("ten updates fit");
        let envelope = Envelope { copy: 1, copies: 3, number, loss, stall: 7, view };
        let bytes = envelope.wrap(&body);
        prop_assert!(bytes.len() <= MAX_DATAGRAM);
        let (envelope_read, body_read) = Envelope::unwrap(&bytes, false).expect("valid");
        prop_assert_eq!(envelope_read, envelope);
        prop_assert_eq!(Packet::decode(body_read).expect("valid"), packet);
    }

    #[test]
    fn what_is_cut_or_longer_is_refused(packet in any_packet(), cut in any::<prop::sample::Index>()) {
        let mut body = packet.encode().expect("ten updates fit");
        let len = body.len();
        let shorter = &body[..cut.index(len)];
        // A body without its updates is a whole one.
        if let Ok(read) = Packet::decode(shorter) {
            prop_assert!(read.updates.is_empty() && read.header == packet.header);
        }
        body.extend([0; 3]);
        prop_assert!(Packet::decode(&body).is_err());
    }

    #[test]
    fn one_of_two_identities_of_a_node_wins(a in any_id(), b in any_id()) {
        let b = WireId { member: MemberId { node: a.member.node, ..b.member }, ..b };
        prop_assert_eq!(a != b, a.win_addr_conflict(&b) || b.win_addr_conflict(&a));
        prop_assert!(!(a.win_addr_conflict(&b) && b.win_addr_conflict(&a)));
    }

    #[test]
    fn copies_are_handled_once_in_any_order(order in Just((0..60u16).collect::<Vec<_>>()).prop_shuffle()) {
        let mut overall = Overall::default();
        let mut path = Path::new(0, &overall);
        let mut fresh = 0;
        for number in order {
            let copy = (number % 3) as u8;
            let at = number.wrapping_sub(30);
            if path.arrived(at, copy, 3, &mut overall) == Arrival::Fresh {
                fresh += 1;
            }
        }
        prop_assert_eq!(fresh, 20);
    }
}

#[test]
fn identities_are_ordered_by_boot_then_bump() {
    let old = id(1, 1, 9);
    assert!(id(1, 2, 0).win_addr_conflict(&old));
    assert!(old.renew().is_some_and(|next| next.win_addr_conflict(&old)));
    assert!(old.leaving().win_addr_conflict(&old));
    assert_eq!(old.leaving().renew(), None);
}

#[test]
fn envelopes_with_no_meaning_are_refused() {
    let good = Envelope {
        copy: 0,
        copies: 1,
        number: Some(5),
        loss: 0,
        stall: 0,
        view: 0,
    };
    let bytes = good.wrap(b"body");
    let with = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        Envelope::unwrap(&bytes, false).err()
    };
    assert_eq!(with(0, 2), Some(WireError::Version(2)));
    assert_eq!(with(1, 0), Some(WireError::Meaning(0)), "no copies");
    assert_eq!(
        with(1, 0b111),
        Some(WireError::Meaning(0b111)),
        "copy 3 of 1"
    );
    assert_eq!(with(1, 0x84), Some(WireError::Meaning(0x84)));
    assert_eq!(
        Envelope::unwrap(&bytes[..9], false).err(),
        Some(WireError::Short)
    );
    let long = good.wrap(&[0; MAX_DATAGRAM]);
    assert_eq!(Envelope::unwrap(&long, false).err(), Some(WireError::Long));
    assert!(Envelope::unwrap(&long, true).is_ok());
}

/// Copies that a sender uses after its receiver saw every `lost`-th of 400 transmissions vanish.
fn copies_after(lost: u16) -> u8 {
    let mut overall = Overall::default();
    let mut receiver = Path::new(0, &overall);
    for number in 0..400u16 {
        if lost == 0 || number % lost != 0 {
            receiver.arrived(number, 0, 1, &mut overall);
        }
    }
    let report = receiver.report(&overall);
    let mut sender = Path::new(0, &Overall::default());
    sender.reported(report, &mut Overall::default());
    sender.copies()
}

#[test]
fn copies_follow_the_measured_loss() {
    for (lost, copies) in [(0, 1), (100, 1), (12, 2), (5, 3), (3, 3)] {
        assert_eq!(copies_after(lost), copies, "every {lost}th lost");
    }
}

#[test]
fn an_outage_is_not_taken_for_loss() {
    let mut overall = Overall::default();
    let mut path = Path::new(0, &overall);
    for number in (0..50u16).chain(20_000..20_050) {
        path.arrived(number, 0, 1, &mut overall);
    }
    assert_eq!(path.report(&overall), 0);
}

#[test]
fn fewer_copies_are_used_again_only_well_below_the_threshold() {
    let mut overall = Overall::default();
    let mut path = Path::new(0, &overall);
    for (report, copies) in [(36, 3), (30, 3), (23, 2), (6, 2), (5, 1), (7, 1), (8, 2)] {
        path.reported(report, &mut overall);
        assert_eq!(path.copies(), copies, "after a report of {report}");
    }
}

#[test]
fn health_falls_with_trouble_of_ones_own_and_rises_with_answers() {
    let mut health = LocalHealth::default();
    let node = |byte| NodeId::from_bytes([byte; 32]);
    for _ in 0..5 {
        health.probe_failed(node(1));
    }
    assert_eq!(health.score(), 0, "one dead member is its own trouble");
    health.probe_failed(node(2));
    health.accused();
    health.stalled(1_000, 0, 10_000);
    assert_eq!((health.score(), health.stretch(100)), (4, 300));
    for _ in 0..4 {
        health.probe_answered();
    }
    assert_eq!((health.score(), health.stretch(100)), (0, 100));
}

#[test]
fn stalls_are_told_for_a_while() {
    let mut health = LocalHealth::default();
    health.stalled(1_600, 5_000, 10_000);
    health.stalled(160, 6_000, 10_000);
    assert_eq!(health.stall_report(9_000, 10_000), 100);
    assert_eq!(health.stall_report(15_000, 10_000), 100);
    assert_eq!(health.stall_report(26_000, 10_000), 0);
}

#[test]
fn a_delay_moves_everything_and_gives_suspects_a_new_start() {
    let mut queue = Queue::default();
    let timer = foca::Timer::RemoveDown(id(1, 1, 0));
    let convict = Task::Convict {
        member: id(1, 1, 0),
        since: 0,
        timer,
    };
    queue.push(100, Task::Contact);
    queue.push(150, convict);
    queue.push(900, Task::Watch);
    let suspects = queue.delay(1_000, |_| 1_500);
    assert_eq!(suspects, [id(1, 1, 0)]);
    assert!(queue.pop_due(1_099).is_none());
    assert!(matches!(queue.pop_due(1_100), Some(Task::Contact)));
    assert!(queue.pop_due(1_499).is_none());
    assert!(matches!(queue.pop_due(1_500), Some(Task::Convict { .. })));
    assert_eq!(queue.next_due(), Some(1_900));
}

#[test]
fn presets_keep_the_order_that_the_protocol_needs() {
    for profile in [Profile::Lan, Profile::Wan, Profile::Local] {
        let timing = Timing::of(profile);
        assert!(timing.fallback_after < timing.probe_rtt);
        assert!(2 * timing.probe_rtt < timing.probe_period);
        assert!(timing.probe_rtt < timing.suspicion);
        assert!(timing.suspicion < timing.suspicion_max);
        assert!(3 * timing.copy_gap < timing.fallback_after);
        assert_eq!(timing.suspicion_of(0), timing.suspicion);
        assert_eq!(timing.suspicion_of(60_000), timing.suspicion_max);
    }
}
