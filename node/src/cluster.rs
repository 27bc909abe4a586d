//! Which cluster this node belongs to, and what proves it.
//!
//! One file in the data directory, readable by its owner, holds the certificates, the keyring that
//! all members share, and the ticket by which the node came. A second one, on the host where the
//! cluster was founded, holds the root key until that is moved away (`dunlin root export`).

mod file;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dunlin_state::desired::Rules;
use dunlin_trust::{
    Chain, ChainError, ClusterId, Credential, Founding, Gatekeeper, InviteKey, Keyring, PublicKey,
    Role, Seconds, SecretKey, Standing, Ticket, Welcome, issue_admin, issue_node,
};
use thiserror::Error;

use crate::identity::{IdentityError, io_error, write_durably};

const CLUSTER_FILE: &str = "cluster";
/// The file of the root key.
pub const ROOT_FILE: &str = "root.key";

/// A node's place in a cluster.
#[derive(Clone)]
pub(crate) struct Belonging {
    key: SecretKey,
    /// Which cluster.
    pub(crate) cluster: ClusterId,
    /// Whether it has been let in, and what it has.
    pub(crate) membership: Option<Membership>,
    /// The ticket that it came by.
    pub(crate) ticket: Option<Ticket>,
    /// An admin has removed it.
    pub(crate) removed: bool,
}

/// What a member has.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    /// The cluster's root key.
    pub(crate) root: PublicKey,
    /// What all members share.
    pub(crate) keyring: Keyring,
    /// Its certificate as a node.
    pub(crate) node: Chain,
    /// Its certificate for what else it may do.
    pub(crate) role: Option<Chain>,
}

/// Why the cluster of a node is unclear. Nothing has been changed on disk.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] IdentityError),
    /// The file holds something else.
    #[error(
        "{0} is damaged: join again with a ticket from another member (`dunlin up --join TICKET`)"
    )]
    Damaged(PathBuf),
    /// The root key's file holds something else.
    #[error(
        "{0} is damaged, or the root key of another cluster: move it away, and bring the right one back with `dunlin root import FILE`"
    )]
    BadRoot(PathBuf),
    /// The node belongs elsewhere.
    #[error(
        "this node belongs to cluster {ours} and the ticket is for cluster {theirs}: use another --data-dir, or `dunlin leave` first"
    )]
    Foreign {
        /// The node's cluster.
        ours: String,
        /// The ticket's.
        theirs: String,
    },
    /// It was removed.
    #[error(
        "this node was removed from cluster {cluster} by an admin and is not let in again: to start as a new node, move {dir} away and join with a new ticket"
    )]
    Removed {
        /// Which cluster.
        cluster: String,
        /// Its data directory.
        dir: PathBuf,
    },
    /// What is on disk proves nothing.
    #[error("the certificates in {path} are not valid: {source}; join again with a new ticket")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ChainError,
    },
}

