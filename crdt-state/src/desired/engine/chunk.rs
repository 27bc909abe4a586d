//! How much work some bytes ask for, before automerge does it.
//!
//! Automerge's columns are run-length encoded and, in whole documents, deflated: a few bytes can
//! announce 2^60 operations or inflate to gigabytes. Catching panics does not help there, since a
//! failed allocation ends the process and a long loop ends nothing. So the outline of each chunk
//! is read first, by the layout that the format's specification gives
//! (<https://automerge.org/automerge-binary-format-spec/>), and rows and inflated bytes are
//! counted. Whether the content makes sense is left to automerge.

use std::io::Read;

use flate2::bufread::DeflateDecoder;

use super::EngineFault;

/// Rows of each column of a single change: more than fit into its bytes as distinct operations.
const MAX_CHANGE_ROWS: u64 = 1 << 20;

/// Rows of each column of a whole document: twenty times what a document has that is due for
/// compaction.
const MAX_DOCUMENT_ROWS: u64 = 4 << 20;

/// Inflated bytes of a whole document. At 50,000 changes of 400-byte registers it has 43 MB.
const MAX_INFLATED_BYTES: usize = 128 * 1024 * 1024;

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];

/// Low bits of a column's specification: how its rows are encoded.
const TYPE_BITS: u64 = 0b0111;

/// The bit that marks a deflated column.
const DEFLATE_BIT: u64 = 0b1000;

/// Checks that `bytes` are exactly one change and ask for a bounded amount of work.
pub(super) fn check_change(bytes: &[u8]) -> Result<(), EngineFault> {
    let mut reader = Reader(bytes);
    match reader.chunk()? {
        (Kind::Change, body) if reader.0.is_empty() => check_change_body(body),
        (Kind::Change | Kind::Document, _) => Err(EngineFault::Foreign("it is not one change")),
    }
}

/// Checks that `bytes` are a document, with any number of changes after it, and ask for a bounded
/// amount of work.
pub(super) fn check_document(bytes: &[u8]) -> Result<(), EngineFault> {
    let mut reader = Reader(bytes);
    let mut budget = MAX_INFLATED_BYTES;
    let mut first = true;
    while first || !reader.0.is_empty() {
        match reader.chunk()? {
            (Kind::Document, body) if first => check_document_body(body, &mut budget)?,
            (Kind::Change, body) if !first => check_change_body(body)?,
            (Kind::Document | Kind::Change, _) => {
                return Err(EngineFault::Foreign("it is not one document"));
            }
        }
        first = false;
    }
    Ok(())
}

fn check_change_body(body: &[u8]) -> Result<(), EngineFault> {
    let mut reader = Reader(body);
    reader.hashes()?;
    reader.prefixed()?;
    for _sequence_and_start in 0..2 {
        reader.number()?;
    }
    reader.skip_leb()?;
    reader.prefixed()?;
    reader.prefixed_list()?;
    for (spec, len) in reader.columns()? {
        let data = reader.take(len)?;
        if spec & DEFLATE_BIT != 0 {
            return Err(EngineFault::Foreign("a change has a deflated column"));
        }
        check_rows(spec, data, MAX_CHANGE_ROWS)?;
    }
    Ok(())
}

fn check_document_body(body: &[u8], budget: &mut usize) -> Result<(), EngineFault> {
    let mut reader = Reader(body);
    reader.prefixed_list()?;
    reader.hashes()?;
    let mut columns = reader.columns()?;
    columns.extend(reader.columns()?);
    for (spec, len) in columns {
        let data = reader.take(len)?;
        if spec & DEFLATE_BIT == 0 {
            check_rows(spec, data, MAX_DOCUMENT_ROWS)?;
        } else {
            let inflated = inflate(data, *budget)?;
            *budget -= inflated.len();
            check_rows(spec, &inflated, MAX_DOCUMENT_ROWS)?;
        }
    }
    Ok(())
}

fn inflate(data: &[u8], max: usize) -> Result<Vec<u8>, EngineFault> {
    let mut inflated = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    DeflateDecoder::new(data)
        .take(limit)
        .read_to_end(&mut inflated)
        .map_err(super::refused)?;
    if inflated.len() > max {
        return Err(EngineFault::Foreign("it inflates to too many bytes"));
    }
    Ok(inflated)
}

