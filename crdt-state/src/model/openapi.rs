//! Schemas of the types that are text in JSON and structured in memory, where nothing can be
//! derived.

use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::{Object, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::{NodeId, ServiceKey};

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

fn text(description: &str, pattern: &str) -> RefOr<Schema> {
    let object: Object = ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
        .pattern(Some(pattern))
        .build();
    RefOr::T(Schema::Object(object))
}
