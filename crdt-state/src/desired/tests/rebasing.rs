use std::time::Instant;

use super::*;

const DAY: u64 = 24 * 3_600_000;

/// Documents of two sides of a partition: `n` services, then `a` and `b` write apart.
fn parted(n: usize) -> (Document, Document) {
    let mut a = Document::new(actor(1));
    let commands: Vec<_> = (0..n)
        .map(|i| deploy(&format!("s{i}"), spec("x:1")))
        .collect();
    let change = a.propose(&commands, "setup", at(1)).unwrap().unwrap();
    let mut b = Document::new(actor(2));
    feed(&mut b, &[change]);
    (a, b)
}

/// What every node does when it meets another document: the smaller one takes the greater one's
/// place, and its carried changes travel.
fn meet(a: &mut Document, b: &mut Document) {
    let (smaller, greater) = if a.id() < b.id() { (a, b) } else { (b, a) };
    if smaller.id() != greater.id() {
        let adopted = smaller.adopt(&greater.save(), greater.id()).unwrap();
        assert_eq!(adopted.saved, smaller.save());
        feed(greater, &adopted.carried);
    }
    sync(smaller, greater);
}

#[test]
fn nodes_with_the_same_registers_compact_to_the_same_document() {
    let (mut a, mut b) = parted(5);
    let by_a = write(&mut a, scale("s1", 3), 2);
    let by_b = write(&mut b, scale("s1", 4), 2);
    feed(&mut a, &[by_b]);
    feed(&mut b, &[by_a]);
    let before = a.snapshot();
    assert_eq!(a.compact().unwrap(), b.compact().unwrap(), "byte by byte");
    assert_same(&a, &b);
    assert_eq!((a.id().epoch, a.change_count()), (1, 1));
    assert_eq!(a.snapshot(), before);
    // And they go on exchanging changes.
    let change = write(&mut a, scale("s2", 9), 3);
    feed(&mut b, &[change]);
    assert_same(&a, &b);
    assert_reads_the_same_from_disk(&a);
}

#[test]
fn what_a_minority_wrote_survives_the_majority_s_compaction() {
    let (mut a, mut b) = parted(3);
    write(&mut a, scale("s0", 3), 10);
    a.compact().unwrap();
    write(&mut a, scale("s1", 3), 11);
    // Meanwhile, on the old document.
    write(&mut b, deploy("minority", spec("m:1")), 10);
    write(&mut b, deploy("s2", spec("x:2")), 11);
    write(&mut b, remove("s1"), 12);
    let theirs = b.history(&key("minority"));
    meet(&mut a, &mut b);
    assert_same(&a, &b);
    assert_eq!(service(&a, "s0").unwrap().replicas, 3);
    assert_eq!(service(&a, "s2").unwrap().spec.image, "x:2");
    assert_eq!(service(&a, "s1"), None);
    assert_eq!(
        a.history(&key("minority")),
        theirs,
        "with stamps, authors and times"
    );
    assert_reads_the_same_from_disk(&a);
}

#[test]
fn adopting_tells_what_it_changes() {
    let (mut a, mut b) = parted(2);
    write(&mut a, scale("s0", 3), 10);
    a.compact().unwrap();
    write(&mut b, scale("s1", 5), 10);
    let adopted = b.adopt(&a.save(), a.id()).unwrap();
    let expected = DesiredChange::ScaleChanged {
        service: key("s0"),
        replicas: 3,
    };
    assert_eq!(adopted.changes, [expected]);
    assert_eq!(adopted.carried.len(), 1);
    let loaded = Document::load(&adopted.saved, &[], actor(9)).unwrap();
    assert_eq!(loaded.snapshot(), b.snapshot());
}

#[test]
fn both_sides_may_have_compacted_differently() {
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let (a, b) = parted(3);
        let c = Document::load(&a.save(), &[], actor(3)).unwrap();
        let mut all = [a, b, c];
        for (i, document) in all.iter_mut().enumerate() {
            let n = u32::try_from(i).unwrap();
            write(document, scale(&format!("s{i}"), 10 + n), 10);
            write(document, scale("s0", 20 + n), 11);
            for _ in 0..=i % 2 {
                document.compact().unwrap();
            }
            write(document, scale("s2", 30 + n), 12);
        }
        for _ in 0..2 {
            for pair in [[0, 1], [1, 2], [0, 2]] {
                let pair = pair.map(|i| order[i]);
                let (low, high) = (pair[0].min(pair[1]), pair[0].max(pair[1]));
                let (left, right) = all.split_at_mut(high);
                meet(&mut left[low], &mut right[0]);
            }
        }
        let [a, b, c] = &all;
        assert_same(a, b);
        assert_same(b, c);
        // The greatest counter wins, and the greatest actor among equals.
        assert_eq!(service(a, "s2").unwrap().replicas, 32);
        assert_reads_the_same_from_disk(a);
    }
}

