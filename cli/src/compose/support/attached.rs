//! What a service is given: files, ports, volumes, variables.

use super::{Section, skip, yes};

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

/// A dependency in long syntax.
pub const DEPENDS_ON: Section = Section {
    path: "services.<name>.depends_on.<service>",
    keys: &[
        yes(
            "condition",
            "`service_started` (the default): a replica runs; `service_healthy`: one is ready; `service_completed_successfully`: all have ended with code 0",
        ),
        yes(
            "required",
            "when `false`, a service that is not there or has failed is not waited for",
        ),
        skip(
            "restart",
            "a replica is not restarted because another service is",
        ),
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

/// An entry of `env_file` in long syntax.
pub const ENV_FILE: Section = Section {
    path: "services.<name>.env_file[]",
    keys: &[
        yes("path", ""),
        yes("required", "a file that is not required may be missing"),
        yes("format", "`raw` takes lines as they are"),
    ],
};

/// A network of a service, where more than its name is said.
pub const SERVICE_NETWORK: Section = Section {
    path: "services.<name>.networks.<network>",
    keys: &[
        skip("aliases", "services are found by their own names"),
        skip(
            "ipv4_address",
            "virtual addresses are given out by the cluster",
        ),
        skip(
            "ipv6_address",
            "virtual addresses are given out by the cluster",
        ),
        skip("link_local_ips", ""),
        skip("mac_address", ""),
        skip("driver_opts", ""),
        skip("interface_name", ""),
        skip("gw_priority", ""),
        skip("priority", ""),
    ],
};
