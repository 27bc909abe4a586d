//! Clusters that this user deals with from afar, as Docker's contexts: a name for an address, a
//! key, and the certificate that the cluster gave to it.
//!
//! ```text
//! $XDG_CONFIG_HOME/dunlin/          0700
//!   current                         the name of the one in use; absent for the local daemon
//!   contexts/NAME.json              0600, because it holds the key
//! ```
//!
//! A file is written next to its place, synced and renamed, so that a crash leaves the old one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use dunlin_api::client::{Credentials, Host};
use dunlin_state::model::check_label;
use dunlin_trust::{Chain, PublicKey, SecretKey, Verified};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The name of the local daemon among contexts.
pub const LOCAL: &str = "default";
/// Of the format of a file.
const VERSION: u32 = 1;

/// Why contexts cannot be read or changed. Nothing was changed.
#[derive(Debug, Error)]
pub enum ContextError {
    /// It is no name.
    #[error("'{0}' is no name for a context: use a-z, 0-9 and '-', at most 63 characters")]
    BadName(String),
    /// It is not there.
    #[error("there is no context '{0}': `dunlin context ls` lists them")]
    Unknown(String),
    /// It is there already.
    #[error("there is a context '{0}' already: remove it first with `dunlin context rm {0}`")]
    Exists(String),
    /// The local one cannot be changed.
    #[error("'{LOCAL}' is the daemon of this host, which needs no context")]
    Local,
    /// Others can read the key.
    #[error("{path} can be read by others (mode {mode:04o}), and it holds a key: chmod 600 it")]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file holds something else.
    #[error("{path} is no context of this version of dunlin ({reason})")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
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
}

/// A cluster from afar.
#[derive(Debug, Clone)]
pub struct Remote {
    /// One of its nodes.
    pub host: Host,
    /// This user's key there.
    pub key: SecretKey,
    /// The cluster's root key.
    pub root: PublicKey,
    /// What the cluster certifies about the key.
    pub chain: Chain,
}

/// As it is kept.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    host: String,
    key: String,
    root: String,
    chain: String,
}

/// The user's contexts.
#[derive(Debug, Clone)]
pub struct Contexts {
    directory: PathBuf,
}

impl Contexts {
    /// Those in the user's configuration directory: `$XDG_CONFIG_HOME/dunlin`, else
    /// `~/.config/dunlin`.
    pub fn of_user() -> Self {
        let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let config = config.filter(|directory| directory.is_absolute());
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
        let config = config
            .or_else(home)
            .unwrap_or_else(|| PathBuf::from("/etc"));
        Self::new(config.join("dunlin"))
    }

    /// Those in this directory.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The names, in order, without the local one.
    pub fn names(&self) -> Result<Vec<String>, ContextError> {
        let directory = self.directory.join("contexts");
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(io_error("list", &directory)(source)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(io_error("list", &directory))?;
            let file = entry.file_name();
            let name = file.to_str().and_then(|name| name.strip_suffix(".json"));
            names.extend(
                name.filter(|name| check_label("context", name).is_ok())
                    .map(str::to_owned),
            );
        }
        names.sort();
        Ok(names)
    }

