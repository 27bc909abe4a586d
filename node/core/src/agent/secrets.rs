//! Secrets and configs: what this node needs for its replicas, and what happens when it has come or
//! has changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use dunlin_state::Now;
use dunlin_state::desired::{Desired, Item, Rules, items_of};
use dunlin_state::model::{ItemKey, ItemKind, NodeId};

use super::{Agent, Output, push_reconciled};
use crate::secrets::{Answer, Effect, Keeper, Message, OwnProof, View, recipients};

impl Agent {
    /// Whom to believe, and what this node can prove, is another now.
    pub fn set_authority(&mut self, rules: &Rules, now: Now) -> Vec<Output> {
        let proofs = rules.credentials().iter().map(|credential| OwnProof {
            power: credential.verified().power.clone(),
            chain: credential.chain().encode().into(),
        });
        self.keeper.set_authority(rules.root(), proofs.collect());
        self.keys_dirty = true;
        let mut out = Vec::new();
        self.settle(now, &mut out);
        out
    }

    /// A peer says something about secrets.
    pub fn secret_message(&mut self, from: NodeId, message: Message, now: Now) -> Vec<Output> {
        let mut out = Vec::new();
        self.keep(&BTreeSet::new(), &mut out, |keeper, view| {
            keeper.message(from, message, view, now)
        });
        out
    }

    /// The holder of the keys has answered.
    pub fn secret_answer(&mut self, answer: Answer, now: Now) -> Vec<Output> {
        let mut out = Vec::new();
        let (effects, opened) = self.keeper.answer(answer, now.mono);
        push_keys(effects, &mut out);
        if let Some(secret) = opened {
            self.deliver_files(ItemKind::Secret, &secret, now, &mut out);
            self.settle(now, &mut out);
        }
        out
    }

    /// Starts what has waited for a secret or config, and brings it to what runs.
    pub(super) fn deliver_files(
        &mut self,
        kind: ItemKind,
        key: &ItemKey,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let effects = self.with_world(|r, world| r.files_changed(kind, key, world, now));
        push_reconciled(effects, out);
    }

    /// Configs that have changed; secrets are told when their new version is open.
    pub(super) fn follow_items(&mut self, old: &Desired, now: Now, out: &mut Vec<Output>) {
        if Arc::ptr_eq(&old.items, &self.desired.items) {
            return;
        }
        self.keys_dirty = true;
        let (old, new) = (&old.items, Arc::clone(&self.desired.items));
        for kind in ItemKind::ALL {
            let (old, new) = (old.of(kind), new.of(kind));
            let changed = |key: &&ItemKey| {
                let content = |item: Option<&Arc<Item>>| item.map(|item| item.content);
                content(old.get(*key)) != content(new.get(*key))
            };
            let all: BTreeSet<&ItemKey> = old.keys().chain(new.keys()).collect();
            for key in all.into_iter().filter(changed) {
                self.deliver_files(kind, key, now, out);
            }
        }
    }

    pub(super) fn keys_due(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.keeper.poll_timeout().is_none_or(|at| at > now.mono) {
            return;
        }
        let used = self.used_secrets();
        self.keep(&used, out, |keeper, view| {
            keeper.handle_timeout(view, now.mono)
        });
    }

    pub(super) fn review_keys(&mut self, now: Now, out: &mut Vec<Output>) {
        if !std::mem::take(&mut self.keys_dirty) {
            return;
        }
        let used = self.used_secrets();
        self.keep(&used, out, |keeper, view| keeper.review(view, now.mono));
    }

    /// Shows the keeper the cluster, and passes on what it wants done.
    fn keep(
        &mut self,
        used: &BTreeSet<ItemKey>,
        out: &mut Vec<Output>,
        act: impl FnOnce(&mut Keeper, View<'_>) -> Vec<Effect>,
    ) {
        let view = View {
            cluster: &self.cluster,
            desired: &self.desired,
            used,
        };
        push_keys(act(&mut self.keeper, view), out);
    }

    /// The secrets of what this node holds.
    fn used_secrets(&self) -> BTreeSet<ItemKey> {
        // Most clusters have none, and this is asked after every change of a claim.
        if self.desired.items.secrets.is_empty() {
            return BTreeSet::new();
        }
        let specs = self.reconciler.specs();
        let keys = specs
            .flat_map(|(slot, spec)| items_of(spec, slot.service.namespace(), ItemKind::Secret));
        keys.collect()
    }

    /// The nodes that a new version of a secret should be sealed to at once: this one, and those
    /// that run what uses it.
    pub fn secret_recipients(&self, secret: &ItemKey) -> BTreeSet<NodeId> {
        let mut nodes = recipients(secret, &self.cluster, &self.desired);
        nodes.insert(self.me);
        nodes
    }

    /// Whether this node can open the present version of a secret.
    pub fn opens(&self, secret: &ItemKey) -> bool {
        let item = self.desired.items.secrets.get(secret);
        item.is_some_and(|item| self.keeper.opens(secret, item))
    }
}

fn push_keys(effects: Vec<Effect>, out: &mut Vec<Output>) {
    out.extend(effects.into_iter().map(|effect| match effect {
        Effect::Send { to, message } => Output::Ask { to, message },
        Effect::Order(order) => Output::Secret(order),
    }));
}
