//! Networks: groups of services that may connect to each other.
//!
//! A network is nothing but a name. Services that share one reach each other through the proxies,
//! others do not. A name belongs to its namespace, so that nobody outside can join; the services of
//! different namespaces meet in networks that both call external.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::ServiceKey;

/// The network of services that name none.
pub const DEFAULT_NETWORK: &str = "default";

/// What comes before the name of a network that is not of one namespace.
const EXTERNAL: &str = "*/";

/// Bytes of a name at most. It is told to container engines after a prefix of our own.
const MAX_NAME: usize = 63;

/// A network as a service names it: `back` is that of its namespace, `*/back` that of the whole
/// cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    name: String,
    external: bool,
}

/// A name that is none of a network.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "'{0}' is not a network name: use up to {MAX_NAME} of a-z, A-Z, 0-9, '_', '.' and '-', and \
     start with a letter or a digit"
)]
pub struct BadNetwork(String);

/// The networks of one service by their full names: `shop/back`, `*/back`.
pub type Networks = BTreeSet<String>;

impl Network {
    /// A network of the service's own namespace, or of the cluster.
    ///
    /// # Errors
    /// When the name breaks the rules of Docker's networks.
    pub fn new(name: &str, external: bool) -> Result<Self, BadNetwork> {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if starts && name.len() <= MAX_NAME && name.chars().all(inner) {
            let name = name.to_owned();
            return Ok(Self { name, external });
        }
        Err(BadNetwork(name.chars().take(80).collect()))
    }

    /// Its name, without where it belongs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is one of the cluster, and not of a namespace.
    pub fn is_external(&self) -> bool {
        self.external
    }

    /// Its full name for a service of this namespace.
    pub fn full(&self, namespace: &str) -> String {
        match self.external {
            true => self.to_string(),
            false => format!("{namespace}/{}", self.name),
        }
    }
}

/// The full names of what a service is in: the default network of its namespace if it names none.
pub fn networks_of(key: &ServiceKey, named: &BTreeSet<Network>) -> Networks {
    let namespace = key.namespace();
    if named.is_empty() {
        return Networks::from([format!("{namespace}/{DEFAULT_NETWORK}")]);
    }
    named.iter().map(|n| n.full(namespace)).collect()
}

/// Whether services in these networks may connect to each other.
pub fn share_network(one: &Networks, other: &Networks) -> bool {
    !one.is_disjoint(other)
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.external { EXTERNAL } else { "" };
        write!(f, "{mark}{}", self.name)
    }
}

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix(EXTERNAL) {
            Some(name) => Self::new(name, true),
            None => Self::new(text, false),
        }
    }
}

impl TryFrom<String> for Network {
    type Error = BadNetwork;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(key: &str, names: &[&str]) -> Networks {
        let named = names.iter().map(|name| name.parse().unwrap()).collect();
        networks_of(&key.parse().unwrap(), &named)
    }

    #[test]
    fn names_are_of_their_namespace_unless_both_call_them_external() {
        let table = [
            ("a/web", &[][..], "a/db", &[][..], true),
            ("a/web", &[], "b/db", &[], false),
            ("a/web", &["default"], "a/db", &[], true),
            ("a/web", &["front"], "a/db", &[], false),
            ("a/web", &["front", "back"], "a/db", &["back"], true),
            ("a/web", &["front"], "a/db", &["back"], false),
            ("a/web", &["back"], "b/db", &["back"], false),
            ("a/web", &["*/back"], "b/db", &["*/back"], true),
            ("a/web", &["back"], "b/db", &["*/back"], false),
            ("a/web", &["back"], "a/db", &["*/back"], false),
        ];
        for (one, its, other, theirs, expected) in table {
            let (a, b) = (of(one, its), of(other, theirs));
            assert_eq!(share_network(&a, &b), expected, "{a:?} {b:?}");
            assert_eq!(share_network(&b, &a), expected, "{a:?} {b:?}");
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for text in ["front", "front_end.2", "*/back", "0"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        let long = "a".repeat(MAX_NAME + 1);
        for bad in ["", "*/", "*", "a/b", "-a", "a b", "ä", "*/*/a", &long] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        // Nobody can write the name of another namespace's network.
        assert!("shop/back".parse::<Network>().is_err());
    }
}
