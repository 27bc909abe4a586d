//! What the API must know of the cluster's trust to judge who speaks from afar.

use dunlin_api::tls::{Presented, Proof};
use dunlin_trust::{Chain, ClusterId, PublicKey, Seconds, SecretKey, Signature};

use super::access::Caller;

/// The cluster's trust as this node knows it now.
pub(crate) trait Authority: Send + Sync {
    /// This node's key.
    fn key(&self) -> SecretKey;
    /// This node's certificate; nothing before it was let in.
    fn proof(&self, now: Seconds) -> Option<Proof>;
    /// Whether an admin has removed this key.
    fn is_revoked(&self, key: &PublicKey) -> bool;
    /// Gives `newcomer`, who has proven a ticket, the role that it stands for; or says why not.
    fn redeem(
        &self,
        invite: &PublicKey,
        newcomer: &PublicKey,
        proof: &Signature,
        now: Seconds,
    ) -> Result<Chain, String>;
}

/// Who it is that presents this, and what they may do.
pub(crate) fn judge(
    authority: &dyn Authority,
    presented: Option<&Presented>,
    now: Seconds,
) -> Caller {
    let Some(presented) = presented else {
        return Caller::stranger(
            None,
            "this API answers holders of a certificate only: get a ticket (`dunlin ticket --role viewer`) and add it with `dunlin context add`",
        );
    };
    match role(authority, presented, now) {
        Ok(caller) => caller,
        Err(reason) => Caller::stranger(Some(presented.key), reason),
    }
}

fn role(authority: &dyn Authority, client: &Presented, now: Seconds) -> Result<Caller, String> {
    let Some(ours) = authority.proof(now) else {
        return Err("this node has not been let into its cluster yet".to_owned());
    };
    let Some(proof) = &client.proof else {
        return Err("your key has no certificate yet: redeem a ticket first".to_owned());
    };
    if proof.root != ours.root {
        let [theirs, ours] = [proof.root, ours.root].map(|root| ClusterId::of(&root));
        return Err(format!(
            "your certificate is of the cluster {theirs}, and this is {ours}"
        ));
    }
    let verified = proof.chain.verify_at(&ours.root, now);
    let verified = verified.map_err(|bad| format!("your certificate is not valid: {bad}"))?;
    if verified.subject != client.key {
        return Err("your certificate is about another key than yours".to_owned());
    }
    if authority.is_revoked(&client.key) {
        return Err("your key was removed from the cluster by an admin".to_owned());
    }
    if verified.issuers.iter().any(|key| authority.is_revoked(key)) {
        return Err(
            "your certificate was issued by somebody who was removed since: ask for a new ticket"
                .to_owned(),
        );
    }
    match verified.role() {
        Some(role) => Ok(Caller::certified(client.key, role.clone())),
        None => Err("your certificate is for no person".to_owned()),
    }
}
