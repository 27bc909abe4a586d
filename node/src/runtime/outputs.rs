//! The files that parts of jobs write their outputs to, one for each attempt, below the daemon's
//! data directory. A container sees its file at [`MOUNT`], where it may be of any user.
//!
//! Whoever writes is not trusted: what is read is a file and no link, device or pipe, has a bound, and
//! is checked as a whole.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use dunlin_core::io::{Workload, WorkloadId};
use dunlin_state::model::{BadOutputs, MAX_OUTPUT_BYTES, Outputs};
use rustix::fs::OFlags;
use tracing::warn;

use super::StartError;
use super::files::leaf;
use super::select::Choice;

/// Names the file to the replica.
pub(super) const VARIABLE: &str = "DUNLIN_OUTPUT";
/// Where a container finds it.
pub(super) const MOUNT: &str = "/run/dunlin/output";

/// The files of all attempts.
#[derive(Debug, Clone)]
pub(super) struct OutputFiles(PathBuf);

impl OutputFiles {
    /// Below the daemon's data directory.
    pub(super) fn below(data_dir: &Path) -> Self {
        Self(data_dir.join("outputs"))
    }

    /// Where the file of an attempt is, or would be.
    pub(super) fn path(&self, id: &WorkloadId) -> PathBuf {
        self.0.join(leaf(id))
    }

    /// Makes the file of an attempt that is about to start, if it may tell something; blocking. What it
    /// has written is kept when it lives already.
    pub(super) fn prepare(&self, workload: &Workload, choice: Choice) -> Result<(), StartError> {
        if !workload.tells {
            return Ok(());
        }
        let path = self.path(&workload.id);
        let mode = match choice {
            Choice::Process => 0o600,
            // Nobody else comes through the directory above.
            Choice::Docker => 0o666,
        };
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0);
        let made = made.and_then(|()| match create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
            Ok(file) => file.set_permissions(fs::Permissions::from_mode(mode)),
        });
        made.map_err(|error| {
            let path = path.display();
            StartError::passing(format!(
                "its file of outputs, {path}, cannot be made: {error}"
            ))
        })
    }

    /// What an attempt that has ended has told: nothing when it had no file; blocking.
    pub(super) fn read(&self, id: &WorkloadId) -> Result<Outputs, BadOutputs> {
        let bytes = match read(&self.path(id)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(BadOutputs::Unreadable(error.to_string())),
        };
        Outputs::parse(&bytes)
    }

    /// Deletes the file of an attempt; blocking.
    pub(super) fn remove(&self, id: &WorkloadId) {
        delete(&self.path(id));
    }

    /// Deletes the files of all attempts but these; blocking.
    pub(super) fn sweep(&self, known: &BTreeSet<WorkloadId>) {
        let keep: BTreeSet<String> = known.iter().map(leaf).collect();
        let Ok(entries) = fs::read_dir(&self.0) else {
            return;
        };
        for entry in entries.flatten() {
            let known = entry.file_name().to_str().is_some_and(|n| keep.contains(n));
            if !known {
                delete(&entry.path());
            }
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create_new(true).write(true).mode(0o600).open(path)
}

/// At most one byte more than there may be.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::options()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or(0))
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file any more"));
    }
    let mut bytes = Vec::new();
    let most = u64::try_from(MAX_OUTPUT_BYTES).unwrap_or(u64::MAX);
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn delete(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            warn!(path = %path.display(), %error, "a file of outputs cannot be deleted");
        }
        Ok(()) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use dunlin_state::model::{Slot, SlotId};

    use super::*;

    fn id(attempt: u32) -> WorkloadId {
        WorkloadId {
            slot: SlotId {
                service: "default/job--ask-1".parse().unwrap(),
                slot: Slot::Replica(0),
            },
            epoch: 1,
            attempt,
        }
    }

    #[test]
    fn only_files_are_read_and_not_more_than_there_may_be() {
        let directory = tempfile::tempdir().unwrap();
        let files = OutputFiles::below(directory.path());
        fs::create_dir(&files.0).unwrap();
        assert_eq!(files.read(&id(0)), Ok(Outputs::default()));
        let written = |text: &str| {
            let _ = fs::remove_file(files.path(&id(0)));
            fs::write(files.path(&id(0)), text).unwrap();
            files.read(&id(0))
        };
        assert_eq!(written("A=1\n"), Outputs::parse(b"A=1"));
        assert_eq!(written(&"\n".repeat(10_000_000)), Err(BadOutputs::TooLarge));
        fs::write(files.path(&id(1)), "SECRET=1").unwrap();
        fs::remove_file(files.path(&id(0))).unwrap();
        std::os::unix::fs::symlink(files.path(&id(1)), files.path(&id(0))).unwrap();
        assert!(matches!(files.read(&id(0)), Err(BadOutputs::Unreadable(_))));
        files.sweep(&BTreeSet::from([id(1)]));
        assert!(!files.path(&id(0)).exists() && files.path(&id(1)).exists());
        rustix::fs::mkfifoat(
            rustix::fs::CWD,
            files.path(&id(0)),
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        )
        .unwrap();
        assert!(matches!(files.read(&id(0)), Err(BadOutputs::Unreadable(_))));
        files.remove(&id(0));
        assert!(!files.path(&id(0)).exists());
    }
}
