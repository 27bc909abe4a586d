//! Secrets and configs. A secret's value comes in here and nowhere goes out.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use dunlin_api::{
    ChangeResponse, ErrorCode, ItemDetail, ItemList, ItemQuery, ItemRequest, ItemSummary,
};
use dunlin_core::engine::Engine;
use dunlin_state::desired::{Command, Item, NewItem, items_of};
use dunlin_state::model::{ItemKey, ItemKind, MAX_ITEM_BYTES};

use super::failure::{Answer, Body, Failure, Query};
use super::{Caller, Context};

type ItemPath = Result<Path<(String, String)>, PathRejection>;

/// The handlers of one kind.
macro_rules! handlers {
    ($module:ident, $kind:expr) => {
        pub(super) mod $module {
            use super::*;

            pub(in crate::api) async fn list(
                State(context): State<Context>,
                Extension(caller): Extension<Caller>,
                Query(query): Query<ItemQuery>,
            ) -> Answer<ItemList> {
                super::list($kind, &context, &caller, query).await
            }

            pub(in crate::api) async fn inspect(
                State(context): State<Context>,
                path: ItemPath,
            ) -> Answer<ItemDetail> {
                super::inspect($kind, &context, path).await
            }

            pub(in crate::api) async fn put(
                State(context): State<Context>,
                Extension(caller): Extension<Caller>,
                path: ItemPath,
                Body(request): Body<ItemRequest>,
            ) -> Answer<ChangeResponse> {
                super::put($kind, &context, caller, path, request).await
            }

            pub(in crate::api) async fn remove(
                State(context): State<Context>,
                Extension(caller): Extension<Caller>,
                path: ItemPath,
            ) -> Answer<ChangeResponse> {
                let item = key(path)?;
                let kind = $kind;
                let command = Command::RemoveItem { kind, item };
                crate::api::services::change(&context, caller, command).await
            }
        }
    };
}

handlers!(secrets, ItemKind::Secret);
handlers!(configs, ItemKind::Config);

async fn list(
    kind: ItemKind,
    context: &Context,
    caller: &Caller,
    query: ItemQuery,
) -> Answer<ItemList> {
    if let Some(namespace) = &query.namespace {
        caller.may_read(namespace)?;
    }
    let mut items = context
        .engine
        .ask(move |engine| {
            let items = engine.desired().items.of(kind).iter();
            let wanted = |key: &ItemKey| match &query.namespace {
                Some(namespace) => key.namespace() == namespace,
                None => true,
            };
            let items = items.filter(|(key, _)| wanted(key));
            items
                .map(|(key, item)| summary(engine, kind, key, item))
                .collect::<Vec<_>>()
        })
        .await?;
    items.retain(|item| caller.sees(item.name.namespace()));
    Ok(Json(ItemList { items }))
}

async fn inspect(kind: ItemKind, context: &Context, path: ItemPath) -> Answer<ItemDetail> {
    let key = key(path)?;
    let asked = key.clone();
    let detail = context
        .engine
        .ask(move |engine| {
            let item = engine.desired().items.of(kind).get(&asked)?;
            Some(ItemDetail {
                summary: summary(engine, kind, &asked, item),
                value: match kind {
                    ItemKind::Secret => None,
                    ItemKind::Config => Some(data_encoding::BASE64.encode(&item.stored)),
                },
                sealed_to: item.boxes.keys().copied().collect(),
                opens_here: kind == ItemKind::Config || engine.opens(&asked),
            })
        })
        .await?;
    detail.map(Json).ok_or_else(|| {
        let text = format!("no {kind} is named '{key}'");
        let failure = Failure::new(ErrorCode::NoSuchItem, text);
        Failure(
            failure
                .0
                .with_hint(format!("`dunlin {kind} ls` lists them")),
        )
    })
}

async fn put(
    kind: ItemKind,
    context: &Context,
    caller: Caller,
    path: ItemPath,
    request: ItemRequest,
) -> Answer<ChangeResponse> {
    let item = key(path)?;
    let value = data_encoding::BASE64.decode(request.value.as_bytes());
    let value = value.map_err(|_malformed| {
        // What was sent is not repeated: it may be a secret.
        Failure::new(ErrorCode::BadRequest, "the value is not in base 64")
    })?;
    if value.len() > MAX_ITEM_BYTES {
        let text = format!(
            "{kind} '{item}' takes {} bytes, at most {MAX_ITEM_BYTES} are allowed",
            value.len()
        );
        return Err(Failure::new(ErrorCode::TooLarge, text));
    }
    let new = match kind {
        ItemKind::Config => NewItem {
            stored: value.into(),
            boxes: Default::default(),
            labels: None,
            existing: None,
        },
        ItemKind::Secret => sealed(context, &item, &value).await?,
    };
    let command = Command::PutItem {
        kind,
        item,
        new: NewItem {
            labels: request.labels,
            existing: request.existing,
            ..new
        },
    };
    super::services::change(context, caller, command).await
}

/// The value, sealed; or what is stored already, when that is the same value.
async fn sealed(context: &Context, item: &ItemKey, value: &[u8]) -> Result<NewItem, Failure> {
    let asked = item.clone();
    let (known, recipients) = context
        .engine
        .ask(move |engine| {
            let known = engine.desired().items.secrets.get(&asked).cloned();
            (known, engine.secret_recipients(&asked))
        })
        .await?;
    if let Some(known) = known
        && context.vault.has_value(item, value)
    {
        return Ok(NewItem {
            stored: known.stored.clone(),
            boxes: known.boxes.clone(),
            labels: None,
            existing: None,
        });
    }
    let sealed = context.vault.seal(item, value, &recipients);
    sealed.map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))
}

fn key(path: ItemPath) -> Result<ItemKey, Failure> {
    let Path((namespace, name)) = path?;
    ItemKey::new(&namespace, &name)
        .map_err(|error| Failure::new(ErrorCode::BadRequest, error.to_string()))
}

fn summary(engine: &Engine, kind: ItemKind, key: &ItemKey, item: &Item) -> ItemSummary {
    let services = engine.desired().services.iter();
    let uses = services.filter(|(service, s)| {
        items_of(&s.spec, service.namespace(), kind).any(|used| used == *key)
    });
    ItemSummary {
        name: key.clone(),
        version: item.version,
        content: item.content,
        updated: item.updated,
        labels: item.labels.clone(),
        used_by: uses.map(|(service, _)| service.clone()).collect(),
    }
}
