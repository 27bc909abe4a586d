//! `networks`, of services and at the top level.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_state::model::{DEFAULT_NETWORK, Network};

use super::Scope;
use super::read::View;
use super::report::Report;
use super::suggest::closest;
use super::support::{SERVICE_NETWORK, TOP_NETWORK};

/// Most networks of a service, as in the cluster's own check.
const MAX_NETWORKS: usize = 128;

/// Drivers that mean no more than "services that are in it reach each other".
const PLAIN_DRIVERS: &[&str] = &["bridge", "overlay", "default"];

/// Declared networks by their keys in the file.
pub(super) type Declared = BTreeMap<String, Network>;

/// The networks at the top level.
pub(super) fn declared(report: &mut Report, view: &View<'_>) -> Declared {
    let mut declared = Declared::new();
    for (key, network) in report.mapping(view) {
        if key.starts_with("x-") {
            continue;
        }
        let (name, external) = settings(report, &network);
        match Network::new(name.as_deref().unwrap_or(key), external) {
            Ok(network) => drop(declared.insert(key.to_owned(), network)),
            Err(bad) => report.error(network.key_at, &network.path, bad.to_string()),
        }
    }
    declared
}

/// The name that the declaration gives, and whether others have it too.
fn settings(report: &mut Report, view: &View<'_>) -> (Option<String>, bool) {
    let (mut name, mut external) = (None, false);
    if view.is_null() {
        return (name, external);
    }
    for (field, value) in report.section(view, &TOP_NETWORK) {
        match field {
            "name" => name = report.line(&value).map(str::to_owned),
            "external" => external = report.external(&value),
            "driver" => {
                let driver = report.filled(&value);
                if driver.is_some_and(|driver| !PLAIN_DRIVERS.contains(&driver)) {
                    let text = "driver is not honoured yet and was ignored: a network here says \
                                which services reach each other, and no more";
                    report.warn_key(&value, text);
                }
            }
            _ => report.unhandled(&value),
        }
    }
    (name, external)
}

/// The networks of a service: a list, or a mapping with settings of each.
pub(super) fn joined(report: &mut Report, scope: &Scope<'_>, view: &View<'_>) -> BTreeSet<Network> {
    let mut networks = BTreeSet::new();
    let mut join = |report: &mut Report, view: &View<'_>, name: &str| {
        if networks.len() == MAX_NETWORKS {
            let text = format!("a service has at most {MAX_NETWORKS} networks");
            report.fault(view, text);
        } else {
            networks.extend(find(report, scope, view, name));
        }
    };
    if view.is_map() {
        for (name, settings) in report.mapping(view) {
            join(report, &settings, name);
            if !settings.is_null() {
                // Nothing of it has an effect, and each says so.
                for (_, field) in report.section(&settings, &SERVICE_NETWORK) {
                    report.unhandled(&field);
                }
            }
        }
    } else {
        for item in report.list(view) {
            if let Some(name) = report.line(&item) {
                join(report, &item, name);
            }
        }
    }
    networks
}

fn find(report: &mut Report, scope: &Scope<'_>, view: &View<'_>, name: &str) -> Option<Network> {
    if let Some(network) = scope.networks.get(name) {
        return Some(network.clone());
    }
    if name == DEFAULT_NETWORK {
        return Network::new(name, false).ok();
    }
    let text = format!("the network '{name}' is not declared");
    let hint = match closest(name, scope.networks.keys().map(String::as_str)) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("add '{name}:' under 'networks:' at the top level of the file"),
    };
    report.fault_hint(view, text, hint);
    None
}
