//! Virtual addresses through writes, merges, compactions and removals.

use super::super::vips::tests::clashing;
use super::*;
use crate::model::VipIndex;

fn vip(document: &Document, service: &ServiceKey) -> Option<VipIndex> {
    let snapshot = document.snapshot();
    snapshot.vips.get(service).map(|assigned| assigned.index)
}

#[test]
fn a_service_keeps_its_address_until_it_is_removed() {
    let mut document = Document::new(actor(1));
    write(&mut document, deploy("web", spec("a")), 1);
    let first = vip(&document, &key("web")).unwrap();
    for n in 0..300 {
        write(&mut document, deploy(&format!("other{n}"), spec("a")), 2);
    }
    write(&mut document, deploy("web", spec("b")), 3);
    assert_eq!(vip(&document, &key("web")), Some(first));
    let _saved = document.compact().unwrap();
    assert_eq!(vip(&document, &key("web")), Some(first));
    write(&mut document, remove("web"), 4);
    assert_eq!(vip(&document, &key("web")), None);
}

#[test]
fn services_created_on_two_sides_of_a_partition_end_with_different_addresses() {
    let (first, second) = clashing();
    let (mut a, mut b) = (Document::new(actor(1)), Document::new(actor(2)));
    write(&mut a, deploy(&first.to_string(), spec("a")), 1);
    write(&mut b, deploy("earlier", spec("a")), 1);
    write(&mut b, deploy(&second.to_string(), spec("a")), 1);
    let contested = vip(&a, &first);
    assert_eq!(contested, vip(&b, &second));
    sync(&mut a, &mut b);
    assert_eq!(a.snapshot(), b.snapshot());
    // The first was written with the smaller stamp.
    assert_eq!(vip(&a, &first), contested);
    let moved = vip(&a, &second);
    assert!(moved.is_some() && moved != contested);
    // The next change of anything writes it down; then it stays, even when the other one goes.
    write(&mut a, scale("earlier", 2), 2);
    write(&mut a, remove(&first.to_string()), 3);
    assert_eq!(vip(&a, &second), moved);
    sync(&mut a, &mut b);
    assert_eq!(vip(&b, &second), moved);
}

#[test]
fn those_who_look_are_told_that_an_address_has_moved() {
    let (first, second) = clashing();
    let (mut a, mut b) = (Document::new(actor(1)), Document::new(actor(2)));
    let early = write(&mut a, deploy(&first.to_string(), spec("a")), 1);
    write(&mut b, deploy("earlier", spec("a")), 1);
    write(&mut b, deploy(&second.to_string(), spec("a")), 1);
    let told = feed(&mut b, &[early]);
    assert_eq!(
        told,
        [
            DesiredChange::ServiceCreated(first),
            DesiredChange::VipMoved(second)
        ]
    );
}

#[test]
fn a_number_that_no_service_may_have_is_not_used() {
    let mut document = Document::new(actor(1));
    write(&mut document, deploy("web", spec("a")), 1);
    let given = vip(&document, &key("web"));
    let stamp = Stamp {
        counter: 50,
        actor: actor(9),
    };
    let json = serde_json::json!({ "stamp": stamp, "value": 3 });
    let bytes = Bytes::from(json.to_string());
    let mut engine = document.engine.clone();
    let writes = [("vip/default/web".to_owned(), bytes)].into();
    engine.write(&writes, 1).unwrap();
    let document = Document::over(engine, actor(1));
    assert_eq!(vip(&document, &key("web")), given);
    assert_eq!(document.invalid().len(), 1);
}