    /// The one in use; nothing for the local daemon.
    pub fn current(&self) -> Result<Option<String>, ContextError> {
        let path = self.directory.join("current");
        match fs::read_to_string(&path) {
            Ok(name) => Ok(Some(name.trim().to_owned()).filter(|name| name != LOCAL)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(io_error("read", &path)(source)),
        }
    }

    /// Uses another one from now on.
    pub fn set_current(&self, name: &str) -> Result<(), ContextError> {
        let path = self.directory.join("current");
        if name == LOCAL {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(io_error("remove", &path)(error))
                }
                Ok(()) | Err(_) => Ok(()),
            };
        }
        self.get(name)?;
        write(&path, name.as_bytes())
    }

    /// Reads one.
    pub fn get(&self, name: &str) -> Result<Remote, ContextError> {
        let path = self.path(name)?;
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ContextError::Unknown(name.to_owned()));
            }
            Err(source) => return Err(io_error("read", &path)(source)),
        };
        let metadata = fs::metadata(&path).map_err(io_error("look at", &path))?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(ContextError::Open { path, mode });
        }
        decode(&text).map_err(|reason| ContextError::Damaged { path, reason })
    }

    /// Checks that one can be added by this name.
    pub fn check_free(&self, name: &str) -> Result<(), ContextError> {
        match self.path(name)?.exists() {
            true => Err(ContextError::Exists(name.to_owned())),
            false => Ok(()),
        }
    }

    /// Adds one.
    pub fn add(&self, name: &str, remote: &Remote) -> Result<(), ContextError> {
        self.check_free(name)?;
        let kept = Kept {
            version: VERSION,
            host: remote.host.to_string(),
            key: HEXLOWER.encode(&remote.key.seed()),
            root: remote.root.to_string(),
            chain: HEXLOWER.encode(&remote.chain.encode()),
        };
        let path = self.path(name)?;
        let text = serde_json::to_vec_pretty(&kept)
            .map_err(|error| io_error("write", &path)(io::Error::other(error)))?;
        write(&path, &text)
    }

    /// Removes one. If it was in use, the local daemon is from now on.
    pub fn remove(&self, name: &str) -> Result<(), ContextError> {
        let path = self.path(name)?;
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ContextError::Unknown(name.to_owned()));
            }
            Err(source) => return Err(io_error("remove", &path)(source)),
        }
        if self.current()?.as_deref() == Some(name) {
            self.set_current(LOCAL)?;
        }
        Ok(())
    }

    /// The file of a name; names are checked before they become a path.
    fn path(&self, name: &str) -> Result<PathBuf, ContextError> {
        if name == LOCAL {
            return Err(ContextError::Local);
        }
        check_label("context", name)
            .map_err(|_bad| ContextError::BadName(name.chars().take(80).collect()))?;
        Ok(self.directory.join("contexts").join(format!("{name}.json")))
    }
}

impl Remote {
    /// What to show to the cluster's nodes.
    pub fn credentials(&self) -> Result<Credentials, dunlin_api::client::ClientError> {
        Credentials::certified(self.key.clone(), self.root, self.chain.clone())
    }

    /// What the certificate proves; nothing when it is damaged.
    pub fn verified(&self) -> Option<Verified> {
        self.chain.verify(&self.root).ok()
    }
}

fn decode(text: &str) -> Result<Remote, String> {
    let kept: Kept = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if kept.version != VERSION {
        return Err(format!("it is of version {}", kept.version));
    }
    let hex = |what: &str, text: &str| {
        let bytes = HEXLOWER.decode(text.as_bytes());
        bytes.map_err(|_malformed| format!("its {what} is malformed"))
    };
    let seed: Result<[u8; 32], _> = hex("key", &kept.key)?.try_into();
    let chain = Chain::decode(&hex("certificate", &kept.chain)?);
    Ok(Remote {
        host: kept.host.parse::<Host>().map_err(|bad| bad.to_string())?,
        key: SecretKey::from_seed(seed.map_err(|_length| "its key is malformed".to_owned())?),
        root: kept
            .root
            .parse()
            .map_err(|bad: dunlin_trust::Malformed| bad.to_string())?,
        chain: chain.map_err(|bad| bad.to_string())?,
    })
}

fn write(path: &Path, content: &[u8]) -> Result<(), ContextError> {
    let directory = path.parent().unwrap_or(path);
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
        .create(directory)
        .map_err(io_error("create", directory))?;
    let beside = path.with_extension("new");
    // A leftover of a crash may have another mode.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("replace", &beside)(error));
        }
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(&beside).map_err(io_error("create", &beside))?;
    file.write_all(content)
        .map_err(io_error("write", &beside))?;
    file.sync_all().map_err(io_error("sync", &beside))?;
    fs::rename(&beside, path).map_err(io_error("replace", path))?;
    let parent = File::open(directory).map_err(io_error("open", directory))?;
    parent.sync_all().map_err(io_error("sync", directory))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ContextError {
    let path = path.to_owned();
    move |source| ContextError::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests;
