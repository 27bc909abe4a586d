//! What Dunlin adds to a service: `x-dunlin`.

use super::{Section, yes};

/// `x-dunlin` of a service.
pub const SERVICE_DUNLIN: Section = Section {
    path: "services.<name>.x-dunlin",
    keys: &[
        yes(
            "secret_signal",
            "tells a replica that a secret or config has another content; none when absent",
        ),
        yes(
            "readiness",
            "a check that decides about traffic alone; goes before `healthcheck`",
        ),
        yes(
            "liveness",
            "a check that decides about restarts alone; goes before `healthcheck`",
        ),
        yes(
            "stop_delay",
            "how long connections may end between leaving the routes and the stop signal; 1.5 s when absent",
        ),
        yes("runtime", "`process`, `docker` or `auto` (the default)"),
        yes("disk", "disk space that placement reserves, such as `2g`"),
        yes(
            "anti_affinity",
            "services, as `name` or `namespace/name`, that must not share a node with this one",
        ),
        yes("strategy", "`spread` (the default) or `pack`"),
        yes(
            "balance",
            "`random-of-two` (the default; by latency), `round-robin`, `least-connections`, `weighted` (by the node label `weight`) or `source-hash`",
        ),
        yes(
            "prefer",
            "`node` or `zone` (node label `zone`) before others; `any` by default",
        ),
        yes(
            "max_connections",
            "of one node's proxy to one replica; further ones wait",
        ),
        yes(
            "max_pending",
            "connections that wait for a replica on one node",
        ),
        yes(
            "rate_limit",
            "connections a second of one source, `100/s`, or with a burst `100/s:200`",
        ),
        yes("allow", "networks that may connect; all when empty"),
        yes("deny", "networks that may not, also when they are allowed"),
        yes(
            "proxy_protocol",
            "`v1` or `v2`: replicas are told the client's address; TCP only",
        ),
        yes("split", "a share of the connections for another service"),
        yes(
            "connect_timeout",
            "how long a replica may take to accept, `1500ms` by default",
        ),
        yes(
            "idle_timeout",
            "silence that ends a connection, `1h` by default, of UDP `1m`",
        ),
        yes(
            "drain",
            "how long connections go on to a replica that has left, `10s` by default",
        ),
    ],
};

/// `x-dunlin.split` of a service.
pub const SPLIT: Section = Section {
    path: "services.<name>.x-dunlin.split",
    keys: &[
        yes(
            "service",
            "`name` or `namespace/name`; must have the same target port",
        ),
        yes(
            "percent",
            "0 to 100; none while the other service has no ready replica",
        ),
    ],
};
