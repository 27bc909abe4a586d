//! What a person, or with `--json` a program, gets to read of the demo.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use dunlin_state::model::RuntimeKind;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::layout::{Layout, Member};
use super::{DemoArgs, Ending};
use crate::output::{Output, Table, duration};

/// Steps of the spinner per second: smooth enough, and hardly any work.
const SPIN: Duration = Duration::from_millis(120);

/// Column at which times stand.
const TIME_COLUMN: usize = 58;

/// What the demo measured. Fields that it did not come to are absent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Whether everything happened as it should.
    pub ok: bool,
    /// Daemons started.
    pub nodes: u32,
    /// Replicas deployed.
    pub replicas: u32,
    /// What started them.
    pub runtime: RuntimeKind,
    /// Milliseconds until all daemons were one cluster.
    pub start_ms: Option<u64>,
    /// Milliseconds from the deploy until every replica answered.
    pub deploy_ms: Option<u64>,
    /// The daemon that was killed, and how many replicas with it.
    pub killed: Option<Killed>,
    /// Milliseconds from the kill until all other daemons held it for down.
    pub detect_ms: Option<u64>,
    /// Milliseconds from the kill until all replicas answered again.
    pub replace_ms: Option<u64>,
    /// Replicas after the scale-up.
    pub scaled_to: Option<u32>,
    /// Milliseconds from the scale-up until all replicas answered.
    pub scale_ms: Option<u64>,
    /// Calls through the published port of each living daemon, after each step.
    pub calls: u32,
    /// Those of them that got no answer.
    pub failed_calls: u32,
    /// How often a living daemon's DNS gave exactly the replicas that run: once for each, after each
    /// step.
    pub resolved: u32,
    /// Resident memory of each daemon while the replicas ran, in MB (10^6 bytes).
    pub rss_mb: Vec<f64>,
    /// Why it is not ok.
    pub error: Option<String>,
    /// Where the cluster still runs.
    pub kept: Option<PathBuf>,
}

/// What was killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Killed {
    /// The daemon's name.
    pub node: String,
    /// Replicas that it ran.
    pub replicas: u32,
}

impl Summary {
    pub(super) fn new(args: &DemoArgs) -> Self {
        Self {
            ok: false,
            nodes: args.nodes,
            replicas: args.replicas,
            runtime: args.runtime,
            start_ms: None,
            deploy_ms: None,
            killed: None,
            detect_ms: None,
            replace_ms: None,
            scaled_to: None,
            scale_ms: None,
            calls: 0,
            failed_calls: 0,
            resolved: 0,
            rss_mb: Vec::new(),
            error: None,
            kept: None,
        }
    }
}

/// Tells the story as it goes, and sums it up.
pub(super) struct Teller<'o> {
    output: &'o mut Output,
    json: bool,
    pub(super) summary: Summary,
    spinner: Option<ProgressBar>,
}

impl<'o> Teller<'o> {
    pub(super) fn new(output: &'o mut Output, json: bool, summary: Summary) -> Self {
        Self {
            output,
            json,
            summary,
            spinner: None,
        }
    }

    /// Something begins that takes a moment.
    pub(super) fn begins(&mut self, what: &str) {
        self.clear();
        if self.json || !self.output.look().live {
            return;
        }
        let spinner = ProgressBar::new_spinner();
        // The template is fixed; were it faulty, the default look would do.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            spinner.set_style(style);
        }
        spinner.set_message(format!("{what} …"));
        spinner.enable_steady_tick(SPIN);
        self.spinner = Some(spinner);
    }

    /// How far it is.
    pub(super) fn progress(&mut self, text: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(text.to_owned());
        }
    }

    /// Something has happened, and took this long.
    pub(super) fn took(&mut self, what: &str, ms: u64) -> io::Result<()> {
        let time = duration(ms);
        self.says(&format!("{what:<TIME_COLUMN$} {time:>8}"))
    }

    /// A line.
    pub(super) fn says(&mut self, text: &str) -> io::Result<()> {
        self.clear();
        if self.json {
            return Ok(());
        }
        self.output.line(text)?;
        self.output.flush()
    }

    /// A table, indented.
    pub(super) fn shows(&mut self, table: &Table) -> io::Result<()> {
        let look = self.output.look();
        let width = look.width.map(|w| w.saturating_sub(2).max(1));
        let text = table.render(width, look.colour);
        for line in text.lines() {
            self.says(&format!("  {line}"))?;
        }
        self.says("")
    }

    /// Everything is about to be ended, or left running.
    pub(super) fn cleaning(&mut self, keep: bool) {
        self.clear();
        if !keep {
            self.begins("cleaning up");
        }
    }

    /// The end, after cleaning up.
    pub(super) fn finish(mut self, ending: &Ending, kept: Option<&Layout>) -> io::Result<()> {
        self.clear();
        self.summary.kept = kept.map(|layout| layout.root().to_owned());
        self.summary.ok = matches!(ending, Ending::Told(Ok(())));
        self.summary.error = match ending {
            Ending::Told(Ok(())) => None,
            Ending::Told(Err(error)) => Some(error.to_string()),
            Ending::Interrupted => Some("interrupted".to_owned()),
        };
        if self.json {
            self.output.json(&self.summary)?;
            return self.output.flush();
        }
        match ending {
            Ending::Told(Ok(())) => {}
            Ending::Told(Err(error)) => self.output.note(format!("dunlin: demo: {error}"))?,
            Ending::Interrupted => self.output.note("Interrupted.")?,
        }
        let text = match kept {
            None => "Everything is gone again: no process and no file is left.".to_owned(),
            Some(layout) => format!(
                "The cluster goes on running. Ask it:  dunlin -H unix://{} ps\n\
                 End it:  dunlin demo --end {}",
                layout.socket(Member(self.summary.nodes)).display(),
                layout.root().display()
            ),
        };
        self.output.line(text)?;
        self.output.flush()
    }

    fn clear(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
    }
}
