//! `ports` and `expose`.

use std::net::IpAddr;

use dunlin_state::model::{PortSpec, Protocol, PublishMode};

use super::fault::Position;
use super::read::View;
use super::report::Report;
use super::support::PORT;

/// Most ports of a service, as in the cluster's own check: each one costs every node a listener.
const MAX_PORTS: usize = 128;

const PROTOCOLS: &[(&str, Protocol)] = &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];

const MODES: &[(&str, PublishMode)] = &[
    ("ingress", PublishMode::Ingress),
    ("host", PublishMode::Host),
];

/// A port and where it is written.
#[derive(Debug, Clone)]
pub(super) struct PlacedPort {
    pub(super) spec: PortSpec,
    pub(super) at: Position,
    pub(super) path: String,
}

/// The ports of a service.
pub(super) fn ports(
    report: &mut Report,
    published: Option<&View<'_>>,
    exposed: Option<&View<'_>>,
) -> Vec<PlacedPort> {
    let mut ports: Vec<PlacedPort> = Vec::new();
    for item in published.map(|v| report.list(v)).unwrap_or_default() {
        let specs = if item.is_map() {
            long(report, &item).into_iter().collect()
        } else {
            report.parsed(&item, short).unwrap_or_default()
        };
        for spec in specs {
            add(report, &mut ports, &item, spec);
        }
    }
    for item in exposed.map(|v| report.list(v)).unwrap_or_default() {
        for spec in report.parsed(&item, exposed_ports).unwrap_or_default() {
            let same =
                |p: &PlacedPort| (p.spec.target, p.spec.protocol) == (spec.target, spec.protocol);
            if !ports.iter().any(same) {
                add(report, &mut ports, &item, spec);
            }
        }
    }
    ports
}

fn add(report: &mut Report, ports: &mut Vec<PlacedPort>, item: &View<'_>, spec: PortSpec) {
    let inside = |p: &PortSpec| (p.target, p.protocol);
    if let Some(known) = ports.iter_mut().find(|p| inside(&p.spec) == inside(&spec)) {
        if spec.published.is_none() || known.spec == spec {
            // It is there already, and perhaps published.
        } else if known.spec.published.is_none() {
            known.spec = spec;
            known.at = item.at();
            known.path.clone_from(&item.path);
        } else {
            let text = format!("port {} of the container is published twice", spec.target);
            let related = (known.at, "it is published first");
            report.error_related(item.at(), &item.path, text, related);
        }
        return;
    }
    // On which address does not matter: within a service the cluster tells ports apart by number.
    let outside = |p: &PortSpec| p.published.map(|port| (port, p.protocol));
    let taken = |p: &&PlacedPort| outside(&p.spec).is_some() && outside(&p.spec) == outside(&spec);
    if let Some(first) = ports.iter().find(taken) {
        let text = format!("port {} is published twice", spec.published.unwrap_or(0));
        let related = (first.at, "it is published first");
        report.error_related(item.at(), &item.path, text, related);
        return;
    }
    if ports.len() < MAX_PORTS {
        ports.push(PlacedPort {
            spec,
            at: item.at(),
            path: item.path.clone(),
        });
    } else {
        // Said once for each item; the report drops equal faults.
        report.fault(item, format!("a service has at most {MAX_PORTS} ports"));
    }
}

/// Whether two published ports of different services cannot both be answered on one host.
pub(super) fn collide(a: &PortSpec, b: &PortSpec) -> bool {
    let address = match (&a.host_ip, &b.host_ip) {
        (Some(a), Some(b)) => a == b,
        (None, _) | (_, None) => true,
    };
    a.published.is_some() && a.published == b.published && a.protocol == b.protocol && address
}

fn long(report: &mut Report, view: &View<'_>) -> Option<PortSpec> {
    let mut spec = PortSpec::default();
    let mut target = None;
    let mut targeted = false;
    for (key, field) in report.section(view, &PORT) {
        match key {
            "target" => {
                targeted = true;
                target = report.parsed(&field, port);
            }
            "published" => spec.published = report.parsed(&field, one_port),
            "host_ip" => spec.host_ip = report.parsed(&field, host_ip),
            "protocol" => spec.protocol = report.choice(&field, PROTOCOLS).unwrap_or_default(),
            "mode" => spec.publish_mode = report.choice(&field, MODES).unwrap_or_default(),
            _ => report.unhandled(&field),
        }
    }
    if !targeted {
        report.error(view.node.at, &view.path, "this port has no target");
    }
    spec.target = target?;
    Some(spec)
}

/// `[[IP:][HOST[-HOST]]:]CONTAINER[-CONTAINER][/PROTOCOL]`
fn short(text: &str) -> Result<Vec<PortSpec>, String> {
    let (rest, protocol) = split_protocol(text)?;
    let (outside, inside) = match rest.rsplit_once(':') {
        Some((outside, inside)) => (Some(outside), inside),
        None => (None, rest),
    };
    let targets = range(inside)?;
    let (address, published) = match outside {
        None => (None, None),
        Some(outside) => match outside.rsplit_once(':') {
            None => (None, Some(outside)),
            Some((address, published)) => (Some(host_ip(address)?), Some(published)),
        },
    };
    let published = match published.filter(|p| !p.is_empty()) {
        None => None,
        Some(published) => {
            let published = range(published)?;
            let (hosts, containers) = (published.clone().count(), targets.clone().count());
            if hosts != containers {
                return Err(format!(
                    "'{text}' gives {hosts} host ports for {containers} container ports; give as \
                     many of both"
                ));
            }
            Some(published)
        }
    };
    let spec = |(index, target): (usize, u16)| PortSpec {
        target,
        published: published.clone().and_then(|mut p| p.nth(index)),
        host_ip: address.clone(),
        protocol,
        publish_mode: PublishMode::Ingress,
    };
    Ok(targets.enumerate().map(spec).collect())
}

fn exposed_ports(text: &str) -> Result<Vec<PortSpec>, String> {
    let (rest, protocol) = split_protocol(text)?;
    let spec = |target| PortSpec {
        target,
        protocol,
        ..PortSpec::default()
    };
    Ok(range(rest)?.map(spec).collect())
}

fn split_protocol(text: &str) -> Result<(&str, Protocol), String> {
    let Some((rest, name)) = text.split_once('/') else {
        return Ok((text, Protocol::Tcp));
    };
    match PROTOCOLS.iter().find(|(word, _)| *word == name) {
        Some((_, protocol)) => Ok((rest, *protocol)),
        None => Err(format!("unknown protocol '{name}'; use 'tcp' or 'udp'")),
    }
}

fn range(text: &str) -> Result<std::ops::RangeInclusive<u16>, String> {
    let Some((first, last)) = text.split_once('-') else {
        let only = port(text)?;
        return Ok(only..=only);
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(format!("the range {text} runs backwards"));
    }
    Ok(first..=last)
}

fn one_port(text: &str) -> Result<u16, String> {
    if text.contains('-') {
        return Err(format!("'{text}' is a range; give one port"));
    }
    port(text)
}

fn port(text: &str) -> Result<u16, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port != 0 => Ok(port),
        Ok(_) | Err(_) => Err(format!("'{text}' is not a port; ports are 1 to 65535")),
    }
}

fn host_ip(text: &str) -> Result<String, String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|t| t.strip_suffix(']'))
        .unwrap_or(text);
    match bare.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) => Err(format!("'{text}' is not an IP address")),
    }
}
