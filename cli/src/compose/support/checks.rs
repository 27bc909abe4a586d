//! Health checks of a service.

use super::{Entry, Section, yes};

/// `healthcheck`.
pub const HEALTHCHECK: Section = Section {
    path: "services.<name>.healthcheck",
    keys: &[
        yes(
            "test",
            "a string, or a list that starts with `NONE`, `CMD` or `CMD-SHELL`",
        ),
        yes("interval", ""),
        yes("timeout", "then the check is killed and counts as failed"),
        yes(
            "retries",
            "failures in a row that end traffic and restart the replica",
        ),
        yes("start_period", ""),
        yes(
            "start_interval",
            "until the first success; at most 1 s (2 s for commands) when absent",
        ),
        yes("disable", ""),
    ],
};

/// Keys of a check that decides about one thing.
const OWN_CHECK: &[Entry] = &[
    yes("test", "as in `healthcheck`"),
    yes("http", "a path, or a mapping; 200 to 399 is a success"),
    yes("tcp", "a port of the service that must accept a connection"),
    yes("interval", ""),
    yes("timeout", ""),
    yes("retries", "failures in a row that count"),
    yes("successes", "successes in a row that count; 1 when absent"),
    yes("start_period", ""),
    yes("start_interval", ""),
    yes("disable", ""),
];

/// `x-dunlin.readiness`.
pub const READINESS: Section = Section {
    path: "services.<name>.x-dunlin.readiness",
    keys: OWN_CHECK,
};

/// `x-dunlin.liveness`.
pub const LIVENESS: Section = Section {
    path: "services.<name>.x-dunlin.liveness",
    keys: OWN_CHECK,
};

/// `http` of a check.
pub const HTTP_CHECK: Section = Section {
    path: "services.<name>.x-dunlin.readiness.http",
    keys: &[
        yes("path", "with the query; `/` when absent"),
        yes("port", "the first TCP port when absent"),
        yes("host", "the `Host` header"),
        yes("headers", "further headers"),
    ],
};
