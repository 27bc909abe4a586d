//! The typed client: one method per route, over HTTP/1.1 on the node's Unix socket, or from another
//! host over TLS.
//!
//! Every call opens its own connection, which on a Unix socket costs tens of microseconds and over
//! TLS two round trips, so that there is no pool to go stale when the daemon restarts. Nothing waits for ever: connecting and
//! answering have deadlines, and only a stream that follows may be silent for long.

mod connection;
mod credentials;
mod error;
mod exec;
mod host;
mod lines;
mod redeem;
#[cfg(test)]
mod tests;

use std::time::Duration;

use dunlin_state::model::{ItemKey, ItemKind, Quota, RunId, ServiceKey, VolumeId};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use credentials::Credentials;
pub use error::ClientError;
pub use exec::{ExecInput, ExecOutput};
pub use host::Host;
pub use lines::Lines;
pub use redeem::Redeemed;

use crate::*;

/// A client of one node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    host: Host,
    timeout: Duration,
    credentials: Option<Credentials>,
}

impl Client {
    /// How long a call may take by default: a deploy waits for the node's disk, which on a worn SD
    /// card can be seconds.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

    /// A client of the node at `host`, such as `unix:///run/dunlin/api.sock`. Nothing is contacted.
    pub fn from_host(host: &str) -> Result<Self, ClientError> {
        Ok(Self::new(host.parse()?))
    }

    /// A client of the node at `host`. Nothing is contacted.
    pub fn new(host: Host) -> Self {
        Self {
            host,
            timeout: Self::DEFAULT_TIMEOUT,
            credentials: None,
        }
    }

    /// The same with a key and a certificate, which nodes on other hosts ask for.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// The same with another deadline for each call.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Whom it talks to.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// What software answers.
    pub async fn version(&self) -> Result<VersionInfo, ClientError> {
        self.get(routes::VERSION).await
    }

    /// The node that answers, in detail.
    pub async fn node(&self) -> Result<NodeStatus, ClientError> {
        self.get(routes::NODE).await
    }

    /// All nodes.
    pub async fn nodes(&self) -> Result<Vec<Node>, ClientError> {
        let list: NodeList = self.get(routes::NODES).await?;
        Ok(list.nodes)
    }

    /// Cordons, drains or re-activates a node, named by its id, a unique beginning of that, or its
    /// name.
    pub async fn set_availability(
        &self,
        node: &str,
        request: AvailabilityRequest,
    ) -> Result<ChangeResponse, ClientError> {
        let path = routes::node(routes::NODE_AVAILABILITY, node);
        self.post(&path, &request).await
    }

    /// Changes the labels that the cluster gives a node.
    pub async fn set_labels(
        &self,
        node: &str,
        request: &LabelsRequest,
    ) -> Result<ChangeResponse, ClientError> {
        let path = routes::node(routes::NODE_LABELS, node);
        self.post(&path, request).await
    }

    /// Changes when a node is worked on.
    pub async fn set_maintenance(
        &self,
        node: &str,
        request: &MaintenanceRequest,
    ) -> Result<ChangeResponse, ClientError> {
        let path = routes::node(routes::NODE_MAINTENANCE, node);
        self.post(&path, request).await
    }

    /// Creates services or gives them new specifications, all or none.
    pub async fn deploy(&self, request: &DeployRequest) -> Result<DeployResponse, ClientError> {
        self.post(routes::DEPLOY, request).await
    }

    /// All namespaces.
    pub async fn namespaces(&self) -> Result<Vec<NamespaceSummary>, ClientError> {
        let list: NamespaceList = self.get(routes::NAMESPACES).await?;
        Ok(list.namespaces)
    }

    /// Bounds what the services of a namespace may reserve together.
    pub async fn set_quota(
        &self,
        namespace: &str,
        quota: &Quota,
    ) -> Result<ChangeResponse, ClientError> {
        let body = serde_json::to_vec(quota).map_err(ClientError::Unwritable)?;
        self.call("PUT", &routes::quota(namespace), Some(body))
            .await
    }

    /// What would be moved so that nodes are evenly used.
    pub async fn rebalance_plan(&self) -> Result<RebalancePlan, ClientError> {
        self.get(routes::REBALANCE).await
    }

    /// Has replicas moved, or says whether they move by themselves.
    pub async fn rebalance(
        &self,
        request: &RebalanceRequest,
    ) -> Result<ChangeResponse, ClientError> {
        self.post(routes::REBALANCE, request).await
    }

