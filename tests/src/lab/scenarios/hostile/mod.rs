//! Peers that mean harm, against real daemons: strangers, a member that lies, one that was removed
//! and goes on, connections without end and bytes that mean nothing. After each of them the honest
//! nodes see each other, nothing has moved, API, DNS and the published port answer, and no daemon
//! has grown by more than 20 MB.

mod flood;
mod lies;
mod mallory;
mod peace;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use dunlin_api::{ItemRequest, NodeState, RemoveQuery, TicketRequest};
use dunlin_core::wire::PeerMessage;
use dunlin_gossip::membership::{Input, MemberState};
use dunlin_state::model::{
    Constraint, ConstraintOp, FileMount, ItemKey, ItemKind, Placement, ServiceKey, ServiceSpec,
};
use dunlin_trust::{ClusterId, SecretKey, Standing, Ticket, Welcome, issue_node};

use self::flood::{Doors, throw};
use self::lies::{LIES, Lie};
use self::mallory::{Mallory, Role, fresh, seconds};
use self::peace::{Honest, Peace};
use super::{deploy, exactly, get, remove, whoami};
use crate::lab::daemon::API_PORT;
use crate::lab::net::LabError;
use crate::lab::resolve::SERVER;
use crate::lab::{Figures, Lab, eventually};

/// Where the lab itself lives on the hosts' bridge.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 98, 0, 254));

/// Published on every host.
const PUBLISHED: u16 = 8_080;

/// A service that its specification gives to the first host, and its secret.
const KEEPER: &str = "keeper";
const GUARDED: &str = "default/guarded";

/// What liars would like to run.
const EVIL: &str = "evil";

/// Replicas of the service that everybody may run.
const REPLICAS: usize = 6;

/// How long a conversation may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a lie is told again when something has moved, because that can be bad luck: a host
/// that was too busy to answer.
const AGAIN: usize = 3;

/// How much is thrown at each port.
#[derive(Debug, Clone, Copy)]
pub(super) struct Force {
    bytes: usize,
    connections: usize,
}

impl Force {
    /// Seconds' worth.
    pub(super) const SHORT: Self = Self {
        bytes: 4 << 20,
        connections: 300,
    };
    /// What the project wants to stand.
    pub(super) const WHOLE: Self = Self {
        bytes: 100 << 20,
        connections: 10_000,
    };
}

pub(super) async fn run(
    lab: &mut Lab,
    force: Force,
    figures: &mut Figures,
) -> Result<(), LabError> {
    settle(lab).await?;
    let mut peace = Peace::see(lab).await?;
    let said = |what: &str, since: Instant| println!("lab:   {what}: {:.1?}", since.elapsed());

    let start = Instant::now();
    strangers(lab, &peace).await?;
    said("strangers", start);

    let start = Instant::now();
    let mallory = liar(lab, &mut peace).await?;
    said("a member that lies", start);

    let start = Instant::now();
    outcast(lab, &peace, mallory, figures).await?;
    said("a member that was removed", start);

    let start = Instant::now();
    besiege(lab, &peace, force).await?;
    said("connections and junk", start);

    let grown = peace.nobody_grew(lab, "all of it").await?;
    println!("lab:   no daemon has grown by more than {} kB", grown >> 10);
    clear_up(lab).await
}

/// A service on all hosts with a published port, and one with a secret on the first.
async fn settle(lab: &Lab) -> Result<(), LabError> {
    let mut web = whoami();
    web.ports[0].published = Some(PUBLISHED);
    deploy(lab, 0, "web", web, REPLICAS as u32).await?;
    let client = lab.hosts[0].client();
    let secret: ItemKey = GUARDED
        .parse()
        .map_err(|e| LabError::new("name a secret", e))?;
    let request = ItemRequest {
        value: "bWFya2Vk".to_owned(),
        labels: None,
        existing: None,
    };
    let put = client.put_item(ItemKind::Secret, &secret, &request).await;
    put.map_err(|e| LabError::new("write a secret", e))?;
    let nodes = client.nodes().await;
    let nodes = nodes.map_err(|e| LabError::new("list nodes", e))?;
    let first = nodes.into_iter().find(|node| node.this);
    let first = first.ok_or_else(|| LabError::broken("a node does not know itself"))?;
    let keeper = ServiceSpec {
        placement: Placement {
            constraints: vec![Constraint::new(
                "node.id",
                ConstraintOp::Equal,
                first.id.to_string(),
            )],
            ..Placement::default()
        },
        secrets: vec![FileMount {
            source: secret.name().to_owned(),
            ..FileMount::default()
        }],
        ..whoami()
    };
    deploy(lab, 0, KEEPER, keeper, 1).await?;
    exactly(lab, "web", REPLICAS, 60).await?;
    exactly(lab, KEEPER, 1, 60).await
}

async fn clear_up(lab: &Lab) -> Result<(), LabError> {
    remove(lab, "web").await?;
    remove(lab, KEEPER).await?;
    let secret: ItemKey = GUARDED
        .parse()
        .map_err(|e| LabError::new("name a secret", e))?;
    let removed = lab.hosts[0]
        .client()
        .remove_item(ItemKind::Secret, &secret)
        .await;
    removed
        .map(drop)
        .map_err(|e| LabError::new("remove a secret", e))
}

