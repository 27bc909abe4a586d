//! The top level of a file, and what it declares for services.

use super::{Section, no, skip, yes};

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
        yes(
            "networks",
            "services that share one reach each other by name; the names are those of the namespace",
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

/// `x-dunlin` at the top level.
pub const TOP_DUNLIN: Section = Section {
    path: "x-dunlin",
    keys: &[yes(
        "namespace",
        "where the services live; `default` when absent",
    )],
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
        yes("x-dunlin", "see below"),
    ],
};

/// `x-dunlin` of a volume.
pub const VOLUME_DUNLIN: Section = Section {
    path: "volumes.<name>.x-dunlin",
    keys: &[
        yes(
            "scope",
            "`node`: all replicas share it, on one node; `replica`: each slot of a service has its own. `node` when absent",
        ),
        yes(
            "allow_empty",
            "replicas may begin with an empty one where another node has the data; they wait for that node when absent",
        ),
    ],
};

/// A network at the top level.
pub const TOP_NETWORK: Section = Section {
    path: "networks.<name>",
    keys: &[
        yes("name", "as here when absent; never with the project's name"),
        yes(
            "external",
            "one of the whole cluster: services of other namespaces are in it that call it external too",
        ),
        yes(
            "driver",
            "`bridge` and `overlay` mean the same; others are ignored",
        ),
        skip("driver_opts", ""),
        skip("attachable", ""),
        skip("internal", "containers reach the outside in any case"),
        skip("ipam", ""),
        skip("enable_ipv4", ""),
        skip("enable_ipv6", ""),
        skip("labels", ""),
    ],
};
