//! Secrets and configs as files of replicas, in memory only.
//!
//! Each attempt with such files has a directory on a tmpfs, `<base>/<node>/<attempt>/`, with
//! `secrets/`, `configs/`, and for containers `placed/`:
//!
//! | | a process | a container |
//! |---|---|---|
//! | secrets | the directory `DUNLIN_SECRETS_DIR` | the directory `/run/secrets`, or a file at an absolute target |
//! | configs | the directory `DUNLIN_CONFIGS_DIR` | a file at `/<target>`, or at an absolute target |
//! | owner unless said | the process's user | 0:0 |
//! | mode unless said | 0400 | 0444, as Docker |
//!
//! A file in a directory that the replica sees is replaced by renaming, so that it is always whole.
//! A file that is mounted by itself is overwritten in place, because a mount follows the file and
//! not its name. Without a tmpfs nothing is written, and the replica is not started.
//!
//! What a tmpfs cannot promise: the kernel may swap it out.

mod place;
mod write;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use dunlin_core::io::{Workload, WorkloadId};
use dunlin_state::model::{FileMount, ItemKind, NodeId, ServiceSpec};
use tracing::warn;

use super::StartError;
use super::select::Choice;
use crate::secrets::{Content, SecretVault};
use crate::supervisor::user_ids;
use place::Base;
use write::{Ownership, put};

/// Where a process finds its secrets.
const SECRETS_VARIABLE: &str = "DUNLIN_SECRETS_DIR";
/// Where a process finds its configs.
const CONFIGS_VARIABLE: &str = "DUNLIN_CONFIGS_DIR";
/// Where a container finds its secrets.
const SECRETS_MOUNT: &str = "/run/secrets";

/// Brings secrets and configs to replicas.
#[derive(Debug, Clone)]
pub(super) struct Files {
    vault: Option<Arc<SecretVault>>,
    base: Base,
    /// Held while the common directory is made and taken into use, and while it is removed.
    turn: Arc<Mutex<()>>,
}

/// A file or directory of the host that a container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bind {
    pub(super) source: PathBuf,
    pub(super) target: String,
}

impl Files {
    pub(super) fn new(vault: Option<Arc<SecretVault>>, node: NodeId) -> Self {
        Self {
            vault,
            base: Base::new(node),
            turn: Arc::default(),
        }
    }

    fn directory(&self, id: &WorkloadId) -> Result<PathBuf, String> {
        Ok(self.base.path()?.join(leaf(id)))
    }

    /// What the operator should know.
    pub(super) fn notes(&self) -> Option<String> {
        let reason = self.base.path().err()?;
        Some(format!(
            "services with secrets or configs are not started here: {reason}"
        ))
    }

    /// Writes the files of an attempt that is about to start; blocking.
    pub(super) fn prepare(&self, workload: &Workload, choice: Choice) -> Result<(), StartError> {
        if !has_files(&workload.spec) {
            return Ok(());
        }
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // Another node may have a place in memory.
        let directory = self.base.make().map_err(StartError::hopeless)?;
        let directory = directory.join(leaf(&workload.id));
        let contents = self.contents(&workload.id, &workload.spec);
        let contents = contents.map_err(StartError::passing)?;
        let owner = owner(&workload.spec, choice).map_err(StartError::hopeless)?;
        let made = write::directory(&directory, owner.of_directories(choice));
        drop(turn);
        let written = made.and_then(|()| self.write(&directory, &contents, owner, choice));
        written.map(drop).map_err(|error| {
            let _ = fs::remove_dir_all(&directory);
            StartError::passing(format!(
                "its secrets and configs cannot be written: {error}"
            ))
        })
    }

    /// Brings the files of a living attempt up to date; blocking. Returns whether any has changed.
    pub(super) fn refresh(&self, id: &WorkloadId, spec: &ServiceSpec, choice: Choice) -> bool {
        let Ok(directory) = self.directory(id) else {
            return false;
        };
        let contents = match self.contents(id, spec) {
            Ok(contents) if directory.is_dir() => contents,
            // It has been told too early, and is told again.
            Ok(_) | Err(_) => return false,
        };
        let owner = match owner(spec, choice) {
            Ok(owner) => owner,
            Err(_reason) => return false,
        };
        match self.write(&directory, &contents, owner, choice) {
            Ok(changed) => changed,
            Err(error) => {
                warn!(slot = %id.slot, %error, "secrets or configs cannot be brought up to date");
                false
            }
        }
    }

    fn contents(&self, id: &WorkloadId, spec: &ServiceSpec) -> Result<Vec<Content>, String> {
        let vault = self.vault.as_ref();
        let vault = vault.ok_or_else(|| "this daemon holds no secrets or configs".to_owned())?;
        let contents = vault.contents(spec, &id.slot.service);
        contents.map_err(|lacking| lacking.to_string())
    }

    fn write(
        &self,
        directory: &Path,
        contents: &[Content],
        owner: Ownership,
        choice: Choice,
    ) -> std::io::Result<bool> {
        let mut changed = false;
        for kind in [Place::Secrets, Place::Configs, Place::Alone] {
            let folder = directory.join(kind.folder());
            let here = contents
                .iter()
                .filter(|c| place(c.kind, &c.mount, choice) == kind);
            let mut here = here.peekable();
            if here.peek().is_some() {
                write::directory(&folder, owner.of_directories(choice))?;
            }
            for content in here {
                let path = folder.join(content.mount.file_name());
                let mode = content.mount.mode.unwrap_or(match choice {
                    Choice::Process => 0o400,
                    Choice::Docker => 0o444,
                });
                let owner = owner.of_file(content.mount.uid, content.mount.gid);
                let whole = match (kind, choice) {
                    (Place::Secrets, _) | (_, Choice::Process) => true,
                    (Place::Configs | Place::Alone, Choice::Docker) => false,
                };
                changed |= put(&path, &content.bytes, mode, owner, whole)?;
            }
        }
        Ok(changed)
    }