#[test]
fn only_a_greater_and_truly_named_document_is_adopted() {
    let (mut a, mut b) = parted(1);
    a.compact().unwrap();
    let refused = a.adopt(&b.save(), b.id()).unwrap_err();
    assert!(matches!(refused, Refused::NotGreater { .. }));
    let claimed = DocumentId { epoch: 2, ..a.id() };
    let refused = b.adopt(&a.save(), claimed).unwrap_err();
    assert_eq!(
        refused,
        Refused::WrongDocument {
            claimed,
            found: a.id()
        }
    );
    for bytes in engine::craft::foreign_documents() {
        let refused = b.adopt(&bytes, claimed).unwrap_err();
        assert!(matches!(refused, Refused::Malformed { .. }), "{refused}");
    }
    let far = DocumentId {
        epoch: u64::MAX,
        ..a.id()
    };
    assert_eq!(b.adopt(&a.save(), far).unwrap_err(), Refused::CounterLeap);
}

#[test]
fn old_tombstones_and_their_history_are_purged() {
    let (mut a, _) = parted(2);
    write(&mut a, remove("s0"), DAY);
    a.compact().unwrap();
    assert_eq!(a.history(&key("s0")).len(), 8, "still young");
    write(&mut a, scale("s1", 2), 9 * DAY);
    a.compact().unwrap();
    assert_eq!(a.history(&key("s0")), []);
    assert!(a.engine.keys().iter().all(|key| !key.contains("/s0/")));
    assert!(service(&a, "s1").is_some());
}

#[test]
fn keys_of_newer_versions_are_carried_along() {
    let (mut a, mut b) = parted(1);
    let foreign = [
        (
            "job/default/nightly/spec".to_owned(),
            Bytes::from_static(b"{\"x\":1}"),
        ),
        (
            "svc/default/s0/canary".to_owned(),
            Bytes::from_static(b"not even json"),
        ),
    ];
    let change = b.engine.write(&foreign.clone().into(), 0).unwrap();
    feed(&mut a, &[change]);
    a.compact().unwrap();
    let holds = |document: &Document| {
        foreign
            .iter()
            .all(|(key, value)| document.engine.values(key).first() == Some(value))
    };
    assert!(holds(&a));
    // And to a document that has never heard of them.
    let mut c = Document::new(actor(3));
    c.compact().unwrap();
    c.compact().unwrap();
    let _ = a.adopt(&c.save(), c.id()).unwrap();
    assert!(holds(&a));
    assert!(service(&a, "s0").is_some());
    assert_eq!(a.invalid(), []);
}

#[test]
fn a_large_carry_over_travels_in_changes_that_peers_take() {
    let (mut a, mut b) = parted(1);
    a.compact().unwrap();
    let big = ServiceSpec {
        command: vec!["x".repeat(30_000)],
        ..spec("x")
    };
    for n in 0..40 {
        write(&mut b, deploy(&format!("big{n}"), big.clone()), 2);
    }
    let adopted = b.adopt(&a.save(), a.id()).unwrap();
    assert!(adopted.carried.len() > 2);
    assert!(adopted.carried.iter().all(|c| c.len() < MAX_CHANGE_BYTES));
    feed(&mut a, &adopted.carried);
    assert_same(&a, &b);
}

#[test]
fn anti_entropy_cuts_a_long_history_into_steps() {
    let mut a = Document::new(actor(1));
    let big = |n: u32| ServiceSpec {
        command: vec!["x".repeat(60_000), n.to_string()],
        ..spec("x")
    };
    for n in 0..50 {
        write(&mut a, deploy("big", big(n)), 2);
    }
    let mut b = Document::new(actor(2));
    let rounds = sync(&mut a, &mut b);
    assert!((3..10).contains(&rounds), "{rounds} rounds for 6 MB");
    assert_same(&a, &b);
}

#[test]
fn fifty_thousand_changes_are_compacted() {
    const CHANGES: u32 = 50_000;
    let mut a = Document::new(actor(1));
    for n in 0..10 {
        write(&mut a, deploy(&format!("s{n}"), spec("x:1")), 1);
    }
    let start = Instant::now();
    for n in 0..CHANGES {
        write(&mut a, scale(&format!("s{}", n % 10), 2 + n / 10), 2);
    }
    let written = start.elapsed();
    assert!(a.should_compact(COMPACT_AT));
    let saved = a.save();
    let start = Instant::now();
    let mut b = Document::load(&saved, &[], actor(2)).unwrap();
    let loaded = start.elapsed();
    let (before, history) = (a.snapshot(), a.history(&key("s3")));
    let start = Instant::now();
    let compact = a.compact().unwrap();
    let compacted = start.elapsed();
    b.compact().unwrap();
    assert_same(&a, &b);
    assert_eq!((a.snapshot(), a.history(&key("s3"))), (before, history));
    assert!(!a.should_compact(COMPACT_AT) && a.change_count() == 1);
    assert!(compact.len() < saved.len() / 10);
    println!(
        "written {written:?}, loaded {loaded:?}, compacted {compacted:?}, {} -> {} bytes",
        saved.len(),
        compact.len()
    );
}
