use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicU8, Ordering};

use dunlin_core::secrets::Order;
use dunlin_state::desired::{Item, Items};
use dunlin_state::model::{ContentId, ItemKey, Slot, SlotId};
use dunlin_trust::SecretKey;

use super::*;

/// A node with a secret and a config, and the directory of its files, removed when dropped.
struct Lab {
    files: Files,
    vault: Arc<SecretVault>,
    _dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&std::process::id().to_be_bytes());
        seed[4] = NEXT.fetch_add(1, Ordering::Relaxed);
        let own = SecretKey::from_seed(seed);
        let node = NodeId::from_bytes(own.public().0);
        let dir = tempfile::tempdir().unwrap();
        let (vault, _) = SecretVault::open(own, dir.path());
        let files = Files::new(Some(Arc::clone(&vault)), node);
        let lab = Self {
            files,
            vault,
            _dir: dir,
        };
        lab.set("first", "config 1");
        lab
    }

    fn set(&self, secret: &str, config: &str) {
        let name: ItemKey = "shop/pw".parse().unwrap();
        let sealed = self.vault.seal(&name, secret.as_bytes(), &BTreeSet::new());
        let sealed = sealed.unwrap();
        let item = |stored: bytes::Bytes, boxes| {
            Arc::new(Item {
                version: 1,
                content: ContentId::of(&stored),
                stored,
                boxes,
                labels: BTreeMap::new(),
                updated: 0,
            })
        };
        let mut items = Items::default();
        let secret = item(sealed.stored, sealed.boxes);
        items.secrets.insert(name.clone(), Arc::clone(&secret));
        let config = item(config.as_bytes().to_vec().into(), BTreeMap::new());
        items.configs.insert("shop/cfg".parse().unwrap(), config);
        self.vault.set_items(&Arc::new(items));
        let order = Order::Open {
            secret: name,
            item: secret,
            sealed: None,
        };
        assert!(self.vault.perform(order).is_some());
    }

    fn directory(&self) -> PathBuf {
        self.files.directory(&id()).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Ok(path) = self.files.base.path() {
            let _ = fs::remove_dir_all(path);
        }
    }
}

fn id() -> WorkloadId {
    WorkloadId {
        slot: SlotId {
            service: "shop/web".parse().unwrap(),
            slot: Slot::Replica(0),
        },
        epoch: 3,
        attempt: 1,
    }
}

fn mount(source: &str, target: &str) -> FileMount {
    FileMount {
        source: source.to_owned(),
        target: target.to_owned(),
        ..FileMount::default()
    }
}

