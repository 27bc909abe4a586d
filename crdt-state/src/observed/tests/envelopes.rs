//! Envelopes: whole ones, changes, and what liars send.

use bytes::Bytes;
use proptest::prelude::*;

use super::super::check::MAX_REMOVED;
use super::*;

fn report(name: &str, claims: Vec<Claim>) -> NodeReport {
    NodeReport {
        name: name.to_owned(),
        claims,
        ..NodeReport::default()
    }
}

fn written(boot: u64, seq: u64, report: NodeReport) -> Register {
    let version = Version { boot, seq };
    Register::first(node(1), version, report, &seal(1)).unwrap()
}

/// What a receiver makes of an encoded register.
fn open(bytes: &Bytes, known: Option<&Register>) -> Result<Register, Refused> {
    Register::open(Envelope::decode(bytes)?, known, &seal(2))
}

fn services(register: &Register) -> Vec<String> {
    let claims = register.view().report.claims.iter();
    claims.map(|c| c.slot.to_string()).collect()
}

#[test]
fn a_register_arrives_as_it_was_written() {
    let on_node = claim_of("agent", Slot::Node(node(1)));
    let sent = written(3, 7, report("a", vec![claim("web"), on_node, claim("db")]));
    let came = open(&sent.encode(None), None).unwrap();
    assert_eq!(came, sent);
    assert_eq!(came.view(), sent.view());
    assert_eq!(came.encode(None), sent.encode(None));
    assert_eq!(came.view().report.claims.len(), 3);
    assert!(sent.encode(None).len() <= sent.size(None));
}

#[test]
fn changes_are_small_and_lead_to_the_same_register() {
    let claims: Vec<Claim> = (0..100).map(|n| claim(&format!("s{n}"))).collect();
    let first = written(1, 1, report("a", claims.clone()));
    let mut second = claims;
    second[50].ready = false;
    second.remove(20);
    let second = first.next(2, report("a", second), &seal(1)).unwrap();
    let known = Version { boot: 1, seq: 1 };
    let base = second.base_for(Some(known));
    assert_eq!(base, Some(1));
    let changes = second.encode(base);
    assert!(changes.len() < 700, "{} bytes", changes.len());
    assert!(second.encode(None).len() > 20_000);
    let came = open(&changes, Some(&first)).unwrap();
    assert_eq!(came, second);
    assert_eq!(came.view(), second.view());
    // Whoever received changes can pass on changes.
    assert_eq!(came.encode(base), changes);
}

#[test]
fn changes_fit_whoever_knows_at_least_their_base() {
    let steps: Vec<Register> =
        (2..6).fold(vec![written(1, 1, report("1", vec![]))], |mut all, seq| {
            let claims = (0..seq).map(|n| claim(&format!("s{n}"))).collect();
            let next = all.last().unwrap();
            all.push(next.next(seq, report("1", claims), &seal(1)).unwrap());
            all
        });
    let last = &steps[4];
    let since_two = last.encode(Some(2));
    for known in &steps[1..4] {
        assert_eq!(open(&since_two, Some(known)).unwrap(), *last);
    }
    for known in [None, Some(&steps[0])] {
        assert_eq!(open(&since_two, known), Err(Refused::NeedsBase));
    }
    let other_life = written(2, 1, report("1", vec![]));
    assert_eq!(open(&since_two, Some(&other_life)), Err(Refused::NeedsBase));
}

#[test]
fn who_missed_too_many_removals_gets_everything() {
    let claims: Vec<Claim> = (0..200).map(|n| claim(&format!("s{n}"))).collect();
    let mut current = written(1, 1, report("a", claims.clone()));
    let first = current.clone();
    for seq in 2..150 {
        let left = claims[seq..].to_vec();
        current = current
            .next(seq as u64, report("a", left), &seal(1))
            .unwrap();
    }
    let version = |seq| Some(Version { boot: 1, seq });
    assert_eq!(current.base_for(version(1)), None);
    let recent = 149 - MAX_REMOVED as u64 / 2;
    assert_eq!(current.base_for(version(recent)), Some(recent));
    let lie = current.encode(Some(1));
    assert_eq!(open(&lie, Some(&first)), Err(Refused::Forged));
    assert_eq!(open(&current.encode(None), Some(&first)).unwrap(), current);
    assert!(
        current.encode(None).len() < 20_000,
        "old removals are dropped"
    );
}

