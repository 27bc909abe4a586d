//! What the labs have measured.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Samples of one figure.
#[derive(Debug, Clone, Default)]
pub struct Figure(Vec<Duration>);

impl Figure {
    fn at(&self, share: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort();
        let last = sorted.len().saturating_sub(1) as f64;
        sorted
            .get((last * share).round() as usize)
            .copied()
            .unwrap_or_default()
    }
}

/// All figures by name.
#[derive(Debug, Clone, Default)]
pub struct Figures(BTreeMap<&'static str, Figure>);

impl Figures {
    /// Adds a sample.
    pub fn add(&mut self, name: &'static str, sample: Duration) {
        self.0.entry(name).or_default().0.push(sample);
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, figure) in &self.0 {
            let ms = |d: Duration| d.as_millis();
            writeln!(
                f,
                "{name:<58} n={:<4} min {:>6} ms  p50 {:>6} ms  p99 {:>6} ms  max {:>6} ms",
                figure.0.len(),
                ms(figure.at(0.0)),
                ms(figure.at(0.5)),
                ms(figure.at(0.99)),
                ms(figure.at(1.0)),
            )?;
        }
        Ok(())
    }
}