    /// What a process is told of its files.
    pub(super) fn variables(&self, workload: &Workload) -> Vec<(String, String)> {
        let Ok(directory) = self.directory(&workload.id) else {
            return Vec::new();
        };
        let variable = |used: bool, name: &str, place: Place| {
            let path = directory
                .join(place.folder())
                .to_string_lossy()
                .into_owned();
            used.then(|| (name.to_owned(), path))
        };
        let spec = &workload.spec;
        let secrets = variable(!spec.secrets.is_empty(), SECRETS_VARIABLE, Place::Secrets);
        let configs = variable(!spec.configs.is_empty(), CONFIGS_VARIABLE, Place::Configs);
        secrets.into_iter().chain(configs).collect()
    }

    /// What a container sees of its files.
    pub(super) fn binds(&self, workload: &Workload) -> Vec<Bind> {
        let Ok(directory) = self.directory(&workload.id) else {
            return Vec::new();
        };
        let spec = &workload.spec;
        let all = spec.secrets.iter().map(|m| (ItemKind::Secret, m));
        let all = all.chain(spec.configs.iter().map(|m| (ItemKind::Config, m)));
        let mut binds = Vec::new();
        let mut whole = false;
        for (kind, mount) in all {
            let place = place(kind, mount, Choice::Docker);
            let folder = directory.join(place.folder());
            let bind = match place {
                Place::Secrets if whole => continue,
                Place::Secrets => {
                    whole = true;
                    Bind {
                        source: folder,
                        target: SECRETS_MOUNT.to_owned(),
                    }
                }
                Place::Configs | Place::Alone => Bind {
                    source: folder.join(mount.file_name()),
                    target: match mount.target().starts_with('/') {
                        true => mount.target().to_owned(),
                        false => format!("/{}", mount.target()),
                    },
                },
            };
            binds.push(bind);
        }
        binds
    }

    /// Deletes the files of an attempt that has ended; blocking.
    pub(super) fn remove(&self, id: &WorkloadId) {
        if let Ok(directory) = self.directory(id)
            && directory.exists()
            && let Err(error) = fs::remove_dir_all(&directory)
        {
            warn!(slot = %id.slot, %error, "the files of secrets cannot be deleted");
        }
        self.tidy();
    }

    fn tidy(&self) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.base.tidy();
    }

    /// Deletes the files of all attempts but these; blocking.
    pub(super) fn sweep(&self, living: &BTreeSet<WorkloadId>) {
        let keep: BTreeSet<String> = living.iter().map(leaf).collect();
        let Ok(entries) = self.base.path().map(fs::read_dir) else {
            return;
        };
        for entry in entries.into_iter().flatten().flatten() {
            let known = entry.file_name().to_str().is_some_and(|n| keep.contains(n));
            if !known && let Err(error) = fs::remove_dir_all(entry.path()) {
                warn!(path = %entry.path().display(), %error, "cannot be deleted");
            }
        }
        self.tidy();
    }
}

/// Where a file lies on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the directory that the replica sees as a whole.
    Secrets,
    /// In the directory of configs.
    Configs,
    /// A secret of a container that is mounted by itself.
    Alone,
}

impl Place {
    fn folder(self) -> &'static str {
        match self {
            Self::Secrets => "secrets",
            Self::Configs => "configs",
            Self::Alone => "placed",
        }
    }
}

fn place(kind: ItemKind, mount: &FileMount, choice: Choice) -> Place {
    match (kind, choice) {
        (ItemKind::Config, _) => Place::Configs,
        (ItemKind::Secret, Choice::Process) => Place::Secrets,
        (ItemKind::Secret, Choice::Docker) if mount.target().starts_with('/') => Place::Alone,
        (ItemKind::Secret, Choice::Docker) => Place::Secrets,
    }
}

fn has_files(spec: &ServiceSpec) -> bool {
    !spec.secrets.is_empty() || !spec.configs.is_empty()
}

/// Whom files belong to that name nobody.
fn owner(spec: &ServiceSpec, choice: Choice) -> Result<Ownership, String> {
    let user = match (choice, &spec.user) {
        (Choice::Process, Some(user)) => Some(user_ids(user)?),
        (Choice::Process | Choice::Docker, _) => None,
    };
    Ok(Ownership::new(user))
}

/// A directory name that no other attempt on this node has. Service and namespace are DNS labels and
/// the rest numbers or a node's id.
pub(super) fn leaf(id: &WorkloadId) -> String {
    use dunlin_state::model::Slot;
    let (service, slot) = (&id.slot.service, &id.slot.slot);
    let slot = match slot {
        Slot::Replica(index) => format!("r{index}"),
        Slot::Node(node) => format!("n{node}"),
    };
    let (epoch, attempt) = (id.epoch, id.attempt);
    format!(
        "{}.{}.{slot}-{epoch}-{attempt}",
        service.namespace(),
        service.name()
    )
}

#[cfg(test)]
mod tests;
