//! Writing one file or directory with its owner and mode.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::Path;

use super::super::select::Choice;

/// Whom a file or directory belongs to; the daemon's own user and group where absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ownership {
    uid: Option<u32>,
    gid: Option<u32>,
    /// Permission bits of directories.
    mode: u32,
}

impl Ownership {
    pub(super) fn new(user: Option<(u32, u32)>) -> Self {
        Self {
            uid: user.map(|(uid, _)| uid),
            gid: user.map(|(_, gid)| gid),
            mode: 0o700,
        }
    }

    /// The same for a file that names its own.
    pub(super) fn of_file(self, uid: Option<u32>, gid: Option<u32>) -> Self {
        Self {
            uid: uid.or(self.uid),
            gid: gid.or(self.gid),
            ..self
        }
    }

    /// Of directories. They stay the daemon's: a workload that could put a link into one would have
    /// the daemon write through it. A process's user comes in by its group. What a container's user
    /// may read is said by the files: the directory above keeps others of this host out.
    pub(super) fn of_directories(self, choice: Choice) -> Self {
        let mode = match (choice, self.gid) {
            (Choice::Docker, _) => 0o755,
            (Choice::Process, Some(_)) => 0o750,
            (Choice::Process, None) => 0o700,
        };
        let uid = None;
        Self { uid, mode, ..self }
    }

    fn apply(self, path: &Path) -> io::Result<()> {
        if self.uid.is_none() && self.gid.is_none() {
            return Ok(());
        }
        let found = fs::symlink_metadata(path)?;
        let same = self.uid.is_none_or(|uid| uid == found.uid())
            && self.gid.is_none_or(|gid| gid == found.gid());
        if same {
            return Ok(());
        }
        std::os::unix::fs::lchown(path, self.uid, self.gid).map_err(|error| {
            let (uid, gid) = (
                self.uid.unwrap_or(found.uid()),
                self.gid.unwrap_or(found.gid()),
            );
            io::Error::new(
                error.kind(),
                format!("giving it to {uid}:{gid} needs a daemon with root: {error}"),
            )
        })
    }
}

/// Makes a directory if it is missing.
pub(super) fn directory(path: &Path, owner: Ownership) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    owner.apply(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(owner.mode))
}

/// Writes a file unless it has this content already; whether it had not. `whole` replaces it in one
/// step, otherwise it is overwritten in place.
pub(super) fn put(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    owner: Ownership,
    whole: bool,
) -> io::Result<bool> {
    if holds(path, bytes) {
        return Ok(false);
    }
    if !whole && path.exists() {
        let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
        file.write_all(bytes)?;
        return Ok(true);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.new"));
    let _stale = fs::remove_file(&temporary);
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    owner.apply(&temporary)?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(mode))?;
    fs::rename(&temporary, path)?;
    Ok(true)
}

fn holds(path: &Path, bytes: &[u8]) -> bool {
    let read = File::open(path).and_then(|file| {
        let mut found = Vec::with_capacity(bytes.len() + 1);
        // One byte more than wanted tells a longer one.
        let most = u64::try_from(bytes.len())
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        file.take(most).read_to_end(&mut found)?;
        Ok(found)
    });
    read.is_ok_and(|found| found == bytes)
}
