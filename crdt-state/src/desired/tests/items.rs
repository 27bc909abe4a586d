//! Secrets and configs.

use std::collections::BTreeMap;

use super::*;
use crate::desired::engine::Engine;
use crate::model::{FileMount, ItemKey, ItemKind, MAX_ITEM_BYTES};

fn item(name: &str) -> ItemKey {
    name.parse().unwrap()
}

fn put(kind: ItemKind, name: &str, content: &[u8]) -> Command {
    Command::PutItem {
        kind,
        item: item(name),
        new: NewItem {
            stored: content.to_vec().into(),
            boxes: BTreeMap::from([(node(1), Bytes::from_static(b"box"))]),
            labels: None,
            existing: None,
        },
    }
}

fn put_if(existing: bool, name: &str, content: &[u8]) -> Command {
    match put(ItemKind::Secret, name, content) {
        Command::PutItem { kind, item, new } => Command::PutItem {
            kind,
            item,
            new: NewItem {
                existing: Some(existing),
                ..new
            },
        },
        other => other,
    }
}

fn drop_item(name: &str) -> Command {
    Command::RemoveItem {
        kind: ItemKind::Secret,
        item: item(name),
    }
}

fn mounting(source: &str, target: &str) -> ServiceSpec {
    ServiceSpec {
        secrets: vec![FileMount {
            source: source.to_owned(),
            target: target.to_owned(),
            ..FileMount::default()
        }],
        ..spec("x")
    }
}

fn secret(document: &Document, name: &str) -> Option<Arc<Item>> {
    document.snapshot().items.secrets.get(&item(name)).cloned()
}

#[test]
fn items_are_created_updated_and_removed_and_others_see_it() {
    let (mut a, mut b) = (Document::new(actor(1)), Document::new(actor(2)));
    let mut changes = vec![write(&mut a, put_if(false, "shop/db_pw", b"one"), 1)];
    let first = secret(&a, "shop/db_pw").unwrap();
    assert_eq!((first.version, &first.stored[..]), (1, &b"one"[..]));
    assert_eq!((first.updated, first.boxes.len()), (1, 1));
    let again = a.propose(&[put_if(true, "shop/db_pw", b"one")], "ada", at(2));
    assert_eq!(again.unwrap(), None, "the same content is no new version");
    changes.push(write(&mut a, put_if(true, "shop/db_pw", b"two"), 3));
    let second = secret(&a, "shop/db_pw").unwrap();
    assert_eq!(second.version, 2);
    assert_ne!(second.content, first.content);
    changes.push(write(
        &mut a,
        put(ItemKind::Config, "shop/db_pw", b"plain"),
        4,
    ));
    let told = feed(&mut b, &changes);
    for kind in ItemKind::ALL {
        assert!(told.contains(&DesiredChange::ItemChanged(kind, item("shop/db_pw"))));
    }
    assert_same(&a, &b);
    changes = vec![write(&mut a, drop_item("shop/db_pw"), 5)];
    feed(&mut b, &changes);
    assert_eq!(secret(&b, "shop/db_pw"), None);
    assert_eq!(b.snapshot().items.configs.len(), 1, "the other kind stays");
    assert_reads_the_same_from_disk(&b);
}

#[test]
fn what_makes_no_sense_is_refused_with_the_reason() {
    let mut document = Document::new(actor(1));
    write(&mut document, put(ItemKind::Secret, "pw", b"one"), 1);
    write(&mut document, deploy("web", mounting("pw", "")), 2);
    let large = vec![7; MAX_ITEM_BYTES + dunlin_trust::SECRET_OVERHEAD + 1];
    let table = [
        (put_if(false, "pw", b"two"), "exists already"),
        (put_if(true, "other", b"two"), "no secret is named"),
        (drop_item("other"), "no secret is named"),
        (drop_item("pw"), "is used by service 'default/web'"),
        (put(ItemKind::Secret, "pw", &large), "takes 32769 bytes"),
    ];
    for (command, expected) in table {
        let refused = document.propose(&[command], "ada", at(9)).unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused}");
    }
    // The largest one, with all its boxes and a long chain's room, fits into a register.
    let full = &large[1..];
    let boxes = (0..64_u8).map(|n| (node(n), Bytes::from(vec![n; 112])));
    let Command::PutItem { kind, item, new } = put(ItemKind::Secret, "pw", full) else {
        unreachable!()
    };
    let boxes = boxes.collect();
    let new = NewItem { boxes, ..new };
    write(&mut document, Command::PutItem { kind, item, new }, 10);
    assert_eq!(secret(&document, "pw").unwrap().boxes.len(), 64);
}

