//! `deploy` of a service.

use super::{Entry, Section, skip, yes};

/// `deploy`.
pub const DEPLOY: Section = Section {
    path: "services.<name>.deploy",
    keys: &[
        yes(
            "mode",
            "`replicated`, `global`, `replicated-job` (`replicas` have to end with code 0) or `global-job`",
        ),
        yes(
            "replicas",
            "when absent, a new service gets one and an old one keeps its number",
        ),
        yes("resources", ""),
        yes("placement", ""),
        yes("restart_policy", "goes before `restart`"),
        yes("update_config", ""),
        yes(
            "labels",
            "put on the containers; `labels` of the service go before them",
        ),
        skip(
            "endpoint_mode",
            "a service's name answers with its ready replicas",
        ),
        yes("rollback_config", "as `update_config` when absent"),
    ],
};

/// `deploy.resources`.
pub const RESOURCES: Section = Section {
    path: "services.<name>.deploy.resources",
    keys: &[
        yes("limits", "what a replica may use"),
        yes("reservations", "what placement sets aside for a replica"),
    ],
};

/// `deploy.resources.limits`.
pub const LIMITS: Section = Section {
    path: "services.<name>.deploy.resources.limits",
    keys: &[
        yes("cpus", "cores, such as `0.5`"),
        yes("memory", "such as `512m`"),
        skip("pids", ""),
    ],
};

/// `deploy.resources.reservations`.
pub const RESERVATIONS: Section = Section {
    path: "services.<name>.deploy.resources.reservations",
    keys: &[
        yes("cpus", "cores, such as `0.5`"),
        yes("memory", "such as `512m`"),
        skip("generic_resources", ""),
        skip("devices", ""),
    ],
};

/// `deploy.placement`.
pub const PLACEMENT: Section = Section {
    path: "services.<name>.deploy.placement",
    keys: &[
        yes(
            "constraints",
            "with `==`, `!=`, `in (a, b)`, `not in (a, b)`, `=~`, `!~`, `<`, `<=`, `>`, `>=`; see [placement](protocols/placement.md#constraints)",
        ),
        yes("max_replicas_per_node", ""),
        yes("preferences", ""),
    ],
};

/// `deploy.restart_policy`.
pub const RESTART_POLICY: Section = Section {
    path: "services.<name>.deploy.restart_policy",
    keys: &[
        yes("condition", "`none`, `on-failure` or `any` (the default)"),
        yes("delay", "the first delay; it doubles with each failure"),
        yes("max_attempts", "failures in a row"),
        yes("window", "a replica that ran this long counts as recovered"),
    ],
};

/// Keys of a policy for updates.
const POLICY: &[Entry] = &[
    yes("parallelism", "replicas that change at a time; 0 means all"),
    yes("delay", "before each change"),
    yes(
        "order",
        "`stop-first` or `start-first`: the new replica is started on another node; a node that is alone stops first",
    ),
    yes(
        "monitor",
        "how long a new replica has to be ready to be proven; 1 s when absent",
    ),
    yes("max_failure_ratio", ""),
    yes("failure_action", "`pause`, `continue` or `rollback`"),
];

/// `deploy.update_config`.
pub const UPDATE_CONFIG: Section = Section {
    path: "services.<name>.deploy.update_config",
    keys: POLICY,
};

/// `deploy.rollback_config`.
pub const ROLLBACK_CONFIG: Section = Section {
    path: "services.<name>.deploy.rollback_config",
    keys: POLICY,
};
