//! The bounded log of one attempt.
//!
//! A record is one line: milliseconds since the Unix epoch, a stream mark, the text:
//! `1763709096123 o hello`. The mark is `o` or `e` for standard output or error, and `O` or `E`
//! when the text goes on in the next record of that stream, because the line was too long. Files
//! are called `log.<n>` where n counts all bytes before it, so that a position in the log stays
//! the same number while files come and go. Two files are kept.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A longer line is cut into several records: bounds the supervisor's memory.
const MAX_LINE_BYTES: usize = 16 * 1024;

/// Prefix of a log file's name.
const PREFIX: &str = "log.";

/// Where a line was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// One parsed record: time, stream, whether the line goes on, text.
pub(crate) type Record<'a> = (u64, Stream, bool, &'a [u8]);

/// Reads a record without its line end; `None` for what is none.
pub(crate) fn parse_record(line: &[u8]) -> Option<Record<'_>> {
    let space = line.iter().position(|b| *b == b' ')?;
    let at = std::str::from_utf8(&line[..space]).ok()?.parse().ok()?;
    let (stream, partial) = match line.get(space + 1)? {
        b'o' => (Stream::Out, false),
        b'e' => (Stream::Err, false),
        b'O' => (Stream::Out, true),
        b'E' => (Stream::Err, true),
        _ => return None,
    };
    (line.get(space + 2)? == &b' ').then(|| (at, stream, partial, &line[space + 3..]))
}

/// The log files of a directory with the position of their first byte, oldest first.
pub(crate) fn files(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files: Vec<(u64, PathBuf)> = std::fs::read_dir(directory)?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let base = entry.file_name().to_str()?.strip_prefix(PREFIX)?.parse();
            Some((base.ok()?, entry.path()))
        })
        .collect();
    files.sort_unstable();
    Ok(files)
}

/// Appends records; never fails, since neither a full disk nor a lost one is a reason to stop a
/// workload.
#[derive(Debug)]
pub(super) struct LogWriter {
    directory: PathBuf,
    file: Option<File>,
    /// Position of the current file's first byte.
    base: u64,
    /// Its length.
    len: u64,
    cap: u64,
    /// Bytes of output that could not be written.
    lost: u64,
}

impl LogWriter {
    /// Starts the log of an attempt; files may grow to `cap` bytes.
    pub(super) fn new(directory: &Path, cap: u64) -> Self {
        let mut writer = Self {
            directory: directory.to_owned(),
            file: None,
            base: 0,
            len: 0,
            cap,
            lost: 0,
        };
        writer.open();
        writer
    }

    /// Appends complete records.
    pub(super) fn append(&mut self, records: &[u8]) {
        if records.is_empty() {
            return;
        }
        if self.len > 0 && self.len + records.len() as u64 > self.cap {
            self.rotate();
        }
        if self.file.is_none() {
            self.open();
        }
        if self.lost > 0 {
            let note = format!(
                "{} e [dunlin: {} bytes of output could not be written to the log]\n",
                now_ms(),
                self.lost
            );
            if self.put(note.as_bytes()) {
                self.lost = 0;
            }
        }
        if !self.put(records) {
            self.lost = self.lost.saturating_add(records.len() as u64);
        }
    }

    /// Writes all or, by cutting the file back, nothing: readers rely on whole records.
    fn put(&mut self, bytes: &[u8]) -> bool {
        let Some(file) = &mut self.file else {
            return false;
        };
        if file.write_all(bytes).is_ok() {
            self.len += bytes.len() as u64;
            return true;
        }
        let _ = file.set_len(self.len);
        false
    }

    fn open(&mut self) {
        let path = self.directory.join(format!("{PREFIX}{}", self.base));
        self.file = File::options().create(true).append(true).open(path).ok();
    }