#[test]
fn parts_of_kinds_that_nobody_knows_are_carried_along() {
    // As a newer daemon would write it.
    let known = written(1, 1, report("a", vec![claim("web")]));
    let mut envelope = Envelope::decode(&known.encode(None)).unwrap();
    let future = Parcel {
        key: Bytes::from_static(b"zones"),
        seq: 1,
        body: Bytes::from_static(&[0xff, 0x00]),
    };
    envelope.parts.push(future);
    assert_eq!(open(&envelope.encode(), None), Err(Refused::Forged));
    let signed = Signing(seal(1));
    let digest = signed.digest_of(&envelope);
    envelope.proof = signed.0.sign(&digest);
    let came = open(&envelope.encode(), None).unwrap();
    assert_eq!(services(&came), ["default/web.0"]);
    assert_eq!(came.encode(None), envelope.encode());
}

/// Finds out what has to be signed by asking for a verification.
struct Signing(SharedSecret);

#[derive(Debug, Default)]
struct Asked(std::sync::Mutex<[u8; 32]>);

impl Seal for Asked {
    fn sign(&self, _: &[u8; 32]) -> Proof {
        Proof([0; PROOF_BYTES])
    }

    fn verify(&self, _: NodeId, digest: &[u8; 32], _: &Proof) -> bool {
        *self.0.lock().unwrap() = *digest;
        false
    }
}

impl Signing {
    fn digest_of(&self, envelope: &Envelope) -> [u8; 32] {
        let asked = Asked::default();
        let _refused = Register::open(envelope.clone(), None, &asked);
        asked.0.into_inner().unwrap()
    }
}

#[test]
fn nobody_writes_for_another() {
    let honest = written(1, 5, report("a", vec![claim("web")]));
    let forged = Register::first(
        node(1),
        Version { boot: 9, seq: 9 },
        report("a", vec![]),
        &seal(2),
    )
    .unwrap();
    assert_eq!(open(&forged.encode(None), None), Err(Refused::Forged));
    // An honest register under a higher number, another name, or without a part.
    let altered = |change: &dyn Fn(&mut Envelope)| {
        let mut envelope = Envelope::decode(&honest.encode(None)).unwrap();
        change(&mut envelope);
        open(&envelope.encode(), None)
    };
    assert!(altered(&|_| {}).is_ok());
    let changes: [&dyn Fn(&mut Envelope); 6] = [
        &|e| e.header.version.seq += 1,
        &|e| e.header.version.boot += 1,
        &|e| e.header.floor = 0,
        &|e| e.header.node = node(3),
        &|e| drop(e.parts.remove(0)),
        &|e| e.parts[0].seq -= 1,
    ];
    for change in changes {
        assert_eq!(altered(change), Err(Refused::Forged));
    }
}

#[test]
fn parts_of_two_versions_do_not_mix() {
    let web = |epoch| Claim {
        epoch,
        ..claim("web")
    };
    let first = written(1, 1, report("a", vec![web(1), claim("db")]));
    let second = first.next(2, report("a", vec![web(2)]), &seal(1)).unwrap();
    let mut envelope = Envelope::decode(&second.encode(Some(1))).unwrap();
    // The removal of `db` is held back.
    envelope
        .parts
        .retain(|part| part.key.as_ref() != b"cdefault/db.0");
    assert_eq!(open(&envelope.encode(), Some(&first)), Err(Refused::Forged));
    // The old claim in the new envelope.
    let old = Envelope::decode(&first.encode(None)).unwrap();
    let mut envelope = Envelope::decode(&second.encode(None)).unwrap();
    let place = |e: &Envelope| {
        e.parts
            .iter()
            .position(|p| p.key.as_ref() == b"cdefault/web.0")
    };
    let (from, to) = (place(&old).unwrap(), place(&envelope).unwrap());
    envelope.parts[to] = old.parts[from].clone();
    assert_eq!(open(&envelope.encode(), None), Err(Refused::Forged));
}

