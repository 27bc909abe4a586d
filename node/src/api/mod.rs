//! The API server: HTTP with JSON on a Unix socket.
//!
//! Handlers are short: they turn a request into commands or a question for the engine, and the
//! answer into the types of `dunlin-api`. What a person may do is decided by who can open the
//! socket (its file mode, and the kernel's word on the peer), and from afar by their certificate
//! ([`access`]).

mod access;
mod asked;
mod authority;
mod events;
mod exec;
mod failure;
mod gate;
mod items;
mod jobs;
mod local;
mod logs;
mod maintenance;
mod metrics;
mod namespaces;
mod node;
mod nodes;
mod plan;
mod rebalance;
mod redeem;
mod remote;
mod rollouts;
mod scaling;
mod server;
mod services;
mod stats;
mod traffic;
mod trust;
mod views;
mod volumes;

pub(crate) use access::Caller;
pub(crate) use asked::answer_peer;
pub(crate) use authority::{Authority, judge};
pub(crate) use events::EventLog;
pub(crate) use failure::Failure;
pub(crate) use gate::GateAuthority;
pub(crate) use logs::LogSource;
pub(crate) use node::{NodeInfo, alone};
pub(crate) use remote::TlsError;
pub(crate) use server::{ApiServer, BindError};
pub(crate) use traffic::Traffic;

use std::sync::Arc;

use axum::Router;
use axum::routing::{delete, get, post, put};
use dunlin_api::routes;
use tokio_util::sync::CancellationToken;

use crate::daemon::handle::EngineHandle;
use crate::secrets::SecretVault;
use crate::streams::Streams;

/// What every handler can reach.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) engine: EngineHandle,
    pub(crate) info: Arc<NodeInfo>,
    pub(crate) logs: LogSource,
    pub(crate) streams: Streams,
    pub(crate) events: EventLog,
    pub(crate) traffic: Traffic,
    /// Cancelled when the node has left its cluster and shall end.
    pub(crate) left: CancellationToken,
    /// Cancelled when an admin has removed the node.
    pub(crate) removed: CancellationToken,
    /// Holds the keys of secrets.
    pub(crate) vault: Arc<SecretVault>,
}

/// Who judges people from afar; nobody when the API is not served to other hosts.
#[derive(Clone)]
struct People(Option<Arc<dyn Authority>>);

/// Bodies above this are refused. A Compose file of a megabyte becomes less than this.
const MAX_BODY: usize = 4 << 20;

fn router(context: Context, people: People) -> Router {
    Router::new()
        .merge(of_services())
        .route(routes::HEALTH, get(node::health))
        .route(routes::REDEEM, post(redeem::redeem))
        .route(routes::VERSION, get(node::version))
        .route(routes::OPENAPI, get(node::openapi))
        .route(routes::NODE, get(node::status))
        .route(routes::NODES, get(nodes::list))
        .route(routes::NODE_AVAILABILITY, post(nodes::set_availability))
        .route(routes::NODE_LABELS, post(nodes::set_labels))
        .route(routes::NODE_MAINTENANCE, post(maintenance::set))
        .route(routes::DEPLOY, post(services::deploy))
        .route(routes::PLAN, post(plan::plan))
        .route(routes::REMOVE, post(services::remove_all))
        .route(routes::NAMESPACES, get(namespaces::list))
        .route(routes::QUOTA, put(namespaces::set_quota))
        .route(routes::REBALANCE, get(rebalance::plan).post(rebalance::set))
        .route(routes::JOBS, get(jobs::list))
        .route(routes::SECRETS, get(items::secrets::list))
        .route(
            routes::SECRET,
            get(items::secrets::inspect)
                .put(items::secrets::put)
                .delete(items::secrets::remove),
        )
        .route(routes::CONFIGS, get(items::configs::list))
        .route(
            routes::CONFIG,
            get(items::configs::inspect)
                .put(items::configs::put)
                .delete(items::configs::remove),
        )
        .route(routes::VOLUMES, get(volumes::list))
        .route(
            routes::VOLUME,
            get(volumes::inspect)
                .post(volumes::create)
                .delete(volumes::remove),
        )
        .route(routes::VOLUME_EXPORT, post(volumes::export))
        .route(routes::VOLUME_IMPORT, post(volumes::import))
        .route(routes::REPLICAS, get(services::replicas))
        .route(routes::CONVERGENCE, get(services::convergence))
        .route(routes::ROUTES, get(traffic::list))
        .route(routes::METRICS, get(metrics::show))
        .route(routes::TICKET, post(trust::ticket))
        .route(routes::NODE_MEMBER, delete(trust::remove))
        .route(routes::AUDIT, get(trust::audit))
        .route(routes::LEAVE, post(node::leave))
        .route(routes::DOCTOR, get(node::doctor))
        .route(routes::EVENTS, get(events::stream))
        .route(routes::STATS, get(stats::stream))
        .fallback(failure::no_such_route)
        .method_not_allowed_fallback(failure::no_such_method)
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY))
        .layer(axum::middleware::from_fn(access::authorize))
        .layer(axum::Extension(people))
        .with_state(context)
}

/// What is asked about services one by one.
fn of_services() -> Router<Context> {
    Router::new()
        .route(routes::SERVICES, get(services::list))
        .route(routes::SERVICE, get(services::inspect))
        .route(routes::SERVICE, delete(services::remove))
        .route(routes::SERVICE_SCALE, post(services::scale))
        .route(routes::SERVICE_STOP, post(services::stop))
        .route(routes::SERVICE_START, post(services::start))
        .route(routes::SERVICE_EXPLAIN, get(services::explain))
        .route(routes::SERVICE_HISTORY, get(services::history))
        .route(routes::SERVICE_REVISIONS, get(rollouts::revisions))
        .route(
            routes::SERVICE_ROLLOUT,
            get(rollouts::status).post(rollouts::steer),
        )
        .route(routes::SERVICE_RUNS, post(jobs::ask))
        .route(routes::SERVICE_RUN, delete(jobs::cancel))
        .route(routes::SERVICE_LOGS, get(logs::stream))
        .route(routes::SERVICE_EXEC, post(exec::exec))
}
