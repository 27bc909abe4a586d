//! A source text that knows its lines.

use std::ops::Range;

use super::fault::{ComposeError, Position, Warning};

/// Characters of a source line that a fault keeps: enough for what is shown around its place.
const KEPT_CHARS: usize = 2_000;

/// A file's name and text.
pub(super) struct Source<'a> {
    file: &'a str,
    text: &'a str,
    lines: Vec<Range<usize>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        Self {
            file,
            text,
            lines: line_ranges(text),
        }
    }

    /// The text of line `number`, counted from 1, without its end.
    pub(super) fn line(&self, number: u32) -> Option<&'a str> {
        let index = (number as usize).checked_sub(1)?;
        let range = self.lines.get(index)?;
        self.text.get(range.clone())
    }

    /// The number of the last line, which may be empty.
    pub(super) fn last_line(&self) -> u32 {
        u32::try_from(self.lines.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn error(
        &self,
        at: Position,
        path: &str,
        message: impl Into<String>,
    ) -> ComposeError {
        ComposeError {
            file: self.file.to_owned(),
            at,
            path: path.to_owned(),
            message: message.into(),
            hint: None,
            excerpt: self.excerpt(at),
            related: None,
        }
    }

    pub(super) fn warning(&self, at: Position, path: &str, text: impl Into<String>) -> Warning {
        Warning {
            file: self.file.to_owned(),
            at,
            path: path.to_owned(),
            text: text.into(),
            excerpt: self.excerpt(at),
        }
    }

    fn excerpt(&self, at: Position) -> Option<String> {
        let line = self.line(at.line)?;
        ((at.column as usize) <= KEPT_CHARS).then(|| line.chars().take(KEPT_CHARS).collect())
    }
}

/// Lines as YAML 1.2 ends them: LF, CR LF or CR.
fn line_ranges(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut ranges = Vec::new();
    let mut start = 0;
    let mut index = 0;
    while index < bytes.len() {
        match bytes[index] {
            b'\n' => {
                ranges.push(start..index);
                start = index + 1;
            }
            b'\r' => {
                ranges.push(start..index);
                if bytes.get(index + 1) == Some(&b'\n') {
                    index += 1;
                }
                start = index + 1;
            }
            _ => {}
        }
        index += 1;
    }
    ranges.push(start..bytes.len());
    ranges
}
