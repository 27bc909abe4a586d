//! Writing Prometheus' text format, version 0.0.4.

use std::fmt::{Display, Write as _};

/// Microseconds in a second: durations are counted in the one and shown in the other.
const MICROS: f64 = 1_000_000.0;

/// What a family of values is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows.
    Counter,
    /// As it is now.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// A text in the making. Values belong to the family that was named last.
#[derive(Debug, Default)]
pub(super) struct Text {
    out: String,
    family: &'static str,
}

impl Text {
    /// Starts a family. It is named once.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.family = name;
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// A family of one value.
    pub(super) fn one(&mut self, name: &'static str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.value::<&str>(&[], value);
    }

    /// A value with these labels.
    pub(super) fn value<T: AsRef<str>>(&mut self, labels: &[(&str, T)], value: impl Display) {
        self.sample("", labels, None, value);
    }

    /// A value with these labels and one more.
    pub(super) fn value_with<T: AsRef<str>>(
        &mut self,
        labels: &[(&str, T)],
        more: (&str, &str),
        value: impl Display,
    ) {
        self.sample("", labels, Some(more), value);
    }

    /// A histogram of microseconds: counts between `bounds`, the last one beyond them, and the sum
    /// of all.
    pub(super) fn histogram<T: AsRef<str>>(
        &mut self,
        labels: &[(&str, T)],
        bounds: &[u64],
        counts: &[u64],
        sum: u64,
    ) {
        let mut so_far: u64 = 0;
        let names = bounds.iter().map(|bound| seconds(*bound).to_string());
        let names = names.chain(["+Inf".to_owned()]);
        for (name, count) in names.zip(counts) {
            so_far = so_far.saturating_add(*count);
            self.sample("_bucket", labels, Some(("le", &name)), so_far);
        }
        self.sample("_sum", labels, None, seconds(sum));
        self.sample("_count", labels, None, so_far);
    }

    /// The text.
    pub(super) fn finish(self) -> String {
        self.out
    }

    fn sample<T: AsRef<str>>(
        &mut self,
        ending: &str,
        labels: &[(&str, T)],
        more: Option<(&str, &str)>,
        value: impl Display,
    ) {
        self.out.push_str(self.family);
        self.out.push_str(ending);
        let labels = labels.iter().map(|(name, value)| (*name, value.as_ref()));
        let mut sign = '{';
        for (name, value) in labels.chain(more) {
            self.out.push(sign);
            sign = ',';
            self.write(format_args!("{name}=\"{}\"", escape(value)));
        }
        if sign == ',' {
            self.out.push('}');
        }
        self.write(format_args!(" {value}\n"));
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.out.write_fmt(text);
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / MICROS
}

/// What the format asks for in values of labels.
fn escape(value: &str) -> String {
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
    escaped.replace('\n', "\\n")
}
