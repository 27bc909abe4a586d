//! What work that ends has to tell those that wait for it: names and values, such as
//! `VERSION=1.2.3`. Whoever wrote them is not trusted: they have bounds, and nothing in them can be
//! mistaken for more than one variable.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Names that one run may tell.
pub const MAX_OUTPUTS: usize = 32;

/// Bytes of all its names and values together, and of the file that they are read from. They stand
/// in registers that every node has.
pub const MAX_OUTPUT_BYTES: usize = 4 * 1024;

/// Characters of what cannot be read that are shown.
const SHOWN: usize = 40;

/// The beginning of variables that are Dunlin's own.
const RESERVED: &str = "DUNLIN_";

/// Names and values that a part of a run, or all of it, has told.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(
    try_from = "BTreeMap<String, String>",
    into = "BTreeMap<String, String>"
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
pub struct Outputs(BTreeMap<String, String>);

/// Outputs that nobody can be given.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadOutputs {
    /// The file, or all names and values, are too large.
    #[error("they are larger than {MAX_OUTPUT_BYTES} bytes")]
    TooLarge,
    /// There are too many.
    #[error("there are more than {MAX_OUTPUTS} names")]
    TooMany,
    /// It is not text.
    #[error("they are not UTF-8 text")]
    NotText,
    /// A line is not `NAME=value`.
    #[error("line {0} is not NAME=value")]
    NoPair(usize),
    /// A name is none.
    #[error(
        "'{0}' cannot be a name: use A-Z, 0-9 and _, not a digit first, and no name that begins with \
         {RESERVED}"
    )]
    Name(String),
    /// A value has characters that nobody sees.
    #[error("the value of {0} has characters that cannot be printed")]
    Value(String),
    /// What was to hold them is no file.
    #[error("they cannot be read: {0}")]
    Unreadable(String),
}

impl Outputs {
    /// Reads a file of lines `NAME=value`; of two with the same name the later one counts. Empty
    /// lines mean nothing.
    ///
    /// # Errors
    /// When the whole cannot be taken: then nothing of it is.
    pub fn parse(file: &[u8]) -> Result<Self, BadOutputs> {
        if file.len() > MAX_OUTPUT_BYTES {
            return Err(BadOutputs::TooLarge);
        }
        let text = std::str::from_utf8(file).map_err(|_not_text| BadOutputs::NotText)?;
        let mut outputs = Self::default();
        let lines = text.split('\n').enumerate();
        for (index, line) in lines.filter(|(_, line)| !line.is_empty()) {
            let pair = line.split_once('=');
            let (name, value) = pair.ok_or(BadOutputs::NoPair(index + 1))?;
            outputs.set(name, value)?;
        }
        Ok(outputs)
    }

    /// Adds one, or replaces it.
    ///
    /// # Errors
    /// When it cannot be taken; then nothing is changed.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), BadOutputs> {
        check(name, value)?;
        let old = self.0.get(name).map(|old| name.len() + old.len());
        if old.is_none() && self.0.len() >= MAX_OUTPUTS {
            return Err(BadOutputs::TooMany);
        }
        let bytes = self.bytes() - old.unwrap_or(0) + name.len() + value.len();
        if bytes > MAX_OUTPUT_BYTES {
            return Err(BadOutputs::TooLarge);
        }
        self.0.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Whether nothing was told.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of all names and values.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(n, v)| n.len() + v.len()).sum()
    }
}

fn check(name: &str, value: &str) -> Result<(), BadOutputs> {
    let shown = || name.chars().filter(|c| !c.is_control()).take(SHOWN);
    let first = name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_');
    let rest = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    if !first || !name.chars().all(rest) || name.starts_with(RESERVED) {
        return Err(BadOutputs::Name(shown().collect()));
    }
    if value.chars().any(char::is_control) {
        return Err(BadOutputs::Value(shown().collect()));
    }
    Ok(())
}

impl TryFrom<BTreeMap<String, String>> for Outputs {
    type Error = BadOutputs;

    fn try_from(map: BTreeMap<String, String>) -> Result<Self, Self::Error> {
        let mut outputs = Self::default();
        for (name, value) in &map {
            outputs.set(name, value)?;
        }
        Ok(outputs)
    }
}

