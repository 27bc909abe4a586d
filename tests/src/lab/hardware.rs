//! What a host can have besides its cable: a disk of its own that can be full, and a clock of its
//! own that can be wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::net::LabError;

/// Bytes of a host's own disk: many times what a daemon writes.
const DISK: &str = "96m";

/// What fills a disk.
const BALLAST: &str = "ballast";

/// Bytes that are written at once to fill a disk.
const PIECE: usize = 64 << 10;

/// A small disk, mounted until it is dropped.
#[derive(Debug)]
pub(super) struct Disk {
    at: PathBuf,
}

impl Disk {
    /// Mounts one over a folder, and copies what is in there onto it.
    pub(super) fn over(folder: &Path) -> Result<Self, LabError> {
        let aside = folder.with_extension("aside");
        let trouble = |e: std::io::Error| LabError::new("make a disk", e);
        fs::rename(folder, &aside).map_err(trouble)?;
        fs::create_dir(folder).map_err(trouble)?;
        let size = format!("size={DISK},mode=0700");
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder))?;
        let disk = Self {
            at: folder.to_owned(),
        };
        run(Command::new("cp")
            .arg("-a")
            .arg(aside.join("."))
            .arg(folder))?;
        fs::remove_dir_all(aside).map_err(trouble)?;
        Ok(disk)
    }

    /// Leaves not a byte on it.
    pub(super) fn fill(&self) -> Result<(), LabError> {
        use std::io::Write as _;
        let file = fs::File::create(self.at.join(BALLAST));
        let mut file = file.map_err(|e| LabError::new("fill a disk", e))?;
        for piece in [PIECE, 1] {
            // Until it is full.
            while file.write(&vec![0; piece]).is_ok_and(|written| written > 0) {}
        }
        Ok(())
    }

    /// Makes room again.
    pub(super) fn free(&self) -> Result<(), LabError> {
        fs::remove_file(self.at.join(BALLAST)).map_err(|e| LabError::new("free a disk", e))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.at).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("note: {} is still mounted", self.at.display());
        }
    }
}

/// A wall clock that differs from this machine's, through `libfaketime`. Monotonic time stays true.
#[derive(Debug)]
pub(super) struct WallClock {
    library: PathBuf,
    /// Says by how much it differs.
    file: PathBuf,
}

impl WallClock {
    /// A right one, if the library is on this machine.
    pub(super) fn in_folder(folder: &Path) -> Option<Self> {
        let clock = Self {
            library: library()?,
            file: folder.join("clock"),
        };
        clock.set(0).ok()?;
        Some(clock)
    }

    /// Sets it so many seconds fast, or slow.
    pub(super) fn set(&self, seconds: i32) -> Result<(), LabError> {
        // At once: nobody may read half of it.
        let next = self.file.with_extension("next");
        let write = fs::write(&next, format!("{seconds:+}"));
        write
            .and_then(|()| fs::rename(&next, &self.file))
            .map_err(|e| LabError::new("set a clock", e))
    }

    /// Has a command read it.
    pub(super) fn shown_to(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_CACHE_DURATION", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
    }
}

fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    let candidates = folders.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    candidates.into_iter().find(|path| path.exists())
}

fn run(command: &mut Command) -> Result<(), LabError> {
    let what = format!("run {command:?}");
    let output = command.output().map_err(|e| LabError::new(&what, e))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(LabError::new(
            &what,
            String::from_utf8_lossy(&output.stderr).trim(),
        )),
    }
}
