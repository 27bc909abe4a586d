//! Contexts on a real disk.

use dunlin_trust::Founding;

use super::*;

fn remote() -> Remote {
    let key = SecretKey::from_seed([3; 32]);
    let founding = Founding::new([1; 32], [2; 32], key.public(), 1_800_000_000);
    Remote {
        host: "tcp://10.0.0.5:7443".parse().unwrap(),
        root: founding.root.public(),
        chain: founding.admin,
        key,
    }
}

fn contexts() -> (tempfile::TempDir, Contexts) {
    let home = tempfile::tempdir().unwrap();
    let contexts = Contexts::new(home.path().join("dunlin"));
    (home, contexts)
}

#[test]
fn what_is_added_is_read_and_readable_by_its_owner_only() {
    let (home, contexts) = contexts();
    assert!(contexts.names().unwrap().is_empty());
    contexts.add("prod", &remote()).unwrap();
    let found = contexts.get("prod").unwrap();
    assert_eq!(found.host, remote().host);
    assert_eq!(found.key.seed(), remote().key.seed());
    assert_eq!((found.root, found.chain), (remote().root, remote().chain));
    assert_eq!(contexts.names().unwrap(), ["prod"]);
    let directory = home.path().join("dunlin/contexts");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&directory), 0o700);
    let file = directory.join("prod.json");
    assert_eq!(mode(&file), 0o600);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let open = contexts.get("prod").unwrap_err().to_string();
    assert!(open.contains("chmod 600"), "{open}");
}

#[test]
fn one_is_in_use_until_it_is_removed() {
    let (_home, contexts) = contexts();
    assert_eq!(contexts.current().unwrap(), None);
    assert!(matches!(
        contexts.set_current("prod"),
        Err(ContextError::Unknown(_))
    ));
    contexts.add("prod", &remote()).unwrap();
    assert!(matches!(
        contexts.add("prod", &remote()),
        Err(ContextError::Exists(_))
    ));
    contexts.set_current("prod").unwrap();
    assert_eq!(contexts.current().unwrap().as_deref(), Some("prod"));
    contexts.set_current(LOCAL).unwrap();
    assert_eq!(contexts.current().unwrap(), None);
    contexts.set_current("prod").unwrap();
    contexts.remove("prod").unwrap();
    assert_eq!(contexts.current().unwrap(), None);
    assert!(matches!(
        contexts.remove("prod"),
        Err(ContextError::Unknown(_))
    ));
}

#[test]
fn names_never_become_other_paths() {
    let (_home, contexts) = contexts();
    for name in ["../x", "a/b", "", ".", "A", "a b", "a\0b"] {
        let refused = contexts.add(name, &remote());
        assert!(matches!(refused, Err(ContextError::BadName(_))), "{name:?}");
    }
    assert!(matches!(
        contexts.add(LOCAL, &remote()),
        Err(ContextError::Local)
    ));
}

#[test]
fn damaged_and_later_files_are_named() {
    let (home, contexts) = contexts();
    contexts.add("prod", &remote()).unwrap();
    let file = home.path().join("dunlin/contexts/prod.json");
    let whole = fs::read_to_string(&file).unwrap();
    for damaged in [
        "",
        "{}",
        &whole.replace("\"version\": 1", "\"version\": 9"),
        &whole[..40],
    ] {
        fs::write(&file, damaged).unwrap();
        let error = contexts.get("prod").unwrap_err().to_string();
        assert!(error.contains("prod.json is no context"), "{error}");
    }
}
