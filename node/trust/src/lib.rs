//! Who may do what, and how it is proven: keys, certificates, tickets, signatures, sealed boxes.
//!
//! Everything here is a function of its arguments. The time comes in as seconds since the Unix
//! epoch, randomness as bytes, and nothing is read or written. `docs/protocols/trust.md` tells how
//! the parts are used; in short:
//!
//! - A cluster *is* its root key: [`ClusterId`] is a hash of it.
//! - A [`Chain`] of [`Certificate`]s leads from the root key to a key and says what that key
//!   may do ([`Power`]). Which power may grant which is decided in one place, [`Power::may_issue`];
//!   which may write which key of desired state in another, [`rights::check`].
//! - The [`Keyring`] is what all members share: it seals membership datagrams and admits nodes. It
//!   is replaced when a member is removed.
//! - A [`Ticket`] is a secret that a member accepts once or a few times in place of a certificate.
//! - A [`Credential`] is a key with its chain; [`sign`] and [`Signed`] are statements made by it.

mod certificate;
mod chain;
mod credential;
mod encode;
mod founding;
mod gatekeeper;
mod keyring;
mod keys;
mod power;
pub mod rights;
mod sealed;
mod secret;
mod statement;
#[cfg(test)]
mod tests;
mod ticket;
mod tree;

pub use certificate::{Certificate, MAX_CERTIFICATE};
pub use chain::{Chain, ChainError, MAX_CHAIN, SKEW_SECONDS, Verified};
pub use credential::Credential;
pub use encode::Malformed;
pub use founding::{
    ADMIN_SECONDS, ADMISSION_SECONDS, Founding, NODE_SECONDS, OPERATOR_SECONDS, issue_admin,
    issue_admission, issue_node, issue_role,
};
pub use gatekeeper::{
    Answered, GateError, Gatekeeper, Heard, Invite, Knowledge, MAX_GATE_MESSAGE, Refusal, Standing,
    Welcome,
};
pub use keyring::{Keyring, KeyringOrder, KeyringSecret};
pub use keys::{ClusterId, PublicKey, SecretKey, Signature};
pub use power::{BadRole, Namespaces, Power, Role};
pub use sealed::{BOX_OVERHEAD, BoxError, PassphraseError, SealedFile, open_box, seal_box};
pub use secret::{BadSecret, ContentKey, SECRET_OVERHEAD, SealedKey};
pub use statement::{Seal, Signed, StatementError, sign, sign_all};
pub use ticket::{BadTicket, InviteKey, MAX_ADDRESSES, Ticket};

/// Seconds since the Unix epoch.
pub type Seconds = u64;
