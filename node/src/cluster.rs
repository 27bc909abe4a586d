//! Which cluster this node belongs to.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::identity::{IdentityError, io_error, write_durably};

const CLUSTER_FILE: &str = "cluster";

/// A cluster's identity and the key that members share.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cluster {
    /// Tells clusters apart; no secret.
    pub id: [u8; 16],
    /// Seals membership datagrams and proves membership on connections.
    pub key: [u8; 32],
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
}

impl Cluster {
    /// A new cluster with random identity and key.
    pub fn generate() -> io::Result<Self> {
        let mut cluster = Self {
            id: [0; 16],
            key: [0; 32],
        };
        getrandom::fill(&mut cluster.id).map_err(|e| io::Error::other(e.to_string()))?;
        getrandom::fill(&mut cluster.key).map_err(|e| io::Error::other(e.to_string()))?;
        Ok(cluster)
    }

    /// The identity as people see it.
    pub fn name(&self) -> String {
        data_encoding::BASE32_NOPAD
            .encode(&self.id)
            .to_ascii_lowercase()
    }

    /// The cluster of this data directory: the remembered one, else the invitation's, else a new
    /// one. An invitation to another cluster than the remembered one is refused.
    pub fn settle(dir: &Path, invitation: Option<Self>) -> Result<Self, ClusterError> {
        let path = dir.join(CLUSTER_FILE);
        let remembered = match fs::read(&path) {
            Ok(bytes) => Some(Self::decode(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(io_error("read", &path)(source).into()),
        };
        match (remembered, invitation) {
            (Some(Some(ours)), Some(theirs)) if ours.id != theirs.id => {
                Err(ClusterError::Foreign {
                    ours: ours.name(),
                    theirs: theirs.name(),
                })
            }
            (Some(Some(ours)), _) => Ok(ours),
            (Some(None), None) => Err(ClusterError::Damaged(path)),
            (Some(None) | None, Some(theirs)) => theirs.remember(&path),
            (None, None) => Self::generate()
                .map_err(io_error("draw a key for", &path))?
                .remember(&path),
        }
    }

    /// Forgets the cluster, so that the next start makes or joins another one.
    pub fn forget(dir: &Path) -> Result<(), IdentityError> {
        let path = dir.join(CLUSTER_FILE);
        fs::remove_file(&path).map_err(io_error("remove", &path))
    }

    fn remember(self, path: &Path) -> Result<Self, ClusterError> {
        let text = data_encoding::HEXLOWER.encode(&[&self.id[..], &self.key[..]].concat());
        write_durably(path, text.as_bytes())?;
        Ok(self)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = data_encoding::HEXLOWER.decode(bytes.trim_ascii()).ok()?;
        let (id, rest) = bytes.split_first_chunk::<16>()?;
        Some(Self {
            id: *id,
            key: rest.try_into().ok()?,
        })
    }
}

impl fmt::Debug for Cluster {
    /// Never shows the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cluster({})", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_stays_in_its_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let first = Cluster::settle(dir.path(), None).unwrap();
        assert_eq!(Cluster::settle(dir.path(), None).unwrap(), first);
        assert_eq!(Cluster::settle(dir.path(), Some(first)).unwrap(), first);
        let other = Cluster::generate().unwrap();
        let refused = Cluster::settle(dir.path(), Some(other)).unwrap_err();
        assert!(refused.to_string().contains(&other.name()), "{refused}");
        assert_eq!(Cluster::settle(dir.path(), None).unwrap(), first);
    }

    #[test]
    fn a_damaged_file_needs_a_ticket() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(CLUSTER_FILE), "zz").unwrap();
        assert!(matches!(
            Cluster::settle(dir.path(), None),
            Err(ClusterError::Damaged(_))
        ));
        let ticket = Cluster::generate().unwrap();
        assert_eq!(Cluster::settle(dir.path(), Some(ticket)).unwrap(), ticket);
    }
}
