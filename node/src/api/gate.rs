//! The cluster's trust, as the gate of the control plane knows it, for people who speak from afar:
//! one root key, one set of tickets and one list of the removed for nodes and for people.

use std::sync::OnceLock;

use dunlin_api::tls::Proof;
use dunlin_gossip::net::Trust;
use dunlin_trust::{Chain, PublicKey, Seconds, SecretKey, Signature, Standing};

use super::authority::Authority;

/// Judges by the gate, once that is there: the API is bound before the network starts.
#[derive(Debug)]
pub(crate) struct GateAuthority {
    key: SecretKey,
    gate: OnceLock<Trust>,
}

impl GateAuthority {
    /// Of the node with this key.
    pub(crate) fn new(key: SecretKey) -> Self {
        Self {
            key,
            gate: OnceLock::new(),
        }
    }

    /// The gate is there.
    pub(crate) fn open(&self, gate: Trust) {
        // It is set once, at the start.
        let _set = self.gate.set(gate);
    }
}

impl Authority for GateAuthority {
    fn key(&self) -> SecretKey {
        self.key.clone()
    }

    fn proof(&self, _now: Seconds) -> Option<Proof> {
        self.gate.get()?.update(|gate| match gate.standing() {
            Standing::Member { root, chain, .. } => Some(Proof {
                root: *root,
                chain: chain.clone(),
            }),
            Standing::Invited(_) => None,
        })
    }

    fn is_revoked(&self, key: &PublicKey) -> bool {
        let gate = self.gate.get();
        gate.is_some_and(|gate| gate.update(|gate| gate.is_revoked(key)))
    }

    fn redeem(
        &self,
        invite: &PublicKey,
        newcomer: &PublicKey,
        proof: &Signature,
        now: Seconds,
    ) -> Result<Chain, String> {
        let gate = self.gate.get().ok_or("this node is starting")?;
        gate.redeem(invite, newcomer, proof, now)
            .map_err(|refusal| refusal.to_string())
    }
}
