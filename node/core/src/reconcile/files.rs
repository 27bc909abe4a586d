//! Secrets and configs of replicas: what lacks them waits, and what runs is brought up to date.

use std::sync::Arc;

use dunlin_state::Now;
use dunlin_state::model::{FileMount, ItemKey, ItemKind, ServiceSpec, SlotId};

use super::held::{Held, Stage};
use super::{Effect, Reconciler, World};
use crate::io::RuntimeCommand;

/// Milliseconds until the words about what is missing are looked at again; what comes is told at
/// once.
const LOOK_AGAIN_MS: u64 = 2_000;

impl Reconciler {
    /// The specifications of what this node holds.
    pub(crate) fn specs(&self) -> impl Iterator<Item = (&SlotId, &ServiceSpec)> {
        let held = self.claims.iter();
        held.filter_map(|(slot, held)| Some((slot, &**held.spec.as_ref()?)))
    }

    /// A secret can be opened since now, or a config has come or changed.
    pub(crate) fn files_changed(
        &mut self,
        kind: ItemKind,
        key: &ItemKey,
        world: &World<'_>,
        now: Now,
    ) -> Vec<Effect> {
        let users = self.specs().filter(|(slot, spec)| {
            let mounts = mounts(spec, kind);
            slot.service.namespace() == key.namespace()
                && mounts.iter().any(|mount| mount.source == key.name())
        });
        let users: Vec<SlotId> = users.map(|(slot, _)| slot.clone()).collect();
        let mut effects = Vec::new();
        for slot in users {
            let Some(held) = self.claims.get_mut(&slot) else {
                continue;
            };
            if held.waits_for_files && matches!(held.stage, Stage::Waiting { .. }) {
                held.stage = Stage::Waiting { at: now.mono };
                effects.extend(self.run_due(&slot, world, now));
            } else {
                effects.extend(held.refresh());
            }
        }
        effects
    }
}

fn mounts(spec: &ServiceSpec, kind: ItemKind) -> &[FileMount] {
    match kind {
        ItemKind::Secret => &spec.secrets,
        ItemKind::Config => &spec.configs,
    }
}

impl Held {
    /// Whether it cannot be started because a secret or config is missing; then it waits and says
    /// so.
    pub(super) fn lacks_files(&mut self, world: &World<'_>, now: Now) -> bool {
        let Some(spec) = self.spec.clone() else {
            return false;
        };
        let service = &self.claim.slot.service;
        let lack = world.keeper.lacks(&spec, service, world.desired, now.mono);
        self.waits_for_files = lack.is_some();
        if let Some(lack) = lack {
            self.say(&lack);
            self.stage = Stage::Waiting {
                at: now.mono.saturating_add(LOOK_AGAIN_MS),
            };
        }
        self.waits_for_files
    }

    /// The order to bring its files up to date, if it runs and has some.
    pub(super) fn refresh(&self) -> Option<Effect> {
        let spec = self.spec.as_ref()?;
        let has_files = !spec.secrets.is_empty() || !spec.configs.is_empty();
        let may_run = self.is_up() || matches!(self.stage, Stage::Starting { .. });
        (has_files && may_run).then(|| {
            Effect::Runtime(RuntimeCommand::Refresh {
                id: self.id(),
                spec: Arc::clone(spec),
            })
        })
    }
}
