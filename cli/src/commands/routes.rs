//! `dunlin routes`

use clap::Args;
use dunlin_api::{Exit, PortRoute, ReplicaRoute, RouteEnd, RouteQuery, RouteUsage, ServiceRoutes};
use dunlin_state::model::TrafficPolicy;

use super::show;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Cell, Output, Table, Tone};

/// Words of `dunlin routes`.
#[derive(Debug, Args)]
pub struct RoutesArgs {
    /// Only this service, with how its connections are treated and where it is listened
    pub service: Option<String>,
}

/// Shows where the proxies and the DNS server of this node lead now.
pub async fn run(args: &RoutesArgs, context: &mut Context) -> Result<Exit, Failure> {
    let service = args.service.as_deref();
    let query = RouteQuery {
        service: service.map(|text| context.service(text)).transpose()?,
        namespace: match service {
            Some(_) => None,
            None => context.namespace.clone(),
        },
    };
    let list = context.client.routes(&query).await?;
    if context.json {
        context.out.json(&list)?;
        return Ok(Exit::Ok);
    }
    let one = list.services.first().filter(|_| service.is_some());
    if let Some(one) = one {
        let name = context.display(&one.service);
        head(one, &name, &mut context.out)?;
    }
    let table = table(&list.services, context);
    context.out.table(&table)?;
    Ok(Exit::Ok)
}

/// What is said of one service before its replicas.
fn head(service: &ServiceRoutes, name: &str, out: &mut Output) -> Result<(), Failure> {
    let addresses = service.addresses.iter().map(ToString::to_string);
    let at: Vec<String> = service.name.iter().cloned().chain(addresses).collect();
    out.line(format!("{name}: {}", or_dash(&at.join(", "))))?;
    let networks: Vec<&str> = service.networks.iter().map(String::as_str).collect();
    out.line(format!("networks: {}", networks.join(", ")))?;
    out.line(format!("policy: {}", policy(&service.policy)))?;
    for port in &service.ports {
        out.line(port_line(port))?;
    }
    out.line("")?;
    Ok(())
}

fn port_line(route: &PortRoute) -> String {
    let (fine, failed): (Vec<_>, Vec<_>) =
        route.listeners.iter().partition(|l| l.failure.is_none());
    let fine: Vec<String> = fine.iter().map(|l| l.address.to_string()).collect();
    let port = show::ports(std::slice::from_ref(&route.port));
    let mut line = format!("port {port}: on {}", or_dash(&fine.join(", ")));
    for listener in failed {
        let reason = listener.failure.as_deref().unwrap_or_default();
        line.push_str(&format!("; not on {}: {reason}", listener.address));
    }
    if let Some(reason) = &route.refused {
        line.push_str(&format!("; not published: {reason}"));
    }
    if route.waiting > 0 {
        line.push_str(&format!("; {} connections wait", route.waiting));
    }
    line
}

/// What is set, in the words of the specification.
fn policy(policy: &TrafficPolicy) -> String {
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(policy) else {
        return String::new();
    };
    let set = fields.into_iter().filter(|(_, value)| match value {
        serde_json::Value::Null => false,
        serde_json::Value::Array(list) => !list.is_empty(),
        _ => true,
    });
    let words = set.map(|(name, value)| match value {
        serde_json::Value::String(text) => format!("{name}={text}"),
        other => format!("{name}={other}"),
    });
    words.collect::<Vec<_>>().join(" ")
}

fn table(services: &[ServiceRoutes], context: &Context) -> Table {
    let mut table = Table::new([
        "NAME", "ADDRESS", "PORT", "NODE", "ENDPOINT", "USED", "OPEN", "CONNECT",
    ])
    .prose(&["USED"])
    .optional(&["CONNECT", "OPEN", "ENDPOINT"]);
    for service in services {
        let name = context.display(&service.service);
        let address = service.addresses.first();
        let address = address.map(ToString::to_string).unwrap_or_default();
        if service.replicas.is_empty() {
            let ports: Vec<_> = service.ports.iter().map(|p| p.port.clone()).collect();
            let nobody = Cell::toned("no: it has no replica", Tone::Bad);
            table.row([
                Cell::from(&name),
                Cell::from(&address),
                Cell::from(show::ports(&ports)),
                Cell::from(""),
                Cell::from(""),
                nobody,
                Cell::from(""),
                Cell::from(""),
            ]);
        }
        for replica in &service.replicas {
            for cells in rows(&name, &address, service, replica) {
                table.row(cells);
            }
        }
    }
    table
}

fn rows(
    name: &str,
    address: &str,
    service: &ServiceRoutes,
    replica: &ReplicaRoute,
) -> Vec<[Cell; 8]> {
    let row = |port: String, endpoint: String, usage: Cell, end: Option<&RouteEnd>| {
        let open = end.map(|end| end.open.to_string()).unwrap_or_default();
        let connect = end.and_then(|end| end.connect_us).map(connect);
        let own = replica.addresses.first().map(ToString::to_string);
        [
            Cell::from(show::slot_name(name, replica.slot)),
            Cell::from(own.as_deref().unwrap_or(address)),
            Cell::from(port),
            Cell::from(&replica.node_name),
            Cell::from(endpoint),
            usage,
            Cell::from(open),
            Cell::from(connect.unwrap_or_default()),
        ]
    };
    if replica.ends.is_empty() {
        return vec![row(
            String::new(),
            String::new(),
            used(replica.usage, None),
            None,
        )];
    }
    let ends = replica.ends.iter().map(|end| {
        let of = |p: &&PortRoute| (p.port.target, p.port.protocol) == (end.target, end.protocol);
        let spec = service.ports.iter().find(of).map(|p| p.port.clone());
        let port = match spec {
            Some(spec) => show::ports(&[spec]),
            None => format!("{}/{}", end.target, show::protocol(end.protocol)),
        };
        let usage = used(end.usage, end.ejected_for_ms);
        row(port, end.address.to_string(), usage, Some(end))
    });
    ends.collect()
}

fn used(usage: RouteUsage, ejected_for_ms: Option<u64>) -> Cell {
    let tone = match usage {
        RouteUsage::Used => return Cell::toned("yes", Tone::Good),
        RouteUsage::Trial | RouteUsage::Full | RouteUsage::NotReady => Tone::Warn,
        RouteUsage::Ejected | RouteUsage::NodeSuspect | RouteUsage::NodeGone => Tone::Bad,
        RouteUsage::Leaving | RouteUsage::NotWanted | RouteUsage::NodeUnconfirmed => Tone::Dim,
    };
    let mut text = format!("no: {}", usage.words());
    if let Some(ms) = ejected_for_ms {
        text.push_str(&format!(", for {}", crate::output::duration(ms)));
    }
    Cell::toned(text, tone)
}

/// Microseconds in milliseconds.
fn connect(micros: u32) -> String {
    format!("{}.{:02} ms", micros / 1_000, micros % 1_000 / 10)
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}
