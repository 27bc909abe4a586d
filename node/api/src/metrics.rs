//! Metrics as text: the format of Prometheus, version 0.0.4, as far as nodes write it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The media type of the text.
pub const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Its name, such as `dunlin_proxy_connections_total`.
    pub name: String,
    /// What it is of, such as `service` → `web`.
    pub labels: BTreeMap<String, String>,
    /// How much. Buckets of histograms count what is at most their label `le`.
    pub value: f64,
}

/// A line that is no sample.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line} is no sample: {text}")]
pub struct BadSample {
    /// Which, counted from 1.
    pub line: usize,
    /// The line.
    pub text: String,
}

/// Reads a text of metrics. Comments, and with them types and descriptions, are left out.
///
/// # Errors
/// At the first line that is neither a sample nor a comment.
pub fn parse_metrics(text: &str) -> Result<Vec<Sample>, BadSample> {
    let mut samples = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = || BadSample {
            line: at + 1,
            text: line.to_owned(),
        };
        samples.push(sample(line).ok_or_else(bad)?);
    }
    Ok(samples)
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.strip_prefix(' ')?.parse().ok()?;
    (!name.is_empty()).then(|| Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// Reads `a="b",c="d"}` and returns what follows.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.to_owned(), value);
        rest = after.get(end + 1..)?;
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_their_labels() {
        let text = "# HELP a_total Things.\n# TYPE a_total counter\n\
                    a_total 3\nb{x=\"1\",y=\"a \\\"b\\\" \\\\ {},\\n\"} 2.5\nc_bucket{le=\"+Inf\"} 7\n";
        let samples = parse_metrics(text).unwrap();
        let told: Vec<(&str, f64)> = samples.iter().map(|s| (&*s.name, s.value)).collect();
        assert_eq!(told, [("a_total", 3.0), ("b", 2.5), ("c_bucket", 7.0)]);
        assert_eq!(samples[1].labels["x"], "1");
        assert_eq!(samples[1].labels["y"], "a \"b\" \\ {},\n");
    }

    #[test]
    fn what_is_no_sample_is_named_by_its_line() {
        for bad in [
            "x",
            "x{",
            "x{a=\"b} 1",
            "x{a=\"b\"}1",
            " 1",
            "x one",
            "{} 1",
            "x{\\\"",
        ] {
            let error = parse_metrics(&format!("ok 1\n{bad}\n")).unwrap_err();
            assert_eq!((error.line, &*error.text), (2, bad));
        }
    }
}
