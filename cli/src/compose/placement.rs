//! `deploy.placement`: where replicas may run.

use dunlin_state::desired::MAX_REPLICAS;
use dunlin_state::model::{BadConstraint, Constraint, Placement, contradiction};

use super::fault::Position;
use super::read::View;
use super::report::Report;
use super::suggest::closest;
use super::support::PLACEMENT;
use super::wishes::preferences;

/// Most placement constraints of a service; each is checked on every node for every bid.
const MAX_CONSTRAINTS: usize = 64;

/// Reads `deploy.placement`.
pub(super) fn placement(report: &mut Report, view: &View<'_>) -> Placement {
    let mut placement = Placement::default();
    for (key, field) in report.section(view, &PLACEMENT) {
        match key {
            "constraints" => placement.constraints = constraints(report, &field),
            "max_replicas_per_node" => {
                // Docker takes 0 for no limit.
                let most = report.number(&field, 0, MAX_REPLICAS);
                placement.max_per_node = most.filter(|n| *n > 0);
            }
            "preferences" => placement.spread = preferences(report, &field),
            _ => report.unhandled(&field),
        }
    }
    placement
}

fn constraints(report: &mut Report, view: &View<'_>) -> Vec<Constraint> {
    let mut constraints = Vec::new();
    for item in report.list(view) {
        if constraints.len() == MAX_CONSTRAINTS {
            let text = format!("a service has at most {MAX_CONSTRAINTS} constraints");
            report.fault(&item, text);
            break;
        }
        constraints.extend(constraint(report, &item));
    }
    if let Some(clash) = contradiction(&constraints) {
        let clash: Vec<String> = clash.iter().map(|c| format!("'{c}'")).collect();
        let text = format!(
            "{} exclude each other: no node can meet them",
            clash.join(" and ")
        );
        report.warn_key(view, text);
    }
    constraints
}

/// Reads one constraint.
pub(super) fn constraint(report: &mut Report, view: &View<'_>) -> Option<Constraint> {
    let text = report.line(view)?;
    let constraint: Constraint = match text.parse() {
        Ok(constraint) => constraint,
        Err(fault) => {
            let BadConstraint {
                text: what,
                hint,
                at,
            } = fault;
            let place = within(view.at(), text, at);
            report.error_hint(place, &view.path, what, hint);
            return None;
        }
    };
    if let Some(hint) = key_hint(constraint.key()) {
        let text = format!("'{}' is nothing that nodes have", constraint.key());
        report.fault_hint(view, text, hint);
        return None;
    }
    Some(constraint)
}

/// The place of a part of a value, where the value stands in the file as it is or in quotes; else
/// that of the whole value.
fn within(whole: Position, text: &str, at: usize) -> Position {
    let chars = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
    let at = u32::try_from(at).unwrap_or(u32::MAX);
    let quotes = match whole.width.checked_sub(chars) {
        Some(0) => 0,
        Some(2) => 1,
        Some(_) | None => return whole,
    };
    Position {
        column: whole.column + quotes + at,
        width: chars.saturating_sub(at).max(1),
        ..whole
    }
}

/// What to write instead of `key`; nothing when it is right.
pub(super) fn key_hint(key: &str) -> Option<String> {
    if Constraint::is_known_key(key) {
        return None;
    }
    if key == "node.role" {
        let hint = "all nodes are equal, there are no managers: remove it, or give nodes labels";
        return Some(hint.to_owned());
    }
    if let Some(label) = key.strip_prefix("engine.labels.") {
        return Some(format!(
            "give the node a label and write 'node.labels.{label}'"
        ));
    }
    Some(match closest(key, Constraint::FACT_KEYS.into_iter()) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!(
            "use {}, node.labels.<key> or node.devices.<name>",
            Constraint::FACT_KEYS.join(", ")
        ),
    })
}
