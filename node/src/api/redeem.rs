//! Tickets of people, and the certificates that they are turned into.

use axum::{Extension, Json};
use dunlin_api::{ErrorCode, Membership, RedeemRequest};
use dunlin_trust::{PublicKey, Signature};

use super::failure::{Answer, Body, Failure};
use super::{Authority, Caller, People};
use crate::daemon::clock::wall_millis;

/// The key is the one that TLS has proven; the ticket is proven by a signature that is good for
/// this key at this node only, so that nothing of it can be used by who sees it.
pub(super) async fn redeem(
    Extension(people): Extension<People>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<RedeemRequest>,
) -> Answer<Membership> {
    match &people.0 {
        Some(authority) => answer(&**authority, &caller, &request),
        None => Err(refused(OVER_TLS)),
    }
}

const OVER_TLS: &str = "tickets are redeemed over TLS";

fn refused(reason: &str) -> Failure {
    Failure::new(ErrorCode::Forbidden, reason)
}

pub(super) fn answer(
    authority: &dyn Authority,
    caller: &Caller,
    request: &RedeemRequest,
) -> Answer<Membership> {
    let key = caller.key().ok_or_else(|| refused(OVER_TLS))?;
    let bad = |what| Failure::new(ErrorCode::BadRequest, format!("the {what} is malformed"));
    let invite: PublicKey = request.invite.parse().map_err(|_malformed| bad("invite"))?;
    let proof = data_encoding::HEXLOWER.decode(request.proof.as_bytes());
    let proof = proof.ok().and_then(|bytes| bytes.try_into().ok());
    let proof = Signature(proof.ok_or_else(|| bad("proof"))?);
    let now = wall_millis() / 1_000;
    let chain = authority.redeem(&invite, &key, &proof, now);
    let chain = chain.map_err(|reason| {
        tracing::warn!(key = %key.short(), "a ticket is refused: {reason}");
        refused(&reason)
    })?;
    let ours = authority.proof(now);
    let ours = ours.ok_or_else(|| refused("this node is no member yet"))?;
    let verified = chain.verify_at(&ours.root, now);
    let verified = verified.map_err(|bad| Failure::new(ErrorCode::Internal, bad.to_string()))?;
    let role = verified.power.to_string();
    tracing::info!(key = %key.short(), role, "a ticket is redeemed");
    Ok(Json(Membership {
        role,
        chain: data_encoding::HEXLOWER.encode(&chain.encode()),
        expires_at: verified.not_after.saturating_mul(1_000),
    }))
}
