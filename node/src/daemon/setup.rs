//! Building the parts of a node, in the order in which they depend on each other.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dunlin_api::DnsStatus;
use dunlin_core::engine::Engine;
use dunlin_core::io::{Effect, RuntimeCommand, RuntimeEvent};
use dunlin_dns::{DnsServer, Suffix};
use dunlin_gossip::net::{Control, Net, NetConfig, NetTasks, NodeSeed};
use dunlin_lb::Publisher;
use dunlin_lb::proxy::hop::{Hop, HopConfig, HopTask};
use dunlin_lb::publish::Sockets;
use dunlin_state::model::NodeId;
use dunlin_state::route::RouteTable;
use dunlin_trust::{SecretKey, Ticket};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::UpError;
use super::clock::Clock;
use super::driver::{Driver, Inbox, Outbox, PeerRequest};
use super::handle::{EngineHandle, Request};
use super::joining::Joining;
use super::measuring::Measuring;
use super::naming::{self, Naming};
use super::own::{Own, absolute, invitation, of_this_host_only, settle};
use super::peers::{self, PeerDesk};
use super::publishing;
use super::recovery::recover;
use super::trust::{Keeper, Trustee};
use crate::api::{ApiServer, Context, EventLog, GateAuthority, LogSource, NodeInfo, Traffic};
use crate::config::UpConfig;
use crate::handover::{self, Handover};
use crate::identity::Identity;
use crate::runtime::{Runtimes, RuntimesConfig, RuntimesHandle, VolumeRoot};
use crate::secrets::{KeyKeeper, SecretVault};
use crate::store::{Store, Written};
use crate::streams::{self, Desk, StreamDesk, Streams, Visitor};
use crate::supervisor;
use crate::vips::{Owner, Vips};

/// Commands that may wait for the runtimes: a node with thousands of replicas starts them all.
const COMMANDS: usize = 8_192;
/// News of the runtimes that may wait for the engine.
const NEWS: usize = 1_024;
/// Answers of the disk that may wait for the engine.
const WRITTEN: usize = 1_024;
/// How long a goodbye may travel before the sockets close.
pub(super) const GOODBYE: Duration = Duration::from_millis(500);

/// A node, built and not started.
pub(super) struct Parts {
    pub(super) context: Context,
    pub(super) api: ApiServer,
    pub(super) driver: Driver,
    pub(super) first: Vec<Effect>,
    pub(super) runtimes: Runtimes,
    pub(super) commands: mpsc::Receiver<RuntimeCommand>,
    pub(super) events: mpsc::Sender<RuntimeEvent>,
    pub(super) desks: (PeerDesk, StreamDesk),
    pub(super) joining: Joining,
    pub(super) keeper: Keeper,
    pub(super) key_keeper: KeyKeeper,
    pub(super) measuring: Measuring,
    pub(super) net: NetTasks,
    pub(super) routes: watch::Receiver<Arc<RouteTable>>,
    pub(super) dns: Option<(DnsServer, Suffix)>,
    pub(super) publisher: Publisher,
    pub(super) hop: HopTask,
    pub(super) vips: Vips,
    pub(super) handover: Arc<Handover>,
    pub(super) identity: Identity,
}