/// Who has no credential of this cluster is let in nowhere, and is nobody's member.
async fn strangers(lab: &Lab, peace: &Peace) -> Result<(), LabError> {
    let seed = fresh();
    let mut stranger = Mallory::start(seed, 1, HERE, Role::stranger(seed))?;
    for honest in &peace.honest {
        stranger.knows(honest.node, honest.address);
        stranger.net.control.knock(honest.address);
        let address = honest.address;
        stranger.tell_members(Input::Join { address });
    }
    let doors = peace.honest.len();
    let refused = |m: &Mallory| m.refusals.len() >= doors;
    stranger
        .until("every host refuses a stranger", PATIENCE, refused)
        .await?;
    stranger.live(Duration::from_secs(1)).await;
    is_nobody(lab, &stranger).await?;
    for honest in &peace.honest {
        for port in [API_PORT, honest.address.port() + 1] {
            let door = SocketAddr::new(honest.address.ip(), port);
            if get(door).is_some_and(|answer| answer.contains("200 OK")) {
                return Err(LabError::broken(format!("{door} answers anybody")));
            }
        }
    }
    stranger.vanish().await;
    peace.holds(lab, "strangers").await
}

/// It is connected with nobody, and no host has it as a living member.
async fn is_nobody(lab: &Lab, who: &Mallory) -> Result<(), LabError> {
    if !who.connected.is_empty() || who.welcome.is_some() {
        return Err(LabError::broken("somebody was let in who does not belong"));
    }
    for host in &lab.hosts {
        let nodes = host.client().nodes().await;
        let nodes = nodes.map_err(|e| LabError::new("list nodes", e))?;
        let alive = |n: &dunlin_api::Node| n.id == who.me.node && n.state == NodeState::Alive;
        if nodes.iter().any(alive) {
            let name = host.name();
            return Err(LabError::broken(format!(
                "{name} has a member that does not belong"
            )));
        }
    }
    Ok(())
}

/// A host with a ticket for a node becomes a member, and then tells every lie there is.
async fn liar(lab: &Lab, peace: &mut Peace) -> Result<Mallory, LabError> {
    let request = TicketRequest::default();
    let ticket = lab.hosts[0].client().ticket(&request).await;
    let ticket = ticket.map_err(|e| LabError::new("get a ticket", e))?.ticket;
    let ticket: Ticket = ticket
        .parse()
        .map_err(|e| LabError::new("read a ticket", e))?;
    let mut mallory = Mallory::start(fresh(), 1, HERE, Role::Invited(ticket))?;
    for honest in peace.honest.clone() {
        mallory.knows(honest.node, honest.address);
    }
    mallory.net.control.knock(peace.honest[0].address);
    mallory
        .until("it is let in", PATIENCE, |m| m.welcome.is_some())
        .await?;
    for honest in peace.honest.clone() {
        mallory.net.control.connect(honest.node, honest.address);
        let address = honest.address;
        mallory.tell_members(Input::Join { address });
    }
    let web: ServiceKey = "web"
        .parse()
        .map_err(|e| LabError::new("name a service", e))?;
    let all = peace.honest.len();
    let belongs = |m: &Mallory| {
        m.connected.len() == all
            && m.members.members().count() == all
            && m.replication.desired().services.contains_key(&web)
    };
    mallory.until("it belongs", PATIENCE, belongs).await?;
    for lie in LIES {
        told(lab, peace, &mut mallory, lie).await?;
    }
    let given = |(_, message): &(_, PeerMessage)| {
        matches!(
            message,
            PeerMessage::Secrets(dunlin_core::secrets::Message::Give { .. })
        )
    };
    match mallory.heard.iter().any(given) {
        true => Err(LabError::broken("somebody gave a secret to the liar")),
        false => Ok(mallory),
    }
}

async fn told(
    lab: &Lab,
    peace: &mut Peace,
    mallory: &mut Mallory,
    lie: &Lie,
) -> Result<(), LabError> {
    let mut moved = Vec::new();
    for _ in 0..AGAIN {
        let honest: Vec<Honest> = peace.honest.clone();
        let sees =
            |m: &Mallory, of: &Honest| m.members.state_of(of.node) == Some(MemberState::Alive);
        let belongs = |m: &Mallory| honest.iter().all(|of| sees(m, of));
        mallory
            .until("it sees all others", PATIENCE, belongs)
            .await?;
        (lie.tell)(mallory, &honest)?;
        believes(mallory, lie, &honest).await?;
        mallory.live(lie.takes).await;
        mallory.begin_anew();
        peace.holds(lab, lie.name).await?;
        for host in &lab.hosts {
            let services = host.client().services(&Default::default()).await;
            let services = services.map_err(|e| LabError::new("list services", e))?;
            if services.iter().any(|s| s.service.name() == EVIL) || services.len() != 2 {
                return Err(LabError::broken(format!(
                    "{} has changed what is wanted",
                    lie.name
                )));
            }
        }
        moved = peace.moved(lab).await?;
        if moved.is_empty() {
            return Ok(());
        }
        *peace = Peace::see(lab).await?.with_memory_of(peace);
    }
    let slots: Vec<String> = moved.iter().map(ToString::to_string).collect();
    let slots = slots.join(", ");
    Err(LabError::broken(format!("{} has moved {slots}", lie.name)))
}

