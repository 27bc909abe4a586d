//! What a daemon that was killed and started anew needs to tell its peers: that it knows nothing of
//! their connections with the one before (RFC 9000, 10.3).
//!
//! A packet of an unknown connection is answered by a token which only the node can make, from its
//! key and the connection's id. quinn's own default makes its key anew at each start, so that peers
//! would go on with a dead connection until it is given up for silence.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};

/// Separates this use of the node's key from all others.
const CONTEXT: &str = "dunlin 2026 hop stateless reset";

/// Of a connection's id: as many as quinn's own have, which makes equal ones unlikely enough.
const ID_BYTES: usize = 8;

/// The settings of an endpoint of the node with this seed: the same at each start.
pub(super) fn endpoint(seed: &[u8; 32]) -> EndpointConfig {
    let key = ResetKey(blake3::derive_key(CONTEXT, seed));
    let mut config = EndpointConfig::new(Arc::new(key));
    // quinn's usual ids carry a mark of the process that made them, and it is silent about others'.
    config.cid_generator(|| Box::new(RandomIds));
    config
}

/// Ids by chance alone.
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<[u8; ID_BYTES]>())
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let hash = blake3::keyed_hash(&self.0, data);
        signature_out.copy_from_slice(hash.as_bytes());
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        // This comparison takes the same time for all inputs.
        let same = blake3::keyed_hash(&self.0, data) == *signature;
        same.then_some(()).ok_or(CryptoError)
    }
}
