//! Tables: aligned columns without lines, as `docker` prints them.
//!
//! For a pipe every cell is whole and on one line, so that `awk` and `grep` work. For a terminal
//! long cells wrap so that no row is wider than the screen.

use comfy_table::{Attribute, Color, ContentArrangement, presets};

/// Rows under a head.
#[derive(Debug, Clone)]
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
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
        }
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
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        match width {
            Some(width) => {
                table.set_content_arrangement(ContentArrangement::Dynamic);
                table.set_width(width);
            }
            None => {
                table.set_content_arrangement(ContentArrangement::Disabled);
            }
        }
        if colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(self.head.iter().map(|title| {
            let cell = comfy_table::Cell::new(title);
            if colour {
                cell.add_attribute(Attribute::Bold)
            } else {
                cell
            }
        }));
        for row in &self.rows {
            table.add_row(row.iter().map(|cell| paint(cell, colour)));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let lines: Vec<String> = table.lines().map(|l| l.trim_end().to_owned()).collect();
        lines.join("\n")
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