/// Waits until the liar believes itself: its machine is the project's own, and passes on what it
/// believes. Else nothing would have been tried.
async fn believes(mallory: &mut Mallory, lie: &Lie, honest: &[Honest]) -> Result<(), LabError> {
    let victim = honest.last().map(|honest| honest.node);
    let Some((state, victim)) = lie.believes.zip(victim) else {
        return Ok(());
    };
    let what = format!("the liar believes in {}", lie.name);
    let so = |m: &Mallory| m.members.state_of(victim) == Some(state);
    mallory.until(&what, PATIENCE, so).await
}

/// The liar is removed. Neither it nor anybody whom it admits comes back with what it had.
async fn outcast(
    lab: &Lab,
    peace: &Peace,
    mut mallory: Mallory,
    figures: &mut Figures,
) -> Result<(), LabError> {
    let start = Instant::now();
    let query = RemoveQuery {
        force: true,
        reason: Some("it lies".to_owned()),
    };
    let id = mallory.me.node.to_string();
    let removed = lab.hosts[0].client().remove_node(&id, &query).await;
    removed.map_err(|e| LabError::new("remove the liar", e))?;
    let cut = |m: &Mallory| m.connected.is_empty();
    mallory.until("it is cut off", PATIENCE, cut).await?;
    figures.add("hostile: a member that goes on is cut off", start.elapsed());
    let Some(welcome) = mallory.welcome.clone() else {
        return Err(LabError::broken("the liar was no member"));
    };
    let seed = mallory.seed;
    mallory.vanish().await;

    let cluster = ClusterId::of(&welcome.root);
    let role = Role::Member(cluster, standing(&welcome, seed));
    let mut again = Mallory::start(seed, 2, HERE, role)?;
    knock(&mut again, &peace.honest);
    again.until("it is told", PATIENCE, |m| m.removed).await?;
    again.live(Duration::from_secs(1)).await;
    is_nobody(lab, &again).await?;
    again.vanish().await;

    // The keyring is replaced a moment after the removal.
    let seed = fresh();
    let role = Role::Member(cluster, standing(&welcome, seed));
    let mut admitted = Mallory::start(seed, 1, HERE, role)?;
    let all = peace.honest.len();
    let refused = |m: &Mallory| m.refusals.len() >= all && m.connected.is_empty();
    knock(&mut admitted, &peace.honest);
    admitted
        .until("whom it admits is refused", PATIENCE, refused)
        .await?;
    admitted.vanish().await;
    peace.holds(lab, "a removal").await
}

fn knock(who: &mut Mallory, at: &[Honest]) {
    for honest in at {
        who.knows(honest.node, honest.address);
        who.net.control.connect(honest.node, honest.address);
    }
}

/// What the liar's keyring makes of a key: a node, before it was replaced.
fn standing(welcome: &Welcome, seed: u8) -> Standing {
    let subject = SecretKey::from_seed([seed; 32]).public();
    let cluster = ClusterId::of(&welcome.root);
    Standing::Member {
        root: welcome.root,
        chain: issue_node(cluster, &welcome.keyring, subject, seconds()),
        keyring: welcome.keyring.clone(),
    }
}

/// All ports of all hosts at once.
async fn besiege(lab: &Lab, peace: &Peace, force: Force) -> Result<(), LabError> {
    let dns: SocketAddr = SERVER
        .parse()
        .map_err(|e| LabError::new("read an address", e))?;
    let mut attacks = tokio::task::JoinSet::new();
    for (at, honest) in peace.honest.iter().enumerate() {
        let door = |port: u16| SocketAddr::new(honest.address.ip(), port);
        let base = honest.address.port();
        let doors = Doors {
            namespace: lab.network.namespace(at),
            udp: vec![door(base), door(base + 1), door(base + 2)],
            tcp: vec![door(base + 1), door(API_PORT), door(PUBLISHED)],
            dns,
        };
        let Force { bytes, connections } = force;
        attacks.spawn_blocking(move || throw(&doors, bytes, connections));
    }
    let (mut bytes, mut connections) = (0, 0);
    while let Some(thrown) = attacks.join_next().await {
        let thrown = thrown.map_err(|e| LabError::new("attack", e))??;
        bytes += thrown.bytes;
        connections += thrown.connections;
    }
    let mb = bytes >> 20;
    println!("lab:   {mb} MB and {connections} connections were thrown at the hosts");
    peace.holds(lab, "junk").await?;
    eventually("the hosts have room for clients again", 30, async || {
        let mut doors = peace.honest.iter();
        Ok(doors.all(|h| get(SocketAddr::new(h.address.ip(), PUBLISHED)).is_some()))
    })
    .await
    .map(drop)
}
