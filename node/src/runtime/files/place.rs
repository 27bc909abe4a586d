//! The directory on a tmpfs that holds the files of this node's replicas.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use dunlin_state::model::NodeId;

/// What `statfs` says of a tmpfs, and of a ramfs (Linux, `magic.h`).
const IN_MEMORY: [i128; 2] = [0x0102_1994, 0x8584_58f6];

/// How often making it is tried while other daemons tidy up.
const TRIES: usize = 8;

/// The directory, or why there is none.
#[derive(Debug, Clone)]
pub(super) struct Base {
    node: String,
    root: Result<PathBuf, String>,
}

impl Base {
    /// Looks for a tmpfs; makes nothing yet.
    pub(super) fn new(node: NodeId) -> Self {
        let user = rustix::process::geteuid();
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let mut candidates = Vec::new();
        if user.is_root() {
            candidates.push((PathBuf::from("/run"), "dunlin".to_owned()));
        } else if let Some(runtime) = runtime {
            candidates.push((runtime, "dunlin".to_owned()));
        }
        let own = format!("dunlin-{}", user.as_raw());
        candidates.push((PathBuf::from("/dev/shm"), own));
        let root = candidates
            .into_iter()
            .find(|(mount, _)| is_in_memory(mount));
        let root = root.map(|(mount, name)| mount.join(name)).ok_or_else(|| {
            "this node has no tmpfs at /run, $XDG_RUNTIME_DIR or /dev/shm, and secrets are never \
             written to a disk"
                .to_owned()
        });
        Self {
            node: node.to_string(),
            root,
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> Result<PathBuf, String> {
        Ok(self.root.clone()?.join(&self.node))
    }

    /// Makes it, and checks that nobody else has a hand in it.
    pub(super) fn make(&self) -> Result<PathBuf, String> {
        let (root, path) = (self.root.clone()?, self.path()?);
        let mut last = None;
        for _ in 0..TRIES {
            match create(&root).and_then(|()| create(&path)) {
                Ok(()) => {
                    check(&root)?;
                    check(&path)?;
                    return Ok(path);
                }
                // Another daemon has just tidied up.
                Err(error) if error.kind() == ErrorKind::NotFound => last = Some(error),
                Err(error) => return Err(format!("cannot create {}: {error}", path.display())),
            }
        }
        let error = last.map_or_else(String::new, |error| error.to_string());
        Err(format!("cannot create {}: {error}", path.display()))
    }

    /// Removes it, and what all daemons of this user share, if nothing is in there.
    pub(super) fn tidy(&self) {
        if let (Ok(root), Ok(path)) = (&self.root, self.path()) {
            // What is not empty stays.
            let _in_use = fs::remove_dir(path).and_then(|()| fs::remove_dir(root));
        }
    }
}

/// Makes a directory, unless it is there. Others may pass, and read no names: a replica with another
/// user enters its own.
fn create(directory: &Path) -> std::io::Result<()> {
    match DirBuilder::new().mode(0o711).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// `/dev/shm` is everybody's: a directory that somebody else put there is not used.
fn check(directory: &Path) -> Result<(), String> {
    let found = fs::symlink_metadata(directory)
        .map_err(|error| format!("cannot look at {}: {error}", directory.display()))?;
    let own = found.uid() == rustix::process::geteuid().as_raw();
    if found.is_dir() && own && found.mode() & 0o022 == 0 && is_in_memory(directory) {
        return Ok(());
    }
    Err(format!(
        "{} is not a directory in memory that only this daemon's user may change; remove it",
        directory.display()
    ))
}

fn is_in_memory(path: &Path) -> bool {
    // The type's width differs between architectures.
    rustix::fs::statfs(path).is_ok_and(|found| {
        let kind = i128::from(found.f_type) & 0xffff_ffff;
        IN_MEMORY.contains(&kind)
    })
}
