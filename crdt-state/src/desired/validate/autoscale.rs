//! What may be said of scaling by load.

use super::{MAX_REPLICAS, SpecFault};
use crate::model::{Aim, Autoscale, Mode, PublishMode, ServiceSpec};

/// The greatest share of a reservation, in percent: a replica may use more than it reserves.
const MAX_PERCENT: u32 = 10_000;

pub(super) fn check_autoscale(spec: &ServiceSpec) -> Result<(), SpecFault> {
    let Some(autoscale) = spec.autoscale.as_deref() else {
        return Ok(());
    };
    let bad = |text: &str| Err(SpecFault::BadAutoscale(text.to_owned()));
    if spec.mode == Mode::Global {
        return bad("is for replicated services: a global one has one replica on every node");
    }
    if spec.job.is_some() {
        return bad("is not for jobs, whose replicas end; use 'parallelism'");
    }
    if spec.policy.is_strict() {
        return bad("does not go with 'singleton', whose number is decided by people");
    }
    let Autoscale { min, max, .. } = *autoscale;
    if max == 0 || max > MAX_REPLICAS {
        return bad("needs a maximum of 1 to 10000 replicas");
    }
    if min > max {
        return bad("has a minimum above its maximum; turn them round");
    }
    if autoscale.targets.is_empty() {
        return bad(
            "has no target; name what one replica shall have to do, of cpu, memory, connections \
             or new_connections",
        );
    }
    check_targets(autoscale, spec)?;
    check_times(autoscale)?;
    let mut seen = spec.ports.iter();
    if min == 0 && !seen.any(|port| port.publish_mode == PublishMode::Ingress) {
        return bad(
            "has a minimum of 0, and no port on which the proxies could notice the first \
             connection; give it a port that is not in host mode, or a minimum of 1",
        );
    }
    Ok(())
}

fn check_targets(autoscale: &Autoscale, spec: &ServiceSpec) -> Result<(), SpecFault> {
    for (metric, aim) in &autoscale.targets {
        let bad = |text: String| Err(SpecFault::BadAutoscale(text));
        match *aim {
            Aim::Each(0) | Aim::Percent(0) => {
                return bad(format!("has a target of 0 for {metric}; give at least 1"));
            }
            Aim::Percent(percent) if percent > MAX_PERCENT => {
                return bad(format!(
                    "has a target of {percent} % for {metric}; at most {MAX_PERCENT} % are allowed"
                ));
            }
            Aim::Percent(_) if metric.is_of_proxies() => {
                return bad(format!(
                    "has a share as target for {metric}, of which nothing is reserved; give a \
                     number"
                ));
            }
            Aim::Percent(_) | Aim::Each(_) => {}
        }
        if autoscale.target(*metric, spec.reservation).is_none() {
            return bad(format!(
                "has a share of the reserved {metric} as target, and nothing is reserved; add \
                 'deploy.resources.reservations', or give an amount"
            ));
        }
        let mut ports = spec.ports.iter();
        let seen = ports.any(|port| port.publish_mode == PublishMode::Ingress);
        if metric.is_of_proxies() && !seen {
            return bad(format!(
                "has a target for {metric}, and no port that the proxies serve; give it a port \
                 that is not in host mode"
            ));
        }
    }
    Ok(())
}

fn check_times(autoscale: &Autoscale) -> Result<(), SpecFault> {
    let bad = |text: &str| Err(SpecFault::BadAutoscale(text.to_owned()));
    let windows = [
        Some(autoscale.up_window_ms),
        autoscale.down_window_ms,
        autoscale.zero_after_ms,
    ];
    let longest = windows.into_iter().flatten().max();
    if longest.is_some_and(|ms| ms > Autoscale::MAX_WINDOW_MS) {
        return bad("has a window or time that is longer than a day");
    }
    if autoscale.min > 0 && autoscale.zero_after_ms.is_some() {
        return bad("never goes to zero with this minimum; remove 'zero_after', or write 'min: 0'");
    }
    let seasons = Autoscale::MIN_SEASON_MS..=Autoscale::MAX_SEASON_MS;
    if autoscale.season_ms.is_some_and(|ms| !seasons.contains(&ms)) {
        return bad("has a season that is shorter than 160 s or longer than a week");
    }
    Ok(())
}