    /// Removes services, all or none.
    pub async fn remove_all(&self, request: &RemoveRequest) -> Result<ChangeResponse, ClientError> {
        self.post(routes::REMOVE, request).await
    }

    /// What a deploy would do; nothing is changed.
    pub async fn plan(&self, request: &DeployRequest) -> Result<DeployPlan, ClientError> {
        self.post(routes::PLAN, request).await
    }

    /// Services.
    pub async fn services(&self, query: &ServiceQuery) -> Result<Vec<ServiceSummary>, ClientError> {
        let list: ServiceList = self.get(&with_query(routes::SERVICES, query)).await?;
        Ok(list.services)
    }

    /// A service in full.
    pub async fn inspect(&self, service: &ServiceKey) -> Result<ServiceDetail, ClientError> {
        self.get(&routes::service(routes::SERVICE, service)).await
    }

    /// Changes the number of replicas.
    pub async fn scale(
        &self,
        service: &ServiceKey,
        replicas: u32,
    ) -> Result<ChangeResponse, ClientError> {
        let path = routes::service(routes::SERVICE_SCALE, service);
        self.post(&path, &ScaleRequest { replicas }).await
    }

    /// Stops all replicas and keeps the service.
    pub async fn stop(&self, service: &ServiceKey) -> Result<ChangeResponse, ClientError> {
        let path = routes::service(routes::SERVICE_STOP, service);
        self.post(&path, &Empty {}).await
    }

    /// Starts a stopped service.
    pub async fn start(&self, service: &ServiceKey) -> Result<ChangeResponse, ClientError> {
        let path = routes::service(routes::SERVICE_START, service);
        self.post(&path, &Empty {}).await
    }

    /// Removes a service with its replicas.
    pub async fn remove(&self, service: &ServiceKey) -> Result<ChangeResponse, ClientError> {
        let path = routes::service(routes::SERVICE, service);
        self.call("DELETE", &path, None).await
    }

    /// Secrets or configs, without what they hold.
    pub async fn items(
        &self,
        kind: ItemKind,
        query: &ItemQuery,
    ) -> Result<Vec<ItemSummary>, ClientError> {
        let list: ItemList = self.get(&with_query(routes::items(kind), query)).await?;
        Ok(list.items)
    }

    /// A secret or config in full.
    pub async fn item(&self, kind: ItemKind, key: &ItemKey) -> Result<ItemDetail, ClientError> {
        self.get(&routes::item(kind, key)).await
    }

    /// Creates a secret or config, or gives it another content or labels.
    pub async fn put_item(
        &self,
        kind: ItemKind,
        key: &ItemKey,
        request: &ItemRequest,
    ) -> Result<ChangeResponse, ClientError> {
        let body = serde_json::to_vec(request).map_err(ClientError::Unwritable)?;
        self.call("PUT", &routes::item(kind, key), Some(body)).await
    }

    /// Removes a secret or config that no service uses.
    pub async fn remove_item(
        &self,
        kind: ItemKind,
        key: &ItemKey,
    ) -> Result<ChangeResponse, ClientError> {
        self.call("DELETE", &routes::item(kind, key), None).await
    }

    /// Replicas, and slots that nobody holds.
    pub async fn replicas(&self, query: &ReplicaQuery) -> Result<ReplicaList, ClientError> {
        self.get(&with_query(routes::REPLICAS, query)).await
    }

    /// Why a service is as it is.
    pub async fn explain(&self, service: &ServiceKey) -> Result<Explanation, ClientError> {
        let path = routes::service(routes::SERVICE_EXPLAIN, service);
        self.get(&path).await
    }

    /// Who changed what about a service.
    pub async fn history(&self, service: &ServiceKey) -> Result<History, ClientError> {
        let path = routes::service(routes::SERVICE_HISTORY, service);
        self.get(&path).await
    }

    /// The specifications that a service had and has.
    pub async fn revisions(&self, service: &ServiceKey) -> Result<RevisionList, ClientError> {
        let path = routes::service(routes::SERVICE_REVISIONS, service);
        self.get(&path).await
    }

    /// Has a job run now.
    pub async fn run_job(&self, job: &ServiceKey) -> Result<RunResponse, ClientError> {
        let path = routes::service(routes::SERVICE_RUNS, job);
        self.post(&path, &Empty {}).await
    }

