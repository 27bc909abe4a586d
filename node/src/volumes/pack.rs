//! From a directory to an archive.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, readlinkat, statat};
use tar::{Builder, EntryType, Header};

use super::MAX_DEPTH;

/// Writes everything below `root` as an archive. Returns how many entries are neither files,
/// directories nor symbolic links (sockets, devices), which an archive does not hold.
///
/// # Errors
/// When something cannot be read, or nobody takes the archive.
pub(crate) fn pack(root: &Path, out: impl Write) -> io::Result<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(root, flags, Mode::empty())?;
    let mut builder = Builder::new(out);
    let mut skipped = 0;
    pack_directory(&mut builder, &directory, Path::new(""), 0, &mut skipped)?;
    builder.into_inner()?.flush()?;
    Ok(skipped)
}

fn pack_directory(
    builder: &mut Builder<impl Write>,
    directory: &OwnedFd,
    path: &Path,
    depth: usize,
    skipped: &mut u64,
) -> io::Result<()> {
    if depth > MAX_DEPTH {
        let text = format!(
            "{} is more than {MAX_DEPTH} directories deep",
            path.display()
        );
        return Err(io::Error::other(text));
    }
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    // The same content gives the same archive.
    names.sort();
    for name in names {
        let below = path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
        let stat = match statat(directory, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // It was deleted meanwhile.
            Err(rustix::io::Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let inner = openat(directory, name.as_c_str(), flags, Mode::empty())?;
                let file = File::from(inner);
                let mut header = header(EntryType::Directory, &file)?;
                builder.append_data(&mut header, &below, io::empty())?;
                pack_directory(builder, &file.into(), &below, depth + 1, skipped)?;
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = File::from(openat(directory, name.as_c_str(), flags, Mode::empty())?);
                pack_file(builder, &file, below)?;
            }
            FileType::Symlink => {
                let target = readlinkat(directory, name.as_c_str(), Vec::new())?;
                let mut header = Header::new_gnu();
                header.set_entry_type(EntryType::Symlink);
                header.set_size(0);
                header.set_mode(0o777);
                header.set_uid(stat.st_uid.into());
                header.set_gid(stat.st_gid.into());
                let target = std::ffi::OsStr::from_bytes(target.to_bytes());
                builder.append_link(&mut header, &below, target)?;
            }
            _ => *skipped += 1,
        }
    }
    Ok(())
}

/// A file that grows or shrinks while it is read gets the size that it had at first.
fn pack_file(builder: &mut Builder<impl Write>, file: &File, path: PathBuf) -> io::Result<()> {
    let mut header = header(EntryType::Regular, file)?;
    let size = header.size()?;
    let content = file.take(size).chain(io::repeat(0)).take(size);
    builder.append_data(&mut header, path, content)
}

fn header(kind: EntryType, file: &File) -> io::Result<Header> {
    let metadata = file.metadata()?;
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(metadata.uid().into());
    header.set_gid(metadata.gid().into());
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    let regular = kind == EntryType::Regular;
    header.set_size(if regular { metadata.len() } else { 0 });
    Ok(header)
}