    fn rotate(&mut self) {
        self.base += self.len;
        self.len = 0;
        self.open();
        let Ok(files) = files(&self.directory) else {
            return;
        };
        for (_, path) in files.iter().rev().skip(2) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Cuts one stream into records.
#[derive(Debug)]
pub(super) struct Splitter {
    whole: u8,
    partial: u8,
    line: Vec<u8>,
}

impl Splitter {
    /// For this stream.
    pub(super) fn new(stream: Stream) -> Self {
        let (whole, partial) = match stream {
            Stream::Out => (b'o', b'O'),
            Stream::Err => (b'e', b'E'),
        };
        Self {
            whole,
            partial,
            line: Vec::new(),
        }
    }

    /// Takes what was read and adds the records it completes to `out`.
    pub(super) fn push(&mut self, bytes: &[u8], at: u64, out: &mut Vec<u8>) {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let (text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            let mut rest = text;
            while self.line.len() + rest.len() > MAX_LINE_BYTES {
                let (head, tail) = rest.split_at(MAX_LINE_BYTES - self.line.len());
                self.line.extend_from_slice(head);
                self.flush(self.partial, at, out);
                rest = tail;
            }
            self.line.extend_from_slice(rest);
            if ends {
                self.flush(self.whole, at, out);
            }
        }
    }

    /// The stream has ended: what is left is a line too.
    pub(super) fn finish(&mut self, at: u64, out: &mut Vec<u8>) {
        if !self.line.is_empty() {
            self.flush(self.whole, at, out);
        }
    }

    fn flush(&mut self, mark: u8, at: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(at.to_string().as_bytes());
        out.extend_from_slice(&[b' ', mark, b' ']);
        out.append(&mut self.line);
        out.push(b'\n');
        // A burst of long lines must not hold its memory for the rest of the workload's life.
        self.line.shrink_to(256);
    }
}

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<u8> {
        let mut splitter = Splitter::new(Stream::Out);
        let mut out = Vec::new();
        for chunk in chunks {
            splitter.push(chunk, 7, &mut out);
        }
        splitter.finish(7, &mut out);
        out
    }

    #[test]
    fn lines_are_the_same_however_they_arrive() {
        let expected = b"7 o one\n7 o \n7 o two\n";
        assert_eq!(split(&[b"one\n\ntwo\n"]), expected);
        assert_eq!(split(&[b"o", b"ne", b"\n", b"\ntw", b"o"]), expected);
    }

    #[test]
    fn a_long_line_becomes_pieces_that_join_to_it() {
        let long = vec![b'x'; 3 * MAX_LINE_BYTES + 5];
        let out = split(&[&long, b"\nnext\n"]);
        let mut joined = Vec::new();
        let mut marks = Vec::new();
        for line in out.strip_suffix(b"\n").unwrap().split(|b| *b == b'\n') {
            let (_, stream, partial, text) = parse_record(line).unwrap();
            assert_eq!(stream, Stream::Out);
            assert!(text.len() <= MAX_LINE_BYTES);
            marks.push(partial);
            joined.extend_from_slice(text);
        }
        assert_eq!(marks, [true, true, true, false, false]);
        assert_eq!(joined, [&long[..], b"next"].concat());
    }

    #[test]
    fn the_log_keeps_two_files_and_its_positions_never_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogWriter::new(dir.path(), 100);
        for n in 0..100 {
            log.append(format!("1 o line {n:03}\n").as_bytes());
        }
        let files = files(dir.path()).unwrap();
        assert_eq!(files.len(), 2);
        let sizes: Vec<u64> = files
            .iter()
            .map(|(_, path)| path.metadata().unwrap().len())
            .collect();
        assert!(sizes.iter().all(|size| *size <= 100));
        assert_eq!(files[1].0, files[0].0 + sizes[0]);
        assert_eq!(files[1].0 + sizes[1], 100 * "1 o line 000\n".len() as u64);
    }

    #[test]
    fn foreign_bytes_are_no_record() {
        for line in [
            &b""[..],
            b"x",
            b"1",
            b"1 ",
            b"1 o",
            b"1 q text",
            b"a o text",
            b"1 oo",
        ] {
            assert!(parse_record(line).is_none());
        }
        assert_eq!(
            parse_record(b"1 e "),
            Some((1, Stream::Err, false, &b""[..]))
        );
    }
}
