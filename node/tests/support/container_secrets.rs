//! Secrets and configs in containers.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_core::io::RuntimeCommand;
use dunlin_core::secrets::Order;
use dunlin_node::SecretVault;
use dunlin_state::desired::{Item, Items};
use dunlin_state::model::{ContentId, FileMount, ItemKey, NodeId, RuntimeKind};
use dunlin_trust::{ContentKey, SealedKey, SecretKey};

use super::support::{self, Lab};
use super::{CleanUp, container, lab};

fn set(vault: &SecretVault, own: &SecretKey, secret: &[u8], config: &str) {
    let name: ItemKey = "default/pw".parse().unwrap();
    let key = ContentKey::new([7; 32]);
    // A nonce is used once: the length tells the versions of this test apart.
    let nonce = [u8::try_from(secret.len()).unwrap(); 24];
    let sealed = key.seal("default/pw", nonce, secret).unwrap();
    let boxed = SealedKey::seal(&own.public(), [9; 32], "default/pw", &sealed, &key).unwrap();
    let item = |stored: Vec<u8>| Item {
        version: 1,
        content: ContentId::of(&stored),
        stored: stored.into(),
        boxes: BTreeMap::new(),
        labels: BTreeMap::new(),
        updated: 0,
    };
    let mut items = Items::default();
    let secret = Arc::new(item(sealed));
    items.secrets.insert(name.clone(), Arc::clone(&secret));
    let config = Arc::new(item(config.as_bytes().to_vec()));
    items.configs.insert("default/cfg".parse().unwrap(), config);
    vault.set_items(&Arc::new(items));
    let order = Order::Open {
        secret: name,
        item: secret,
        sealed: Some(boxed.into()),
    };
    assert!(vault.perform(order).is_some());
}

fn mount(source: &str, target: &str) -> FileMount {
    FileMount {
        source: source.to_owned(),
        target: target.to_owned(),
        ..FileMount::default()
    }
}

#[tokio::test]
async fn a_container_reads_its_secrets_and_is_told_when_they_change() {
    // Says so and returns without an engine.
    let Some(there) = lab().await else { return };
    drop(there);
    let mut seed = [0; 32];
    seed.copy_from_slice(support::node().as_bytes());
    let own = SecretKey::from_seed(seed);
    let node = NodeId::from_bytes(own.public().0);
    let vault = SecretVault::in_memory(own.clone());
    set(&vault, &own, b"first", "one");
    let mut lab = Lab::with_vault(RuntimeKind::Docker, node, Arc::clone(&vault)).await;
    let mut offers = lab.handle.watch();
    let engine = offers.wait_for(|offer| offer.engine.is_some());
    let waited = tokio::time::timeout(std::time::Duration::from_secs(60), engine).await;
    waited.unwrap().unwrap();
    let _clean = CleanUp(node);

    let script = "tell() { echo \"$(cat /run/secrets/pw) $(cat /etc/alone) $(cat /cfg).\"; }
                  trap tell HUP; tell
                  echo x 2>/dev/null > /run/secrets/pw || echo read-only
                  while :; do sleep 0.1; done";
    let mut spec = container(script);
    spec.secrets = vec![mount("pw", ""), mount("pw", "/etc/alone")];
    spec.configs = vec![mount("cfg", "")];
    spec.secret_signal = Some("SIGHUP".to_owned());
    let id = lab.start(0, spec.clone()).await.id;
    lab.wait_for_line(&id, "first first one.").await;
    lab.wait_for_line(&id, "read-only").await;

    set(&vault, &own, b"second one", "two");
    let spec = Arc::new(spec);
    let refresh = || RuntimeCommand::Refresh {
        id: id.clone(),
        spec: Arc::clone(&spec),
    };
    lab.send(refresh()).await;
    lab.wait_for_line(&id, "second one second one two.").await;
    lab.stop_all().await;
}
