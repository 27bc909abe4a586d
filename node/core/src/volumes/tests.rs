use super::*;

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn held(generation: u64, used: bool) -> HeldVolume {
    HeldVolume {
        volume: "data".parse().unwrap(),
        generation,
        used,
        since: 5,
    }
}

fn version(seq: u64) -> Version {
    Version { boot: 1, seq }
}

#[test]
fn an_older_word_does_not_undo_a_later_one() {
    let mut atlas = Atlas::default();
    let volume: VolumeId = "data".parse().unwrap();
    assert!(!atlas.set(id(1), version(1), "n1", &[]), "nothing to know");
    assert!(atlas.set(id(1), version(2), "n1", &[held(1, false)]));
    assert!(!atlas.set(id(1), version(2), "n1", &[held(1, false)]));
    assert!(atlas.set(id(1), version(3), "n1", &[held(1, true)]));
    assert!(!atlas.set(id(1), version(1), "n1", &[]), "older");
    assert_eq!(atlas.home(&volume), Some((id(1), &held(1, true))));
    assert!(atlas.set(id(1), version(4), "n1", &[]));
    assert_eq!(atlas.home(&volume), None);
    assert!(
        !atlas.set(id(1), version(3), "n1", &[held(1, true)]),
        "gone for good"
    );
    assert_eq!(atlas.copies().count(), 0);
}

#[test]
fn of_several_copies_one_counts() {
    let mut atlas = Atlas::default();
    let volume: VolumeId = "data".parse().unwrap();
    atlas.set(id(1), version(1), "n1", &[held(1, true)]);
    atlas.set(id(2), version(1), "n2", &[held(1, false)]);
    assert_eq!(atlas.home(&volume).map(|(node, _)| node), Some(id(1)));
    atlas.set(id(2), version(2), "n2", &[held(2, true)]);
    assert_eq!(atlas.home(&volume).map(|(node, _)| node), Some(id(2)));
    assert_eq!(atlas.generation(&volume), 2);
    assert_eq!(atlas.copies().count(), 2, "both are shown");
}