pub(super) async fn build(mut config: UpConfig, started: Instant) -> Result<Parts, UpError> {
    config.data_dir = absolute(config.data_dir)?;
    let clock = Clock::start();
    let invitation = invitation(config.join.as_deref())?;
    let (me, membership) = settle(&config, invitation.as_ref())?;
    let api_path = config
        .api
        .clone()
        .unwrap_or_else(|| config.data_dir.join("api.sock"));
    let api = ApiServer::bind(&api_path, config.api_group.as_deref())?;
    let authority = Arc::new(GateAuthority::new(SecretKey::from_seed(me.seed)));
    let api = api_for_others(api, &config, &authority).await?;
    let (vips, mut succession) = succeed(&config, &me).await?;
    let mut notes: Vec<String> = vips.note.clone().into_iter().collect();
    let naming = naming::bind(&config, vips.range, &mut succession.inherited, &mut notes).await?;
    if let Some(naming) = &naming {
        succession.handover.keep(naming.sockets());
    }
    let (written_tx, written) = mpsc::channel(WRITTEN);
    let (vault, key_keeper) = vault(&config, &me);
    let (runtimes, runtimes_handle) = Runtimes::open(RuntimesConfig {
        vault: Some(Arc::clone(&vault)),
        resolver: naming.as_ref().and_then(Naming::resolver),
        names: naming.as_ref().and_then(Naming::for_processes),
        ..runtimes_config(&config, &me)
    })
    .await?;
    let (store, engine, first, mended) = recover(
        &config,
        &me,
        &runtimes_handle,
        vips.range,
        written_tx,
        clock,
    )?;
    let gatekeeper = me.belonging.gatekeeper();
    let net = Net::start(NetConfig {
        seed: NodeSeed(me.seed),
        boot: me.member.boot,
        gatekeeper: gatekeeper.ok_or(UpError::Nobody)?,
        membership,
        mdns: config.mdns && !of_this_host_only(&config, me.member.address),
    })?;
    authority.open(net.trust.clone());
    announce(&me, &api_path, invitation.is_some());
    notes.extend(mended);
    let info = NodeInfo {
        notes,
        dns: naming.as_ref().map(told),
        asked: asked(&engine, invitation.as_ref(), me.member.address),
        ..info(&config, &me, api_path, started, &runtimes_handle)
    };
    let built = Built {
        me,
        clock,
        api,
        naming,
        runtimes: (runtimes, runtimes_handle),
        store,
        engine: (engine, first),
        written,
        net,
        vips,
        secrets: (vault, key_keeper),
        authority,
        succession,
    };
    assemble(built, info, invitation.as_ref())
}

/// Parts that exist and do not know each other yet.
struct Built {
    me: Own,
    clock: Clock,
    api: ApiServer,
    naming: Option<Naming>,
    runtimes: (Runtimes, RuntimesHandle),
    store: Store,
    engine: (Engine, Vec<Effect>),
    written: mpsc::Receiver<Written>,
    net: Net,
    vips: Vips,
    secrets: (Arc<SecretVault>, KeyKeeper),
    authority: Arc<GateAuthority>,
    succession: Succession,
}

/// What the daemon before has left, and what is left to the next one.
struct Succession {
    inherited: Sockets,
    handover: Arc<Handover>,
}

fn context(
    engine: EngineHandle,
    info: NodeInfo,
    (logs, streams): (LogSource, Streams),
    (events, traffic): (EventLog, Traffic),
    (removed, left): (CancellationToken, CancellationToken),
    vault: Arc<SecretVault>,
) -> Context {
    Context {
        engine,
        info: Arc::new(info),
        logs,
        streams,
        events,
        traffic,
        left,
        removed,
        vault,
    }
}

/// What serves other nodes, and what asks them, for people.
struct Desks {
    requests: mpsc::Sender<PeerRequest>,
    visitors: mpsc::Sender<Visitor>,
    tasks: (PeerDesk, StreamDesk),
    reach: (LogSource, Streams),
}

impl Desks {
    fn new(
        (node, name, runtimes, engine): (NodeId, String, RuntimesHandle, EngineHandle),
        (authority, volumes): (Arc<GateAuthority>, VolumeRoot),
        events: &EventLog,
        control: &Control,
    ) -> Self {
        let desk = Desk {
            node,
            name,
            runtimes,
            engine,
            authority,
            events: events.clone(),
            volumes,
        };
        let (requests, asked) = mpsc::channel(peers::QUEUE);
        let (visitors, visits) = mpsc::channel(streams::QUEUE);
        let peers = PeerDesk {
            requests: asked,
            runtimes: desk.runtimes.clone(),
            engine: desk.engine.clone(),
            node: desk.node,
        };
        let logs = LogSource {
            node: desk.node,
            runtimes: desk.runtimes.clone(),
            control: control.clone(),
        };
        let streams = Streams {
            node: desk.node,
            control: control.clone(),
            desk: visitors.clone(),
        };
        let served = StreamDesk {
            visitors: visits,
            desk,
        };
        Self {
            requests,
            visitors,
            tasks: (peers, served),
            reach: (logs, streams),
        }
    }
}

