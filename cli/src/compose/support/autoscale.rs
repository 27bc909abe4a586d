//! `x-dunlin.autoscale`.

use super::{Section, no, yes};

/// `x-dunlin.autoscale` of a service.
pub const AUTOSCALE: Section = Section {
    path: "services.<name>.x-dunlin.autoscale",
    keys: &[
        yes(
            "min",
            "fewest replicas, 1 when absent; with 0 there is none when nobody connects, and the first connection waits for one",
        ),
        yes("max", "most replicas; needed"),
        yes(
            "targets",
            "what one replica shall have to do; needed, and the one that asks for most replicas decides",
        ),
        yes(
            "up_window",
            "for which more must have been asked for before replicas are added; 0, at once, when absent",
        ),
        yes(
            "down_window",
            "for which fewer must have been enough before replicas go; `5m` when absent",
        ),
        yes(
            "zero_after",
            "time without a connection after which there is no replica, `10m` when absent; with `min: 0`",
        ),
        yes(
            "forecast",
            "after which time the load repeats itself, such as `1d` or `1w`: replicas are added ahead of what was needed then",
        ),
    ],
};

/// `x-dunlin.autoscale.targets` of a service.
pub const TARGETS: Section = Section {
    path: "services.<name>.x-dunlin.autoscale.targets",
    keys: &[
        yes(
            "cpu",
            "cores that a replica uses, such as `0.5`, or a share of what is reserved, `70%`",
        ),
        yes(
            "memory",
            "that a replica uses, such as `200m`, or a share of what is reserved, `70%`",
        ),
        yes("connections", "open ones through the proxies of all nodes"),
        yes(
            "new_connections",
            "a second, through the proxies of all nodes",
        ),
        no(
            "requests",
            "the proxies carry connections and do not see requests; use `new_connections` or `connections`",
        ),
    ],
};
