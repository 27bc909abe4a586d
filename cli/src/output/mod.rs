//! Where a command's words go: plain text for pipes, tables that fit and colours for terminals.
//!
//! A command never asks what it writes to. It fills a [`Table`] or prints lines, and here is
//! decided how that looks. Both streams and the clock are passed in, so that tests read what people
//! would see.

mod human;
mod table;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

pub use human::{age, cores, duration, size, timestamp};
pub use table::{Cell, Table, Tone};

/// Both output streams and what is known of them.
pub struct Output {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    look: Look,
    clock: fn() -> u64,
}

/// What the streams can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Look {
    /// Columns of the terminal on standard output; `None` when it is no terminal.
    pub width: Option<u16>,
    /// Whether standard output takes colours (a terminal, and no `NO_COLOR`).
    pub colour: bool,
    /// Whether standard error is a terminal, so that progress may move.
    pub live: bool,
}

impl Output {
    /// The process's own streams.
    pub fn of_process() -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let choice = anstream::AutoStream::choice(&stdout);
        let look = Look {
            width: if terminal {
                table::terminal_width()
            } else {
                None
            },
            colour: terminal && choice != anstream::ColorChoice::Never,
            live: io::stderr().is_terminal(),
        };
        Self::new(Box::new(stdout), Box::new(io::stderr()), look, wall_clock)
    }

    /// Other streams and another clock, which gives milliseconds since the Unix epoch.
    pub fn new(
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
        look: Look,
        clock: fn() -> u64,
    ) -> Self {
        Self {
            out,
            err,
            look,
            clock,
        }
    }

    /// What the streams can show.
    pub fn look(&self) -> Look {
        self.look
    }

    /// Milliseconds since the Unix epoch.
    pub fn now(&self) -> u64 {
        (self.clock)()
    }

    /// How long ago an instant of the cluster was, for people.
    pub fn age(&self, at: u64) -> String {
        age(self.now().saturating_sub(at))
    }

    /// A line of the answer.
    pub fn line(&mut self, text: impl AsRef<str>) -> io::Result<()> {
        writeln!(self.out, "{}", text.as_ref())
    }

    /// A line beside the answer: warnings, progress.
    pub fn note(&mut self, text: impl AsRef<str>) -> io::Result<()> {
        writeln!(self.err, "{}", text.as_ref())
    }

    /// The answer as indented JSON.
    pub fn json<T: Serialize + ?Sized>(&mut self, value: &T) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut self.out, value)?;
        writeln!(self.out)
    }

    /// One JSON object on one line, for streams.
    pub fn json_line<T: Serialize + ?Sized>(&mut self, value: &T) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, value)?;
        writeln!(self.out)?;
        self.out.flush()
    }

    /// A table of the answer.
    pub fn table(&mut self, table: &Table) -> io::Result<()> {
        let text = table.render(self.look.width, self.look.colour);
        self.line(text)
    }

    /// Pushes out what is buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
