//! Tables: aligned columns without lines, as `docker` prints them.
//!
//! For a pipe every cell is whole and on one line, so that `awk` and `grep` work. On a terminal no
//! row is wider than the screen: columns of prose wrap, and where that is not enough the columns
//! that matter least are left out, since half an address is worse than none.

use comfy_table::{Attribute, Color, ColumnConstraint, ContentArrangement, presets};

/// Columns between two cells.
const GAP: u16 = 2;

/// Characters that a column of prose keeps at least; narrower ones are a ladder of words.
const MIN_PROSE: u16 = 24;

/// Rows under a head.
#[derive(Debug, Clone)]
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    prose: &'static [&'static str],
    optional: &'static [&'static str],
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

/// What a cell's colour says, where there are colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    /// Nothing.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// On its way, or with a drawback.
    Warn,
    /// Wrong.
    Bad,
    /// Of no concern.
    Dim,
}

impl Cell {
    /// A cell with a colour. What cannot be shown on one line is made harmless: a replica's message
    /// must not move the cursor.
    pub fn toned(text: impl AsRef<str>, tone: Tone) -> Self {
        let text: String = text
            .as_ref()
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let text = if text.is_empty() { "-".into() } else { text };
        Self { text, tone }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

impl Table {
    /// An empty table.
    pub fn new<const N: usize>(head: [&'static str; N]) -> Self {
        Self {
            head: head.to_vec(),
            rows: Vec::new(),
            prose: &[],
            optional: &[],
        }
    }

    /// Names the columns that may wrap.
    #[must_use]
    pub fn prose(mut self, columns: &'static [&'static str]) -> Self {
        debug_assert!(columns.iter().all(|c| self.head.contains(c)));
        self.prose = columns;
        self
    }

    /// Names the columns that narrow terminals do without, the least important first.
    #[must_use]
    pub fn optional(mut self, columns: &'static [&'static str]) -> Self {
        debug_assert!(columns.iter().all(|c| self.head.contains(c)));
        self.optional = columns;
        self
    }

    /// Appends a row.
    pub fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        debug_assert_eq!(N, self.head.len(), "a row fits its head");
        self.rows.push(cells.into());
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The text without a final end of line, at most `width` columns wide when one is given.
    pub fn render(&self, width: Option<u16>, colour: bool) -> String {
        let columns = match width {
            Some(width) => self.fitting(width),
            None => (0..self.head.len()).collect(),
        };
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        if colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(columns.iter().map(|&c| {
            let cell = comfy_table::Cell::new(self.head[c]);
            if colour {
                cell.add_attribute(Attribute::Bold)
            } else {
                cell
            }
        }));
        for row in &self.rows {
            table.add_row(columns.iter().map(|&c| paint(&row[c], colour)));
        }
        match width {
            Some(width) => {
                table.set_content_arrangement(ContentArrangement::Dynamic);
                // The last column's gap is trimmed, and may hang over the edge.
                table.set_width(width.saturating_add(GAP));
            }
            None => {
                table.set_content_arrangement(ContentArrangement::Disabled);
            }
        }
        let tight = width.is_some_and(|width| self.least_width(&columns) > u32::from(width));
        for (column, &index) in table.column_iter_mut().zip(&columns) {
            column.set_padding((0, GAP));
            if width.is_some() && !tight && !self.is_prose(index) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        let lines: Vec<String> = table.lines().map(|l| l.trim_end().to_owned()).collect();
        lines.join("\n")
    }

    /// The columns that fit, all prose at its narrowest.
    fn fitting(&self, width: u16) -> Vec<usize> {
        let mut columns: Vec<usize> = (0..self.head.len()).collect();
        for name in self.optional {
            if self.least_width(&columns) <= u32::from(width) {
                break;
            }
            columns.retain(|&c| self.head[c] != *name);
        }
        columns
    }

    fn least_width(&self, columns: &[usize]) -> u32 {
        let widths = columns.iter().map(|&c| {
            let width = self.content_width(c);
            if self.is_prose(c) {
                width.min(MIN_PROSE.into())
            } else {
                width
            }
        });
        let gaps = u32::try_from(columns.len().saturating_sub(1)).unwrap_or(u32::MAX);
        widths
            .sum::<u32>()
            .saturating_add(gaps.saturating_mul(GAP.into()))
    }

    /// Characters of a column's longest cell: exact for the Latin names and numbers that stand in
    /// columns that do not wrap.
    fn content_width(&self, column: usize) -> u32 {
        let cells = self.rows.iter().map(|row| row[column].text.as_str());
        let longest = cells
            .chain([self.head[column]])
            .map(|text| text.chars().count())
            .max();
        u32::try_from(longest.unwrap_or(0)).unwrap_or(u32::MAX)
    }

    fn is_prose(&self, column: usize) -> bool {
        self.prose.contains(&self.head[column])
    }
}

fn paint(cell: &Cell, colour: bool) -> comfy_table::Cell {
    let painted = comfy_table::Cell::new(&cell.text);
    if !colour {
        return painted;
    }
    match cell.tone {
        Tone::Plain => painted,
        Tone::Good => painted.fg(Color::Green),
        Tone::Warn => painted.fg(Color::Yellow),
        Tone::Bad => painted.fg(Color::Red),
        Tone::Dim => painted.add_attribute(Attribute::Dim),
    }
}

/// Columns of the terminal on standard output.
pub(super) fn terminal_width() -> Option<u16> {
    comfy_table::Table::new().width()
}
