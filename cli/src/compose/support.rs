//! Every key that the Compose specification knows, and what Dunlin does with it.
//!
//! The parser asks this table what to say about a key, and `docs/compose.md` is generated from it,
//! so that the two cannot differ.

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

/// Top level of the file.
pub const TOP: Section = Section {
    path: "(top level)",
    keys: &[
        yes(
            "name",
            "the project's name; prefixes volumes that have no `name` of their own",
        ),
        yes("services", "names must be DNS labels: a-z, 0-9 and `-`"),
        yes("volumes", "declares named volumes"),
        yes("x-dunlin", "see below"),
        skip("version", "it is obsolete and can be removed"),
        skip(
            "networks",
            "every service can reach every other by its name",
        ),
        yes(
            "configs",
            "created or given that content before the services; in the namespace of the file",
        ),
        yes("secrets", "the same"),
        skip("models", ""),
        no(
            "include",
            "deploy the files one by one, or copy their services in here",
        ),
    ],
};

/// A secret at the top level.
pub const TOP_SECRET: Section = Section {
    path: "secrets.<name>",
    keys: &[
        yes("file", "at most 32 KiB, text or not"),
        yes("environment", "a variable of `dunlin deploy`"),
        yes("external", "it exists already"),
        yes("name", "its name in the cluster; as here when absent"),
        yes("labels", ""),
        skip("driver", "secrets are kept by the cluster itself"),
        skip("driver_opts", ""),
        skip("template_driver", ""),
    ],
};

/// A config at the top level.
pub const TOP_CONFIG: Section = Section {
    path: "configs.<name>",
    keys: &[
        yes("file", "at most 32 KiB, text or not"),
        yes("environment", "a variable of `dunlin deploy`"),
        yes("content", ""),
        yes("external", "it exists already"),
        yes("name", "its name in the cluster; as here when absent"),
        yes("labels", ""),
        skip("template_driver", ""),
    ],
};

/// A secret or config of a service in long syntax.
pub const FILE_MOUNT: Section = Section {
    path: "services.<name>.secrets[]",
    keys: &[
        yes("source", ""),
        yes(
            "target",
            "a file name, or in containers an absolute path; as `source` when absent",
        ),
        yes("uid", "the process's user, in containers 0, when absent"),
        yes("gid", "likewise"),
        yes(
            "mode",
            "in base 8; `0400` for processes, `0444` in containers, when absent",
        ),
    ],
};

/// `x-dunlin` at the top level.
pub const TOP_DUNLIN: Section = Section {
    path: "x-dunlin",
    keys: &[yes(
        "namespace",
        "where the services live; `default` when absent",
    )],
};

/// A service.
pub const SERVICE: Section = Section {
    path: "services.<name>",
    keys: &[
        yes("image", "required, except for the process runtime"),
        yes("command", "a string is split into words; no shell runs it"),
        yes(
            "entrypoint",
            "as `command`; an empty one does not clear the image's",
        ),
        yes(
            "environment",
            "a variable without a value takes it from where `deploy` is run",
        ),
        yes(
            "env_file",
            "relative to the Compose file; read when deploying",
        ),
        yes(
            "ports",
            "published ports are answered by every node; a range of host ports for one container port is refused",
        ),
        yes("expose", "declares ports without publishing them"),
        yes("deploy", ""),
        yes("scale", "same as `deploy.replicas`"),
        yes(
            "restart",
            "`unless-stopped` acts like `always`; when absent, replicas are restarted",
        ),
        yes("labels", "put on the containers"),
        yes("healthcheck", ""),
        yes(
            "volumes",
            "named volumes and bind mounts; both belong to the node that runs the replica",
        ),
        yes("stop_signal", ""),
        yes("stop_grace_period", ""),
        yes("user", ""),
        yes("working_dir", ""),
        yes("hostname", ""),
        yes("cpus", "same as `deploy.resources.limits.cpus`"),
        yes("mem_limit", "same as `deploy.resources.limits.memory`"),
        yes(
            "mem_reservation",
            "same as `deploy.resources.reservations.memory`",
        ),
        yes(
            "platform",
            "becomes placement constraints on OS and architecture",
        ),
        yes(
            "profiles",
            "services whose profiles are not in `COMPOSE_PROFILES` are left out",
        ),
        yes("x-dunlin", "see below"),
        yes(
            "build",
            "nothing is built: a warning beside `image`, a fault without it",
        ),
        skip("annotations", ""),
        skip("attach", ""),
        skip("blkio_config", ""),
        skip("cap_add", ""),
        skip("cap_drop", ""),
        skip("cgroup", ""),
        skip("cgroup_parent", ""),
        yes(
            "configs",
            "files: `/<target>` in containers, in `$DUNLIN_CONFIGS_DIR` for processes",
        ),
        skip(
            "container_name",
            "containers are named after service, slot and epoch",
        ),
        skip("cpu_count", "use `cpus`"),
        skip("cpu_percent", "use `cpus`"),
        skip("cpu_period", "use `cpus`"),
        skip("cpu_quota", "use `cpus`"),
        skip("cpu_rt_period", ""),
        skip("cpu_rt_runtime", ""),
        skip("cpu_shares", "use `deploy.resources.reservations.cpus`"),
        skip("cpuset", ""),
        skip("credential_spec", ""),
        skip(
            "depends_on",
            "services start together; let them retry their connections",
        ),
        skip("develop", ""),
        skip("device_cgroup_rules", ""),
        skip("devices", ""),
        skip("dns", ""),
        skip("dns_opt", ""),
        skip("dns_search", ""),
        skip("domainname", ""),
        skip(
            "external_links",
            "every service can reach every other by its name",
        ),
        skip("extra_hosts", ""),
        skip("gpus", ""),
        skip("group_add", ""),
        skip("init", ""),
        skip("ipc", ""),
        skip("isolation", ""),
        skip("label_file", "use `labels`"),
        skip("links", "every service can reach every other by its name"),
        skip("logging", "read logs with `dunlin logs`"),
        skip("mac_address", ""),
        skip("mem_swappiness", ""),
        skip("memswap_limit", ""),
        skip("models", ""),
        skip("network_mode", ""),
        skip(
            "networks",
            "every service can reach every other by its name",
        ),
        skip("oom_kill_disable", ""),
        skip("oom_score_adj", ""),
        skip("pid", ""),
        skip("pids_limit", ""),
        skip("post_start", ""),
        skip("pre_stop", ""),
        skip("privileged", ""),
        skip("pull_policy", ""),
        skip("pull_refresh_after", ""),
        skip("read_only", ""),
        skip(
            "runtime",
            "`x-dunlin.runtime` chooses between processes and containers",
        ),
        yes(
            "secrets",
            "files in memory: `/run/secrets/<target>` in containers, in `$DUNLIN_SECRETS_DIR` for processes",
        ),
        skip("security_opt", ""),
        skip("shm_size", ""),
        skip("stdin_open", ""),
        skip("storage_opt", ""),
        skip("sysctls", ""),
        skip("tmpfs", ""),
        skip("tty", ""),
        skip("ulimits", ""),
        skip("use_api_socket", ""),
        skip("userns_mode", ""),
        skip("uts", ""),
        no(
            "extends",
            "copy the other service's keys in here, or share them with a YAML anchor and '<<'",
        ),
        no("provider", "Dunlin starts containers and processes only"),
        no(
            "volumes_from",
            "name the volumes of the other service under `volumes`",
        ),
    ],
};

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

