//! Directories come into their place, and leave it, by one rename: whoever looks finds the old data
//! or the new, and a crash leaves at most something to sweep up.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A directory of this name cannot be a namespace.
const SCRATCH: &str = ".scratch";

/// A new, empty directory on the same file system as all volumes, for the daemon alone.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn scratch(root: &Path) -> io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{}-{number}", std::process::id());
    let path = root.join(SCRATCH).join(name);
    // Of a process that had the same number once.
    discard(&path)?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&path)?;
    Ok(path)
}

/// Puts `new` where the data of a volume belongs. What was there goes.
///
/// # Errors
/// When it cannot be moved; then what was there is still there.
pub(crate) fn put_in_place(root: &Path, new: &Path, place: &Path) -> io::Result<()> {
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    let old = set_aside(root, place)?;
    if let Err(error) = fs::rename(new, place) {
        if let Some(old) = &old {
            fs::rename(old, place)?;
        }
        return Err(error);
    }
    old.map_or(Ok(()), |old| discard(&old))
}

/// Moves a directory out of the way, if there is one.
///
/// # Errors
/// When it cannot be moved; then it is still there.
pub(crate) fn set_aside(root: &Path, place: &Path) -> io::Result<Option<PathBuf>> {
    if !fs::exists(place)? {
        return Ok(None);
    }
    // A directory may be renamed over an empty one.
    let aside = scratch(root)?;
    fs::rename(place, &aside)?;
    Ok(Some(aside))
}

/// Deletes what an earlier process has left behind.
///
/// # Errors
/// When something of it cannot be deleted.
pub(crate) fn sweep(root: &Path) -> io::Result<()> {
    discard(&root.join(SCRATCH))
}

/// Deletes a directory with everything in it; nothing when it is not there.
///
/// # Errors
/// When something in it cannot be deleted.
pub(crate) fn discard(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