/// Connects the parts by bounded queues.
fn assemble(built: Built, info: NodeInfo, invitation: Option<&Ticket>) -> Result<Parts, UpError> {
    let (me, net, mut succession) = (built.me, built.net, built.succession);
    let (runtimes, runtimes_handle) = built.runtimes;
    let (engine, first) = built.engine;
    let (vault, key_keeper) = built.secrets;
    let (node, dir) = (me.member.node, info.data_dir.clone());
    let ends = (CancellationToken::new(), succession.handover.left());
    let (trustee, belonging) = Trustee::new(me.belonging, net.trust.clone(), ends.0.clone());
    let (handle, requests) = handle_that_joins(invitation, me.member.address);
    let (commands_tx, commands) = mpsc::channel(COMMANDS);
    let (events_tx, events) = mpsc::channel(NEWS);
    let (routes_tx, routes) = watch::channel(Arc::new(RouteTable::default()));
    let event_log = EventLog::new();
    let own = (node, me.seed, me.publish_ip);
    let seen = (&event_log, &runtimes_handle, built.naming.as_ref());
    let (publisher, hop, traffic) = proxies(own, me.data_plane, &routes, seen, &mut succession)?;
    let (followed, measuring) = Measuring::new(&handle, &runtimes_handle, &traffic.proxies);
    let own_side = (node, me.name, runtimes_handle.clone(), handle.clone());
    let held = (built.authority, VolumeRoot::below(&dir));
    let desks = Desks::new(own_side, held, &event_log, &net.control);
    let inbox = Inbox {
        requests,
        datagrams: net.received,
        control: net.events,
        gate: net.gate,
        runtime: events,
        written: built.written,
        offer: runtimes_handle.watch(),
    };
    let outbox = Outbox {
        datagrams: net.datagrams,
        control: net.control.clone(),
        runtime: commands_tx,
        store: built.store,
        peer_requests: desks.requests,
        streams: desks.visitors,
        routes: routes_tx,
        followed,
        events: event_log.clone(),
        vault: Arc::clone(&vault),
    };
    let (own, asked) = (me.member.address, info.asked.clone());
    let joining = Joining::new((&handle, &event_log), &net.control, net.trust, own, asked);
    let served = (event_log, traffic);
    let context = context(handle, info, desks.reach, served, ends, vault);
    Ok(Parts {
        handover: succession.handover,
        context,
        api: built.api,
        driver: Driver::new(engine, built.clock, inbox, outbox, trustee),
        first,
        runtimes,
        commands,
        events: events_tx,
        dns: built
            .naming
            .map(|n| n.serving(routes.clone(), runtimes_handle.clone())),
        desks: desks.tasks,
        joining,
        keeper: Keeper { belonging, dir },
        key_keeper,
        measuring,
        net: net.tasks,
        routes,
        publisher,
        hop,
        vips: built.vips,
        identity: me.identity,
    })
}

/// What people are told of the DNS server.
fn told(naming: &Naming) -> DnsStatus {
    let addresses = naming.addresses();
    DnsStatus {
        addresses: addresses.iter().map(ToString::to_string).collect(),
        suffix: naming.suffix().to_string(),
        for_replicas: naming.resolver().map(|r| r.address.to_string()),
    }
}

/// The proxies of this node, and the way to those of others.
fn proxies(
    (node, seed, publish_ip): (NodeId, [u8; 32], IpAddr),
    socket: UdpSocket,
    routes: &watch::Receiver<Arc<RouteTable>>,
    (events, runtimes, names): (&EventLog, &RuntimesHandle, Option<&Naming>),
    succession: &mut Succession,
) -> Result<(Publisher, HopTask, Traffic), UpError> {
    let places = dunlin_lb::publish::room();
    let config = HopConfig { node, seed, socket };
    let (hop, task) = Hop::new(config, routes.clone(), Arc::clone(&places))?;
    let publisher = publishing::publisher(publish_ip, node, events.clone());
    let publisher = publisher.hop(node, Arc::clone(&hop), places);
    let handover = Arc::clone(&succession.handover);
    let publisher = publisher
        .origins(Arc::new(runtimes.clone()))
        .inherit(std::mem::take(&mut succession.inherited))
        .hand_over(move |sockets| handover.pass(sockets));
    let traffic = Traffic {
        routes: routes.clone(),
        proxies: publisher.views(),
        hop,
        names: names.map(Naming::counters),
    };
    Ok((publisher, task, traffic))
}