/// `deploy`.
pub const DEPLOY: Section = Section {
    path: "services.<name>.deploy",
    keys: &[
        yes("mode", "`replicated` or `global`"),
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
            "on `node.id`, `node.hostname`, `node.platform.os`, `node.platform.arch`, `node.kernel` and `node.labels.<key>`, with `==` or `!=`",
        ),
        yes("max_replicas_per_node", ""),
        skip(
            "preferences",
            "replicas are spread over nodes; see `x-dunlin.strategy`",
        ),
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

/// A port in long syntax.
pub const PORT: Section = Section {
    path: "services.<name>.ports[]",
    keys: &[
        yes("target", ""),
        yes("published", "one port"),
        yes("host_ip", ""),
        yes("protocol", "`tcp` or `udp`"),
        yes(
            "mode",
            "`ingress`: every node answers; `host`: the nodes with a replica answer",
        ),
        skip("name", ""),
        skip("app_protocol", ""),
    ],
};

/// A volume in long syntax.
pub const VOLUME: Section = Section {
    path: "services.<name>.volumes[]",
    keys: &[
        yes(
            "type",
            "`volume` or `bind`; `tmpfs` is ignored, others are refused",
        ),
        yes("source", ""),
        yes("target", ""),
        yes("read_only", ""),
        skip("consistency", ""),
        skip("bind", ""),
        skip("volume", ""),
        skip("tmpfs", ""),
        skip("image", ""),
    ],
};

/// A volume at the top level.
pub const TOP_VOLUME: Section = Section {
    path: "volumes.<name>",
    keys: &[
        yes("name", "the volume's name on the nodes"),
        yes(
            "external",
            "the name is used as it is, without the project's",
        ),
        yes("driver", "`local` only; another one is ignored"),
        skip("driver_opts", ""),
        skip("labels", ""),
    ],
};

/// An entry of `env_file` in long syntax.
pub const ENV_FILE: Section = Section {
    path: "services.<name>.env_file[]",
    keys: &[
        yes("path", ""),
        yes("required", "a file that is not required may be missing"),
        yes("format", "`raw` takes lines as they are"),
    ],
};

/// All sections, in the order of the documentation.
pub const SECTIONS: &[Section] = &[
    TOP,
    SERVICE,
    DEPLOY,
    RESOURCES,
    LIMITS,
    RESERVATIONS,
    PLACEMENT,
    RESTART_POLICY,
    UPDATE_CONFIG,
    ROLLBACK_CONFIG,
    HEALTHCHECK,
    PORT,
    VOLUME,
    ENV_FILE,
    FILE_MOUNT,
    TOP_VOLUME,
    TOP_SECRET,
    TOP_CONFIG,
    TOP_DUNLIN,
    SERVICE_DUNLIN,
    READINESS,
    LIVENESS,
    HTTP_CHECK,
    SPLIT,
];