fn workload(secrets: Vec<FileMount>, configs: Vec<FileMount>) -> Workload {
    Workload {
        id: id(),
        revision: "r".to_owned(),
        spec: Arc::new(ServiceSpec {
            secrets,
            configs,
            ..ServiceSpec::default()
        }),
        node_name: "n".to_owned(),
        node: NodeId::from_bytes([1; 32]),
        volumes: BTreeSet::new(),
        given: BTreeMap::new(),
        tells: false,
        lease_ms: None,
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_process_finds_its_files_in_memory_and_they_go_with_it() {
    let lab = Lab::new();
    let mut own = mount("pw", "password");
    own.mode = Some(0o440);
    let work = workload(
        vec![mount("pw", ""), own],
        vec![mount("cfg", "/etc/app.toml")],
    );
    lab.files.prepare(&work, Choice::Process).unwrap();
    let told: BTreeMap<String, String> = lab.files.variables(&work).into_iter().collect();
    let secrets = PathBuf::from(&told["DUNLIN_SECRETS_DIR"]);
    let configs = PathBuf::from(&told["DUNLIN_CONFIGS_DIR"]);
    assert_eq!(fs::read(secrets.join("pw")).unwrap(), b"first");
    assert_eq!(fs::read(configs.join("app.toml")).unwrap(), b"config 1");
    assert_eq!(mode(&secrets.join("pw")), 0o400);
    assert_eq!(mode(&secrets.join("password")), 0o440);
    assert_eq!((mode(&secrets), mode(&lab.directory())), (0o700, 0o700));
    let found = rustix::fs::statfs(&secrets).unwrap();
    assert!([0x0102_1994, 0x8584_58f6].contains(&i128::from(found.f_type)));
    lab.files.remove(&id());
    assert!(!lab.directory().exists());
}

#[test]
fn a_new_version_replaces_the_file_in_one_step_and_an_old_one_is_left_alone() {
    let lab = Lab::new();
    let work = workload(vec![mount("pw", "")], vec![mount("cfg", "")]);
    lab.files.prepare(&work, Choice::Process).unwrap();
    let path = lab.directory().join("secrets/pw");
    let before = fs::metadata(&path).unwrap().ino();
    assert!(!lab.files.refresh(&id(), &work.spec, Choice::Process));
    assert_eq!(fs::metadata(&path).unwrap().ino(), before);
    lab.set("second", "config 1");
    assert!(lab.files.refresh(&id(), &work.spec, Choice::Process));
    assert_eq!(fs::read(&path).unwrap(), b"second");
    assert_ne!(fs::metadata(&path).unwrap().ino(), before);
    assert_eq!(mode(&path), 0o400);
    lab.set("second", "config 2");
    assert!(lab.files.refresh(&id(), &work.spec, Choice::Process));
    let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_container_sees_a_directory_or_single_files() {
    let lab = Lab::new();
    let secrets = vec![mount("pw", ""), mount("pw", "/etc/db/password")];
    let work = workload(secrets, vec![mount("cfg", ""), mount("cfg", "/etc/x.toml")]);
    lab.files.prepare(&work, Choice::Docker).unwrap();
    let binds = lab.files.binds(&work);
    let targets: Vec<&str> = binds.iter().map(|b| b.target.as_str()).collect();
    assert_eq!(
        targets,
        ["/run/secrets", "/etc/db/password", "/cfg", "/etc/x.toml"]
    );
    assert_eq!(mode(&binds[0].source), 0o755);
    assert_eq!(mode(&binds[0].source.join("pw")), 0o444);
    assert!(
        !binds[0].source.join("password").exists(),
        "it is elsewhere"
    );
    let alone = fs::metadata(&binds[1].source).unwrap().ino();
    lab.set("second", "config 2");
    assert!(lab.files.refresh(&id(), &work.spec, Choice::Docker));
    // A mount of one file follows the file, not its name.
    assert_eq!(fs::metadata(&binds[1].source).unwrap().ino(), alone);
    for (bind, content) in binds[1..].iter().zip(["second", "config 2", "config 2"]) {
        assert_eq!(fs::read(&bind.source).unwrap(), content.as_bytes());
    }
}

#[test]
fn a_start_without_its_secret_is_refused_and_leaves_nothing() {
    let lab = Lab::new();
    let work = workload(vec![mount("other", "")], Vec::new());
    let refused = lab.files.prepare(&work, Choice::Process).unwrap_err();
    assert!(
        refused.to_string().contains("secret 'shop/other'"),
        "{refused}"
    );
    assert!(!lab.directory().exists());
}

#[test]
fn files_of_attempts_that_are_gone_are_swept() {
    let lab = Lab::new();
    let work = workload(vec![mount("pw", "")], Vec::new());
    lab.files.prepare(&work, Choice::Process).unwrap();
    lab.files.sweep(&BTreeSet::from([id()]));
    assert!(lab.directory().exists());
    lab.files.sweep(&BTreeSet::new());
    assert!(!lab.directory().exists());
}

#[test]
fn nothing_is_left_behind_once_the_last_attempt_has_ended() {
    let lab = Lab::new();
    let mut work = workload(vec![mount("pw", "")], Vec::new());
    for attempt in [1, 2] {
        work.id.attempt = attempt;
        lab.files.prepare(&work, Choice::Process).unwrap();
    }
    let common = lab.files.base.path().unwrap();
    lab.files.remove(&id());
    assert!(common.exists(), "another attempt lives there");
    lab.files.remove(&work.id);
    assert!(!common.exists());
    lab.files.prepare(&work, Choice::Process).unwrap();
    assert!(common.exists());
}

#[test]
fn a_link_in_the_way_is_not_followed() {
    let lab = Lab::new();
    let work = workload(vec![mount("pw", "")], Vec::new());
    lab.files.prepare(&work, Choice::Process).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let victim = elsewhere.path().join("victim");
    fs::write(&victim, b"untouched").unwrap();
    let path = lab.directory().join("secrets/pw");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&victim, &path).unwrap();
    std::os::unix::fs::symlink(&victim, path.with_file_name(".pw.new")).unwrap();
    lab.set("second", "");
    assert!(lab.files.refresh(&id(), &work.spec, Choice::Process));
    assert_eq!(fs::read(&victim).unwrap(), b"untouched");
    assert_eq!(fs::read(&path).unwrap(), b"second");
    assert!(!fs::symlink_metadata(&path).unwrap().is_symlink());
}
