//! Whether an empty volume may be begun, and where.
//!
//! A volume is never begun anew by itself where data of it may come back. A person may, knowing
//! which node that is: when it has left or was removed, or with `force`. The empty one is of a later
//! generation, so that it counts everywhere and for ever, whoever comes back.

use dunlin_api::{ErrorBody, ErrorCode, VolumeCreated, VolumeTarget};
use dunlin_core::agent::VolumeCopy;
use dunlin_core::engine::Engine;
use dunlin_core::liveness::Standing;
use dunlin_state::model::{NodeId, VolumeId};
use dunlin_trust::PublicKey;

use super::{chain, place, running};
use crate::api::failure::Failure;
use crate::api::nodes;
use crate::streams::Destination;

/// What is to be done for a volume to be there.
pub(super) enum Beginning {
    /// Nothing.
    There(VolumeCreated),
    /// A node makes an empty one.
    At {
        to: Destination,
        /// The certificates by which this node may ask for it.
        chain: Option<String>,
        /// Names of nodes whose copy does not count from then on.
        superseded: Vec<String>,
    },
}

/// Where a volume is to be begun; an error where that could lose data unseen.
pub(super) fn plan(
    engine: &Engine,
    volume: &VolumeId,
    target: &VolumeTarget,
) -> Result<Beginning, Failure> {
    let named = match &target.node {
        Some(text) => Some(nodes::resolve(engine, text)?),
        None => None,
    };
    let copies = engine.volumes().into_iter();
    let copies: Vec<VolumeCopy> = copies.filter(|c| c.held.volume == *volume).collect();
    let home = copies.iter().find(|copy| copy.counts);
    if let Some(home) = home.filter(|home| named.is_none_or(|node| node == home.node))
        && home.standing == Standing::Alive
    {
        return Ok(Beginning::There(VolumeCreated {
            volume: volume.clone(),
            node_name: home.name.clone(),
            created: false,
            superseded: Vec::new(),
        }));
    }
    for copy in copies.iter().filter(|_| !target.force) {
        may_be_passed_over(engine, copy)?;
    }
    if let Some(slot) = running(engine, volume) {
        let text = format!("{slot} runs with volume {volume}");
        let hint = format!("stop it first: `dunlin stop {}`", slot.service);
        return Err(refused(ErrorCode::Refused, text, hint));
    }
    let node = named.unwrap_or(engine.me().node);
    let name = target.node.as_deref().unwrap_or_default();
    Ok(Beginning::At {
        to: place(engine, node, name),
        chain: chain(engine, volume.namespace()),
        superseded: copies.into_iter().map(|copy| copy.name).collect(),
    })
}

/// Data that nobody can count on any more stands in nobody's way.
fn may_be_passed_over(engine: &Engine, copy: &VolumeCopy) -> Result<(), Failure> {
    let VolumeCopy { held, name, .. } = copy;
    let volume = &held.volume;
    let (text, hint) = match copy.standing {
        Standing::Left => return Ok(()),
        Standing::Suspect | Standing::Gone if was_removed(engine, copy.node) => return Ok(()),
        Standing::Alive => (
            format!("{name} has data of volume {volume}"),
            format!(
                "`dunlin volume export {volume}` and `import --node` bring it elsewhere; with \
                 --force an empty one counts, and what {name} has stays there unused"
            ),
        ),
        Standing::Suspect | Standing::Gone => (
            format!("{name} has data of volume {volume}, does not answer, and may come back"),
            format!(
                "wait for it; remove it for good with `dunlin remove {name}`; or use --force: then \
                 an empty one counts, also when {name} is back"
            ),
        ),
    };
    Err(refused(ErrorCode::Conflict, text, hint))
}

fn was_removed(engine: &Engine, node: NodeId) -> bool {
    let removed = &engine.desired().trust.revoked;
    removed.contains_key(&PublicKey(*node.as_bytes()))
}

fn refused(code: ErrorCode, text: String, hint: String) -> Failure {
    Failure(ErrorBody::new(code, text).with_hint(hint))
}
