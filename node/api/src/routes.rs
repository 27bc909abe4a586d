//! The paths. Those with `{…}` are templates in the syntax that OpenAPI and axum share; the
//! functions fill them in for a client.

use dunlin_state::model::{ItemKey, ItemKind, ServiceKey, VolumeId};

/// `GET` → the text `ok`, to anybody and over TLS also without a key: for health probes.
pub const HEALTH: &str = "/healthz";
/// `POST` [`crate::RedeemRequest`] → [`crate::Membership`], with the key of the TLS connection.
pub const REDEEM: &str = "/v1/redeem";
/// `GET` → [`crate::VersionInfo`].
pub const VERSION: &str = "/v1/version";
/// `GET` → the OpenAPI document.
pub const OPENAPI: &str = "/v1/openapi.json";
/// `GET` → [`crate::NodeStatus`].
pub const NODE: &str = "/v1/node";
/// `GET` → [`crate::NodeList`].
pub const NODES: &str = "/v1/nodes";
/// `POST` [`crate::AvailabilityRequest`] → [`crate::ChangeResponse`].
pub const NODE_AVAILABILITY: &str = "/v1/nodes/{node}/availability";
/// `POST` [`crate::LabelsRequest`] → [`crate::ChangeResponse`].
pub const NODE_LABELS: &str = "/v1/nodes/{node}/labels";
/// `POST` [`crate::MaintenanceRequest`] → [`crate::ChangeResponse`].
pub const NODE_MAINTENANCE: &str = "/v1/nodes/{node}/maintenance";
/// `DELETE` [`crate::RemoveQuery`] → [`crate::ChangeResponse`]: the node is removed for good.
pub const NODE_MEMBER: &str = "/v1/nodes/{node}";
/// `GET` → [`crate::AuditList`].
pub const AUDIT: &str = "/v1/audit";
/// `POST` [`crate::DeployRequest`] → [`crate::DeployResponse`].
pub const DEPLOY: &str = "/v1/deploy";
/// `POST` [`crate::DeployRequest`] → [`crate::DeployPlan`]; nothing is changed.
pub const PLAN: &str = "/v1/plan";
/// Removes several services.
pub const REMOVE: &str = "/v1/remove";
/// `GET` [`crate::ServiceQuery`] → [`crate::ServiceList`].
pub const SERVICES: &str = "/v1/services";
/// `GET` → [`crate::ServiceDetail`]; `DELETE` → [`crate::ChangeResponse`].
pub const SERVICE: &str = "/v1/services/{namespace}/{name}";
/// `POST` [`crate::ScaleRequest`] → [`crate::ChangeResponse`].
pub const SERVICE_SCALE: &str = "/v1/services/{namespace}/{name}/scale";
/// `POST` → [`crate::ChangeResponse`].
pub const SERVICE_STOP: &str = "/v1/services/{namespace}/{name}/stop";
/// `POST` → [`crate::ChangeResponse`].
pub const SERVICE_START: &str = "/v1/services/{namespace}/{name}/start";
/// `GET` → [`crate::Explanation`].
pub const SERVICE_EXPLAIN: &str = "/v1/services/{namespace}/{name}/explain";
/// `GET` → [`crate::History`].
pub const SERVICE_HISTORY: &str = "/v1/services/{namespace}/{name}/history";
/// `GET` → [`crate::RevisionList`].
pub const SERVICE_REVISIONS: &str = "/v1/services/{namespace}/{name}/revisions";
/// `GET` → [`crate::RolloutStatus`]; `POST` [`crate::RolloutRequest`] → [`crate::ChangeResponse`].
pub const SERVICE_ROLLOUT: &str = "/v1/services/{namespace}/{name}/rollout";
/// `POST` → [`crate::RunResponse`]: the job runs now.
pub const SERVICE_RUNS: &str = "/v1/services/{namespace}/{name}/runs";
/// `DELETE` → [`crate::ChangeResponse`]: the run ends.
pub const SERVICE_RUN: &str = "/v1/services/{namespace}/{name}/runs/{run}";
/// `GET` [`crate::JobQuery`] → [`crate::JobList`].
pub const JOBS: &str = "/v1/jobs";
/// `GET` [`crate::LogQuery`] → a stream of [`crate::LogRecord`].
pub const SERVICE_LOGS: &str = "/v1/services/{namespace}/{name}/logs";
/// `POST` frames of [`crate::ExecFrame`] → frames, both at the same time.
pub const SERVICE_EXEC: &str = "/v1/services/{namespace}/{name}/exec";
/// `GET` → [`crate::NamespaceList`].
pub const NAMESPACES: &str = "/v1/namespaces";
/// `PUT` [`dunlin_state::model::Quota`] → [`crate::ChangeResponse`].
pub const QUOTA: &str = "/v1/namespaces/{name}/quota";
/// `GET` → [`crate::RebalancePlan`]; `POST` [`crate::RebalanceRequest`] → [`crate::ChangeResponse`].
pub const REBALANCE: &str = "/v1/rebalance";
/// Secrets.
pub const SECRETS: &str = "/v1/secrets";
/// One secret.
pub const SECRET: &str = "/v1/secrets/{namespace}/{name}";
/// Configs.
pub const CONFIGS: &str = "/v1/configs";
/// One config.
pub const CONFIG: &str = "/v1/configs/{namespace}/{name}";
/// `GET` [`crate::VolumeQuery`] → [`crate::VolumeList`].
pub const VOLUMES: &str = "/v1/volumes";
/// `GET` → [`crate::Volume`]; `DELETE` [`crate::VolumeTarget`] → [`crate::VolumeRemoval`].
pub const VOLUME: &str = "/v1/volumes/{namespace}/{volume}";
/// `POST` [`crate::VolumeTarget`] → frames of [`crate::ExecFrame`], with an archive as output.
pub const VOLUME_EXPORT: &str = "/v1/volumes/{namespace}/{volume}/export";
/// `POST` [`crate::VolumeTarget`], frames with an archive as input → frames.
pub const VOLUME_IMPORT: &str = "/v1/volumes/{namespace}/{volume}/import";
/// `GET` [`crate::ReplicaQuery`] → [`crate::ReplicaList`].
pub const REPLICAS: &str = "/v1/replicas";
/// `GET` [`crate::ConvergenceQuery`] → [`crate::Convergence`].
pub const CONVERGENCE: &str = "/v1/convergence";
/// `GET` [`crate::RouteQuery`] → [`crate::RouteList`].
pub const ROUTES: &str = "/v1/routes";
/// `GET` → text for Prometheus, [`crate::METRICS_TYPE`].
pub const METRICS: &str = "/v1/metrics";
/// `POST` [`crate::TicketRequest`] → [`crate::Ticket`].
pub const TICKET: &str = "/v1/ticket";
/// `POST` → [`crate::ChangeResponse`]: the node says goodbye and its daemon ends.
pub const LEAVE: &str = "/v1/leave";
/// `GET` → [`crate::DoctorReport`].
pub const DOCTOR: &str = "/v1/doctor";
/// `GET` [`crate::StatsQuery`] → a stream of [`crate::StatsRecord`].
pub const STATS: &str = "/v1/stats";
/// `GET` [`crate::EventQuery`] → a stream of [`crate::EventRecord`].
pub const EVENTS: &str = "/v1/events";

