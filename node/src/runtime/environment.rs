//! What every replica is told of itself, in any runtime.

use std::collections::BTreeMap;

use dunlin_core::io::Workload;

/// The `PATH` of a replica when the daemon has none: Docker's default.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What jobs have told, over it the specification's environment, and over that Dunlin's own, which
/// code may rely on.
pub(super) fn of_replica(workload: &Workload) -> BTreeMap<String, String> {
    let id = &workload.id;
    let own = [
        ("DUNLIN_SERVICE", id.slot.service.name().to_owned()),
        ("DUNLIN_NAMESPACE", id.slot.service.namespace().to_owned()),
        ("DUNLIN_SLOT", id.slot.slot.to_string()),
        ("DUNLIN_NODE", workload.node_name.clone()),
        ("DUNLIN_NODE_ID", workload.node.to_string()),
        ("DUNLIN_EPOCH", id.epoch.to_string()),
        ("DUNLIN_REVISION", workload.revision.clone()),
    ];
    let mut environment = workload.given.clone();
    environment.extend(workload.spec.environment.clone());
    environment.extend(own.map(|(name, value)| (name.to_owned(), value)));
    environment
}

/// The same over a small base from the daemon's environment, for a host process: the rest of the
/// daemon's environment is nobody's business.
pub(super) fn of_process(workload: &Workload) -> BTreeMap<String, String> {
    let variable = |name: &str| std::env::var(name).ok();
    let mut environment = BTreeMap::from([
        (
            "PATH".to_owned(),
            variable("PATH").unwrap_or_else(|| DEFAULT_PATH.to_owned()),
        ),
        (
            "LANG".to_owned(),
            variable("LANG").unwrap_or_else(|| "C.UTF-8".to_owned()),
        ),
    ]);
    if let Some(zone) = variable("TZ") {
        environment.insert("TZ".to_owned(), zone);
    }
    environment.extend(of_replica(workload));
    environment
}
