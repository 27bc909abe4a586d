//! From an archive to a directory.

use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use tar::{Archive, Entry, EntryType};
use thiserror::Error;

use super::MAX_DEPTH;

/// Why an archive is not taken. What was unpacked of it is to be thrown away.
#[derive(Debug, Error)]
pub(crate) enum BadArchive {
    /// It cannot be read, or not be written here.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// An entry would reach outside the volume.
    #[error("it is refused: '{path}' {why}")]
    Hostile {
        /// Which entry.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Unpacks an archive below `root`, which is empty and nobody else's. Files keep their owners when
/// this is root, and their modes and times.
///
/// # Errors
/// When it is damaged, or holds what does not belong into a volume: absolute paths, `..`, links
/// that lead outside, devices.
pub(crate) fn unpack(from: impl Read, root: &Path) -> Result<(), BadArchive> {
    let mut archive = Archive::new(from);
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(true);
    archive.set_preserve_ownerships(rustix::process::geteuid().is_root());
    archive.set_overwrite(false);
    // Directories come last: one that may not be written to would keep its own content out.
    let mut directories = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let told: String = path.display().to_string().chars().take(200).collect();
        let hostile = |why| BadArchive::Hostile { path: told, why };
        if let Some(why) = wrong(&entry, &path)? {
            return Err(hostile(why));
        }
        match entry.header().entry_type() {
            EntryType::Directory if is_root(&path) => {}
            EntryType::Directory if directories.len() >= MAX_DIRECTORIES => {
                return Err(hostile("is one directory too many"));
            }
            EntryType::Directory => directories.push((path, entry)),
            _ => {
                if !entry.unpack_in(root)? {
                    return Err(hostile("leads outside the volume"));
                }
            }
        }
    }
    directories.sort_by(|(a, _), (b, _)| b.cmp(a));
    for (path, mut directory) in directories {
        if !directory.unpack_in(root)? {
            let path = path.display().to_string();
            let why = "leads outside the volume";
            return Err(BadArchive::Hostile { path, why });
        }
    }
    Ok(())
}

/// Directories of one archive: their headers wait in memory until all else is there.
const MAX_DIRECTORIES: usize = 100_000;

fn is_root(path: &Path) -> bool {
    path.components().all(|part| part == Component::CurDir)
}

/// What is wrong with an entry, if anything is.
fn wrong(entry: &Entry<'_, impl Read>, path: &Path) -> io::Result<Option<&'static str>> {
    let Some(depth) = inside(Path::new(""), path) else {
        return Ok(Some("is an absolute path, or has '..' in it"));
    };
    if depth.len() > MAX_DEPTH {
        return Ok(Some("is too deep"));
    }
    let link = entry.link_name()?;
    Ok(match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => None,
        EntryType::Directory => None,
        EntryType::XGlobalHeader => Some("is a header for all of the archive"),
        EntryType::Link => {
            let target = link.unwrap_or_default();
            let plain = target.components().all(is_plain);
            (!plain).then_some("is a link to something outside the volume")
        }
        EntryType::Symlink => {
            let target = link.unwrap_or_default();
            let parent = path.parent().unwrap_or(Path::new(""));
            let fits = inside(parent, &target).is_some();
            (!fits).then_some("is a link to something outside the volume")
        }
        _ => Some("is a device or another special file"),
    })
}

fn is_plain(part: Component<'_>) -> bool {
    matches!(part, Component::Normal(_) | Component::CurDir)
}

/// The parts of a path, as it is read from a directory of the volume; `None` when it leads out. The
/// path of an entry itself has no `..` at all.
fn inside(from: &Path, path: &Path) -> Option<Vec<PathBuf>> {
    let mut parts: Vec<PathBuf> = Vec::new();
    let strict = from.as_os_str().is_empty();
    for part in from.components().chain(path.components()) {
        match part {
            Component::Normal(name) => parts.push(name.into()),
            Component::CurDir => {}
            Component::ParentDir if strict && parts.is_empty() => return None,
            Component::ParentDir => drop(parts.pop()?),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts)
}