#[test]
fn every_cut_and_every_flipped_bit_is_noticed() {
    let whole = written(1, 5, report("a", vec![claim("web")])).encode(None);
    for end in 0..whole.len() {
        assert!(open(&whole.slice(..end), None).is_err(), "cut at {end}");
    }
    for at in 0..whole.len() * 8 {
        let mut bytes = whole.to_vec();
        bytes[at / 8] ^= 1 << (at % 8);
        assert!(open(&bytes.into(), None).is_err(), "bit {at}");
    }
    let mut longer = whole.to_vec();
    longer.push(0);
    assert!(open(&longer.into(), None).is_err());
}

#[test]
fn a_signed_register_must_still_keep_the_bounds() {
    let signed = Signing(seal(1));
    let honest = written(1, 5, report("a", vec![claim("web")]));
    let with = |parts: Vec<(&'static [u8], Bytes)>| {
        let mut envelope = Envelope::decode(&honest.encode(None)).unwrap();
        for (key, body) in parts {
            envelope.parts.retain(|p| p.key != key);
            let key = Bytes::from_static(key);
            envelope.parts.push(Parcel { key, seq: 5, body });
        }
        envelope.parts.sort_by(|a, b| a.key.cmp(&b.key));
        envelope.proof = signed.0.sign(&signed.digest_of(&envelope));
        open(&envelope.encode(), None)
    };
    let body = |claim: &Claim| {
        let mut bytes = Vec::new();
        ciborium::into_writer(claim, &mut bytes).unwrap();
        Bytes::from(bytes)
    };
    assert!(with(vec![]).is_ok());
    let is_part = |result| matches!(result, Err(Refused::Part { .. }));
    assert!(is_part(with(vec![(b"cdefault/db.0", body(&claim("web")))])));
    assert!(is_part(with(vec![(
        b"cdefault/web.00",
        body(&claim("web"))
    )])));
    assert!(is_part(with(vec![(b"cweb.0", body(&claim("web")))])));
    assert!(is_part(with(vec![(b"h", Bytes::from_static(&[0xff]))])));
    let deep = Bytes::from(vec![0x81; 10_000]);
    assert!(is_part(with(vec![(b"h", deep)])));
    let talkative = Claim {
        message: Some("x".repeat(5_000)),
        ..claim("web")
    };
    let refused = with(vec![(b"cdefault/web.0", body(&talkative))]);
    assert!(matches!(refused, Err(Refused::Bounds(_))));
}

proptest! {
    #[test]
    fn rubbish_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        let _ = Envelope::peek(&bytes);
        prop_assert!(open(&bytes, None).is_err());
    }

    /// Any history of claims arrives by changes from any base that is served.
    #[test]
    fn changes_and_whole_registers_agree(
        history in proptest::collection::vec(
            proptest::collection::btree_map(0..12_u32, 0..3_u64, 0..10), 1..20),
        known in any::<proptest::sample::Index>(),
    ) {
        let mut all: Vec<Register> = Vec::new();
        for (seq, claims) in (1..).zip(history) {
            let claims = claims.into_iter().map(|(index, epoch)| Claim {
                epoch,
                ..claim_of("web", Slot::Replica(index))
            });
            let report = report("a", claims.collect());
            all.push(match all.last() {
                None => written(1, seq, report),
                Some(last) => last.next(seq, report, &seal(1)).unwrap(),
            });
        }
        let last = all.last().unwrap();
        let known = &all[known.index(all.len())];
        let base = last.base_for(Some(known.version()));
        prop_assert!(base.is_some() || known.version() == last.version());
        let came = open(&last.encode(base), Some(known)).unwrap();
        prop_assert_eq!(came.view(), last.view());
        prop_assert_eq!(&came, last);
        let whole = open(&last.encode(None), None).unwrap();
        prop_assert_eq!(whole.view(), last.view());
    }
}
