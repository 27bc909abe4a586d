//! The keys of `x-dunlin` that concern the proxies.

use dunlin_state::model::{
    Balance, Cidr, Locality, ProxyProtocol, RateLimit, ServiceKey, Split, TrafficPolicy,
};

use super::read::View;
use super::report::Report;
use super::support::SPLIT;
use super::units::duration_ms;

const BALANCES: [(&str, Balance); 5] = [
    ("random-of-two", Balance::RandomOfTwo),
    ("round-robin", Balance::RoundRobin),
    ("least-connections", Balance::LeastConnections),
    ("weighted", Balance::Weighted),
    ("source-hash", Balance::SourceHash),
];

const LOCALITIES: [(&str, Locality); 3] = [
    ("any", Locality::Any),
    ("node", Locality::Node),
    ("zone", Locality::Zone),
];

const VERSIONS: [(&str, ProxyProtocol); 2] = [("v1", ProxyProtocol::V1), ("v2", ProxyProtocol::V2)];

/// Most connections that a bound may name.
const MAX_COUNT: u32 = 1_000_000;

/// Most networks in a list, as in the cluster's own check.
const MAX_NETWORKS: usize = 128;

/// Reads one key. `false` when it is none of these.
pub(super) fn read(
    report: &mut Report,
    key: &ServiceKey,
    name: &str,
    field: &View<'_>,
    traffic: &mut TrafficPolicy,
) -> bool {
    match name {
        "balance" => traffic.balance = report.choice(field, &BALANCES).unwrap_or_default(),
        "prefer" => traffic.prefer = report.choice(field, &LOCALITIES).unwrap_or_default(),
        "max_connections" => traffic.max_connections = report.number(field, 1, MAX_COUNT),
        "max_pending" => traffic.max_pending = report.number(field, 0, MAX_COUNT),
        "rate_limit" => traffic.rate_limit = report.parsed(field, rate),
        "allow" => traffic.allow = networks(report, field),
        "deny" => traffic.deny = networks(report, field),
        "proxy_protocol" => traffic.proxy_protocol = report.choice(field, &VERSIONS),
        "split" => traffic.split = split(report, key, field),
        "connect_timeout" => traffic.connect_timeout_ms = report.parsed(field, duration_ms),
        "idle_timeout" => traffic.idle_timeout_ms = report.parsed(field, duration_ms),
        "drain" => traffic.drain_ms = report.parsed(field, duration_ms),
        _ => return false,
    }
    true
}

/// `100/s`, or with the burst `100/s:200`; without one a second's worth.
fn rate(text: &str) -> Result<RateLimit, String> {
    let wrong = || {
        "write connections a second as '100/s', with a burst of other size as '100/s:200'"
            .to_owned()
    };
    let (rate, burst) = match text.split_once(':') {
        Some((rate, burst)) => (rate, Some(burst)),
        None => (text, None),
    };
    let number = |text: &str| {
        let number = text.trim().parse::<u32>().ok();
        number
            .filter(|n| (1..=MAX_COUNT).contains(n))
            .ok_or_else(wrong)
    };
    let per_second = number(rate.trim().strip_suffix("/s").ok_or_else(wrong)?)?;
    let burst = burst.map(number).transpose()?.unwrap_or(per_second);
    Ok(RateLimit { per_second, burst })
}

fn networks(report: &mut Report, field: &View<'_>) -> Vec<Cidr> {
    let mut networks = Vec::new();
    for item in report.list(field) {
        let network = report.parsed(&item, |text| {
            text.parse::<Cidr>().map_err(|error| error.to_string())
        });
        if networks.len() == MAX_NETWORKS {
            report.fault(
                &item,
                format!("at most {MAX_NETWORKS} networks can be listed"),
            );
            break;
        }
        networks.extend(network);
    }
    networks
}

fn split(report: &mut Report, key: &ServiceKey, field: &View<'_>) -> Option<Split> {
    let (mut service, mut percent) = (None, None);
    for (name, part) in report.section(field, &SPLIT) {
        match name {
            "service" => {
                service = report.parsed(&part, |text| {
                    let parsed = match text.split_once('/') {
                        Some((namespace, name)) => ServiceKey::new(namespace, name),
                        None => ServiceKey::new(key.namespace(), text),
                    };
                    parsed.map_err(|e| e.to_string())
                });
                if service.as_ref() == Some(key) {
                    report.fault(&part, "a service cannot give a share to itself");
                }
            }
            "percent" => percent = report.number(&part, 0, 100),
            _ => report.unhandled(&part),
        }
    }
    match (service, percent) {
        (Some(service), Some(percent)) => Some(Split { service, percent }),
        (_, _) => {
            report.fault(field, "a split needs 'service' and 'percent'");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read() {
        let limit = |per_second, burst| Ok(RateLimit { per_second, burst });
        assert_eq!(rate("100/s"), limit(100, 100));
        assert_eq!(rate("5/s:50"), limit(5, 50));
        for bad in ["", "100", "0/s", "5/m", "-1/s", "5/s:", "5/s:0"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
