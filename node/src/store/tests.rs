use bytes::Bytes;
use dunlin_core::io::Write;
use dunlin_gossip::replication::PersistId;

use super::database::FILE;
use super::*;

fn write(dir: &Path, writes: Vec<Write>) {
    let (tx, mut rx) = mpsc::channel(8);
    let (mut store, _) = Store::open(dir, tx).unwrap();
    store.persist(PersistId(1), writes).unwrap();
    let written = rx.blocking_recv().unwrap();
    assert_eq!(written.id, PersistId(1));
    written.result.unwrap();
    store.close();
}

fn recover(dir: &Path) -> Result<Recovered, StoreError> {
    let (tx, _rx) = mpsc::channel(8);
    Store::open(dir, tx).map(|(_, recovered)| recovered)
}

#[test]
fn a_first_start_is_empty_and_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let recovered = recover(dir.path()).unwrap();
    assert!(recovered.document.is_none() && recovered.claims.is_empty());
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = |s: &'static str| Bytes::from_static(s.as_bytes());
    write(
        dir.path(),
        vec![Write::Document(bytes("base")), Write::Change(bytes("one"))],
    );
    write(dir.path(), vec![Write::Change(bytes("two"))]);
    let (document, changes) = recover(dir.path()).unwrap().document.unwrap();
    assert_eq!(document, "base");
    assert_eq!(changes, [bytes("one"), bytes("two")]);

    write(dir.path(), vec![Write::Document(bytes("compacted"))]);
    let (document, changes) = recover(dir.path()).unwrap().document.unwrap();
    assert_eq!(document, "compacted");
    assert!(changes.is_empty());
}

#[test]
fn claims_and_peers_are_replaced() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        vec![Write::Peers(vec!["10.0.0.1:7400".parse().unwrap()])],
    );
    write(
        dir.path(),
        vec![Write::Peers(vec!["10.0.0.2:7400".parse().unwrap()])],
    );
    let recovered = recover(dir.path()).unwrap();
    assert_eq!(recovered.peers, ["10.0.0.2:7400".parse().unwrap()]);
}

#[test]
fn a_damaged_file_is_an_error_and_can_be_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        vec![Write::Change(Bytes::from_static(b"precious"))],
    );
    let path = dir.path().join(FILE);
    let mut content = std::fs::read(&path).unwrap();
    let at = content.windows(8).position(|w| w == b"precious").unwrap();
    content[at] ^= 1;
    std::fs::write(&path, &content).unwrap();

    let error = recover(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");

    let aside = Store::set_aside(dir.path(), 7).unwrap();
    let kept = std::fs::read(aside).unwrap();
    assert!(
        kept.windows(7).any(|w| w == b"recious"),
        "the damaged file keeps its content"
    );
    assert!(recover(dir.path()).unwrap().document.is_none());
}

#[test]
fn a_truncated_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        vec![Write::Change(Bytes::from_static(b"precious"))],
    );
    let path = dir.path().join(FILE);
    let content = std::fs::read(&path).unwrap();
    for keep in [content.len() / 2, 100, 1] {
        std::fs::write(&path, &content[..keep]).unwrap();
        let result = std::panic::catch_unwind(|| recover(dir.path()));
        assert!(
            matches!(result, Ok(Err(StoreError::Damaged { .. }))),
            "kept {keep}: {result:?}"
        );
    }
}

#[test]
fn damage_of_any_kind_is_named_and_the_file_kept() {
    let dir = tempfile::tempdir().unwrap();
    let content = Bytes::from(vec![7; 100_000]);
    write(dir.path(), vec![Write::Document(content)]);
    let path = dir.path().join(FILE);
    let good = std::fs::read(&path).unwrap();
    let mut scrambled = good.clone();
    scrambled[4_096..].iter_mut().for_each(|byte| *byte ^= 0x5a);
    for bad in [&good[..0], &good[..100], &good[..50_000], &scrambled] {
        std::fs::write(&path, bad).unwrap();
        let error = recover(dir.path()).map(|_| ()).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }
    std::fs::write(&path, &good).unwrap();
    let (document, _) = recover(dir.path()).unwrap().document.unwrap();
    assert_eq!(document.len(), 100_000);
}
