//! Redeeming a ticket: from a key to a certified key.

use dunlin_trust::{Chain, InviteKey, PublicKey, Role, Ticket};

use super::connection::Link;
use super::{Client, ClientError};
use crate::{Membership, RedeemRequest, routes};

/// What a ticket was turned into.
#[derive(Debug, Clone)]
pub struct Redeemed {
    /// The cluster's root key.
    pub root: PublicKey,
    /// The certificates from there to the client's key.
    pub chain: Chain,
    /// What the key may do now.
    pub role: Role,
    /// Until when, in milliseconds since the Unix epoch.
    pub expires_at: u64,
}

pub(super) async fn redeem(client: &Client, ticket: &Ticket) -> Result<Redeemed, ClientError> {
    let garbled = |detail: String| ClientError::Garbled {
        host: client.host.clone(),
        detail,
    };
    let link = Link::open(client).await?;
    // The handshake has checked both: without them there is no link over TLS.
    let (Some(own), Some(server)) = (&client.credentials, link.server.clone()) else {
        return Err(ClientError::NoCredentials {
            host: client.host.clone(),
        });
    };
    let (own, member) = (own.public(), server.key);
    let Some(proof) = server.proof else {
        return Err(garbled("the node shows no certificate".to_owned()));
    };
    let invite = InviteKey::of(&ticket.secret);
    let signature = invite.prove(ticket.cluster, &own, &member);
    let request = RedeemRequest {
        invite: invite.id().to_string(),
        proof: hex(&signature.0),
    };
    let body = serde_json::to_vec(&request).map_err(ClientError::Unwritable)?;
    let answer = link.call("POST", routes::REDEEM, Some(body)).await?;
    let answer: Membership =
        serde_json::from_slice(&answer).map_err(|error| garbled(error.to_string()))?;
    let chain = unhex(&answer.chain).and_then(|bytes| Chain::decode(&bytes).ok());
    let chain = chain.ok_or_else(|| garbled("the certificate is malformed".to_owned()))?;
    let verified = chain
        .verify(&proof.root)
        .map_err(|e| garbled(e.to_string()))?;
    match verified.role() {
        Some(role) if verified.subject == own => Ok(Redeemed {
            root: proof.root,
            role: role.clone(),
            chain,
            expires_at: verified.not_after.saturating_mul(1_000),
        }),
        Some(_) | None => Err(garbled("the certificate is about another key".to_owned())),
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).ok()
}