#[test]
fn names_and_targets_that_are_paths_are_refused() {
    for bad in [
        "",
        ".",
        "..",
        ".pw",
        "a/b/c",
        "a b",
        "-x",
        "p\0",
        "ä",
        &"x".repeat(65),
    ] {
        let name = ItemKey::new("shop", bad);
        assert!(name.is_err(), "{bad:?}");
        assert!(check_spec(&mounting(bad, "")).is_err(), "source {bad:?}");
    }
    for namespace in ["", "..", "Shop", "a/b"] {
        assert!(ItemKey::new(namespace, "pw").is_err(), "{namespace:?}");
    }
    for bad in [
        "../pw", "a/b", "/", "/a/../b", "/a//b", "/./a", "/a/", "..", "/etc/..",
    ] {
        assert!(check_spec(&mounting("pw", bad)).is_err(), "target {bad:?}");
    }
    for good in ["pw", "p.w-1_2", "/etc/db/pw", "/pw"] {
        assert_eq!(check_spec(&mounting("pw", good)), Ok(()), "{good:?}");
    }
    let mut twice = mounting("pw", "/a/pw");
    twice.secrets.extend(mounting("other", "pw").secrets);
    assert!(check_spec(&twice).is_err(), "one file name twice");
    let mut mode = mounting("pw", "");
    mode.secrets[0].mode = Some(0o4755);
    assert!(check_spec(&mode).is_err(), "set-user-id");
}

#[test]
fn registers_that_cannot_be_items_are_put_aside() {
    let mut document = Document::new(actor(1));
    let registers = [
        r#"{"version":1,"content":"!!"}"#.to_owned(),
        r#"{"version":1}"#.to_owned(),
        r#"{"version":1,"content":"","boxes":{"x":""}}"#.to_owned(),
        format!(r#"{{"version":1,"content":"{}"}}"#, "A".repeat(60_000)),
    ];
    for (number, value) in registers.iter().enumerate() {
        let actor = actor(1);
        let text = format!(
            r#"{{"stamp":{{"counter":{},"actor":"{actor}"}},"value":{value}}}"#,
            number + 2
        );
        let writes = BTreeMap::from([("secret/default/pw".to_owned(), Bytes::from(text))]);
        let change = Engine::write(&mut document.engine, &writes, 0).unwrap();
        let mut other = Document::new(super::actor(9));
        feed(&mut other, &[change]);
        assert_eq!(secret(&other, "pw"), None);
        assert_eq!(other.invalid().len(), 1, "{value}");
        document = Document::new(super::actor(1));
    }
}

#[test]
fn old_versions_go_with_a_compaction_and_an_old_one_that_is_sent_again_changes_nothing() {
    let mut document = Document::new(actor(1));
    write(&mut document, put(ItemKind::Secret, "pw", b"one"), 1);
    let old = document.engine.values("secret/default/pw").remove(0);
    for n in 2..6 {
        write(
            &mut document,
            put(ItemKind::Secret, "pw", &[n]),
            u64::from(n),
        );
    }
    let versions = |document: &Document| {
        let keys = document.engine.keys();
        keys.iter()
            .filter(|k| k.starts_with("secret/default/pw/"))
            .count()
    };
    assert_eq!(versions(&document), 5);
    document.compact().unwrap();
    assert_eq!(versions(&document), 1);
    assert_eq!(secret(&document, "pw").unwrap().version, 5);
    let mut liar = Document::load(&document.save(), &[], actor(7)).unwrap();
    let writes = BTreeMap::from([("secret/default/pw".to_owned(), old)]);
    let change = Engine::write(&mut liar.engine, &writes, 0).unwrap();
    feed(&mut document, &[change]);
    assert_eq!(secret(&document, "pw").unwrap().version, 5);
}

#[test]
fn the_history_of_changes_names_items_and_not_their_content() {
    let mut document = Document::new(actor(1));
    write(&mut document, put(ItemKind::Secret, "pw", b"one"), 1);
    let audit = document.audit();
    assert_eq!(audit.len(), 1);
    assert_eq!(audit[0].key, "secret/default/pw");
    let debug = format!("{:?}", put(ItemKind::Config, "c", b"marked"));
    assert!(
        !debug.contains("marked") && !debug.contains("109, 97"),
        "{debug}"
    );
}
