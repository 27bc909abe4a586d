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
            "job",
            "its replicas do their work and end; a run for each revision; what they write to the file `DUNLIN_OUTPUT`, lines `NAME=value`, is in the environment of what waits for them as `<JOB>_<NAME>`",
        ),
        yes("autoscale", "lets the number of replicas follow the load"),
        yes("hooks", "jobs before and after a deploy"),
        yes("schedule", "makes it a job that runs at these times"),
        yes(
            "anti_affinity",
            "services, as `name` or `namespace/name`, that must not share a node with this one",
        ),
        yes(
            "affinity",
            "services of which a node must have a replica to take one of this; those that run stay when the other leaves",
        ),
        yes("preferences", "what makes nodes better or worse"),
        yes("spread", "over the values of labels and facts"),
        yes("strategy", "`spread` (the default), `pack` or `random`"),
        yes(
            "weights",
            "how much each resource counts in the load of nodes",
        ),
        yes(
            "priority",
            "-1000 to 1000, 0 when absent: where there is no room, replicas of services with a lower one make way",
        ),
        yes(
            "rebalance",
            "`false`: replicas that run are not moved to even out nodes; `true`: they are, also when they have volumes with `allow_empty`, or directories of the host, which stay behind",
        ),
        yes(
            "singleton",
            "there are never two of a slot: a replica runs only with the votes of a majority of these nodes",
        ),
        yes(
            "on_isolation",
            "`keep` (the default), or `stop-after 30s`: a node that sees less than half of the nodes it knew stops its replicas after that time",
        ),
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

/// `x-dunlin.singleton` of a service.
pub const SINGLETON: Section = Section {
    path: "services.<name>.x-dunlin.singleton",
    keys: &[yes(
        "voters",
        "ids of 1, 3, 5 or 7 nodes, as `dunlin nodes --json` shows them; remove the service before naming others",
    )],
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

/// `x-dunlin.job` of a service.
pub const JOB: Section = Section {
    path: "services.<name>.x-dunlin.job",
    keys: &[
        yes(
            "completions",
            "replicas of a run that have to end with code 0; 1 when absent",
        ),
        yes(
            "parallelism",
            "how many of them run at a time; 0, the default, means all",
        ),
        yes("retries", "of each replica after a failure; 3 when absent"),
        yes(
            "backoff",
            "before the first retry, `1s` when absent; doubles up to 5 minutes",
        ),
        yes(
            "deadline",
            "a run that takes longer has failed; none when absent",
        ),
        yes(
            "ttl",
            "how long logs of a run are kept after its end, `1h` when absent",
        ),
        yes("manual", "it runs only by `dunlin job run`"),
    ],
};

/// `x-dunlin.schedule` of a service.
pub const SCHEDULE: Section = Section {
    path: "services.<name>.x-dunlin.schedule",
    keys: &[
        yes(
            "cron",
            "five fields, or six with seconds before them; or the pattern in place of the mapping",
        ),
        yes(
            "timezone",
            "of the IANA database, such as `Europe/Berlin`; `UTC` when absent",
        ),
        yes("overlap", "`forbid` (the default), `allow` or `replace`"),
        yes(
            "catch_up",
            "instants that were missed: `none` (the default), `last` or `all`",
        ),
    ],
};

/// `x-dunlin.hooks` of a service.
pub const HOOKS: Section = Section {
    path: "services.<name>.x-dunlin.hooks",
    keys: &[
        yes(
            "pre_deploy",
            "a command, or a mapping; a new revision waits for its success",
        ),
        yes(
            "post_deploy",
            "likewise; runs when all replicas have proven a new revision",
        ),
    ],
};

/// A hook in long syntax.
pub const HOOK: Section = Section {
    path: "services.<name>.x-dunlin.hooks.pre_deploy",
    keys: &[
        yes(
            "command",
            "in place of entry point and command of the service",
        ),
        yes("retries", "none when absent"),
        yes("deadline", "none when absent"),
    ],
};
