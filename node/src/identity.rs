//! Who this node is, and how often it has lived.
//!
//! The key is made once and never leaves its file. The boot count must never repeat for a key: a
//! reused (actor, sequence) pair would split the document for ever. It is therefore kept apart
//! from the state file, synced before anything is sent, and taken from the wall clock when that
//! is higher, so that even a lost file does not bring an old count back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use dunlin_state::model::NodeId;
use ed25519_dalek::SigningKey;
use thiserror::Error;

const KEY_FILE: &str = "node.key";
const BOOT_FILE: &str = "boot";
const LOCK_FILE: &str = "lock";

/// Why a node cannot find out who it is. Nothing has been changed on disk.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The key file holds something else.
    #[error(
        "{0} is damaged: it should hold 64 hexadecimal digits; restore it from a backup, or remove the whole data directory to start as a new node"
    )]
    BadKey(PathBuf),
    /// Another daemon uses the data directory.
    #[error("another dunlin daemon is using {0}: choose another --data-dir, or stop that one")]
    Locked(PathBuf),
}

/// A node's key, the count of this life, and the lock that keeps others out of its directory.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The secret half of the node's identity.
    pub key: SigningKey,
    /// Which life this is; greater than all before it.
    pub boot: u64,
    /// Held for as long as the daemon lives.
    _lock: File,
}

impl Identity {
    /// Opens the data directory: locks it, reads or makes the key, and counts this start.
    pub(crate) fn open(dir: &Path, wall_seconds: u64) -> Result<Self, IdentityError> {
        fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        restrict(dir)?;
        let lock = lock(dir)?;
        let key = load_or_make_key(&dir.join(KEY_FILE))?;
        let boot = next_boot(&dir.join(BOOT_FILE), wall_seconds)?;
        Ok(Self {
            key,
            boot,
            _lock: lock,
        })
    }

    /// The public half.
    pub(crate) fn node(&self) -> NodeId {
        NodeId::from_bytes(self.key.verifying_key().to_bytes())
    }
}

fn restrict(dir: &Path) -> Result<(), IdentityError> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(io_error("restrict", dir))
}

fn lock(dir: &Path) -> Result<File, IdentityError> {
    let path = dir.join(LOCK_FILE);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(IdentityError::Locked(dir.to_owned())),
        Err(fs::TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
    }
}

fn load_or_make_key(path: &Path) -> Result<SigningKey, IdentityError> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let seed = data_encoding::HEXLOWER
                .decode(text.trim().as_bytes())
                .ok()
                .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
                .ok_or_else(|| IdentityError::BadKey(path.to_owned()))?;
            Ok(SigningKey::from_bytes(&seed))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed)
                .map_err(|e| io_error("draw a key for", path)(io::Error::other(e.to_string())))?;
            let text = data_encoding::HEXLOWER.encode(&seed);
            write_durably(path, text.as_bytes())?;
            Ok(SigningKey::from_bytes(&seed))
        }
        Err(source) => Err(io_error("read", path)(source)),
    }
}

fn next_boot(path: &Path, wall_seconds: u64) -> Result<u64, IdentityError> {
    let last = match fs::read_to_string(path) {
        // A damaged count is replaced by the clock: refusing to start would be worse.
        Ok(text) => text.trim().parse::<u64>().unwrap_or(0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(source) => return Err(io_error("read", path)(source)),
    };
    let boot = last.saturating_add(1).max(wall_seconds);
    write_durably(path, boot.to_string().as_bytes())?;
    Ok(boot)
}

/// Writes a file so that after a crash it holds either the old content or the new one, readable by
/// its owner only.
pub(crate) fn write_durably(path: &Path, content: &[u8]) -> Result<(), IdentityError> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(io_error("create", &temporary))?;
    file.write_all(content)
        .map_err(io_error("write", &temporary))?;
    file.sync_all().map_err(io_error("sync", &temporary))?;
    fs::rename(&temporary, path).map_err(io_error("replace", path))?;
    if let Some(dir) = path.parent() {
        File::open(dir)
            .and_then(|d| d.sync_all())
            .map_err(io_error("sync", dir))?;
    }
    Ok(())
}

pub(crate) fn io_error(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_stays_and_the_boot_count_grows_even_when_the_clock_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::open(dir.path(), 1_000).unwrap();
        let (node, boot) = (first.node(), first.boot);
        drop(first);
        let second = Identity::open(dir.path(), 10).unwrap();
        assert_eq!(second.node(), node);
        assert_eq!((boot, second.boot), (1_000, 1_001));
    }

    #[test]
    fn a_lost_boot_file_does_not_bring_an_old_count_back() {
        let dir = tempfile::tempdir().unwrap();
        let boot = Identity::open(dir.path(), 1_000).unwrap().boot;
        fs::remove_file(dir.path().join(BOOT_FILE)).unwrap();
        assert!(Identity::open(dir.path(), 1_005).unwrap().boot > boot);
    }

    #[test]
    fn two_daemons_do_not_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Identity::open(dir.path(), 1).unwrap();
        let second = Identity::open(dir.path(), 1);
        assert!(
            matches!(second, Err(IdentityError::Locked(_))),
            "{second:?}"
        );
    }

    #[test]
    fn a_damaged_key_is_named_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(KEY_FILE), "not a key").unwrap();
        let error = Identity::open(dir.path(), 1).unwrap_err();
        assert!(error.to_string().contains("node.key is damaged"), "{error}");
        assert_eq!(
            fs::read_to_string(dir.path().join(KEY_FILE)).unwrap(),
            "not a key"
        );
    }

    #[test]
    fn secrets_are_readable_by_their_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let _identity = Identity::open(dir.path(), 1).unwrap();
        let mode = fs::metadata(dir.path().join(KEY_FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
