//! Commands about secrets and configs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Draft, json};
use crate::desired::items::{Item, MAX_ITEMS, MAX_SECRET_BOXES, NewItem, StoredItem, items_of};
use crate::desired::keys::Key;
use crate::desired::rejection::Rejection;
use crate::desired::snapshot::Service;
use crate::desired::validate::check_labels;
use crate::model::{ContentId, ItemKey, ItemKind, MAX_ITEM_BYTES, ServiceKey};

impl Draft {
    pub(super) fn put_item(
        &mut self,
        kind: ItemKind,
        key: &ItemKey,
        new: &NewItem,
    ) -> Result<(), Rejection> {
        let items = self.desired.items.of(kind);
        let old = items.get(key).cloned();
        let item = || key.clone();
        match (&old, new.existing) {
            (Some(_), Some(false)) => return Err(Rejection::ItemExists { kind, item: item() }),
            (None, Some(true)) => return Err(Rejection::NoSuchItem { kind, item: item() }),
            (None, _) if items.len() >= MAX_ITEMS => {
                let max = MAX_ITEMS;
                return Err(Rejection::TooManyItems { kind, max });
            }
            (Some(_) | None, _) => {}
        }
        // What seals a secret adds a little, of which people need not know.
        let bytes = new.stored.len().saturating_sub(seal_bytes(kind));
        let max = MAX_ITEM_BYTES;
        if bytes > max {
            let item = item();
            return Err(Rejection::ItemTooLarge {
                kind,
                item,
                bytes,
                max,
            });
        }
        if let Some(labels) = &new.labels {
            check_labels(labels.iter()).map_err(|fault| {
                let item = item();
                Rejection::InvalidItemLabels { kind, item, fault }
            })?;
        }
        let known = old.as_ref().map(|old| old.labels.clone());
        let labels = new.labels.clone().or(known).unwrap_or_default();
        let content = ContentId::of(&new.stored);
        let version = match &old {
            Some(old) if old.content == content && old.labels == labels => return Ok(()),
            Some(old) if old.content == content => old.version,
            Some(old) => old.version.saturating_add(1),
            None => 1,
        };
        let boxes: BTreeMap<_, _> = new
            .boxes
            .clone()
            .into_iter()
            .take(MAX_SECRET_BOXES)
            .collect();
        let stored = StoredItem::new(version, &new.stored, &boxes, labels.clone());
        self.writes.insert(Key::Item(kind, item()), json(&stored));
        let item = Item {
            version,
            content,
            stored: new.stored.clone(),
            boxes,
            labels,
            updated: 0,
        };
        let items = Arc::make_mut(&mut self.desired.items).of_mut(kind);
        items.insert(key.clone(), Arc::new(item));
        Ok(())
    }

    pub(super) fn remove_item(&mut self, kind: ItemKind, key: &ItemKey) -> Result<(), Rejection> {
        let item = key.clone();
        if !self.desired.items.of(kind).contains_key(key) {
            return Err(Rejection::NoSuchItem { kind, item });
        }
        let uses = |(service, s): &(&ServiceKey, &Service)| {
            items_of(&s.spec, service.namespace(), kind).any(|used| used == *key)
        };
        if let Some((service, _)) = self.desired.services.iter().find(uses) {
            let service = service.clone();
            return Err(Rejection::ItemInUse {
                kind,
                item,
                service,
            });
        }
        Arc::make_mut(&mut self.desired.items)
            .of_mut(kind)
            .remove(key);
        self.writes
            .insert(Key::Item(kind, item), serde_json::Value::Null);
        Ok(())
    }
}

/// Bytes that the stored form of a value is longer than the value.
fn seal_bytes(kind: ItemKind) -> usize {
    match kind {
        ItemKind::Secret => dunlin_trust::SECRET_OVERHEAD,
        ItemKind::Config => 0,
    }
}
