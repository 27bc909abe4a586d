//! Schemas of the types that are text in JSON and structured in memory, where nothing can be
//! derived.

use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::{Object, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::{ContentId, ItemKey, NodeId, ServiceKey};

impl PartialSchema for NodeId {
    fn schema() -> RefOr<Schema> {
        text(
            "A node's ed25519 public key, 52 characters of base 32.",
            "^[a-z2-7]{52}$",
        )
    }
}

impl ToSchema for NodeId {}

impl PartialSchema for ServiceKey {
    fn schema() -> RefOr<Schema> {
        text(
            "A service's full name: `namespace/name`; `name` alone is in `default`.",
            "^([a-z0-9-]{1,63}/)?[a-z0-9-]{1,63}$",
        )
    }
}

impl ToSchema for ServiceKey {}

impl PartialSchema for ItemKey {
    fn schema() -> RefOr<Schema> {
        text(
            "The full name of a secret or config: `namespace/name`; `name` alone is in `default`.",
            "^([a-z0-9-]{1,63}/)?[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$",
        )
    }
}

impl ToSchema for ItemKey {}

impl PartialSchema for ContentId {
    fn schema() -> RefOr<Schema> {
        text(
            "Names one version of the content of a secret or config.",
            "^[0-9a-f]{32}$",
        )
    }
}

impl ToSchema for ContentId {}

fn text(description: &str, pattern: &str) -> RefOr<Schema> {
    let object: Object = ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
        .pattern(Some(pattern))
        .build();
    RefOr::T(Schema::Object(object))
}
