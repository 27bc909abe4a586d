//! What is said of a rollout: held, let go, tried on some, gone back on.

use std::sync::Arc;

use super::{Draft, json, spec_json, voters};
use crate::desired::command::RolloutChange;
use crate::desired::keys::{Aspect, Key};
use crate::desired::rejection::Rejection;
use crate::desired::snapshot::Rollout;
use crate::desired::validate::MAX_REGISTER_BYTES;
use crate::desired::value::StoredRollout;
use crate::model::{Mode, ServiceKey, ServiceSpec};

/// Bytes of a specification that is kept beside its successor: the rest of a register is for what
/// else is said of the rollout.
const MAX_PREVIOUS_BYTES: usize = MAX_REGISTER_BYTES - 4 * 1024;

impl Draft {
    pub(super) fn rollout(
        &mut self,
        key: &ServiceKey,
        revision: Option<&str>,
        change: &RolloutChange,
    ) -> Result<(), Rejection> {
        let service = self.existing(key)?;
        if revision.is_some_and(|revision| revision != service.revision) {
            return Ok(());
        }
        let mut rollout = Rollout::clone(&service.rollout);
        let unheld = |rollout: &mut Rollout| {
            rollout.paused = false;
            rollout.reason = None;
            rollout.round = rollout.round.saturating_add(1);
        };
        match change {
            RolloutChange::Pause { reason } => {
                rollout.paused = true;
                rollout.reason.clone_from(reason);
            }
            RolloutChange::Resume => unheld(&mut rollout),
            RolloutChange::Canary(_) if service.spec.mode == Mode::Global => {
                return Err(Rejection::GlobalHasNoScale(key.clone()));
            }
            RolloutChange::Canary(slots) => rollout.canary = Some(*slots),
            RolloutChange::Promote => {
                rollout.canary = None;
                unheld(&mut rollout);
            }
            RolloutChange::Rollback { reason } => return self.roll_back(key, reason.as_deref()),
        }
        if rollout != *service.rollout {
            service.rollout = Arc::new(rollout);
            self.write_rollout(key);
        }
        Ok(())
    }

    fn roll_back(&mut self, key: &ServiceKey, reason: Option<&str>) -> Result<(), Rejection> {
        let service = self.existing(key)?;
        let Some(previous) = service.rollout.previous.clone() else {
            return Err(Rejection::NothingBefore(key.clone()));
        };
        let undone = service.revision.clone();
        let spec = voters::keep(ServiceSpec::clone(&previous.spec), service);
        self.deploy(key, &spec, None)?;
        let service = self.existing(key)?;
        if service.revision == undone {
            return Ok(());
        }
        let mut rollout = Rollout::clone(&service.rollout);
        rollout.is_rollback = true;
        rollout.reason = reason.map(str::to_owned);
        service.rollout = Arc::new(rollout);
        self.write_rollout(key);
        Ok(())
    }

    /// Writes what the working copy says of a rollout. A specification that leaves no room beside
    /// it is not kept: then there is nothing to go back to but the history.
    pub(super) fn write_rollout(&mut self, key: &ServiceKey) {
        let Some(service) = self.desired.services.get(key) else {
            return;
        };
        let rollout = &service.rollout;
        let previous = rollout.previous.as_ref().map(|p| spec_json(&p.spec));
        let previous = previous.filter(|json| json.to_string().len() <= MAX_PREVIOUS_BYTES);
        let stored = StoredRollout {
            revision: service.revision.clone(),
            previous: previous.unwrap_or_default(),
            paused: rollout.paused,
            canary: rollout.canary,
            rollback: rollout.is_rollback,
            round: rollout.round,
            reason: rollout.reason.clone(),
        };
        let key = Key::Service(key.clone(), Aspect::Rollout);
        self.writes.insert(key, json(&stored));
    }
}
