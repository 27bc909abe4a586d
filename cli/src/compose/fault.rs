//! Faults and warnings with their places, and how they are shown.

use std::fmt;

use serde::Serialize;

/// Characters of a source line that are shown; longer lines are cut around the fault.
const EXCERPT_CHARS: usize = 120;

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
pub struct Position {
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// Characters on that line that belong to it, at least 1.
    pub width: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A fault that keeps the file from being deployed. [`fmt::Display`] shows it with its source line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{}", Shown::of("error", &self.file, self.at, self.excerpt.as_deref(), &self.message, self.hint.as_deref(), self.related.as_ref()))]
pub struct ComposeError {
    /// The file, as the person named it.
    pub file: String,
    /// Where in the file; line 0 when it is about the file as a whole.
    #[serde(flatten)]
    pub at: Position,
    /// The key path, such as `services.web.ports[0]`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The source line.
    pub excerpt: Option<String>,
    /// Another place that belongs to the fault, and why.
    pub related: Option<(Position, String)>,
}

/// Something that deploys but not quite as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// The file, as the person named it.
    pub file: String,
    /// Where in the file.
    #[serde(flatten)]
    pub at: Position,
    /// The key path, such as `services.web.networks`.
    pub path: String,
    /// What will differ.
    pub text: String,
    /// The source line.
    pub excerpt: Option<String>,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let excerpt = self.excerpt.as_deref();
        Shown::of(
            "warning", &self.file, self.at, excerpt, &self.text, None, None,
        )
        .fmt(f)
    }
}

/// The common shape of errors and warnings on a terminal.
struct Shown<'a> {
    level: &'static str,
    file: &'a str,
    at: Position,
    excerpt: Option<&'a str>,
    message: &'a str,
    hint: Option<&'a str>,
    related: Option<&'a (Position, String)>,
}

impl<'a> Shown<'a> {
    fn of(
        level: &'static str,
        file: &'a str,
        at: Position,
        excerpt: Option<&'a str>,
        message: &'a str,
        hint: Option<&'a str>,
        related: Option<&'a (Position, String)>,
    ) -> Self {
        Self {
            level,
            file,
            at,
            excerpt,
            message,
            hint,
            related,
        }
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.level, printable(self.message))?;
        let number = self.at.line.to_string();
        let gutter = " ".repeat(number.len());
        if self.at.line == 0 {
            write!(f, "\n{gutter}--> {}", printable(self.file))?;
        } else {
            write!(f, "\n{gutter}--> {}:{}", printable(self.file), self.at)?;
        }
        if let Some(line) = self.excerpt {
            let (text, marks) = underline(line, self.at);
            write!(f, "\n{gutter} |\n{number} | {text}\n{gutter} | {marks}")?;
        }
        if let Some((place, text)) = self.related {
            write!(
                f,
                "\n{gutter} = note: {} at {}:{place}",
                printable(text),
                printable(self.file)
            )?;
        }
        if let Some(hint) = self.hint {
            write!(f, "\n{gutter} = help: {}", printable(hint))?;
        }
        Ok(())
    }
}

/// The source line, cut to what fits, and the carets below it.
fn underline(line: &str, at: Position) -> (String, String) {
    let chars: Vec<char> = line.chars().collect();
    let start = (at.column.max(1) as usize - 1).min(chars.len());
    let from = if chars.len() <= EXCERPT_CHARS {
        0
    } else {
        start.saturating_sub(EXCERPT_CHARS / 3)
    };
    let to = chars.len().min(from + EXCERPT_CHARS);
    let text: String = chars[from..to].iter().map(|c| show(*c)).collect();
    // Tabs are kept in the padding so that the caret stands below the right character.
    let padding = chars[from..start]
        .iter()
        .map(|c| if *c == '\t' { '\t' } else { ' ' });
    let width = (at.width.max(1) as usize).min(to.saturating_sub(start).max(1));
    let marks = padding.chain(std::iter::repeat_n('^', width)).collect();
    (text, marks)
}

/// Text for a terminal: a file must not be able to send it escape sequences.
fn printable(text: &str) -> String {
    text.chars().map(show).collect()
}

fn show(c: char) -> char {
    if c.is_control() && c != '\t' {
        char::REPLACEMENT_CHARACTER
    } else {
        c
    }
}
