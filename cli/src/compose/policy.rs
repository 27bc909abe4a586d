//! What a service is worth among others, and what becomes of it where its node is alone.

use dunlin_state::model::Policy;

use super::read::View;
use super::report::Report;
use super::units::duration_ms;

/// Reads one key of `x-dunlin`. `false` when it is none of these.
pub(super) fn read(report: &mut Report, name: &str, field: &View<'_>, policy: &mut Policy) -> bool {
    match name {
        "priority" => policy.priority = report.parsed(field, priority).unwrap_or_default(),
        "on_isolation" => {
            policy.stop_isolated_after_ms = report.parsed(field, isolation).unwrap_or_default();
        }
        _ => return false,
    }
    true
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