/// Counts the rows that a column announces.
fn check_rows(spec: u64, data: &[u8], max: u64) -> Result<(), EngineFault> {
    let mut reader = Reader(data);
    let mut rows = 0_u64;
    while !reader.0.is_empty() && rows <= max {
        let more = match spec & TYPE_BITS {
            // Lengths of alternating runs of false and true.
            4 => reader.number()?,
            // Raw bytes; how they are cut stands in another column.
            7 => return Ok(()),
            5 => reader.run(|r| r.prefixed().map(drop))?,
            _ => reader.run(Reader::skip_leb)?,
        };
        rows = rows.saturating_add(more);
    }
    if rows > max {
        return Err(EngineFault::Foreign("it announces too many operations"));
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Document,
    Change,
}

const CUT_OFF: EngineFault = EngineFault::Foreign("it is cut off");

/// Bytes that have not been read yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn chunk(&mut self) -> Result<(Kind, &'a [u8]), EngineFault> {
        if self.take(4)? != MAGIC {
            return Err(EngineFault::Foreign("it is no automerge data"));
        }
        self.take(4)?;
        let kind = match self.take(1)? {
            [0] => Kind::Document,
            [1] => Kind::Change,
            // Deflated changes and bundles are never sent.
            _ => return Err(EngineFault::Foreign("it has an unexpected kind of chunk")),
        };
        Ok((kind, self.prefixed()?))
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], EngineFault> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let (head, rest) = self.0.split_at_checked(len).ok_or(CUT_OFF)?;
        self.0 = rest;
        Ok(head)
    }

    fn number(&mut self) -> Result<u64, EngineFault> {
        read_uleb(&mut self.0).ok_or(CUT_OFF)
    }

    fn skip_leb(&mut self) -> Result<(), EngineFault> {
        while self.take(1)?[0] & 0x80 != 0 {}
        Ok(())
    }

    fn prefixed(&mut self) -> Result<&'a [u8], EngineFault> {
        let len = self.number()?;
        self.take(len)
    }

    fn prefixed_list(&mut self) -> Result<(), EngineFault> {
        for _ in 0..self.number()? {
            self.prefixed()?;
        }
        Ok(())
    }

    fn hashes(&mut self) -> Result<(), EngineFault> {
        let count = self.number()?;
        self.take(count.saturating_mul(32)).map(drop)
    }

    /// Specification and length of each column.
    fn columns(&mut self) -> Result<Vec<(u64, u64)>, EngineFault> {
        let mut columns = Vec::new();
        for _ in 0..self.number()? {
            columns.push((self.number()?, self.number()?));
        }
        Ok(columns)
    }

    /// Skips one run of a run-length encoded column and returns its rows.
    fn run(
        &mut self,
        skip_value: impl Fn(&mut Self) -> Result<(), EngineFault>,
    ) -> Result<u64, EngineFault> {
        let count = read_sleb(&mut self.0).ok_or(CUT_OFF)?;
        match count {
            0 => self.number(),
            1.. => skip_value(self).map(|()| count.unsigned_abs()),
            _ => {
                for _ in 0..count.unsigned_abs() {
                    skip_value(self)?;
                }
                Ok(count.unsigned_abs())
            }
        }
    }
}

/// Reads an unsigned number in LEB128.
pub(super) fn read_uleb(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Reads a signed number in LEB128.
fn read_sleb(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0_i64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= i64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            let negative = first & 0x40 != 0 && shift + 7 < 64;
            return Some(if negative {
                value | (-1 << (shift + 7))
            } else {
                value
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_automerge_writes_them() {
        let unsigned = |mut bytes: &[u8]| read_uleb(&mut bytes);
        let signed = |mut bytes: &[u8]| read_sleb(&mut bytes);
        assert_eq!(unsigned(&[0xe5, 0x8e, 0x26]), Some(624_485));
        assert_eq!(unsigned(&[0x80]), None);
        assert_eq!(unsigned(&[0x80; 11]), None);
        assert_eq!(signed(&[0xc0, 0xbb, 0x78]), Some(-123_456));
        assert_eq!(signed(&[0x7f]), Some(-1));
        assert_eq!(signed(&[0x3f]), Some(63));
        let min = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f];
        assert_eq!(signed(&min), Some(i64::MIN));
    }

    #[test]
    fn announced_rows_are_counted() {
        let rows = |spec, data: &[u8]| check_rows(spec, data, 1000).is_ok();
        // 1000 times the value 5, then 1001 times.
        assert!(rows(2, &[0xe8, 0x07, 5]));
        assert!(!rows(2, &[0xe9, 0x07, 5]));
        // A run of nulls, and booleans.
        assert!(!rows(2, &[0, 0xff, 0xff, 0xff, 0xff, 0x0f]));
        assert!(!rows(4, &[0xff, 0xff, 0x0f]));
        // Literal strings: two of them.
        assert!(rows(5, &[0x7e, 1, b'a', 1, b'b']));
        assert!(!rows(5, &[0x7e, 1, b'a']), "cut off");
    }

    #[test]
    fn bombs_are_not_inflated() {
        use std::io::Write;
        let mut encoder =
            flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
        let bomb = encoder.finish().unwrap();
        assert!(bomb.len() < 10_000);
        assert!(inflate(&bomb, 1 << 20).is_ok());
        assert!(inflate(&bomb, (1 << 20) - 1).is_err());
    }
}
