//! Who is in the cluster, and how facts reach everyone.
//!
//! [`membership`] (SWIM), [`replication`] (push and anti-entropy of both state planes) and
//! [`overlay`] (which peers to keep a connection with) are deterministic machines. `net`, behind
//! the feature of that name, carries them over UDP and libp2p.

pub mod membership;
#[cfg(feature = "net")]
pub mod net;
pub mod overlay;
pub mod replication;
