//! Who may have the key of a secret, by what this node knows.

use std::collections::BTreeSet;

use dunlin_state::Now;
use dunlin_state::desired::{Desired, Service};
use dunlin_state::model::{
    Claim, ItemKey, ItemKind, Mode, NodeId, ServiceKey, ServiceSpec, Slot, beats,
};
use dunlin_trust::{Chain, PublicKey, rights};

use super::{Keeper, View};
use crate::cluster::Cluster;
use crate::liveness::Standing;
use crate::placement::{NodeView, matches_constraints};

impl Keeper {
    /// Whether a node may have the key of a secret.
    pub(super) fn is_entitled(
        &self,
        node: NodeId,
        secret: &ItemKey,
        proof: Option<&[u8]>,
        view: View<'_>,
        now: Now,
    ) -> bool {
        if view
            .desired
            .trust
            .revoked
            .contains_key(&PublicKey(*node.as_bytes()))
        {
            return false;
        }
        proof.is_some_and(|proof| self.proves(node, secret, proof, view.desired, now))
            || users(secret, view.desired).any(|service| holds_slot(node, service, secret, view))
    }

    fn proves(
        &self,
        node: NodeId,
        secret: &ItemKey,
        proof: &[u8],
        desired: &Desired,
        now: Now,
    ) -> bool {
        let (Some(root), Ok(chain)) = (self.root, Chain::decode(proof)) else {
            return false;
        };
        let revoked = &desired.trust.revoked;
        if chain.subjects().any(|key| revoked.contains_key(&key)) {
            return false;
        }
        let Ok(verified) = chain.verify_at(&root, now.wall / 1_000) else {
            return false;
        };
        verified.subject.0 == *node.as_bytes()
            && rights::check(&verified.power, &register_key(secret)).is_ok()
    }
}

/// The key of desired state under which a secret stands: what rights are about.
pub(super) fn register_key(secret: &ItemKey) -> String {
    format!("{}/{secret}", ItemKind::Secret)
}

/// The nodes that a new version of a secret is sealed to at once: those that hold a slot of a
/// service that uses it.
pub(crate) fn recipients(
    secret: &ItemKey,
    cluster: &Cluster,
    desired: &Desired,
) -> BTreeSet<NodeId> {
    let used = &BTreeSet::new();
    let view = View {
        cluster,
        desired,
        used,
    };
    let services: Vec<&ServiceKey> = users(secret, desired).collect();
    let holds = |node: &NodeId| services.iter().any(|s| holds_slot(*node, s, secret, view));
    cluster
        .nodes()
        .map(|(node, _)| node)
        .filter(holds)
        .collect()
}

/// The services whose replicas get a secret.
pub(super) fn users<'a>(
    secret: &'a ItemKey,
    desired: &'a Desired,
) -> impl Iterator<Item = &'a ServiceKey> {
    let services = desired.services.iter();
    let uses = move |(key, service): &(&'a ServiceKey, &'a Service)| {
        let specs = service.rollout.previous.iter().map(|p| &p.spec);
        key.namespace() == secret.namespace()
            && specs.chain([&service.spec]).any(|spec| names(spec, secret))
    };
    services.filter(uses).map(|(key, _)| key)
}

fn names(spec: &ServiceSpec, secret: &ItemKey) -> bool {
    spec.secrets
        .iter()
        .any(|mount| mount.source == secret.name())
}

/// Whether a node holds a slot of this service with a specification that names the secret.
fn holds_slot(node: NodeId, key: &ServiceKey, secret: &ItemKey, view: View<'_>) -> bool {
    let Some(service) = view.desired.services.get(key).filter(|s| s.running) else {
        return false;
    };
    let Some(register) = view.cluster.register(node) else {
        return false;
    };
    let standing = view.cluster.standing(node);
    let conditions = NodeView::conditions(node, &register.report, standing, view.desired);
    let mut claims = register.report.claims.iter();
    claims.any(|claim| {
        let slot = claim.slot.slot;
        let exists = match (slot, service.spec.mode) {
            (Slot::Replica(index), Mode::Replicated) => index < service.wanted_replicas(),
            (Slot::Node(of), Mode::Global) => of == node,
            (Slot::Replica(_), Mode::Global) | (Slot::Node(_), Mode::Replicated) => false,
        };
        // One of another revision is about to change to the present specification.
        let spec = service.spec_of(&claim.revision).unwrap_or(&service.spec);
        claim.slot.service == *key
            && exists
            && names(spec, secret)
            && matches_constraints(spec, &conditions)
            && !is_beaten(node, claim, view)
    })
}

/// Whether somebody alive has a better claim to the slot.
fn is_beaten(node: NodeId, claim: &Claim, view: View<'_>) -> bool {
    let others = view.cluster.alive().filter(|other| *other != node);
    let mut registers = others.filter_map(|other| Some((other, view.cluster.register(other)?)));
    registers.any(|(other, register)| {
        let claims = &register.report.claims;
        let theirs = claims.iter().find(|c| c.slot == claim.slot && !c.leaving);
        theirs.is_some_and(|theirs| {
            view.cluster.standing(other) == Standing::Alive
                && beats((&other, theirs), (&node, claim)).is_gt()
        })
    })
}
