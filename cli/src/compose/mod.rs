//! Compose files, turned into what the cluster stores.
//!
//! A file passes through five steps, each in its own module: the text becomes a tree that knows the
//! place of every key and value (`tree`), with variables replaced on the way (`interpolate`); a
//! table says what Dunlin does with each key of the specification ([`support`]); readers turn
//! values into specifications (`service` and its neighbours); and what they found on the way is
//! collected (`report`) and shown with its source line (`fault`).
//!
//! Nothing is dropped in silence: a key that has no effect is a [`Warning`], an unknown one a
//! [`ComposeError`]. All faults of a file are reported together. The parser is pure but for the
//! files that `env_file` names, which it reads through [`Files`].
//!
//! Later, several files that override each other can be merged between the tree and the readers:
//! a node knows its place, and only needs to know its file too.

mod autoscale;
mod depend;
mod deploy;
mod disk;
mod docs;
mod environment;
mod fault;
mod health;
mod interpolate;
mod items;
mod job;
mod networks;
mod place;
mod placement;
mod policy;
mod ports;
mod project;
mod read;
mod report;
mod service;
mod source;
mod suggest;
pub mod support;
mod traffic;
mod tree;
mod units;
mod volumes;
mod wishes;
mod words;

#[cfg(test)]
mod tests;

pub use disk::{Disk, find_file, load, read_variables};
pub use docs::documentation;
pub use fault::{ComposeError, Position, Warning};
pub use project::parse;
pub(crate) use units::{bytes, cpu_millis, duration_ms};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use dunlin_state::model::{ItemKey, ItemKind, ServiceKey, ServiceSpec};

/// Largest file that is read, in bytes. Large real ones have 50 KiB.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;

/// Where the files come from that a Compose file names.
pub trait Files {
    /// The text of a file of at most [`MAX_FILE_BYTES`].
    fn read(&self, path: &Path) -> std::io::Result<String>;

    /// The bytes of a file of at most [`MAX_FILE_BYTES`], which need not be text.
    fn read_bytes(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        self.read(path).map(String::into_bytes)
    }
}

/// What a file's meaning depends on besides its text.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The file's name in messages.
    pub file: &'a str,
    /// The directory that relative paths start from; none for standard input.
    pub directory: Option<&'a Path>,
    /// The project's name, if it was given on the command line; goes before the file's.
    pub project: Option<&'a str>,
    /// The namespace, if it was given on the command line; goes before the file's.
    pub namespace: Option<&'a str>,
    /// Variables for `${…}`, and for `environment` without a value.
    pub variables: &'a BTreeMap<String, String>,
    /// Reads what `env_file` names.
    pub files: &'a dyn Files,
}

/// What a Compose file asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// Its name.
    pub name: String,
    /// Where its services live.
    pub namespace: String,
    /// Its services, in the order of the file.
    pub services: Vec<ProjectService>,
    /// The secrets and configs whose content it names, in the order of the file.
    pub items: Vec<ProjectItem>,
    /// What will differ from what is written.
    pub warnings: Vec<Warning>,
}

/// A secret or config of a [`Project`]. It shows its content to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct ProjectItem {
    /// Which kind.
    pub kind: ItemKind,
    /// Its full name.
    pub key: ItemKey,
    /// Its content.
    pub value: Vec<u8>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl fmt::Debug for ProjectItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.key)
    }
}

/// A service of a [`Project`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectService {
    /// Its full name.
    pub key: ServiceKey,
    /// Its specification.
    pub spec: ServiceSpec,
    /// Its number of replicas, when the file gives one.
    pub replicas: Option<u32>,
}

/// What readers of services look things up in.
struct Scope<'a> {
    variables: &'a BTreeMap<String, String>,
    directory: Option<&'a Path>,
    files: &'a dyn Files,
    volumes: volumes::Declared,
    networks: networks::Declared,
    secrets: items::Declared,
    configs: items::Declared,
    profiles: BTreeSet<String>,
}
