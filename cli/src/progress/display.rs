//! How progress looks: lines that move on a terminal, lines that are added elsewhere.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Time between two frames of the spinner.
const SPIN_EVERY: Duration = Duration::from_millis(120);

/// How far one service is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Line {
    pub(super) ready: u32,
    pub(super) updated: u32,
    pub(super) wanted: u32,
    pub(super) done: bool,
    pub(super) reason: Option<String>,
}

impl Line {
    /// Nothing is known yet.
    pub(super) fn waiting() -> Self {
        Self::default()
    }

    /// Whether a log should have another line for it. A reason that only counts down ("next try in
    /// 9 s") says nothing new.
    fn is_news_after(&self, before: Option<&Self>) -> bool {
        let Some(before) = before else {
            // "Nothing is known yet" is worth a place on a screen, and no line in a log.
            return *self != Self::waiting();
        };
        let words = |line: &Self| -> Option<String> {
            let reason = line.reason.as_deref()?;
            Some(reason.chars().filter(|c| !c.is_ascii_digit()).collect())
        };
        let numbers = |line: &Self| (line.ready, line.updated, line.wanted, line.done);
        numbers(self) != numbers(before) || words(self) != words(before)
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("{}/{} ready", self.ready, self.wanted);
        if self.updated < self.ready {
            text.push_str(&format!(", {}/{} updated", self.updated, self.wanted));
        }
        // All are ready, and something superfluous has not ended yet.
        if !self.done && self.wanted > 0 && self.ready >= self.wanted && self.updated >= self.ready
        {
            text.push_str(", settling");
        }
        if let Some(reason) = &self.reason {
            text.push_str(": ");
            text.extend(reason.chars().map(|c| if c.is_control() { ' ' } else { c }));
        }
        text
    }
}

/// All lines.
pub(super) struct Display {
    names: Vec<String>,
    shown: Vec<Option<Line>>,
    bars: Option<(MultiProgress, Vec<ProgressBar>)>,
}

impl Display {
    pub(super) fn new(names: Vec<String>, live: bool) -> Self {
        Self {
            shown: vec![None; names.len()],
            bars: live.then(|| bars(&names)),
            names,
        }
    }

    /// Takes the news of one line. Returns what to print, where lines do not move.
    pub(super) fn set(&mut self, index: usize, line: Line) -> Option<String> {
        let shown = self.shown.get_mut(index)?;
        if shown.as_ref() == Some(&line) {
            return None;
        }
        let news = match &self.bars {
            Some((_, bars)) => {
                let bar = bars.get(index)?;
                bar.set_message(line.text());
                if line.done {
                    bar.finish();
                }
                None
            }
            None if line.is_news_after(shown.as_ref()) => {
                Some(format!("{}: {}", self.names.get(index)?, line.text()))
            }
            None => None,
        };
        *shown = Some(line);
        news
    }

    /// Takes the moving lines off the screen, so that the summary stands alone.
    pub(super) fn clear(&mut self) {
        if let Some((all, bars)) = self.bars.take() {
            for bar in bars {
                bar.finish_and_clear();
            }
            // It fails when the terminal is gone, and then there is nothing to clear.
            let _ = all.clear();
        }
    }
}

fn bars(names: &[String]) -> (MultiProgress, Vec<ProgressBar>) {
    let all = MultiProgress::new();
    let width = names.iter().map(|n| n.chars().count()).max().unwrap_or(0);
    // The template is fixed and tried by a test.
    let style =
        ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_spinner());
    let each = names.iter().map(|name| {
        let bar = all.add(ProgressBar::new_spinner().with_style(style.clone()));
        bar.set_prefix(format!("{name:width$}"));
        bar.enable_steady_tick(SPIN_EVERY);
        bar
    });
    let each = each.collect();
    (all, each)
}

const TEMPLATE: &str = "{spinner} {prefix}  {wide_msg}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_fine() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }

    #[test]
    fn lines_are_printed_once_and_reasons_cannot_move_the_cursor() {
        let mut display = Display::new(vec!["web".into()], false);
        assert_eq!(display.set(0, Line::waiting()), None);
        let line = Line {
            ready: 2,
            updated: 1,
            wanted: 3,
            done: false,
            reason: Some("no\x1b[2Jroom".into()),
        };
        let text = "web: 2/3 ready, 1/3 updated: no [2Jroom";
        assert_eq!(display.set(0, line.clone()).as_deref(), Some(text));
        assert_eq!(display.set(0, line), None);
        display.clear();
    }

    #[test]
    fn a_reason_that_counts_down_is_printed_once() {
        let mut display = Display::new(vec!["web".into()], false);
        let line = |reason: &str| Line {
            wanted: 1,
            reason: Some(reason.into()),
            ..Line::default()
        };
        assert!(display.set(0, line("next try in 10 s")).is_some());
        assert_eq!(display.set(0, line("next try in 9 s")), None);
        assert!(display.set(0, line("it has started")).is_some());
    }
}
