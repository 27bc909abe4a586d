//! Times at which a node is to be worked on.

use serde::{Deserialize, Serialize};

/// A time at which a node is drained; afterwards it takes work again by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Window {
    /// When it opens.
    pub opens: Opens,
    /// Milliseconds for which it is open.
    pub lasts_ms: u64,
}

/// When a window opens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Opens {
    /// Once, at this instant, in milliseconds since the Unix epoch.
    At(u64),
    /// Again and again.
    Cron {
        /// Five fields as in crontab, or six with seconds before them.
        cron: String,
        /// A name of the IANA database.
        timezone: String,
    },
}

impl Window {
    /// The longest time for which a window is open, in milliseconds: a week.
    pub const MAX_LASTS_MS: u64 = 7 * 86_400_000;

    /// The shortest one, in milliseconds: a minute, in which work has just gone elsewhere.
    pub const MIN_LASTS_MS: u64 = 60_000;

    /// Windows of one node.
    pub const MAX_PER_NODE: usize = 16;

    /// A short name that follows from what it is, so that the same window has it everywhere.
    pub fn id(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        let hash = blake3::hash(&text);
        data_encoding::HEXLOWER.encode(&hash.as_bytes()[..ID_BYTES])
    }
}

/// Bytes of a window's name: a node has few.
const ID_BYTES: usize = 3;
