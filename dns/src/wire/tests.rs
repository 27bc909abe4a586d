use hickory_proto::op::{Edns as HickoryEdns, Message, MessageType, Query as Asked};
use hickory_proto::rr::Name;
use proptest::prelude::*;

use super::*;

fn packet(name: &str, edns: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    let name = Name::from_ascii(name).unwrap();
    message.add_query(Asked::query(name, RecordType::A));
    message.edns = edns.map(|payload| {
        let mut edns = HickoryEdns::new();
        edns.set_max_payload(payload);
        edns.set_dnssec_ok(true);
        edns
    });
    message.to_vec().unwrap()
}

fn code(packet: &[u8]) -> Option<ResponseCode> {
    match Packet::read(packet) {
        Packet::Silent => panic!("it is a query"),
        Packet::Bad(code) => Some(code),
        Packet::Query(_) => None,
    }
}

#[test]
fn limits_of_labels_and_names_are_kept() {
    let label = |length: u8| [&[length], &vec![b'a'; length.into()][..]].concat();
    let with = |labels: &[u8]| {
        let header = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        [&header, labels, &[0, 0, 1, 0, 1]].concat()
    };
    let bad = Some(ResponseCode::FormErr);
    assert_eq!(code(&with(&label(63))), None);
    let three = label(63).repeat(3);
    assert_eq!(
        code(&with(&[&three[..], &label(61)].concat())),
        None,
        "255 octets"
    );
    assert_eq!(
        code(&with(&[&three[..], &label(62)].concat())),
        bad,
        "256 octets"
    );
    assert_eq!(code(&with(&label(1).repeat(127))), None);
    assert_eq!(code(&with(&label(1).repeat(128))), bad);
    // Pointers: to itself, forward, and to the header; and the two reserved kinds of labels.
    for first in [[0xc0, 12], [0xc0, 40], [0xc0, 0], [0x40, 1], [0x80, 1]] {
        assert_eq!(code(&with(&first)), bad, "{first:?}");
    }
}

#[test]
fn edns_must_be_well_formed() {
    let good = packet("a.b.", Some(4_096));
    let Packet::Query(query) = Packet::read(&good) else {
        panic!("it is a query");
    };
    let edns = Edns {
        payload: 4_096,
        version: 0,
        dnssec_ok: true,
    };
    assert_eq!(query.edns, Some(edns));
    let length = good.len();
    let changed = |at: usize, value: u8| {
        let mut packet = good.clone();
        packet[at] = value;
        packet
    };
    let longer = |bytes: &[u8]| [&good[..], bytes].concat();
    let with_options = |options: &[u8]| {
        let mut packet = longer(options);
        packet[length - 1] = options.len() as u8;
        packet
    };
    let twice = {
        let mut packet = longer(&good[length - OPT..]);
        packet[11] = 2;
        packet
    };
    let bad = Some(ResponseCode::FormErr);
    assert_eq!(code(&changed(length - OPT, 1)), bad, "not of the root");
    assert_eq!(code(&changed(length - 1, 1)), bad, "data that is not there");
    assert_eq!(code(&longer(&[0])), bad, "something after it");
    assert_eq!(code(&twice), bad);
    assert_eq!(code(&with_options(&[0, 10, 0, 2, 1, 2])), None);
    assert_eq!(code(&with_options(&[0, 10, 0, 3, 1, 2])), bad);
    assert_eq!(code(&with_options(&[0, 10, 0])), bad);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Whatever this reader takes, hickory reads the same.
    #[test]
    fn agrees_with_hickory(
        labels in prop::collection::vec("[!-~]{1,12}", 0..5),
        edns in prop::option::of(any::<u16>()),
        at in 0..80_usize,
        value: u8,
        damaged: bool,
    ) {
        let name = Name::from_labels(labels.iter().map(|l| l.as_bytes())).unwrap();
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Asked::query(name, RecordType::AAAA));
        message.edns = edns.map(|payload| {
            let mut edns = HickoryEdns::new();
            edns.set_max_payload(payload);
            edns
        });
        let mut packet = message.to_vec().unwrap();
        if damaged && let Some(byte) = packet.get_mut(at) {
            *byte = value;
        }
        match Packet::read(&packet) {
            Packet::Query(query) => {
                let read = Message::from_vec(&packet);
                // Hickory knows the contents of some options and signatures, which are passed over
                // here.
                let Ok(read) = read else {
                    prop_assert!(damaged);
                    return Ok(());
                };
                let theirs = &read.queries[0];
                let lower: Vec<u8> = theirs.name().to_lowercase().iter()
                    .flat_map(|l| [&[l.len() as u8], l].concat()).collect();
                prop_assert_eq!(query.name.as_bytes(), &lower[..]);
                prop_assert_eq!(query.name.labels(), theirs.name().iter().count());
                prop_assert_eq!(query.record_type, theirs.query_type());
                // Hickory takes the highest bit for what it means in multicast DNS (RFC 6762, 5.4).
                let class = u16::from(query.class) & 0x7fff;
                prop_assert_eq!(class, u16::from(theirs.query_class()) & 0x7fff);
                prop_assert_eq!(query.edns.map(|e| e.version), read.edns.as_ref().map(|e| e.version()));
            }
            Packet::Bad(_) | Packet::Silent => prop_assert!(damaged),
        }
    }

    #[test]
    fn skipping_a_name_always_ends(packet in prop::collection::vec(any::<u8>(), 0..600), at in 0..600_usize) {
        if let Some(end) = skip_name(&packet, at) {
            prop_assert!(end > at && end <= packet.len());
        }
    }
}
