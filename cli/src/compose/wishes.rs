//! The keys that say where replicas would better run: those of `x-dunlin`, and Compose's own
//! `deploy.placement.preferences`.

use dunlin_state::desired::MAX_REPLICAS;
use dunlin_state::model::{
    Constraint, Placement, Preference, Preferred, ScoreWeights, ServiceKey, SpreadRule, Strategy,
};

use super::placement::{constraint, key_hint};
use super::read::View;
use super::report::Report;
use super::support::{PREFERENCE, PREFERRED, SPREAD, WEIGHTS};

/// Most services, preferences or spreads in a list, as in the cluster's own check.
const MAX_LISTED: usize = 64;

const STRATEGIES: [(&str, Strategy); 3] = [
    ("spread", Strategy::Spread),
    ("pack", Strategy::Pack),
    ("random", Strategy::Random),
];

/// Reads one key of `x-dunlin`. `false` when it is none of these.
pub(super) fn read(
    report: &mut Report,
    key: &ServiceKey,
    name: &str,
    field: &View<'_>,
    placement: &mut Placement,
) -> bool {
    match name {
        "strategy" => {
            placement.strategy = report.choice(field, &STRATEGIES).unwrap_or_default();
        }
        "anti_affinity" => {
            let hint = "write 'max_replicas_per_node: 1' under 'deploy.placement'";
            placement.anti_affinity = services(report, key, field, hint);
        }
        "affinity" => {
            let hint = "write 'strategy: pack' to have its replicas together";
            placement.affinity = services(report, key, field, hint);
        }
        "preferences" => {
            let items = limited(report, field);
            let wishes = items
                .iter()
                .filter_map(|item| preference(report, key, item));
            placement.preferences = wishes.collect();
        }
        "spread" => {
            let items = limited(report, field);
            let rules = items.iter().filter_map(|item| spread(report, item));
            placement.spread.extend(rules.collect::<Vec<_>>());
        }
        "weights" => placement.weights = weights(report, field),
        _ => return false,
    }
    true
}

/// `deploy.placement.preferences`, as Docker knows it: only `spread`, the first before the others.
pub(super) fn preferences(report: &mut Report, view: &View<'_>) -> Vec<SpreadRule> {
    let mut rules = Vec::new();
    let items = limited(report, view);
    for (index, item) in items.iter().enumerate() {
        for (name, field) in report.section(item, &PREFERENCE) {
            match name {
                "spread" => {
                    let rule = node_key(report, &field).map(SpreadRule::over);
                    // Each counts ten times the next, which is nearly Docker's one after another.
                    let weight = 10_u32.checked_pow(2_u32.saturating_sub(index as u32));
                    rules.extend(rule.map(|rule| SpreadRule {
                        weight: weight.unwrap_or(1),
                        ..rule
                    }));
                }
                _ => report.unhandled(&field),
            }
        }
    }
    rules
}

fn limited<'n>(report: &mut Report, view: &View<'n>) -> Vec<View<'n>> {
    let mut items = report.list(view);
    if let Some(first) = items.get(MAX_LISTED) {
        report.fault(first, format!("at most {MAX_LISTED} can be listed"));
    }
    items.truncate(MAX_LISTED);
    items
}

/// Other services, each named once.
fn services(report: &mut Report, key: &ServiceKey, view: &View<'_>, hint: &str) -> Vec<ServiceKey> {
    let mut services = Vec::new();
    for item in limited(report, view) {
        let Some(other) = service(report, key, &item) else {
            continue;
        };
        if other == *key {
            report.fault_hint(&item, "a service cannot name itself here", hint);
        } else if !services.contains(&other) {
            services.push(other);
        }
    }
    services
}

fn service(report: &mut Report, key: &ServiceKey, view: &View<'_>) -> Option<ServiceKey> {
    report.parsed(view, |text| {
        let parsed = match text.split_once('/') {
            Some((namespace, name)) => ServiceKey::new(namespace, name),
            None => ServiceKey::new(key.namespace(), text),
        };
        parsed.map_err(|e| e.to_string())
    })
}

fn preference(report: &mut Report, key: &ServiceKey, view: &View<'_>) -> Option<Preference> {
    let (mut of, mut weight) = (Vec::new(), None);
    for (name, field) in report.section(view, &PREFERRED) {
        match name {
            "service" => of.extend(service(report, key, &field).map(Preferred::Service)),
            "constraint" => of.extend(constraint(report, &field).map(Preferred::Constraint)),
            "weight" => weight = Some(report.parsed(&field, signed)?),
            _ => report.unhandled(&field),
        }
    }
    let weight = weight.unwrap_or(Preference::MAX_WEIGHT / 2);
    match (of.pop(), of.pop()) {
        (Some(of), None) => Some(Preference { of, weight }),
        (Some(_), Some(_)) => {
            report.fault(
                view,
                "a preference is for a service or a constraint, not both",
            );
            None
        }
        (None, _) => {
            let hint = "write 'service: db' or 'constraint: node.labels.disk == ssd', and a weight";
            report.fault_hint(view, "a preference prefers nothing", hint);
            None
        }
    }
}

fn signed(text: &str) -> Result<i32, String> {
    let most = Preference::MAX_WEIGHT;
    let weight = text.parse::<i32>().ok();
    weight
        .filter(|w| *w != 0 && (-most..=most).contains(w))
        .ok_or_else(|| format!("'{text}' is not a weight from -{most} to {most}, and not 0"))
}

fn spread(report: &mut Report, view: &View<'_>) -> Option<SpreadRule> {
    let mut key = None;
    let (mut weight, mut max_skew) = (1, None);
    let fields = report.section(view, &SPREAD);
    let faulty = fields.iter().any(|(name, _)| *name == "key");
    for (name, field) in fields {
        match name {
            "key" => key = node_key(report, &field),
            "weight" => {
                weight = report
                    .number(&field, 1, SpreadRule::MAX_WEIGHT)
                    .unwrap_or(1)
            }
            "max_skew" => max_skew = report.number(&field, 1, MAX_REPLICAS),
            _ => report.unhandled(&field),
        }
    }
    if !faulty && view.is_map() {
        let hint = "write for example 'key: node.labels.zone'";
        report.fault_hint(view, "a spread has no key", hint);
    }
    Some(SpreadRule {
        key: key?,
        weight,
        max_skew,
    })
}

/// A key that constraints know.
fn node_key(report: &mut Report, view: &View<'_>) -> Option<String> {
    let text = report.line(view)?;
    if let Some(hint) = key_hint(text) {
        report.fault_hint(view, format!("'{text}' is nothing that nodes have"), hint);
        return None;
    }
    debug_assert!(Constraint::is_known_key(text), "what has no hint is known");
    Some(text.to_owned())
}

fn weights(report: &mut Report, view: &View<'_>) -> ScoreWeights {
    let mut weights = ScoreWeights::default();
    for (name, field) in report.section(view, &WEIGHTS) {
        let weight = report.number(&field, 0, ScoreWeights::MAX_WEIGHT);
        let Some(weight) = weight else { continue };
        match name {
            "cpu" => weights.cpu = weight,
            "memory" => weights.memory = weight,
            "disk" => weights.disk = weight,
            "replicas" => weights.replicas = weight,
            _ => report.unhandled(&field),
        }
    }
    weights
}
