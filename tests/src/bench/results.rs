//! Every sample that was taken, as it is kept in `docs/benchmarks/results.json`. The page and the
//! plots are made from this file alone, so each figure on them can be traced.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::lab::LabError;

/// The one that is measured against others.
pub const OWN: &str = "dunlin";

/// All comparisons by name.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Results {
    /// Each as it was measured last.
    pub comparisons: BTreeMap<String, Comparison>,
}

/// One comparison, as it was measured last.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Comparison {
    /// When and where.
    pub circumstances: Circumstances,
    /// Versions of what was compared.
    pub versions: BTreeMap<String, String>,
    /// Who should have been compared and was not, and why.
    pub skipped: Vec<String>,
    /// The samples.
    pub series: Vec<Series>,
}

/// When a comparison was measured, and how busy the machine was.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Circumstances {
    /// Day and minute, UTC.
    pub date: String,
    /// The commit that was built.
    pub commit: String,
    /// How long it took, in seconds.
    pub seconds: u64,
    /// Whether it was a quick run, with few samples.
    pub quick: bool,
    /// Load average of the last minute, when it began and when it ended.
    pub load: [f64; 2],
    /// Share of the time in which something had to wait for a processor, in percent; what was
    /// measured itself is part of it.
    pub waiting: f64,
}

/// Samples of one subject at one point of the axis.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Series {
    /// What was measured: one table and one plot for each.
    pub what: String,
    /// In which unit.
    pub unit: String,
    /// Who.
    pub subject: String,
    /// Where on the axis: a number, such as of replicas, or a word.
    pub at: String,
    /// What came out, in the order of measuring.
    pub samples: Vec<f64>,
}

impl Series {
    /// The middle sample, or the mean of the two in the middle.
    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        }
    }

    /// The smallest and the largest sample.
    pub fn range(&self) -> (f64, f64) {
        let sorted = self.sorted();
        let at = |sample: Option<&f64>| sample.copied().unwrap_or(f64::NAN);
        (at(sorted.first()), at(sorted.last()))
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

impl Comparison {
    /// Adds a sample.
    pub fn add(&mut self, what: &str, unit: &str, subject: &str, at: impl ToString, sample: f64) {
        let at = at.to_string();
        let known = |s: &&mut Series| s.what == what && s.subject == subject && s.at == at;
        if let Some(series) = self.series.iter_mut().find(known) {
            series.samples.push(rounded(sample));
            return;
        }
        self.series.push(Series {
            what: what.to_owned(),
            unit: unit.to_owned(),
            subject: subject.to_owned(),
            at,
            samples: vec![rounded(sample)],
        });
    }

    /// What was measured, in the order in which it was first.
    pub fn whats(&self) -> Vec<&str> {
        distinct(self.series.iter().map(|s| s.what.as_str()))
    }

    /// The series of one table.
    pub fn table(&self, what: &str) -> Vec<&Series> {
        self.series.iter().filter(|s| s.what == what).collect()
    }
}

impl Results {
    /// Reads what earlier runs have left, if there were any.
    pub fn load(path: &Path) -> Result<Self, LabError> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(path).map_err(|e| LabError::new("read the results", e))?;
        serde_json::from_str(&text).map_err(|e| LabError::new("understand the results", e))
    }

    /// Writes all of them.
    pub fn save(&self, path: &Path) -> Result<(), LabError> {
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|e| LabError::new("write down the results", e))?;
        text.push('\n');
        fs::write(path, text).map_err(|e| LabError::new("write the results", e))
    }
}

/// Each once, in the order of their first appearance.
pub(super) fn distinct<'a>(words: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen: Vec<&str> = Vec::new();
    for word in words {
        if !seen.contains(&word) {
            seen.push(word);
        }
    }
    seen
}

/// Six digits are more than any of these clocks can tell.
fn rounded(sample: f64) -> f64 {
    if sample == 0.0 || !sample.is_finite() {
        return sample;
    }
    let scale = 10_f64.powi(5 - sample.abs().log10().floor() as i32);
    (sample * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(samples: &[f64]) -> Series {
        let mut comparison = Comparison::default();
        for sample in samples {
            comparison.add("deploy", "s", OWN, 3, *sample);
        }
        comparison.series.remove(0)
    }

    #[test]
    fn medians_and_ranges() {
        assert_eq!(series(&[3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(series(&[4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert_eq!(series(&[4.0, 1.0, 2.0]).range(), (1.0, 4.0));
    }

    #[test]
    fn samples_of_one_point_stay_together() {
        let mut comparison = Comparison::default();
        comparison.add("deploy", "s", OWN, 1, 0.123_456_789);
        comparison.add("deploy", "s", "peer", 1, 2.0);
        comparison.add("deploy", "s", OWN, 1, 3.0);
        assert_eq!(comparison.series.len(), 2);
        assert_eq!(comparison.series[0].samples, [0.123_457, 3.0]);
        assert_eq!(comparison.whats(), ["deploy"]);
    }
}
