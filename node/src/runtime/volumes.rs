//! Where the data of named volumes is on this host: one directory each, for both runtimes, so that a
//! service which changes its runtime finds what it has written.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use dunlin_core::io::Workload;
use dunlin_state::model::{VolumeId, VolumeMount};

use super::StartError;
use crate::volumes::sweep;

/// The directories of all volumes.
#[derive(Debug, Clone)]
pub(crate) struct VolumeRoot(PathBuf);

impl VolumeRoot {
    /// Below the daemon's data directory.
    pub(crate) fn below(data_dir: &Path) -> Self {
        Self(data_dir.join("volumes"))
    }

    /// The directory of all of them.
    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    /// Makes the directory that holds them, and sweeps up what was never finished.
    pub(super) fn prepare(&self) -> Result<(), (PathBuf, io::Error)> {
        let prepared = make(&self.0).and_then(|()| sweep(&self.0));
        prepared.map_err(|error| (self.0.clone(), error))
    }

    /// Where the data of a volume is, or would be. None of its parts can be `..` or have a slash.
    pub(crate) fn path(&self, volume: &VolumeId) -> PathBuf {
        self.0.join(volume.namespace()).join(volume.local_name())
    }

    /// The directory of a mount: made if the volume is new, and else there; `None` for a bind mount.
    pub(super) fn open(
        &self,
        workload: &Workload,
        mount: &VolumeMount,
    ) -> Result<Option<(VolumeId, PathBuf)>, StartError> {
        if mount.is_bind() {
            return Ok(None);
        }
        let Some(volume) = mount.volume(&workload.id.slot) else {
            return Err(StartError::hopeless(format!(
                "'{}' cannot be the name of a volume: use up to 128 letters, digits, '_', '-' and \
                 '.'",
                mount.source
            )));
        };
        let path = self.path(&volume);
        let failed = |error: io::Error| {
            StartError::passing(format!("cannot use {}: {error}", path.display()))
        };
        if workload.volumes.contains(&volume) {
            // A file system that is not mounted must not look like a volume that is empty.
            if !fs::exists(&path).map_err(failed)? {
                return Err(StartError::passing(format!(
                    "the data of volume {volume} is not where it was, in {}: mount that again, or \
                     bring a copy with `dunlin volume import`",
                    path.display()
                )));
            }
        } else {
            make(&path).map_err(failed)?;
        }
        Ok(Some((volume, path)))
    }
}

/// What is in it belongs to whoever the replica runs as; the directories above are the daemon's.
fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}