    /// Ends a run of a job, or keeps it from beginning.
    pub async fn cancel_run(
        &self,
        job: &ServiceKey,
        run: &RunId,
    ) -> Result<ChangeResponse, ClientError> {
        let path = routes::service(routes::SERVICE_RUN, job).replace("{run}", &run.to_string());
        self.call("DELETE", &path, None).await
    }

    /// Jobs and their runs.
    pub async fn jobs(&self, query: &JobQuery) -> Result<Vec<JobSummary>, ClientError> {
        let list: JobList = self.get(&with_query(routes::JOBS, query)).await?;
        Ok(list.jobs)
    }

    /// How far a rollout is.
    pub async fn rollout(&self, service: &ServiceKey) -> Result<RolloutStatus, ClientError> {
        let path = routes::service(routes::SERVICE_ROLLOUT, service);
        self.get(&path).await
    }

    /// Steers a rollout.
    pub async fn steer(
        &self,
        service: &ServiceKey,
        step: RolloutStep,
    ) -> Result<ChangeResponse, ClientError> {
        let path = routes::service(routes::SERVICE_ROLLOUT, service);
        self.post(&path, &RolloutRequest { step }).await
    }

    /// How far the cluster is from what is wanted.
    pub async fn convergence(
        &self,
        query: &ConvergenceQuery,
    ) -> Result<Vec<ServiceProgress>, ClientError> {
        let answer: Convergence = self.get(&with_query(routes::CONVERGENCE, query)).await?;
        Ok(answer.services)
    }

    /// What the replicas of a service wrote.
    pub async fn logs(
        &self,
        service: &ServiceKey,
        query: &LogQuery,
    ) -> Result<Lines<LogRecord>, ClientError> {
        let path = routes::service(routes::SERVICE_LOGS, service);
        self.stream(&with_query(&path, query)).await
    }

    /// Runs a command beside a replica. The first frame of the output is [`ExecFrame::Started`];
    /// the command ends when the output is dropped.
    pub async fn exec(
        &self,
        service: &ServiceKey,
        start: ExecStart,
    ) -> Result<(ExecInput, ExecOutput), ClientError> {
        let path = routes::service(routes::SERVICE_EXEC, service);
        let first = ExecFrame::Start(Box::new(start));
        tokio::time::timeout(self.timeout, exec::open(self, &path, &first))
            .await
            .map_err(|_elapsed| self.too_late())?
    }

    /// What replicas use.
    pub async fn stats(&self, query: &StatsQuery) -> Result<Lines<StatsRecord>, ClientError> {
        self.stream(&with_query(routes::STATS, query)).await
    }

    /// What the node saw happen.
    pub async fn events(&self, query: &EventQuery) -> Result<Lines<EventRecord>, ClientError> {
        self.stream(&with_query(routes::EVENTS, query)).await
    }

    /// Where the node's proxies and DNS server lead now.
    pub async fn routes(&self, query: &RouteQuery) -> Result<RouteList, ClientError> {
        self.get(&with_query(routes::ROUTES, query)).await
    }