impl Belonging {
    /// The place of this data directory's node: the remembered one, else the invitation's, else
    /// that of the founder of a new cluster. An invitation to another cluster than the remembered
    /// one is refused; one that was not used yet makes a member ask to be let in anew.
    pub(crate) fn settle(
        dir: &Path,
        invitation: Option<&Ticket>,
        key: &SecretKey,
        now: Seconds,
    ) -> Result<Self, ClusterError> {
        let path = dir.join(CLUSTER_FILE);
        let remembered = match fs::read(&path) {
            Ok(bytes) => Some(file::decode(&bytes, key)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(io_error("read", &path)(source).into()),
        };
        let mut belonging = match (remembered, invitation) {
            (Some(None), None) => return Err(ClusterError::Damaged(path)),
            (Some(Some(ours)), _) => ours,
            (Some(None) | None, Some(ticket)) => Self::invited(key, ticket),
            (None, None) => Self::found(dir, key, now)?,
        };
        belonging.check(dir, invitation)?;
        if let Some(ticket) = invitation.filter(|ticket| !belonging.came_by(ticket)) {
            belonging.ticket = Some(ticket.clone());
            belonging.membership = None;
        }
        belonging.use_root(dir, now)?;
        belonging.renew(now);
        belonging.remember(dir)?;
        Ok(belonging)
    }

    fn invited(key: &SecretKey, ticket: &Ticket) -> Self {
        Self {
            key: key.clone(),
            cluster: ticket.cluster,
            membership: None,
            ticket: Some(ticket.clone()),
            removed: false,
        }
    }

    fn found(dir: &Path, key: &SecretKey, now: Seconds) -> Result<Self, ClusterError> {
        let path = dir.join(ROOT_FILE);
        let (root, keyring) = (random(&path)?, random(&path)?);
        let founding = Founding::new(root, keyring, key.public(), now);
        write_root(dir, &founding.root)?;
        let public = founding.root.public();
        Ok(Self {
            key: key.clone(),
            cluster: ClusterId::of(&public),
            membership: Some(Membership {
                root: public,
                keyring: founding.keyring,
                node: founding.node,
                role: Some(founding.admin),
            }),
            ticket: None,
            removed: false,
        })
    }

    fn check(&self, dir: &Path, invitation: Option<&Ticket>) -> Result<(), ClusterError> {
        if let Some(ticket) = invitation.filter(|ticket| ticket.cluster != self.cluster) {
            return Err(ClusterError::Foreign {
                ours: self.name(),
                theirs: ticket.cluster.to_string(),
            });
        }
        if self.removed {
            return Err(ClusterError::Removed {
                cluster: self.name(),
                dir: dir.to_owned(),
            });
        }
        if let Some(member) = &self.membership {
            for chain in [Some(&member.node), member.role.as_ref()] {
                let verified = chain.map(|chain| chain.verify(&member.root)).transpose();
                verified.map_err(|source| ClusterError::Certificate {
                    path: dir.join(CLUSTER_FILE),
                    source,
                })?;
            }
        }
        Ok(())
    }

    fn came_by(&self, ticket: &Ticket) -> bool {
        self.ticket
            .as_ref()
            .is_some_and(|used| used.secret == ticket.secret)
    }

    /// Where the root key is, its host is an admin.
    fn use_root(&mut self, dir: &Path, now: Seconds) -> Result<(), ClusterError> {
        let Some(root) = read_root(dir)? else {
            return Ok(());
        };
        if ClusterId::of(&root.public()) != self.cluster {
            return Err(ClusterError::BadRoot(dir.join(ROOT_FILE)));
        }
        let Some(member) = &mut self.membership else {
            return Ok(());
        };
        let verified = member.role.as_ref().map(|role| role.verify(&member.root));
        let lasting = verified
            .and_then(Result::ok)
            .is_some_and(|v| v.role() == Some(&Role::Admin) && !v.is_half_over(now));
        if !lasting {
            member.role = Some(issue_admin(&root, self.key.public(), now));
        }
        Ok(())
    }

    /// Renews the node's certificate when half of its life is over, with the admission key that
    /// every member holds. True when there is a new one.
    pub(crate) fn renew(&mut self, now: Seconds) -> bool {
        let Some(member) = &mut self.membership else {
            return false;
        };
        let verified = member.node.verify(&member.root);
        let ours = member.keyring.secret.admission_key().public();
        let lasting =
            verified.is_ok_and(|v| !v.is_half_over(now) && v.issuers.last() == Some(&ours));
        if !lasting {
            member.node = issue_node(self.cluster, &member.keyring, self.key.public(), now);
        }
        !lasting
    }

    /// This node was let in.
    pub(crate) fn welcome(&mut self, welcome: &Welcome) {
        let before = self.membership.take().and_then(|member| member.role);
        self.membership = Some(Membership {
            root: welcome.root,
            keyring: welcome.keyring.clone(),
            node: welcome.node.clone(),
            role: welcome.role.clone().or(before),
        });
    }

    /// Puts a newer keyring in the place of ours, with a certificate made by it. True when it is
    /// newer.
    pub(crate) fn rotate(&mut self, keyring: Keyring, now: Seconds) -> bool {
        let Some(member) = &mut self.membership else {
            return false;
        };
        let newer = keyring.order() > member.keyring.order();
        if newer && keyring.verify_at(&member.root, now).is_ok() {
            member.node = issue_node(self.cluster, &keyring, self.key.public(), now);
            member.keyring = keyring;
            return true;
        }
        false
    }

    /// The identity of the cluster as people see it.
    pub(crate) fn name(&self) -> String {
        self.cluster.to_string()
    }

    /// The node's key.
    pub(crate) fn key(&self) -> &SecretKey {
        &self.key
    }

    /// What the node may do beside being one.
    pub(crate) fn credential(&self) -> Option<Credential> {
        let member = self.membership.as_ref()?;
        let role = member.role.clone()?;
        Credential::new(self.key.clone(), role, &member.root).ok()
    }

    /// The same, if it may do everything.
    pub(crate) fn admin(&self) -> Option<Credential> {
        self.credential()
            .filter(|credential| credential.verified().role() == Some(&Role::Admin))
    }

    /// Whom to believe, and in whose name to write.
    pub(crate) fn rules(&self) -> Rules {
        let Some(member) = &self.membership else {
            return Rules::default();
        };
        let node = Credential::new(self.key.clone(), member.node.clone(), &member.root);
        let credentials = self.credential().into_iter().chain(node.ok());
        Rules::new(Some(member.root), credentials.collect())
    }

    /// What the gate goes by.
    pub(crate) fn standing(&self) -> Option<Standing> {
        if let Some(member) = &self.membership {
            return Some(Standing::Member {
                root: member.root,
                chain: member.node.clone(),
                keyring: member.keyring.clone(),
            });
        }
        let ticket = self.ticket.as_ref()?;
        Some(Standing::Invited(InviteKey::of(&ticket.secret)))
    }

    /// The gate's rules at the start; `None` for who neither belongs nor is invited.
    pub(crate) fn gatekeeper(&self) -> Option<Gatekeeper> {
        let mut gatekeeper = Gatekeeper::new(self.key.clone(), self.cluster, self.standing()?);
        gatekeeper.set_admin(self.admin());
        Some(gatekeeper)
    }

    /// Writes it to disk.
    pub(crate) fn remember(&self, dir: &Path) -> Result<(), IdentityError> {
        write_durably(&dir.join(CLUSTER_FILE), file::encode(self).as_bytes())
    }

    /// Forgets the cluster, so that the next start makes or joins another one. A root key is kept
    /// under the name of its cluster: without it that cluster might have no admin left.
    pub(crate) fn forget(dir: &Path) -> Result<(), IdentityError> {
        if let Ok(Some(root)) = read_root(dir) {
            let path = dir.join(ROOT_FILE);
            let kept = dir.join(format!("root-{}.key", ClusterId::of(&root.public())));
            fs::rename(&path, &kept).map_err(io_error("rename", &path))?;
        }
        let path = dir.join(CLUSTER_FILE);
        fs::remove_file(&path).map_err(io_error("remove", &path))
    }
}

/// The root key of this data directory, if it is here.
pub fn read_root(dir: &Path) -> Result<Option<SecretKey>, ClusterError> {
    let path = dir.join(ROOT_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io_error("read", &path)(source).into()),
    };
    let seed = data_encoding::HEXLOWER.decode(text.trim().as_bytes()).ok();
    let seed = seed.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    match seed {
        Some(seed) => Ok(Some(SecretKey::from_seed(seed))),
        None => Err(ClusterError::BadRoot(path)),
    }
}

/// Writes the root key into this data directory, readable by its owner only.
pub fn write_root(dir: &Path, root: &SecretKey) -> Result<(), IdentityError> {
    let text = data_encoding::HEXLOWER.encode(&root.seed());
    write_durably(&dir.join(ROOT_FILE), text.as_bytes())
}

/// Which cluster the node of this data directory belongs to, if it is known.
pub fn cluster_of(dir: &Path) -> Result<Option<ClusterId>, ClusterError> {
    let path = dir.join(CLUSTER_FILE);
    match fs::read(&path) {
        Ok(bytes) => match file::cluster(&bytes) {
            Some(cluster) => Ok(Some(cluster)),
            None => Err(ClusterError::Damaged(path)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io_error("read", &path)(source).into()),
    }
}

fn random(path: &Path) -> Result<[u8; 32], IdentityError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|e| io_error("draw a key for", path)(io::Error::other(e.to_string())))?;
    Ok(bytes)
}

impl fmt::Debug for Belonging {
    /// Never shows a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Belonging({})", self.name())
    }
}
