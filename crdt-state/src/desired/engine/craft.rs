//! Changes that no honest node makes, for tests.

use automerge::transaction::{Transactable, Transaction};
use automerge::{ActorId, Automerge, ObjType, ROOT, ScalarValue};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::chunk::read_uleb;
use crate::desired::{Actor, Document};

/// A change made by `actor` on top of `document` with all of automerge's freedom.
pub(in crate::desired) fn change(
    document: &Document,
    actor: Actor,
    make: impl FnOnce(&mut Transaction<'_>),
) -> Bytes {
    let mut am = Automerge::load(&document.save()).unwrap();
    am.set_actor(ActorId::from(actor.0));
    let mut tx = am.transaction();
    make(&mut tx);
    tx.commit();
    Bytes::copy_from_slice(am.get_last_local_change().unwrap().raw_bytes())
}

/// One change for each shape that must be refused.
pub(in crate::desired) fn wrong_shapes(document: &Document, actor: Actor) -> Vec<Bytes> {
    let shapes: [fn(&mut Transaction<'_>); 7] = [
        |tx| tx.put(ROOT, "svc/default/web/spec", "text").unwrap(),
        |tx| tx.put(ROOT, "a", 1_i64).unwrap(),
        |tx| drop(tx.put_object(ROOT, "a", ObjType::Map).unwrap()),
        |tx| {
            let list = tx.put_object(ROOT, "a", ObjType::List).unwrap();
            tx.insert(&list, 0, ScalarValue::Bytes(vec![1])).unwrap();
        },
        |tx| {
            tx.put(ROOT, "meta/format", ScalarValue::Bytes(vec![2]))
                .unwrap()
        },
        |tx| {
            tx.put(ROOT, "k".repeat(600), ScalarValue::Bytes(vec![2]))
                .unwrap()
        },
        |tx| {
            tx.put(ROOT, "a", ScalarValue::Bytes(vec![0; 70_000]))
                .unwrap()
        },
    ];
    let made = shapes.into_iter().map(|make| change(document, actor, make));
    made.collect()
}

/// A change of another document.
pub(in crate::desired) fn orphan(actor: Actor) -> Bytes {
    let mut am = Automerge::new().with_actor(ActorId::from(actor.0));
    let mut tx = am.transaction();
    tx.put(ROOT, "a", ScalarValue::Bytes(vec![1])).unwrap();
    tx.commit();
    Bytes::copy_from_slice(am.get_last_local_change().unwrap().raw_bytes())
}

/// Whole documents that are not ours, as saved.
pub(in crate::desired) fn foreign_documents() -> Vec<Vec<u8>> {
    let mut am = Automerge::new().with_actor(ActorId::from([7; 16]));
    let mut tx = am.transaction();
    tx.put(ROOT, "a", ScalarValue::Bytes(vec![1])).unwrap();
    tx.commit();
    vec![am.save(), Automerge::new().save()]
}

/// Makes the checksums of all chunks in `bytes` right again, so that what has been damaged on
/// purpose gets past the first check, as an attacker's bytes would.
pub(in crate::desired) fn repair(bytes: &mut [u8]) {
    let mut at = 0;
    while at + 10 < bytes.len() {
        if bytes[at..at + 4] != [0x85, 0x6f, 0x4a, 0x83] {
            at += 1;
            continue;
        }
        let mut rest = &bytes[at + 9..];
        let Some(len) = read_uleb(&mut rest).and_then(|len| usize::try_from(len).ok()) else {
            return;
        };
        let body = bytes.len() - rest.len();
        let Some(end) = body.checked_add(len).filter(|end| *end <= bytes.len()) else {
            return;
        };
        let hash = Sha256::digest(&bytes[at + 8..end]);
        bytes[at + 4..at + 8].copy_from_slice(&hash[..4]);
        at = end;
    }
}
