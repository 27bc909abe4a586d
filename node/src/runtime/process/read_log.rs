//! Reading the log of an attempt. See [`crate::supervisor`] for who writes it, and how.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use dunlin_core::io::WorkloadId;

use super::super::logs::{LogChunk, LogLine, LogQuery, LogStream};
use super::Inner;
use super::adopt::has_ended;
use crate::supervisor::{Stream, log_files, parse_record};

impl Inner {
    /// Reads a piece; `None` when this slot has no such attempt here.
    pub(super) fn read_log(&self, query: &LogQuery) -> io::Result<Option<LogChunk>> {
        let attempts = self.attempts(&query.slot);
        let newest = match query.attempt {
            Some(wanted) => attempts.into_iter().find(|found| *found == wanted),
            None => attempts.last().copied(),
        };
        let Some((epoch, attempt)) = newest else {
            return Ok(None);
        };
        let id = WorkloadId {
            slot: query.slot.clone(),
            epoch,
            attempt,
        };
        let paths = self.paths(&id);
        // Asked first: what is written after this look is then read by the next query.
        let ended = has_ended(&paths);
        let piece = read_piece(paths.directory(), query)?;
        Ok(Some(LogChunk {
            id,
            lines: piece.lines,
            next: piece.next,
            eof: ended && piece.at_end,
        }))
    }
}

struct Piece {
    lines: Vec<LogLine>,
    next: u64,
    at_end: bool,
}

fn read_piece(directory: &Path, query: &LogQuery) -> io::Result<Piece> {
    let files = log_files(directory)?;
    let first = files.first().map_or(0, |(base, _)| *base);
    let start = match (query.cursor, query.tail) {
        (Some(cursor), _) => cursor.max(first),
        (None, Some(lines)) => tail_start(&files, lines)?,
        (None, None) => first,
    };
    let mut piece = Piece {
        lines: Vec::new(),
        next: start,
        at_end: true,
    };
    let mut budget = query.budget();
    for (index, (base, path)) in files.iter().enumerate() {
        let end = files.get(index + 1).map(|(base, _)| *base);
        if end.is_some_and(|end| end <= piece.next) {
            continue;
        }
        let bytes = read_from(path, piece.next.saturating_sub(*base), budget)?;
        let Some(whole) = bytes.iter().rposition(|b| *b == b'\n') else {
            break;
        };
        let whole = &bytes[..=whole];
        piece.next = (*base).max(piece.next) + whole.len() as u64;
        piece
            .lines
            .extend(whole.split(|b| *b == b'\n').filter_map(line));
        budget = budget.saturating_sub(whole.len());
        // More of this file is left for the next query.
        if end.is_some_and(|end| piece.next < end) || budget == 0 {
            piece.at_end = false;
            break;
        }
        if end.is_none() {
            piece.at_end = piece.next >= base + path.metadata()?.len();
        }
    }
    Ok(piece)
}

fn line(record: &[u8]) -> Option<LogLine> {
    let (at, stream, partial, text) = parse_record(record)?;
    Some(LogLine {
        at,
        stream: match stream {
            Stream::Out => LogStream::Out,
            Stream::Err => LogStream::Err,
        },
        text: text.to_vec(),
        partial,
    })
}

/// At most `budget` bytes of a file from this position. A file that has just been deleted, since
/// newer ones came, is empty.
fn read_from(path: &PathBuf, position: u64, budget: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(mut file) => {
            file.seek(SeekFrom::Start(position))?;
            file.take(budget as u64).read_to_end(&mut bytes)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(bytes)
}

/// Where the last `lines` records begin. Reads whole files, which are bounded.
fn tail_start(files: &[(u64, PathBuf)], lines: u32) -> io::Result<u64> {
    let mut wanted = lines as usize;
    let mut start = 0;
    for (index, (base, path)) in files.iter().enumerate().rev() {
        let bytes = read_from(path, 0, usize::MAX)?;
        if index + 1 == files.len() {
            start = base + bytes.len() as u64;
        }
        let ends = bytes
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        let mut position = ends;
        while wanted > 0 && position > 0 {
            let before = bytes[..position - 1].iter().rposition(|b| *b == b'\n');
            position = before.map_or(0, |at| at + 1);
            wanted -= 1;
        }
        if position < ends || index + 1 == files.len() {
            start = base + position as u64;
        }
        if wanted == 0 {
            break;
        }
    }
    Ok(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten records of 11 bytes over two files, the first starting at position 100.
    fn log() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let records = |from: u32, to: u32| -> String {
            (from..to).map(|n| format!("{n} o line {n}\n")).collect()
        };
        std::fs::write(dir.path().join("log.100"), records(0, 5)).unwrap();
        std::fs::write(dir.path().join("log.155"), records(5, 10)).unwrap();
        dir
    }

    fn query(cursor: Option<u64>, tail: Option<u32>) -> LogQuery {
        let slot = dunlin_state::model::SlotId {
            service: "web".parse().unwrap(),
            slot: dunlin_state::model::Slot::Replica(0),
        };
        LogQuery {
            cursor,
            tail,
            ..LogQuery::new(slot)
        }
    }

    fn numbers(piece: &Piece) -> Vec<u64> {
        piece.lines.iter().map(|line| line.at).collect()
    }

    #[test]
    fn a_log_is_read_over_its_files_and_on_from_any_cursor() {
        let dir = log();
        let all = read_piece(dir.path(), &query(None, None)).unwrap();
        assert_eq!(numbers(&all), (0..10).collect::<Vec<_>>());
        assert_eq!((all.next, all.at_end), (210, true));
        assert_eq!(all.lines[3].text, b"line 3");
        let rest = read_piece(dir.path(), &query(Some(144), None)).unwrap();
        assert_eq!(numbers(&rest), [4, 5, 6, 7, 8, 9]);
        let nothing = read_piece(dir.path(), &query(Some(210), None)).unwrap();
        assert_eq!((nothing.lines.len(), nothing.next), (0, 210));
        // That part is gone: go on with what is left.
        let gone = read_piece(dir.path(), &query(Some(3), None)).unwrap();
        assert_eq!(numbers(&gone), (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn the_tail_reaches_back_over_files() {
        let dir = log();
        for tail in 0..12_u32 {
            let piece = read_piece(dir.path(), &query(None, Some(tail))).unwrap();
            let first = 10_u64.saturating_sub(tail.into());
            assert_eq!(numbers(&piece), (first..10).collect::<Vec<_>>(), "{tail}");
            assert_eq!(piece.next, 210, "{tail}");
        }
    }

    #[test]
    fn a_record_that_is_being_written_waits_for_its_end() {
        let dir = log();
        std::fs::write(dir.path().join("log.210"), "10 o hal").unwrap();
        let piece = read_piece(dir.path(), &query(Some(199), None)).unwrap();
        assert_eq!(numbers(&piece), [9]);
        assert_eq!(piece.next, 210);
    }

    #[test]
    fn an_attempt_without_output_has_an_empty_log() {
        let dir = tempfile::tempdir().unwrap();
        let piece = read_piece(dir.path(), &query(None, Some(5))).unwrap();
        assert_eq!((piece.lines.len(), piece.next, piece.at_end), (0, 0, true));
    }
}
