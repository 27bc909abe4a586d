//! `depends_on`: who waits for whom.

use std::collections::BTreeMap;

use dunlin_state::desired::dependency_cycle;
use dunlin_state::model::{Condition, Dependency, ServiceKey, ServiceSpec};

use super::fault::Position;
use super::read::View;
use super::report::Report;
use super::service::Read;
use super::suggest::closest;
use super::support::DEPENDS_ON;

const CONDITIONS: &[(&str, Condition)] = &[
    ("service_started", Condition::ServiceStarted),
    ("service_healthy", Condition::ServiceHealthy),
    (
        "service_completed_successfully",
        Condition::ServiceCompletedSuccessfully,
    ),
];

/// A dependency and where it is written.
pub(super) struct Placed {
    pub(super) dependency: Dependency,
    at: Position,
    path: String,
}

/// Reads `depends_on`: a list of names, or a mapping with conditions.
pub(super) fn depends_on(report: &mut Report, key: &ServiceKey, view: &View<'_>) -> Vec<Placed> {
    let mut found: Vec<Placed> = Vec::new();
    if view.is_list() {
        for item in report.list(view) {
            let service = report.parsed(&item, |text| named(key, text));
            found.extend(service.map(|service| Placed {
                dependency: Dependency {
                    service,
                    condition: Condition::default(),
                    required: true,
                },
                at: item.at(),
                path: item.path.clone(),
            }));
        }
        return found;
    }
    for (name, item) in report.mapping(view) {
        let service = match named(key, name) {
            Ok(service) => service,
            Err(message) => {
                report.error(item.key_at, &item.path, message);
                continue;
            }
        };
        let mut dependency = Dependency {
            service,
            condition: Condition::default(),
            required: true,
        };
        if !item.is_null() {
            for (key, field) in report.section(&item, &DEPENDS_ON) {
                match key {
                    "condition" => {
                        let condition = report.choice(&field, CONDITIONS);
                        dependency.condition = condition.unwrap_or_default();
                    }
                    "required" => {
                        dependency.required = report.flag(&field).unwrap_or(true);
                    }
                    _ => report.unhandled(&field),
                }
            }
        }
        found.push(Placed {
            dependency,
            at: item.key_at,
            path: item.path.clone(),
        });
    }
    found
}

fn named(key: &ServiceKey, text: &str) -> Result<ServiceKey, String> {
    let parsed = match text.split_once('/') {
        Some((namespace, name)) => ServiceKey::new(namespace, name),
        None => ServiceKey::new(key.namespace(), text),
    };
    parsed.map_err(|e| e.to_string())
}

/// Checks the dependencies of all services of a file: that they exist and do not run in circles.
/// `left_out` are services that were left out because of their profiles.
pub(super) fn check(report: &mut Report, read: &mut [Read], left_out: &[ServiceKey]) {
    let names: Vec<ServiceKey> = read.iter().map(|r| r.service.key.clone()).collect();
    for one in read.iter_mut() {
        let namespace = one.service.key.namespace().to_owned();
        let mut kept = Vec::new();
        for placed in std::mem::take(&mut one.depends_on) {
            let wanted = &placed.dependency.service;
            let known = names.contains(wanted) || wanted.namespace() != namespace;
            if known {
                kept.push(placed);
            } else if placed.dependency.required {
                missing(report, &placed, &names, left_out.contains(wanted));
            }
        }
        let dependencies = kept.iter().map(|placed| placed.dependency.clone());
        one.service.spec.depends_on = dependencies.collect();
        one.depends_on = kept;
    }
    let specs: BTreeMap<&ServiceKey, &ServiceSpec> = read
        .iter()
        .map(|one| (&one.service.key, &one.service.spec))
        .collect();
    let spec = |key: &ServiceKey| specs.get(key).copied();
    for one in read.iter() {
        let Some(cycle) = dependency_cycle(&one.service.key, spec) else {
            continue;
        };
        let next = cycle.get(1).or(cycle.first());
        let place = one.depends_on.iter().find(|placed| {
            cycle.first() == Some(&one.service.key) && Some(&placed.dependency.service) == next
        });
        if let Some(place) = place {
            let names: Vec<&str> = cycle
                .iter()
                .chain(&cycle[..1])
                .map(ServiceKey::name)
                .collect();
            let text = format!(
                "these services would wait for each other for ever: {}",
                names.join(" -> ")
            );
            let hint = "remove one of these dependencies";
            report.error_hint(place.at, &place.path, text, hint);
            // The same cycle can be entered at each of its services.
            return;
        }
    }
}

fn missing(report: &mut Report, placed: &Placed, names: &[ServiceKey], left_out: bool) {
    let name = placed.dependency.service.name();
    if left_out {
        let text = format!("the service '{name}' is left out, as its profiles are not active");
        let hint = "add one of them to COMPOSE_PROFILES, or write 'required: false'";
        report.error_hint(placed.at, &placed.path, text, hint);
        return;
    }
    let text = format!("the file has no service '{name}' to depend on");
    let hint = match closest(name, names.iter().map(ServiceKey::name)) {
        Some(near) => format!("did you mean '{near}'?"),
        None => "name a service of this file, or 'namespace/name' of another namespace".to_owned(),
    };
    report.error_hint(placed.at, &placed.path, text, hint);
}
