//! Collects every fault and warning of one file, so that a person sees all of them at once.

use super::fault::{ComposeError, Position, Warning};
use super::source::Source;

/// Faults, and as many warnings, that are kept: beyond that nobody reads them, and a hostile file
/// must not fill memory with them.
const MAX_KEPT: usize = 100;

/// The findings about one source.
pub(super) struct Report<'s> {
    pub(super) source: &'s Source<'s>,
    errors: Vec<ComposeError>,
    warnings: Vec<Warning>,
    dropped: usize,
}

impl<'s> Report<'s> {
    pub(super) fn new(source: &'s Source<'s>) -> Self {
        Self {
            source,
            errors: Vec::new(),
            warnings: Vec::new(),
            dropped: 0,
        }
    }

    /// Records a fault.
    pub(super) fn error(&mut self, at: Position, path: &str, message: impl Into<String>) {
        self.push(self.source.error(at, path, message));
    }

    /// Records a fault together with what to do about it.
    pub(super) fn error_hint(
        &mut self,
        at: Position,
        path: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let mut error = self.source.error(at, path, message);
        error.hint = Some(hint.into());
        self.push(error);
    }

    /// Records a fault that concerns two places.
    pub(super) fn error_related(
        &mut self,
        at: Position,
        path: &str,
        message: impl Into<String>,
        related: (Position, &str),
    ) {
        let mut error = self.source.error(at, path, message);
        error.related = Some((related.0, related.1.to_owned()));
        self.push(error);
    }

    /// Records a fault that was found in another file.
    pub(super) fn push(&mut self, error: ComposeError) {
        if self.errors.len() < MAX_KEPT {
            self.errors.push(error);
        } else {
            self.dropped += 1;
        }
    }

    /// Records that something will differ from what is written.
    pub(super) fn warn(&mut self, at: Position, path: &str, text: impl Into<String>) {
        self.push_warning(self.source.warning(at, path, text));
    }

    /// Records a warning about another file.
    pub(super) fn push_warning(&mut self, warning: Warning) {
        // An anchor used by ten services would give the same warning ten times.
        let known = |w: &Warning| w.at == warning.at && w.text == warning.text;
        if self.warnings.len() < MAX_KEPT && !self.warnings.iter().any(known) {
            self.warnings.push(warning);
        }
    }

    /// How many faults there are so far.
    pub(super) fn faults(&self) -> usize {
        self.errors.len() + self.dropped
    }

    /// Whether the file can still be deployed.
    pub(super) fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// The warnings, or all faults; both in the order of the file.
    pub(super) fn finish(mut self) -> Result<Vec<Warning>, Vec<ComposeError>> {
        self.warnings
            .sort_by(|a, b| (&a.file, a.at).cmp(&(&b.file, b.at)));
        if self.errors.is_empty() {
            return Ok(self.warnings);
        }
        self.errors
            .sort_by(|a, b| (&a.file, a.at).cmp(&(&b.file, b.at)));
        self.errors.dedup();
        if self.dropped > 0 {
            let text = format!("{} further faults are not shown", self.dropped);
            self.errors
                .push(self.source.error(Position::default(), "", text));
        }
        Err(self.errors)
    }
}