impl From<Outputs> for BTreeMap<String, String> {
    fn from(outputs: Outputs) -> Self {
        outputs.0
    }
}

/// The variable in which whoever waits for a job finds one of its outputs: `MIGRATE_DB_VERSION` for
/// `VERSION` of `migrate-db`.
pub fn output_variable(job: &str, name: &str) -> String {
    format!("{}_{name}", variable_part(job))
}

/// A name as part of a variable's: upper case, everything else an underscore.
pub fn variable_part(name: &str) -> String {
    name.chars()
        .map(|c| match c.is_ascii_alphanumeric() {
            true => c.to_ascii_uppercase(),
            false => '_',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_read_and_the_later_counts() {
        let outputs =
            Outputs::parse(b"A=1\n\n_B2=x=y \"z\"\nA=2\nEMPTY=\nUMLAUT=\xc3\xa4").unwrap();
        let all: Vec<_> = outputs.iter().collect();
        assert_eq!(
            all,
            [
                ("A", "2"),
                ("EMPTY", ""),
                ("UMLAUT", "ä"),
                ("_B2", "x=y \"z\"")
            ]
        );
        assert_eq!(Outputs::parse(b"").unwrap(), Outputs::default());
        let stored = serde_json::to_string(&outputs).unwrap();
        assert_eq!(serde_json::from_str::<Outputs>(&stored).unwrap(), outputs);
    }

    #[test]
    fn nothing_of_a_bad_file_is_taken() {
        let long = format!("A={}", "x".repeat(MAX_OUTPUT_BYTES));
        let lines = (0..=MAX_OUTPUTS).map(|n| format!("N{n}=\n"));
        let many: String = lines.collect();
        let table: [(&[u8], BadOutputs); 10] = [
            (b"A=1\nnonsense", BadOutputs::NoPair(2)),
            (b"a=1", BadOutputs::Name("a".to_owned())),
            (b"=1", BadOutputs::Name(String::new())),
            (b"1A=1", BadOutputs::Name("1A".to_owned())),
            (b"A-B=1", BadOutputs::Name("A-B".to_owned())),
            (b"DUNLIN_X=1", BadOutputs::Name("DUNLIN_X".to_owned())),
            (b"A=1\r\n", BadOutputs::Value("A".to_owned())),
            (b"A=\xff", BadOutputs::NotText),
            (long.as_bytes(), BadOutputs::TooLarge),
            (many.as_bytes(), BadOutputs::TooMany),
        ];
        for (file, expected) in table {
            assert_eq!(Outputs::parse(file), Err(expected));
        }
        for stored in [r#"{"a":""}"#, r#"{"A":"\n"}"#] {
            assert!(serde_json::from_str::<Outputs>(stored).is_err(), "{stored}");
        }
    }

    #[test]
    fn variables_begin_with_the_job() {
        assert_eq!(
            output_variable("migrate-db", "VERSION"),
            "MIGRATE_DB_VERSION"
        );
        assert_eq!(variable_part("pg_data.x-1"), "PG_DATA_X_1");
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_refused_or_within_bounds(file in prop::collection::vec(any::<u8>(), 0..6_000)) {
            if let Ok(outputs) = Outputs::parse(&file) {
                prop_assert!(outputs.bytes() <= MAX_OUTPUT_BYTES);
                prop_assert!(outputs.iter().len() <= MAX_OUTPUTS);
            }
        }

        #[test]
        fn what_was_taken_is_stored_and_read_alike(
            pairs in prop::collection::vec(("[A-Z_][A-Z0-9_]{0,9}", "\\PC{0,30}"), 0..40)
        ) {
            let lines = pairs.iter().map(|(n, v)| format!("{n}={v}\n"));
            if let Ok(outputs) = Outputs::parse(lines.collect::<String>().as_bytes()) {
                let stored = serde_json::to_vec(&outputs).unwrap();
                prop_assert_eq!(serde_json::from_slice::<Outputs>(&stored).unwrap(), outputs);
            }
        }
    }
}
