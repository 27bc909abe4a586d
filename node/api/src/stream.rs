//! What comes as a stream, one JSON object per line: logs and events.

use dunlin_state::model::{NodeId, ServiceKey, Slot};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which log lines to send.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct LogQuery {
    /// Only this slot: its number, or for a daemon service the node's id, a unique beginning of
    /// that, or its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// At most so many of the last lines of each replica; all that are kept when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail: Option<u32>,
    /// Only lines written at or after this instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Whether to go on with lines as they are written.
    pub follow: bool,
}

/// A line of the log stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LogRecord {
    /// What a replica wrote.
    Line {
        /// Which slot wrote it.
        slot: Slot,
        /// On which node.
        node: NodeId,
        /// That node's name.
        node_name: String,
        /// Where it wrote it.
        stream: LogStream,
        /// When.
        at: u64,
        /// The line without its end; bytes that are no UTF-8 are replaced.
        text: String,
    },
    /// A node that holds replicas could not be asked, so that their lines are missing here.
    Unreachable {
        /// Which node.
        node: NodeId,
        /// Its name.
        node_name: String,
        /// Why.
        reason: String,
    },
    /// Lines are missing here: the log was rotated, or the reader was too slow.
    Skipped {
        /// Of which slot.
        slot: Slot,
        /// On which node.
        node: NodeId,
        /// Why.
        reason: String,
    },
}

/// Where a replica wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Which events to send.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct EventQuery {
    /// Whether to go on with events as they happen.
    pub follow: bool,
}

/// Something worth telling that this node saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventRecord {
    /// When.
    pub at: u64,
    /// Whether an operator should look at it.
    pub warning: bool,
    /// In words.
    pub text: String,
    /// The service it is about.
    pub service: Option<ServiceKey>,
    /// The slot it is about.
    pub slot: Option<Slot>,
    /// The node it is about.
    pub node: Option<NodeId>,
}
