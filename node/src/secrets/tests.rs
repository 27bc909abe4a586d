use dunlin_core::secrets::{Answer, Order};
use tempfile::tempdir;
use tokio_util::sync::CancellationToken;

use super::*;

const MARK: &[u8] = b"marked value 5d1c";

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

fn node(seed: u8) -> NodeId {
    NodeId::from_bytes(key(seed).public().0)
}

fn name() -> ItemKey {
    "shop/pw".parse().unwrap()
}

fn stored(new: &NewItem) -> Arc<Item> {
    Arc::new(Item {
        version: 1,
        content: ContentId::of(&new.stored),
        stored: new.stored.clone(),
        boxes: new.boxes.clone(),
        labels: BTreeMap::new(),
        updated: 0,
    })
}

fn items(item: &Arc<Item>) -> Arc<Items> {
    let mut items = Items::default();
    items.secrets.insert(name(), Arc::clone(item));
    Arc::new(items)
}

fn opens(vault: &SecretVault, item: &Arc<Item>, sealed: Option<Bytes>) -> bool {
    let order = Order::Open {
        secret: name(),
        item: Arc::clone(item),
        sealed,
    };
    match vault.perform(order) {
        Some(Answer::Opened { opened, .. }) => opened,
        other => panic!("{other:?}"),
    }
}

fn spec() -> ServiceSpec {
    ServiceSpec {
        secrets: vec![FileMount {
            source: "pw".to_owned(),
            ..FileMount::default()
        }],
        ..ServiceSpec::default()
    }
}

fn read_by(vault: &SecretVault) -> Option<Vec<u8>> {
    let contents = vault.contents(&spec(), &"shop/web".parse().unwrap());
    contents.ok().map(|mut all| all.remove(0).bytes)
}

#[test]
fn a_secret_goes_from_its_writer_to_who_is_sealed_to_and_to_nobody_else() {
    let (a, b, c) = (tempdir().unwrap(), tempdir().unwrap(), tempdir().unwrap());
    let (writer, _) = SecretVault::open(key(1), a.path());
    let (other, _) = SecretVault::open(key(2), b.path());
    let (third, _) = SecretVault::open(key(3), c.path());
    let item = stored(&writer.seal(&name(), MARK, &BTreeSet::new()).unwrap());
    assert_eq!(item.boxes.keys().copied().collect::<Vec<_>>(), [node(1)]);
    let text = [&item.stored[..], &item.boxes[&node(1)]].concat();
    assert!(!text.windows(MARK.len()).any(|w| w == MARK));
    for vault in [&writer, &other, &third] {
        vault.set_items(&items(&item));
        assert_eq!(read_by(vault), None, "nothing is open by itself");
    }
    assert!(opens(&writer, &item, None));
    assert_eq!(read_by(&writer).as_deref(), Some(MARK));
    assert!(writer.has_value(&name(), MARK) && !writer.has_value(&name(), b"x"));
    assert!(!opens(&other, &item, None));
    let seal = |to| Order::Seal {
        to,
        secret: name(),
        content: item.content,
    };
    let Some(Answer::Sealed { sealed, .. }) = writer.perform(seal(node(2))) else {
        panic!("it was not sealed");
    };
    assert!(!opens(&third, &item, Some(sealed.clone())), "for another");
    assert!(opens(&other, &item, Some(sealed)));
    assert_eq!(read_by(&other).as_deref(), Some(MARK));
    assert_eq!(third.perform(seal(node(2))), None, "it has nothing to seal");
    other.perform(Order::Forget(name()));
    assert_eq!(read_by(&other), None);
}

#[test]
fn a_key_that_opens_nothing_is_not_taken() {
    let (a, b) = (tempdir().unwrap(), tempdir().unwrap());
    let (writer, _) = SecretVault::open(key(1), a.path());
    let (other, _) = SecretVault::open(key(2), b.path());
    let item = stored(&writer.seal(&name(), MARK, &BTreeSet::new()).unwrap());
    let wrong = ContentKey::new([9; 32]);
    let to = key(2).public();
    let lie = SealedKey::seal(&to, [7; 32], &name().to_string(), &item.stored, &wrong);
    for sealed in [lie.unwrap(), Vec::new(), vec![0; 48], vec![1; 4_096]] {
        assert!(!opens(&other, &item, Some(sealed.into())));
    }
}

#[tokio::test]
async fn keys_come_back_after_a_restart_and_lie_sealed_on_disk() {
    let dir = tempdir().unwrap();
    let (vault, keeper) = SecretVault::open(key(1), dir.path());
    let (stop, item) = (CancellationToken::new(), {
        let writer = SecretVault::open(key(2), tempdir().unwrap().path()).0;
        stored(
            &writer
                .seal(&name(), MARK, &BTreeSet::from([node(1)]))
                .unwrap(),
        )
    });
    assert!(opens(&vault, &item, None));
    let task = tokio::spawn(keeper.run(stop.clone()));
    stop.cancel();
    task.await.unwrap();
    let path = dir.path().join(keyfile::NAME);
    let text = std::fs::read(&path).unwrap();
    assert!(!text.windows(MARK.len()).any(|w| w == MARK));
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    // The box is not beside the secret any more: only the file has it.
    let bare = Arc::new(Item {
        boxes: BTreeMap::new(),
        ..(*item).clone()
    });
    let (again, _) = SecretVault::open(key(1), dir.path());
    assert!(opens(&again, &bare, None));
    let (thief, _) = SecretVault::open(key(3), dir.path());
    assert!(
        !opens(&thief, &bare, None),
        "the file is of use to its node"
    );
    for damage in [&b"{"[..], b"", b"{\"version\":9,\"keys\":{}}"] {
        std::fs::write(&path, damage).unwrap();
        let (vault, _) = SecretVault::open(key(1), dir.path());
        assert!(!opens(&vault, &bare, None));
    }
    SecretVault::forget(dir.path()).unwrap();
    assert!(!path.exists(), "a node that leaves keeps no keys");
    SecretVault::forget(dir.path()).unwrap();
}

#[test]
fn what_is_missing_is_named() {
    let dir = tempdir().unwrap();
    let (vault, _) = SecretVault::open(key(1), dir.path());
    let lacking = vault.contents(&spec(), &"shop/web".parse().unwrap());
    let text = lacking.err().unwrap().to_string();
    assert!(text.contains("secret 'shop/pw'"), "{text}");
    assert!(!format!("{vault:?}").contains("pw"));
}
