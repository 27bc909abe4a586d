//! The domain that a cluster's names stand below.

use std::fmt;
use std::str::FromStr;

use hickory_proto::rr::Name;
use thiserror::Error;

/// The domain below which services are named. Lower case, at least one label.
#[derive(Clone, PartialEq, Eq)]
pub struct Suffix(Name);

/// A text that cannot be a [`Suffix`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "'{0}' cannot be the suffix of service names: use labels of a-z, 0-9 and '-' joined by dots, at most {max} characters, such as dunlin.internal",
    max = Suffix::MAX_LENGTH
)]
pub struct BadSuffix(pub String);

impl Suffix {
    /// What clusters use that configure nothing. `internal` is reserved by ICANN (2024) for private
    /// use, so this never collides with a public name.
    pub const DEFAULT: &'static str = "dunlin.internal";

    /// Longest suffix in characters. A name in front of it takes up to 140 octets (a port, a
    /// protocol and two labels of 63), and a whole name has 255 (RFC 1035, 2.3.4).
    pub const MAX_LENGTH: usize = 100;

    /// How many labels it has.
    pub(crate) fn labels(&self) -> usize {
        self.0.iter().count()
    }

    /// Its labels in wire form, without the root label.
    pub(crate) fn wire(&self) -> Vec<u8> {
        let mut wire = Vec::new();
        for label in self.0.iter() {
            wire.push(u8::try_from(label.len()).unwrap_or_default());
            wire.extend_from_slice(label);
        }
        wire
    }

    /// The suffix as an absolute domain name.
    pub fn name(&self) -> &Name {
        &self.0
    }
}

impl Default for Suffix {
    fn default() -> Self {
        let labels = Self::DEFAULT.split('.').map(str::as_bytes);
        // The constant is well-formed (a test says so); the root stands in for the impossible.
        Self(Name::from_labels(labels).unwrap_or_else(|_impossible| Name::root()))
    }
}

impl FromStr for Suffix {
    type Err = BadSuffix;

    /// Reads a domain name, with or without its final dot, in any case.
    fn from_str(text: &str) -> Result<Self, BadSuffix> {
        let bad = || BadSuffix(text.chars().take(Self::MAX_LENGTH + 20).collect());
        let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if lower.len() > Self::MAX_LENGTH || !lower.split('.').all(is_label) {
            return Err(bad());
        }
        let labels = lower.split('.').map(str::as_bytes);
        Name::from_labels(labels).map(Self).map_err(|_fault| bad())
    }
}

impl fmt::Display for Suffix {
    /// Without the final dot.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_ascii();
        f.write_str(text.trim_end_matches('.'))
    }
}

impl fmt::Debug for Suffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether `text` is a host name's label (RFC 1123, 2.1).
fn is_label(text: &str) -> bool {
    let fine = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(fine)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_what_its_constant_says() {
        assert_eq!(Suffix::default(), Suffix::DEFAULT.parse().unwrap());
        assert_eq!(Suffix::default().to_string(), "dunlin.internal");
    }

    #[test]
    fn reads_any_case_and_a_final_dot() {
        let suffix: Suffix = "Prod.Example.ORG.".parse().unwrap();
        assert_eq!(suffix.to_string(), "prod.example.org");
    }

    #[test]
    fn refuses_what_is_no_domain() {
        let long = format!("{}.a", "a".repeat(63)).repeat(2);
        for text in ["", ".", "a..b", "-a", "a-", "a_b", "a b", "é", "a.", &long] {
            let read = text.parse::<Suffix>();
            assert_eq!(read.is_ok(), text == "a.", "{text}: {read:?}");
        }
    }
}
