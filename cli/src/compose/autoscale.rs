//! `x-dunlin.autoscale`: how the number of replicas follows the load.

use std::collections::BTreeMap;

use dunlin_state::desired::MAX_REPLICAS;
use dunlin_state::model::{Aim, Autoscale, Metric};

use super::read::View;
use super::report::Report;
use super::support::{AUTOSCALE, TARGETS};
use super::units::{bytes, cpu_millis, duration_ms};

/// Most connections that are anybody's target for one replica.
const MAX_CONNECTIONS: u64 = 1_000_000;

/// Reads `x-dunlin.autoscale`. `None` when it lacks what it cannot do without.
pub(super) fn autoscale(report: &mut Report, view: &View<'_>) -> Option<Autoscale> {
    let mut autoscale = Autoscale {
        min: 1,
        ..Autoscale::default()
    };
    let (mut max, mut targets) = (None, false);
    for (key, field) in report.section(view, &AUTOSCALE) {
        match key {
            "min" => {
                if let Some(min) = report.number(&field, 0, MAX_REPLICAS) {
                    autoscale.min = min;
                }
            }
            "max" => max = Some(report.number(&field, 1, MAX_REPLICAS)),
            "targets" => {
                targets = true;
                autoscale.targets = read_targets(report, &field);
            }
            "up_window" => autoscale.up_window_ms = window(report, &field).unwrap_or_default(),
            "down_window" => autoscale.down_window_ms = window(report, &field),
            "zero_after" => autoscale.zero_after_ms = window(report, &field),
            "forecast" => autoscale.season_ms = report.parsed(&field, season),
            _ => report.unhandled(&field),
        }
    }
    if !view.is_map() {
        return None;
    }
    let Some(max) = max else {
        let hint = "write 'max:', the most replicas that there may be";
        report.fault_hint(view, "autoscale has no maximum", hint);
        return None;
    };
    autoscale.max = max?;
    if !targets {
        let hint = "write 'targets:' with what one replica shall have to do, such as \
                    'connections: 100' or 'cpu: 70%'";
        report.fault_hint(view, "autoscale has no target", hint);
        return None;
    }
    // Faults in them have been told.
    (!autoscale.targets.is_empty()).then_some(autoscale)
}

fn read_targets(report: &mut Report, view: &View<'_>) -> BTreeMap<Metric, Aim> {
    let mut targets = BTreeMap::new();
    let mut any = false;
    for (key, field) in report.section(view, &TARGETS) {
        any = true;
        let (metric, aim) = match key {
            "cpu" => (Metric::Cpu, report.parsed(&field, cpu)),
            "memory" => (Metric::Memory, report.parsed(&field, memory)),
            "connections" => (Metric::Connections, connections(report, &field, 1)),
            // In thousandths a second.
            "new_connections" => (Metric::NewConnections, connections(report, &field, 1_000)),
            _ => {
                report.unhandled(&field);
                continue;
            }
        };
        targets.extend(aim.map(|aim| (metric, aim)));
    }
    if view.is_map() && !any {
        let hint = "name at least one of cpu, memory, connections and new_connections";
        report.fault_hint(view, "autoscale has no target", hint);
    }
    targets
}

fn connections(report: &mut Report, view: &View<'_>, parts: u64) -> Option<Aim> {
    let number = report.number(view, 1, MAX_CONNECTIONS)?;
    Some(Aim::Each(number * parts))
}

fn cpu(text: &str) -> Result<Aim, String> {
    share(text).unwrap_or_else(|| cpu_millis(text).map(Aim::Each))
}

fn memory(text: &str) -> Result<Aim, String> {
    share(text).unwrap_or_else(|| bytes(text).map(Aim::Each))
}

/// A share of the reservation; nothing when it is none.
fn share(text: &str) -> Option<Result<Aim, String>> {
    let number = text.strip_suffix('%')?.trim_end();
    let percent = number.parse::<u32>().ok().filter(|percent| *percent > 0);
    let percent = percent.map(Aim::Percent);
    Some(percent.ok_or_else(|| format!("'{text}' is not a share, such as '70%'")))
}

fn window(report: &mut Report, view: &View<'_>) -> Option<u64> {
    report.parsed(view, |text| {
        let ms = duration_ms(text)?;
        if ms > Autoscale::MAX_WINDOW_MS {
            return Err(format!("'{text}' is longer than a day"));
        }
        Ok(ms)
    })
}

fn season(text: &str) -> Result<u64, String> {
    let ms = duration_ms(text)?;
    if !(Autoscale::MIN_SEASON_MS..=Autoscale::MAX_SEASON_MS).contains(&ms) {
        return Err(format!(
            "'{text}' is not a season of 160s to 1w, after which the load repeats itself; write \
             for example '1d'"
        ));
    }
    Ok(ms)
}
