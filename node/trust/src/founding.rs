//! Making certificates: for a new cluster, and for those who come later. How long each kind lives
//! stands here, and nowhere else.

use crate::Seconds;
use crate::certificate::Certificate;
use crate::chain::Chain;
use crate::credential::Credential;
use crate::keyring::{Keyring, KeyringSecret};
use crate::keys::{ClusterId, PublicKey, SecretKey};
use crate::power::{Power, Role};

const DAY: Seconds = 24 * 3_600;

/// How long a node's certificate lives: 90 days; it is renewed after half of them.
pub const NODE_SECONDS: Seconds = 90 * DAY;
/// How long a viewer's or an operator's lives: a year.
pub const OPERATOR_SECONDS: Seconds = 365 * DAY;
/// How long an admin's lives: ten years, because only the root key or another admin renews it.
pub const ADMIN_SECONDS: Seconds = 3_650 * DAY;
/// How long an admission key is vouched for: ten years, or until a member is removed. A shorter
/// life would make a cluster whose root key is away and whose admins have gone fall apart.
pub const ADMISSION_SECONDS: Seconds = 3_650 * DAY;

/// A new cluster: its root key, the founder's right to do everything, and the first keyring.
#[derive(Debug, Clone)]
pub struct Founding {
    /// The root key.
    pub root: SecretKey,
    /// The founding node as an admin.
    pub admin: Chain,
    /// The founding node as a node.
    pub node: Chain,
    /// What its members will share.
    pub keyring: Keyring,
}

impl Founding {
    /// Founds a cluster on `node`. Both seeds must be random.
    pub fn new(root: [u8; 32], keyring: [u8; 32], node: PublicKey, now: Seconds) -> Self {
        let root = SecretKey::from_seed(root);
        let cluster = ClusterId::of(&root.public());
        let secret = KeyringSecret(keyring);
        let admission = Chain::root_signed(Certificate::issue(
            cluster,
            &root,
            secret.admission_key().public(),
            Power::Admission(1),
            (now, now.saturating_add(ADMISSION_SECONDS)),
        ));
        let keyring = Keyring {
            epoch: 1,
            secret,
            admission,
        };
        Self {
            admin: issue_admin(&root, node, now),
            node: issue_node(cluster, &keyring, node, now),
            keyring,
            root,
        }
    }
}

/// Makes `subject` an admin by the root key.
pub fn issue_admin(root: &SecretKey, subject: PublicKey, now: Seconds) -> Chain {
    let cluster = ClusterId::of(&root.public());
    Chain::root_signed(Certificate::issue(
        cluster,
        root,
        subject,
        Power::Role(Role::Admin),
        (now, now.saturating_add(ADMIN_SECONDS)),
    ))
}

/// Gives `subject` a role by an admin's credential.
pub fn issue_role(
    cluster: ClusterId,
    admin: &Credential,
    subject: PublicKey,
    role: Role,
    now: Seconds,
) -> Chain {
    let life = match role {
        Role::Node => NODE_SECONDS,
        Role::Viewer | Role::Operator(_) => OPERATOR_SECONDS,
        Role::Admin => ADMIN_SECONDS,
    };
    admin.chain().with(Certificate::issue(
        cluster,
        admin.key(),
        subject,
        Power::Role(role),
        (now, now.saturating_add(life)),
    ))
}

/// Makes `subject` a node by the admission key that all members hold.
pub fn issue_node(
    cluster: ClusterId,
    keyring: &Keyring,
    subject: PublicKey,
    now: Seconds,
) -> Chain {
    keyring.admission.with(Certificate::issue(
        cluster,
        &keyring.secret.admission_key(),
        subject,
        Power::Role(Role::Node),
        (now, now.saturating_add(NODE_SECONDS)),
    ))
}

/// Vouches for a new keyring by an admin's credential.
pub fn issue_admission(
    cluster: ClusterId,
    admin: &Credential,
    secret: KeyringSecret,
    epoch: u64,
    now: Seconds,
) -> Keyring {
    let admission = admin.chain().with(Certificate::issue(
        cluster,
        admin.key(),
        secret.admission_key().public(),
        Power::Admission(epoch),
        (now, now.saturating_add(ADMISSION_SECONDS)),
    ));
    Keyring {
        epoch,
        secret,
        admission,
    }
}
