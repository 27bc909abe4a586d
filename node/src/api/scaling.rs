//! Services that follow their load, as the API shows them.

use dunlin_api::AutoscaleStatus;
use dunlin_core::engine::Engine;
use dunlin_state::model::ServiceKey;

/// How the number of replicas of a service follows its load, if it does.
pub(super) fn autoscale(engine: &Engine, key: &ServiceKey) -> Option<AutoscaleStatus> {
    let service = engine.desired().services.get(key)?;
    let policy = service.spec.autoscale.as_deref()?;
    let decision = engine.scale_decision(key);
    let author = decision.map(|decision| decision.stamp.author);
    Some(AutoscaleStatus {
        min: policy.min,
        max: policy.max,
        reason: decision.map(|decision| decision.reason.clone()),
        since: decision.map(|decision| decision.since),
        decided_by: author.map(|node| {
            let register = engine.register(node);
            register.map_or_else(|| node.short(), |r| r.report.name.clone())
        }),
    })
}