/// Where other members should be: at the ticket's addresses, and where they were before.
fn asked(engine: &Engine, invitation: Option<&Ticket>, own: SocketAddr) -> Vec<SocketAddr> {
    let invited = invitation.iter().flat_map(|t| t.addresses.iter().copied());
    let mut asked: Vec<SocketAddr> = invited.chain(engine.known_addresses()).collect();
    asked.retain(|address| *address != own);
    asked.sort_unstable();
    asked.dedup();
    asked
}

/// A handle whose first requests are to join through the ticket's addresses.
fn handle_that_joins(
    invitation: Option<&Ticket>,
    own: SocketAddr,
) -> (EngineHandle, mpsc::Receiver<Request>) {
    let (engine, requests) = EngineHandle::new();
    let addresses = invitation.iter().flat_map(|t| &t.addresses);
    for address in addresses.filter(|a| **a != own) {
        // The queue is empty and larger than a ticket, so this is not refused.
        if let Err(error) = engine.join(*address) {
            tracing::warn!(%error, "cannot ask to join");
        }
    }
    (engine, requests)
}

fn announce(me: &Own, api: &Path, joining: bool) {
    tracing::info!(
        node = %me.member.node.short(),
        name = me.name,
        address = %me.member.address,
        cluster = me.belonging.name(),
        api = %api.display(),
        "{}",
        if joining { "up, joining" } else { "up" }
    );
}

fn info(
    config: &UpConfig,
    me: &Own,
    api: PathBuf,
    started: Instant,
    runtimes: &RuntimesHandle,
) -> NodeInfo {
    NodeInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster: me.belonging.cluster,
        address: me.member.address,
        api,
        profile: format!("{:?}", config.profile).to_lowercase(),
        data_dir: config.data_dir.clone(),
        started,
        notes: Vec::new(),
        asked: Vec::new(),
        dns: None,
        runtimes: runtimes.clone(),
    }
}

/// Takes what the daemon before has left. Only now that nobody else has the data directory.
async fn succeed(config: &UpConfig, me: &Own) -> Result<(Vips, Succession), UpError> {
    let mut inherited = handover::take(&config.data_dir);
    let vips = settle_vips(config, me, &mut inherited).await?;
    let handover = Arc::new(Handover::new(&config.data_dir, config.hand_over, &vips));
    let succession = Succession {
        inherited,
        handover,
    };
    Ok((vips, succession))
}

async fn settle_vips(
    config: &UpConfig,
    me: &Own,
    inherited: &mut Sockets,
) -> Result<Vips, UpError> {
    let owner = Owner {
        node: me.member.node,
        cluster: me.belonging.cluster.0,
        loopback: of_this_host_only(config, me.member.address),
    };
    let vips = Vips::settle(config.vip_cidr, owner, inherited).await?;
    if let Some(note) = &vips.note {
        tracing::warn!("{note}");
    }
    Ok(vips)
}

async fn api_for_others(
    api: ApiServer,
    config: &UpConfig,
    authority: &Arc<GateAuthority>,
) -> Result<ApiServer, UpError> {
    match config.api_listen {
        Some(address) => Ok(api.and_remote(address, authority.clone()).await?),
        None => Ok(api),
    }
}

fn vault(config: &UpConfig, me: &Own) -> (Arc<SecretVault>, KeyKeeper) {
    SecretVault::open(SecretKey::from_seed(me.seed), &config.data_dir)
}

fn runtimes_config(config: &UpConfig, me: &Own) -> RuntimesConfig {
    // A daemon whose file was deleted (an upgrade in progress) still finds itself.
    let own = std::env::current_exe().unwrap_or_else(|_gone| PathBuf::from("/proc/self/exe"));
    RuntimesConfig {
        node: me.member.node,
        cluster: me.belonging.name(),
        data_dir: config.data_dir.clone(),
        advertise: me.member.address.ip(),
        supervisor_command: vec![own.into_os_string(), supervisor::SUBCOMMAND.into()],
        allowed: config.runtime,
        resolver: None,
        names: None,
        vault: None,
        docker_socket: None,
    }
}
