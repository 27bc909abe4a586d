//! Bytes from peers that are faulty or hostile. A refused change leaves everything as it was; a
//! damaged one that happens to be valid is a valid change.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::engine::craft;
use super::*;

/// A document with some history, written by two actors.
fn base() -> Document {
    let mut document = Document::new(actor(1));
    write(&mut document, deploy("web", publishing("nginx:1", 80)), 1);
    write(&mut document, deploy("db", spec("postgres")), 2);
    let mut other = Document::load(&document.save(), &[], actor(2)).unwrap();
    let mut changes = vec![write(&mut other, scale("web", 3), 3)];
    write(&mut document, scale("web", 4), 3);
    changes.push(write(&mut other, remove("db"), 4));
    feed(&mut document, &changes);
    document
}

fn damage(bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..4) {
            0 => bytes[at] = rng.random(),
            1 => bytes[at] ^= 1 << rng.random_range(0..8),
            2 => drop(bytes.remove(at)),
            _ => bytes.insert(at, rng.random()),
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    craft::repair(&mut bytes);
    bytes
}

/// Whatever was taken, the document must be whole: readable from disk, and able to write.
fn assert_whole(document: &mut Document) {
    assert_reads_the_same_from_disk(document);
    write(document, deploy("after", spec("x")), 99);
    assert!(service(document, "after").is_some());
}

#[test]
fn damaged_changes_are_contained() {
    let base = base();
    let saved = base.save();
    let mut author = Document::load(&saved, &[], actor(3)).unwrap();
    let change = write(&mut author, deploy("shop", publishing("shop:1", 81)), 5);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut document = Document::load(&saved, &[], actor(4)).unwrap();
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..3_000 {
        let bytes = Bytes::from(damage(&change, &mut rng));
        let known = bytes == change;
        match document.apply_changes(std::slice::from_ref(&bytes)) {
            Ok(applied) if !applied.persist.is_empty() && !known => {
                taken += 1;
                assert_whole(&mut document);
                document = Document::load(&saved, &[], actor(4)).unwrap();
            }
            Ok(_) | Err(_) if known => document = Document::load(&saved, &[], actor(4)).unwrap(),
            Ok(_) | Err(_) => {
                refused += 1;
                assert_eq!(document.fingerprint(), base.fingerprint());
                assert_eq!(document.snapshot(), base.snapshot());
            }
        }
    }
    assert!(
        taken > 10 && refused > 1_000,
        "{taken} taken, {refused} refused"
    );
    document.pending.clear();
    feed(&mut document, &[change]);
    assert_same(&document, &author);
}

#[test]
fn damaged_steps_are_contained() {
    let base = base();
    let saved = base.save();
    let mut author = Document::load(&saved, &[], actor(3)).unwrap();
    write(&mut author, scale("web", 9), 5);
    write(&mut author, deploy("shop", spec("shop:1")), 6);
    // The step that carries both changes.
    let mut fresh = Document::load(&saved, &[], actor(4)).unwrap();
    let (mut ours, mut theirs) = (SyncSession::new(), SyncSession::new());
    let hello = fresh.generate_step(&mut ours).unwrap();
    let _ = author.receive_step(&mut theirs, &hello).unwrap();
    let step = author.generate_step(&mut theirs).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let (mut taken, mut refused) = (0, 0);
    let mut document = Document::load(&saved, &[], actor(4)).unwrap();
    for _ in 0..2_000 {
        let bytes = damage(&step, &mut rng);
        let mut session = ours.clone();
        let result = document.receive_step(&mut session, &bytes);
        let _answer = document.generate_step(&mut session);
        if result.is_ok_and(|applied| !applied.persist.is_empty()) {
            taken += 1;
            assert_whole(&mut document);
            document = Document::load(&saved, &[], actor(4)).unwrap();
        } else {
            refused += 1;
            assert_eq!(document.fingerprint(), base.fingerprint());
        }
    }
    assert!(
        taken > 10 && refused > 500,
        "{taken} taken, {refused} refused"
    );
    document.pending.clear();
    sync(&mut document, &mut author);
    assert_same(&document, &author);
}

