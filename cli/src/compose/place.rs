//! From what the YAML parser says about places to places in the file.

use saphyr_parser::{Marker, Span};

use super::fault::Position;
use super::source::Source;

/// The place of an event.
pub(super) fn event_place(source: &Source, span: Span) -> Position {
    let (start, end) = (span.start, span.end);
    let width = if start.line() == end.line() {
        end.col().saturating_sub(start.col())
    } else {
        let line = source.line(number(start.line())).unwrap_or_default();
        line.trim_end().chars().count().saturating_sub(start.col())
    };
    Position {
        line: number(start.line()),
        column: number(start.col() + 1),
        width: number(width.max(1)),
    }
}

/// The place of a syntax fault, and whether a tab in the indentation is its cause.
pub(super) fn fault_place(source: &Source<'_>, marker: &Marker) -> (Position, bool) {
    // Faults at the end of the input may be placed beyond its last line.
    let line = number(marker.line()).clamp(1, source.last_line());
    let text = source.line(line).unwrap_or_default();
    let spaces = text.chars().take_while(|c| *c == ' ').count();
    let tab = text.chars().nth(spaces) == Some('\t');
    let column = match (tab, number(marker.line()) == line) {
        (true, _) => spaces,
        (false, true) => marker.col(),
        (false, false) => text.chars().count(),
    };
    let at = Position {
        line,
        column: number(column + 1),
        width: 1,
    };
    (at, tab)
}

/// Where in the source the dollar sign of a finding stands. Escapes and line folding move text
/// about, but keep the order of dollar signs; an escaped dollar sign, which nobody writes,
/// leaves the place of the whole value.
pub(super) fn dollar_place(
    source: &Source<'_>,
    at: Position,
    text: &str,
    dollar: usize,
) -> Position {
    let total = text.bytes().filter(|b| *b == b'$').count();
    let mut seen = 0;
    let mut line_number = at.line;
    let mut skip = at.column.saturating_sub(1) as usize;
    while let Some(line) = source.line(line_number) {
        for (column, c) in line.chars().enumerate().skip(skip) {
            if c != '$' {
                continue;
            }
            if seen == dollar {
                return Position {
                    line: line_number,
                    column: number(column + 1),
                    width: variable_width(line, column),
                };
            }
            seen += 1;
        }
        if seen >= total {
            break;
        }
        skip = 0;
        line_number += 1;
    }
    at
}

/// Characters of the variable that starts at this dollar sign.
fn variable_width(line: &str, column: usize) -> u32 {
    let rest = line.chars().skip(column + 1);
    let braced = rest.clone().next() == Some('{');
    let length = if braced {
        rest.take_while(|c| *c != '}').count() + 1
    } else {
        rest.take_while(|c| *c == '_' || c.is_ascii_alphanumeric())
            .count()
    };
    let line_end = line.chars().count().saturating_sub(column);
    number((length + 1).min(line_end))
}

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
