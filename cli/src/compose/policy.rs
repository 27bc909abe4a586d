//! What a service is worth among others, and what becomes of it where its node is alone.

use dunlin_state::model::{NodeId, Policy};

use super::read::View;
use super::report::Report;
use super::support::SINGLETON;
use super::units::duration_ms;

/// Reads one key of `x-dunlin`. `false` when it is none of these.
pub(super) fn read(report: &mut Report, name: &str, field: &View<'_>, policy: &mut Policy) -> bool {
    match name {
        "priority" => policy.priority = report.parsed(field, priority).unwrap_or_default(),
        "on_isolation" => {
            policy.stop_isolated_after_ms = report.parsed(field, isolation).unwrap_or_default();
        }
        "rebalance" => policy.rebalance = report.flag(field),
        "singleton" => singleton(report, field, policy),
        _ => return false,
    }
    true
}

fn singleton(report: &mut Report, view: &View<'_>, policy: &mut Policy) {
    let mut named = false;
    for (name, field) in report.section(view, &SINGLETON) {
        match name {
            "voters" => {
                named = true;
                let items = report.list(&field);
                let voters = items.iter().filter_map(|item| report.parsed(item, voter));
                policy.voters = voters.collect();
                let count = items.len();
                if count.is_multiple_of(2) || count > Policy::MAX_VOTERS {
                    let text = format!("{count} voters have no clear majority");
                    report.fault_hint(&field, text, "name 1, 3, 5 or 7 nodes");
                }
            }
            _ => report.unhandled(&field),
        }
    }
    if !named && view.is_map() {
        let hint = "write 'voters:' with the ids of 3 nodes, as `dunlin nodes --json` shows them";
        report.fault_hint(view, "a singleton has no voters", hint);
    }
}

/// Ids, not names: nobody can take the id of another node.
fn voter(text: &str) -> Result<NodeId, String> {
    text.parse().map_err(|_not_an_id| {
        format!("'{text}' is not the id of a node, as `dunlin nodes --json` shows it")
    })
}

fn priority(text: &str) -> Result<i32, String> {
    let most = Policy::MAX_PRIORITY;
    let priority = text.parse::<i32>().ok();
    priority
        .filter(|p| (-most..=most).contains(p))
        .ok_or_else(|| format!("'{text}' is not a priority from -{most} to {most}"))
}

/// `keep`, or `stop-after` and a time.
fn isolation(text: &str) -> Result<Option<u64>, String> {
    let wrong = || {
        format!("'{text}' is neither 'keep' nor 'stop-after' with a time, such as 'stop-after 30s'")
    };
    if text == "keep" {
        return Ok(None);
    }
    let time = text
        .strip_prefix("stop-after")
        .ok_or_else(wrong)?
        .trim_start();
    if time.is_empty() {
        return Err(wrong());
    }
    let ms = duration_ms(time)?;
    if ms > Policy::MAX_ISOLATED_MS {
        return Err(format!(
            "'{time}' is longer than a week; write 'keep' instead"
        ));
    }
    Ok(Some(ms))
}