#[test]
fn damaged_documents_are_contained() {
    let mut theirs = base();
    theirs.compact().unwrap();
    write(&mut theirs, scale("web", 9), 5);
    let saved = theirs.save();
    let ours = base();
    let ours_saved = ours.save();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let (mut taken, mut refused) = (0, 0);
    let mut document = Document::load(&ours_saved, &[], actor(4)).unwrap();
    for _ in 0..1_000 {
        match document.adopt(&damage(&saved, &mut rng), theirs.id()) {
            Ok(_) => {
                taken += 1;
                assert_whole(&mut document);
                document = Document::load(&ours_saved, &[], actor(4)).unwrap();
            }
            Err(_) => {
                refused += 1;
                assert_eq!(document.fingerprint(), ours.fingerprint());
            }
        }
    }
    assert!(refused > 500, "{taken} taken, {refused} refused");
}

#[test]
fn changes_of_another_shape_are_refused_and_remembered() {
    let mut document = base();
    let before = document.fingerprint();
    let mut shapes = craft::wrong_shapes(&document, actor(5));
    shapes.push(craft::orphan(actor(5)));
    shapes.push(document.save());
    for bytes in shapes {
        let first = document
            .apply_changes(std::slice::from_ref(&bytes))
            .unwrap_err();
        assert!(matches!(first, Refused::Malformed { .. }), "{first}");
        let again = document.apply_changes(&[bytes]).unwrap_err();
        assert!(matches!(again, Refused::Quarantined(_)), "{again}");
    }
    assert_eq!(document.fingerprint(), before);
}

#[test]
fn a_bad_change_takes_the_whole_batch_with_it() {
    let mut document = base();
    let mut author = Document::load(&document.save(), &[], actor(3)).unwrap();
    let good = write(&mut author, scale("web", 9), 5);
    let bad = craft::wrong_shapes(&document, actor(5)).remove(0);
    assert!(document.apply_changes(&[good.clone(), bad]).is_err());
    assert_eq!(service(&document, "web").unwrap().replicas, 3);
    feed(&mut document, &[good]);
    assert_eq!(service(&document, "web").unwrap().replicas, 9);
}

#[test]
fn sizes_are_capped() {
    let mut document = base();
    let big = Bytes::from(vec![0; MAX_CHANGE_BYTES + 1]);
    let refused = document.apply_changes(&[big]).unwrap_err();
    assert!(matches!(
        refused,
        Refused::TooLarge {
            what: "a change",
            ..
        }
    ));
    let many = vec![Bytes::from(vec![0; MAX_CHANGE_BYTES]); 5];
    let refused = document.apply_changes(&many).unwrap_err();
    assert!(matches!(
        refused,
        Refused::TooLarge {
            what: "a batch of changes",
            ..
        }
    ));
    let step = vec![0; MAX_STEP_BYTES + 1];
    let refused = document
        .receive_step(&mut SyncSession::new(), &step)
        .unwrap_err();
    assert!(matches!(refused, Refused::TooLarge { what: "a step", .. }));
}

#[test]
fn one_writer_in_two_places_is_told_apart() {
    let base = base();
    let mut one = Document::load(&base.save(), &[], actor(3)).unwrap();
    let mut two = Document::load(&base.save(), &[], actor(3)).unwrap();
    let first = write(&mut one, scale("web", 5), 5);
    let second = write(&mut two, scale("web", 6), 5);
    let mut document = base;
    feed(&mut document, &[first]);
    let applied = document.apply_changes(&[second]).unwrap();
    assert!(matches!(
        applied.refused[..],
        [Refused::SplitHistory {
            number: 1,
            expected: 2,
            ..
        }]
    ));
    assert_eq!(service(&document, "web").unwrap().replicas, 5);
}