/// Every operation, as method and template: the generated description and the tests go by it.
pub const ALL: [(&str, &str); 56] = [
    ("POST", REDEEM),
    ("GET", VERSION),
    ("GET", OPENAPI),
    ("GET", NODE),
    ("GET", NODES),
    ("POST", NODE_AVAILABILITY),
    ("POST", NODE_LABELS),
    ("POST", NODE_MAINTENANCE),
    ("DELETE", NODE_MEMBER),
    ("GET", AUDIT),
    ("POST", DEPLOY),
    ("POST", PLAN),
    ("POST", REMOVE),
    ("GET", SERVICES),
    ("GET", SERVICE),
    ("DELETE", SERVICE),
    ("POST", SERVICE_SCALE),
    ("POST", SERVICE_STOP),
    ("POST", SERVICE_START),
    ("GET", SERVICE_EXPLAIN),
    ("GET", SERVICE_HISTORY),
    ("GET", SERVICE_REVISIONS),
    ("GET", SERVICE_ROLLOUT),
    ("POST", SERVICE_ROLLOUT),
    ("POST", SERVICE_RUNS),
    ("DELETE", SERVICE_RUN),
    ("GET", JOBS),
    ("GET", SERVICE_LOGS),
    ("POST", SERVICE_EXEC),
    ("GET", NAMESPACES),
    ("PUT", QUOTA),
    ("GET", REBALANCE),
    ("POST", REBALANCE),
    ("GET", SECRETS),
    ("GET", SECRET),
    ("PUT", SECRET),
    ("DELETE", SECRET),
    ("GET", CONFIGS),
    ("GET", CONFIG),
    ("PUT", CONFIG),
    ("DELETE", CONFIG),
    ("GET", VOLUMES),
    ("GET", VOLUME),
    ("POST", VOLUME),
    ("DELETE", VOLUME),
    ("POST", VOLUME_EXPORT),
    ("POST", VOLUME_IMPORT),
    ("GET", REPLICAS),
    ("GET", CONVERGENCE),
    ("GET", ROUTES),
    ("GET", METRICS),
    ("POST", TICKET),
    ("POST", LEAVE),
    ("GET", DOCTOR),
    ("GET", EVENTS),
    ("GET", STATS),
];

/// A service's template with its names filled in. Both are DNS labels and need no escaping.
pub fn service(template: &str, key: &ServiceKey) -> String {
    template
        .replace("{namespace}", key.namespace())
        .replace("{name}", key.name())
}

/// The path of all secrets or configs.
pub const fn items(kind: ItemKind) -> &'static str {
    match kind {
        ItemKind::Secret => SECRETS,
        ItemKind::Config => CONFIGS,
    }
}

/// The path of one secret or config.
pub fn item(kind: ItemKind, key: &ItemKey) -> String {
    let template = match kind {
        ItemKind::Secret => SECRET,
        ItemKind::Config => CONFIG,
    };
    template
        .replace("{namespace}", key.namespace())
        .replace("{name}", key.name())
}

/// A volume's template with its name filled in.
pub fn volume(template: &str, volume: &VolumeId) -> String {
    template
        .replace("{namespace}", volume.namespace())
        .replace("{volume}", &escape(&volume.local_name()))
}

/// The path of a namespace's quota.
pub fn quota(namespace: &str) -> String {
    QUOTA.replace("{name}", &escape(namespace))
}

/// A node's template with a word for the node filled in: its id, a unique beginning of that, or
/// its name.
pub fn node(template: &str, node: &str) -> String {
    template.replace("{node}", &escape(node))
}

/// Percent-encodes everything but RFC 3986's unreserved characters, so that any word is one path
/// segment or one query value.
pub fn escape(text: &str) -> String {
    use std::fmt::Write;
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}
