use super::*;

fn written() -> (Bytes, Vec<Bytes>, Document) {
    let mut document = Document::new(actor(1));
    write(&mut document, deploy("web", spec("nginx:1")), 1);
    let saved = document.save();
    let changes = (2..10)
        .map(|n| write(&mut document, scale("web", n), u64::from(n)))
        .collect();
    (saved, changes, document)
}

#[test]
fn what_was_saved_is_loaded() {
    let (saved, changes, document) = written();
    let loaded = Document::load(&saved, &changes, actor(2)).unwrap();
    assert_same(&loaded, &document);
    assert_eq!(loaded.history(&key("web")), document.history(&key("web")));
    // Changes that the saved document has already, as after a crash between save and truncation.
    let loaded = Document::load(&document.save(), &changes, actor(2)).unwrap();
    assert_same(&loaded, &document);
}

#[test]
fn a_loaded_document_writes_on() {
    let (saved, changes, mut document) = written();
    let mut loaded = Document::load(&saved, &changes, actor(2)).unwrap();
    let change = write(&mut loaded, scale("web", 50), 100);
    feed(&mut document, &[change]);
    assert_same(&loaded, &document);
}

#[test]
fn every_damaged_byte_of_the_saved_document_is_noticed() {
    let (saved, _, document) = written();
    let mut silent = Vec::new();
    for index in 0..saved.len() {
        let mut damaged = saved.to_vec();
        damaged[index] ^= 0x10;
        match Document::load(&damaged, &[], actor(2)) {
            Err(LoadError::SavedCorrupt { .. }) => {}
            Err(other) => panic!("byte {index}: {other}"),
            Ok(loaded) => silent.push((index, loaded.fingerprint() == document.fingerprint())),
        }
    }
    assert_eq!(silent, []);
}

#[test]
fn every_truncation_of_the_saved_document_is_noticed() {
    let (saved, _, _) = written();
    for len in 0..saved.len() {
        let error = Document::load(&saved[..len], &[], actor(2)).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("corrupted") && text.contains("peers"),
            "{text}"
        );
    }
}

#[test]
fn a_damaged_change_is_named_and_the_part_before_it_can_be_kept() {
    let (saved, changes, _) = written();
    for index in 0..changes.len() {
        let mut damaged = changes.clone();
        damaged[index] = damaged[index].slice(..damaged[index].len() / 2);
        let error = Document::load(&saved, &damaged, actor(2)).unwrap_err();
        assert!(
            matches!(&error, LoadError::ChangeCorrupt { index: i, count: 8, .. } if *i == index),
            "{error}"
        );
        let recovered = Document::load_prefix(&saved, &damaged, actor(2), None).unwrap();
        assert_eq!(recovered.dropped, Some(error));
        let scale = service(&recovered.document, "web").unwrap().replicas;
        assert_eq!(scale as usize, 1 + index);
    }
}

#[test]
fn a_lost_change_in_the_middle_is_noticed() {
    let (saved, mut changes, _) = written();
    changes.remove(3);
    let error = Document::load(&saved, &changes, actor(2)).unwrap_err();
    assert!(
        error.to_string().contains("a change before it is missing"),
        "{error}"
    );
    assert!(matches!(error, LoadError::ChangeCorrupt { index: 3, .. }));
}

#[test]
fn a_prefix_is_completed_by_peers() {
    let (saved, changes, mut document) = written();
    let cut = Document::load_prefix(&saved, &changes[..4], actor(2), None).unwrap();
    assert_eq!(cut.dropped, None);
    let mut restored = cut.document;
    sync(&mut restored, &mut document);
    assert_same(&restored, &document);
}

#[test]
fn a_foreign_automerge_document_is_no_state() {
    let (_, changes, _) = written();
    // A change alone is valid automerge, but no document that starts as ours do.
    let error = Document::load(&changes[0], &[], actor(2)).unwrap_err();
    assert!(matches!(error, LoadError::SavedCorrupt { .. }), "{error}");
}