#[test]
fn a_leaping_counter_is_refused() {
    let mut document = base();
    let register = format!(
        r#"{{"stamp":{{"counter":{},"actor":"{}"}},"value":7}}"#,
        u64::MAX,
        actor(5)
    );
    let writes = |register: &str| {
        let value = Bytes::copy_from_slice(register.as_bytes());
        [("svc/default/web/scale".to_owned(), value)].into()
    };
    let mut evil = Document::load(&document.save(), &[], actor(5)).unwrap();
    let change = evil.engine.write(&writes(&register), 0).unwrap();
    let applied = document.apply_changes(&[change]).unwrap();
    assert_eq!(applied.refused, [Refused::CounterLeap]);
    // A whole document with such a counter is refused as well.
    let mut evil = Document::load(&document.save(), &[], actor(6)).unwrap();
    evil.engine.write(&writes(&register), 0).unwrap();
    evil.compact().unwrap();
    let refused = document.adopt(&evil.save(), evil.id()).unwrap_err();
    assert_eq!(refused, Refused::CounterLeap);
    write(&mut document, scale("web", 8), 9);
}

#[test]
fn waiting_changes_are_bounded_and_come_by_anti_entropy() {
    let mut author = Document::new(actor(1));
    write(&mut author, deploy("web", spec("x")), 1);
    let changes: Vec<_> = (2..700)
        .map(|n| write(&mut author, scale("web", n), 2))
        .collect();
    let mut document = Document::new(actor(2));
    feed(&mut document, &changes[1..]);
    assert_eq!(document.change_count(), 1);
    assert_eq!(document.waiting(), 512);
    sync(&mut document, &mut author);
    assert_same(&document, &author);
    assert_eq!(document.waiting(), 0);
}

#[test]
fn a_register_that_cannot_be_used_is_put_aside_and_its_last_valid_version_stands_in() {
    let mut document = base();
    let before = service(&document, "web").unwrap();
    let stamp = Stamp {
        counter: document.table.next_counter(),
        actor: actor(5),
    };
    let unusable = [
        ("svc/default/web/scale", r#""many""#),
        (
            "svc/default/web/spec",
            r#"{"image":"nginx","mode":"from-the-future"}"#,
        ),
    ];
    let mut newer = Document::load(&document.save(), &[], actor(5)).unwrap();
    let stamp = serde_json::to_string(&stamp).unwrap();
    let writes = unusable.map(|(key, value)| {
        let register = format!(r#"{{"stamp":{stamp},"author":"eve","time":9,"value":{value}}}"#);
        (key.to_owned(), Bytes::from(register))
    });
    let change = newer.engine.write(&writes.into(), 0).unwrap();
    feed(&mut document, &[change]);
    assert_eq!(service(&document, "web"), Some(before.clone()));
    let invalid: Vec<_> = document.invalid().into_iter().map(|i| i.key).collect();
    assert_eq!(invalid, ["svc/default/web/scale", "svc/default/web/spec"]);
    assert!(document.invalid()[1].reason.contains("from-the-future"));
    assert_reads_the_same_from_disk(&document);
    // It is carried through a compaction, and a later valid write replaces it.
    document.compact().unwrap();
    assert_eq!(service(&document, "web"), Some(before));
    assert_eq!(document.invalid().len(), 2);
    write(&mut document, scale("web", 11), 10);
    assert_eq!(document.invalid().len(), 1);
    assert_eq!(service(&document, "web").unwrap().replicas, 11);
}

#[test]
fn a_removed_service_cannot_be_revived_by_rubbish() {
    let mut document = base();
    let mut evil = Document::load(&document.save(), &[], actor(5)).unwrap();
    let writes = [("svc/default/db/spec".to_owned(), Bytes::from_static(b"{}"))];
    let change = evil.engine.write(&writes.into(), 0).unwrap();
    feed(&mut document, &[change]);
    assert_eq!(service(&document, "db"), None);
    assert_eq!(
        document.invalid(),
        [],
        "the tombstone is newer than what is no register"
    );
}