    /// What the node counts, as Prometheus reads it; [`parse_metrics`] reads it too.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let bytes = self.bytes("GET", routes::METRICS, None).await?;
        String::from_utf8(bytes.into()).map_err(|error| self.garbled(&error))
    }

    /// A ticket with which another host may join.
    pub async fn ticket(&self, request: &TicketRequest) -> Result<Ticket, ClientError> {
        self.post(routes::TICKET, request).await
    }

    /// Removes a node's key from the cluster for good.
    pub async fn remove_node(
        &self,
        node: &str,
        query: &RemoveQuery,
    ) -> Result<ChangeResponse, ClientError> {
        let path = with_query(&routes::node(routes::NODE_MEMBER, node), query);
        self.call("DELETE", &path, None).await
    }

    /// Who changed what, with which key.
    pub async fn audit(&self) -> Result<AuditList, ClientError> {
        self.get(routes::AUDIT).await
    }

    /// The node says goodbye for good and its daemon ends.
    pub async fn leave(&self) -> Result<ChangeResponse, ClientError> {
        self.post(routes::LEAVE, &Empty {}).await
    }

    /// How well the node is set up.
    pub async fn doctor(&self) -> Result<DoctorReport, ClientError> {
        self.get(routes::DOCTOR).await
    }

    /// Turns a ticket for a person into a certificate, with the key of the credentials. Answers
    /// with the cluster's root key and the certificates that lead to the key, both verified.
    pub async fn redeem(&self, ticket: &dunlin_trust::Ticket) -> Result<Redeemed, ClientError> {
        tokio::time::timeout(self.timeout, redeem::redeem(self, ticket))
            .await
            .map_err(|_elapsed| self.too_late())?
    }

    /// Volumes, of one namespace or of all.
    pub async fn volumes(&self, query: &VolumeQuery) -> Result<Vec<Volume>, ClientError> {
        let path = with_query(routes::VOLUMES, query);
        let list: VolumeList = self.get(&path).await?;
        Ok(list.volumes)
    }

    /// One volume.
    pub async fn volume(&self, volume: &VolumeId) -> Result<Volume, ClientError> {
        self.get(&routes::volume(routes::VOLUME, volume)).await
    }

    /// Deletes the data of a volume that no service names, on all nodes or on one. It may take as long
    /// as the deleting.
    pub async fn remove_volume(
        &self,
        volume: &VolumeId,
        target: &VolumeTarget,
    ) -> Result<VolumeRemoval, ClientError> {
        let path = with_query(&routes::volume(routes::VOLUME, volume), target);
        self.call("DELETE", &path, None).await
    }

    /// Begins an empty volume, unless it is there.
    pub async fn create_volume(
        &self,
        volume: &VolumeId,
        target: &VolumeTarget,
    ) -> Result<VolumeCreated, ClientError> {
        let path = with_query(&routes::volume(routes::VOLUME, volume), target);
        self.call("POST", &path, None).await
    }

    /// Asks for the data of a volume. The input is to be kept until the end.
    pub async fn export_volume(
        &self,
        volume: &VolumeId,
        target: &VolumeTarget,
    ) -> Result<(ExecInput, ExecOutput), ClientError> {
        self.transfer(routes::VOLUME_EXPORT, volume, target).await
    }

    /// Offers data for a volume: pieces of input and the end of it follow.
    pub async fn import_volume(
        &self,
        volume: &VolumeId,
        target: &VolumeTarget,
    ) -> Result<(ExecInput, ExecOutput), ClientError> {
        self.transfer(routes::VOLUME_IMPORT, volume, target).await
    }

    async fn transfer(
        &self,
        template: &str,
        volume: &VolumeId,
        target: &VolumeTarget,
    ) -> Result<(ExecInput, ExecOutput), ClientError> {
        let path = with_query(&routes::volume(template, volume), target);
        tokio::time::timeout(self.timeout, exec::open(self, &path, &ExecFrame::Ping))
            .await
            .map_err(|_elapsed| self.too_late())?
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call("GET", path, None).await
    }

    async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(ClientError::Unwritable)?;
        self.call("POST", path, Some(body)).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, ClientError> {
        let answer = self.bytes(method, path, body).await?;
        serde_json::from_slice(&answer).map_err(|error| self.garbled(&error))
    }

    async fn bytes(
        &self,
        method: &str,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<bytes::Bytes, ClientError> {
        let call = connection::call(self, method, path, body);
        tokio::time::timeout(self.timeout, call)
            .await
            .map_err(|_elapsed| self.too_late())?
    }

    fn garbled(&self, error: &dyn std::error::Error) -> ClientError {
        ClientError::Garbled {
            host: self.host.clone(),
            detail: error.to_string(),
        }
    }

    async fn stream<T: DeserializeOwned>(&self, path: &str) -> Result<Lines<T>, ClientError> {
        tokio::time::timeout(self.timeout, connection::open(self, path))
            .await
            .map_err(|_elapsed| self.too_late())?
    }

    fn too_late(&self) -> ClientError {
        ClientError::TooLate {
            host: self.host.clone(),
            after: self.timeout,
        }
    }
}

/// The body of requests that say all by their path: `{}`.
#[derive(Serialize)]
struct Empty {}

/// Appends a flat struct's present fields as a query.
fn with_query<Q: Serialize>(path: &str, query: &Q) -> String {
    let mut text = path.to_owned();
    let mut sign = '?';
    if let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(query) {
        for (name, value) in fields {
            let value = match value {
                serde_json::Value::Null => continue,
                serde_json::Value::String(text) => text,
                other => other.to_string(),
            };
            text.push(sign);
            text.push_str(&name);
            text.push('=');
            text.push_str(&routes::escape(&value));
            sign = '&';
        }
    }
    text
}
