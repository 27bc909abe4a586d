//! Every key that the Compose specification knows, and what Dunlin does with it.
//!
//! The parser asks this table what to say about a key, and `docs/compose.md` is generated from it,
//! so that the two cannot differ. One file for each part of a Compose file.

mod attached;
mod autoscale;
mod checks;
mod deploy;
mod own;
mod service;
mod top;
mod wishes;

pub use attached::{DEPENDS_ON, ENV_FILE, FILE_MOUNT, PORT, SERVICE_NETWORK, VOLUME};
pub use autoscale::{AUTOSCALE, TARGETS};
pub use checks::{HEALTHCHECK, HTTP_CHECK, LIVENESS, READINESS};
pub use deploy::{
    DEPLOY, LIMITS, PLACEMENT, RESERVATIONS, RESOURCES, RESTART_POLICY, ROLLBACK_CONFIG,
    UPDATE_CONFIG,
};
pub use own::{HOOK, HOOKS, JOB, SCHEDULE, SERVICE_DUNLIN, SINGLETON, SPLIT};
pub use service::SERVICE;
pub use top::{TOP, TOP_CONFIG, TOP_DUNLIN, TOP_NETWORK, TOP_SECRET, TOP_VOLUME, VOLUME_DUNLIN};
pub use wishes::{PREFERENCE, PREFERRED, SPREAD, WEIGHTS};

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It has its effect; the text says where it differs from Compose, or nothing.
    Honoured(&'static str),
    /// It is accepted with a warning; the text says what to use instead, or nothing.
    Ignored(&'static str),
    /// It is a fault, because ignoring it would deploy something else than what is written; the
    /// text says what to do.
    Refused(&'static str),
}

/// A key and what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: &'static str,
    /// What becomes of it.
    pub support: Support,
}

/// A mapping of the Compose file with a fixed set of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// Where it stands, as a person writes it.
    pub path: &'static str,
    /// Its keys, in the order of the documentation.
    pub keys: &'static [Entry],
}

impl Section {
    /// The entry of `key`.
    pub fn entry(&self, key: &str) -> Option<&'static Entry> {
        self.keys.iter().find(|e| e.key == key)
    }
}

const fn yes(key: &'static str, note: &'static str) -> Entry {
    Entry {
        key,
        support: Support::Honoured(note),
    }
}

const fn skip(key: &'static str, instead: &'static str) -> Entry {
    Entry {
        key,
        support: Support::Ignored(instead),
    }
}

const fn no(key: &'static str, instead: &'static str) -> Entry {
    Entry {
        key,
        support: Support::Refused(instead),
    }
}

/// All sections, in the order of the documentation.
pub const SECTIONS: &[Section] = &[
    TOP,
    SERVICE,
    DEPLOY,
    RESOURCES,
    LIMITS,
    RESERVATIONS,
    PLACEMENT,
    PREFERENCE,
    RESTART_POLICY,
    UPDATE_CONFIG,
    ROLLBACK_CONFIG,
    HEALTHCHECK,
    DEPENDS_ON,
    PORT,
    VOLUME,
    ENV_FILE,
    FILE_MOUNT,
    SERVICE_NETWORK,
    TOP_NETWORK,
    TOP_VOLUME,
    VOLUME_DUNLIN,
    TOP_SECRET,
    TOP_CONFIG,
    TOP_DUNLIN,
    SERVICE_DUNLIN,
    JOB,
    SCHEDULE,
    HOOKS,
    HOOK,
    SPREAD,
    PREFERRED,
    WEIGHTS,
    READINESS,
    LIVENESS,
    HTTP_CHECK,
    SINGLETON,
    SPLIT,
    AUTOSCALE,
    TARGETS,
];
