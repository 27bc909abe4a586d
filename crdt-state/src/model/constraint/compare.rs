//! Whether a constraint holds for a value.
//!
//! Words compare without regard to case, as in Docker; architectures also by their other common
//! names. What is ordered is a version when the key is one that names versions, or when either side
//! says so (a leading `v`, or two dots and more); else it is a number, which may have a unit (`16g`,
//! powers of 1024 as in Compose). Of a version only the dotted numbers at its beginning count:
//! distributions append words of their own to that of a kernel.

use std::cmp::Ordering;

use super::{Constraint, ConstraintOp};

/// Facts that are versions even when they have one dot or none.
const VERSION_KEYS: [&str; 2] = ["node.kernel", "node.engine"];

impl Constraint {
    /// Whether it holds on a node where its key has this value.
    pub fn holds(&self, actual: Option<&str>) -> bool {
        let equals_any = || actual.is_some_and(|a| self.values().any(|v| self.same(a, v)));
        let found = || {
            let pattern = self.pattern();
            actual.zip(pattern).map(|(a, pattern)| pattern.is_match(a))
        };
        let order = || actual.and_then(|a| self.order(a, &self.value));
        match self.op {
            ConstraintOp::Equal | ConstraintOp::In => equals_any(),
            ConstraintOp::NotEqual | ConstraintOp::NotIn => !equals_any(),
            ConstraintOp::Matches => found() == Some(true),
            // What cannot be compiled is refused on the way in; should it get here, it holds nowhere.
            ConstraintOp::MatchesNot => self.pattern().is_some() && found() != Some(true),
            ConstraintOp::Less => order().is_some_and(Ordering::is_lt),
            ConstraintOp::AtMost => order().is_some_and(Ordering::is_le),
            ConstraintOp::Greater => order().is_some_and(Ordering::is_gt),
            ConstraintOp::AtLeast => order().is_some_and(Ordering::is_ge),
        }
    }

    /// Whether two words are the same for this key.
    fn same(&self, actual: &str, value: &str) -> bool {
        let arch = self.key.eq_ignore_ascii_case("node.platform.arch");
        // `node.memory == 16g` means the amount.
        let amount = self.is_amount() && self.order(actual, value) == Some(Ordering::Equal);
        amount
            || actual.eq_ignore_ascii_case(value)
            || (arch && canonical_arch(actual) == canonical_arch(value))
    }

    fn is_amount(&self) -> bool {
        let key = self.key.to_ascii_lowercase();
        matches!(key.as_str(), "node.cpus" | "node.memory" | "node.disk")
            || key.starts_with(Self::DEVICE_PREFIX)
    }

    /// How two values of this key are ordered, when they are.
    pub(super) fn order(&self, a: &str, b: &str) -> Option<Ordering> {
        let key = self.key.to_ascii_lowercase();
        let versions = VERSION_KEYS.contains(&key.as_str());
        if versions || is_version(a) || is_version(b) {
            Some(version(a)?.cmp(&version(b)?))
        } else {
            number(a)?.partial_cmp(&number(b)?)
        }
    }

    /// Whether `value` can be ordered at all under this key.
    pub(super) fn is_orderable(&self, value: &str) -> bool {
        self.order(value, value).is_some()
    }
}

fn canonical_arch(arch: &str) -> String {
    let arch = arch.to_ascii_lowercase();
    match arch.as_str() {
        "x86_64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        _ => arch,
    }
}

fn is_version(text: &str) -> bool {
    let marked = text.strip_prefix(['v', 'V']);
    let marked = marked.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    marked || leading_version(text).matches('.').count() > 1
}

/// The digits and dots that a text begins with, after a `v` if there is one.
fn leading_version(text: &str) -> &str {
    let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    &text[..end.unwrap_or(text.len())]
}

/// The numbers of a version, without zeros at its end, so that 6.1 equals 6.1.0.
fn version(text: &str) -> Option<Vec<u64>> {
    let dotted = leading_version(text).trim_end_matches('.');
    let parts: Result<Vec<u64>, _> = dotted.split('.').map(str::parse).collect();
    let mut parts = parts.ok()?;
    while parts.last() == Some(&0) && parts.len() > 1 {
        parts.pop();
    }
    Some(parts)
}

/// A number with an optional unit, a power of 1024.
fn number(text: &str) -> Option<f64> {
    let text = text.trim().to_ascii_lowercase();
    let end = text.find(|c: char| c.is_ascii_alphabetic());
    let (digits, unit) = text.split_at(end.unwrap_or(text.len()));
    let factor: f64 = match unit {
        "" | "b" => 1.0,
        "k" | "kb" | "kib" => 1024.0,
        "m" | "mb" | "mib" => 1_048_576.0,
        "g" | "gb" | "gib" => 1_073_741_824.0,
        "t" | "tb" | "tib" => 1_099_511_627_776.0,
        _ => return None,
    };
    let plain = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+');
    let digits = digits.trim_end();
    let number: f64 = digits.chars().all(plain).then(|| digits.parse().ok())??;
    let number = number * factor;
    number.is_finite().then_some(number)
}
