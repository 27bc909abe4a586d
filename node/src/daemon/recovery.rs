//! The engine, from what an earlier life left on disk.

use std::sync::Arc;

use dunlin_core::engine::{Engine, StartError};
use dunlin_core::io::{Effect, NodeConfig, Recovered};
use dunlin_state::model::{Facts, NodeId, VipRange};
use tokio::sync::mpsc;

use super::UpError;
use super::clock::{Clock, wall_millis};
use super::own::Own;
use crate::config::UpConfig;
use crate::host;
use crate::runtime::RuntimesHandle;
use crate::seal::NodeSeal;
use crate::store::{Store, StoreError, Written};

/// Opens the store and makes the engine from what is in it. A damaged state is moved aside when
/// there is someone to fetch it from, and otherwise refused: an empty cluster must never look like
/// the old one.
pub(super) fn recover(
    config: &UpConfig,
    me: &Own,
    runtimes: &RuntimesHandle,
    vips: VipRange,
    written: mpsc::Sender<Written>,
    clock: Clock,
) -> Result<(Store, Engine, Vec<Effect>, Vec<String>), UpError> {
    let attempt = || -> Result<(Store, Engine, Vec<Effect>), UpError> {
        let (store, mut recovered) = Store::open(&config.data_dir, written.clone())?;
        recovered.rules = Some(me.belonging.rules());
        let (engine, first) = engine(config, me, runtimes, vips, recovered, clock)?;
        Ok((store, engine, first))
    };
    let damage = match attempt() {
        Ok((store, engine, first)) => return Ok((store, engine, first, Vec::new())),
        Err(UpError::Store(damage @ StoreError::Damaged { .. })) => damage.to_string(),
        Err(UpError::State(damage @ StartError::Document(_))) => damage.to_string(),
        Err(other) => return Err(other),
    };
    if !config.recover && config.join.is_none() {
        return Err(UpError::Task(format!(
            "{damage}\nhint: `dunlin up --recover` moves it aside and fetches the state from other members"
        )));
    }
    let aside = Store::set_aside(&config.data_dir, wall_millis() / 1_000)
        .map_err(|e| UpError::Task(format!("{damage}; and it cannot be moved aside: {e}")))?;
    let note = format!(
        "the state was damaged ({damage}), was moved to {}, and is fetched from other members",
        aside.display()
    );
    tracing::warn!("{note}");
    let (store, engine, first) = attempt()?;
    Ok((store, engine, first, vec![note]))
}

fn engine(
    config: &UpConfig,
    me: &Own,
    runtimes: &RuntimesHandle,
    vips: VipRange,
    recovered: Recovered,
    clock: Clock,
) -> Result<(Engine, Vec<Effect>), UpError> {
    let offer = runtimes.offer();
    let facts = Facts {
        engine: offer.engine,
        ..host::facts(&config.data_dir)
    };
    let node = NodeConfig {
        member: me.member,
        name: me.name.clone(),
        profile: config.profile,
        seed: seed(me.member.node, me.member.boot),
        labels: config.labels.clone(),
        capacity: host::capacity(&facts),
        facts,
        runtimes: offer.runtimes,
        dunlin_version: env!("CARGO_PKG_VERSION").to_owned(),
        vips,
    };
    let seal = Arc::new(NodeSeal::new(me.identity.key.clone()));
    Ok(Engine::new(node, seal, recovered, clock.now())?)
}

/// Different for every node and every life.
fn seed(node: NodeId, boot: u64) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(node.as_bytes()).update(&boot.to_be_bytes());
    let mut seed = [0; 8];
    seed.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_be_bytes(seed)
}
