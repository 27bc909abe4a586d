//! Where replicas would better run.

use super::{Section, yes};

/// An entry of `deploy.placement.preferences`.
pub const PREFERENCE: Section = Section {
    path: "services.<name>.deploy.placement.preferences[]",
    keys: &[yes(
        "spread",
        "a key of constraints; replicas are dealt out evenly over its values. Of several, each counts ten times the next, down to 1",
    )],
};

/// An entry of `x-dunlin.spread`.
pub const SPREAD: Section = Section {
    path: "services.<name>.x-dunlin.spread[]",
    keys: &[
        yes("key", "a key of constraints, such as `node.labels.zone`"),
        yes("weight", "1 (the default) to 100, beside other spreads"),
        yes(
            "max_skew",
            "replicas wait rather than have a value get so many more than another; any number when absent",
        ),
    ],
};

/// An entry of `x-dunlin.preferences`.
pub const PREFERRED: Section = Section {
    path: "services.<name>.x-dunlin.preferences[]",
    keys: &[
        yes(
            "service",
            "nodes that have a replica of it; `name` or `namespace/name`",
        ),
        yes("constraint", "nodes on which it holds"),
        yes(
            "weight",
            "-100 (avoid) to 100; 50 when absent. 100 weighs as much as a full node against an empty one, 200 as another replica of the service on the node",
        ),
    ],
};

/// `x-dunlin.weights`.
pub const WEIGHTS: Section = Section {
    path: "services.<name>.x-dunlin.weights",
    keys: &[
        yes("cpu", "0 to 100; 1 when absent"),
        yes("memory", "1 when absent"),
        yes("disk", "0 when absent"),
        yes("replicas", "per core; 1 when absent"),
    ],
};
