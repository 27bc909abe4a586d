//! What has to be there before a replica is started.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ServiceKey;

/// What a service waits for before the first replica of a new revision is started.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Dependency {
    /// Which service.
    pub service: ServiceKey,
    /// What has to be true of it.
    #[serde(default)]
    pub condition: Condition,
    /// Whether it is waited for in vain when it does not exist or has failed; otherwise that is
    /// as good as if the condition held.
    #[serde(default = "required")]
    pub required: bool,
}

const fn required() -> bool {
    true
}

/// What has to be true of a dependency, in the words of Compose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Condition {
    /// A replica of it runs, or has done its work.
    #[default]
    ServiceStarted,
    /// A replica of it is ready, so that its name leads somewhere.
    ServiceHealthy,
    /// All of it, in its present revision, has ended with success.
    ServiceCompletedSuccessfully,
    /// All its slots have proven its present revision. Hooks wait for that; nobody can write it.
    ServiceRolledOut,
}

impl fmt::Display for Condition {
    /// As it goes on after the name of the service.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ServiceStarted => "to be started",
            Self::ServiceHealthy => "to be ready",
            Self::ServiceCompletedSuccessfully => "to end with success",
            Self::ServiceRolledOut => "to be rolled out",
        })
    }
}
