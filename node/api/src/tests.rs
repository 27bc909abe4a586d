//! The contract against itself: description, paths, codes.

use std::collections::BTreeSet;
use std::path::Path;

use crate::*;

#[test]
fn the_checked_in_description_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let mut current = serde_json::to_string_pretty(&openapi()).unwrap();
    current.push('\n');
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &current).unwrap();
        return;
    }
    assert!(
        OPENAPI_JSON == current,
        "docs/openapi.json is out of date: run `UPDATE=1 cargo test -p dunlin-api`"
    );
}

#[test]
fn the_description_has_every_route_and_no_other() {
    let document = serde_json::to_value(openapi()).unwrap();
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(move |m| (m.to_uppercase(), path.clone()))
        })
        .collect();
    let routed = routes::ALL
        .iter()
        .map(|(method, path)| ((*method).to_owned(), (*path).to_owned()))
        .collect();
    assert_eq!(described, routed);
}

#[test]
fn every_reference_in_the_description_leads_somewhere() {
    fn references(value: &serde_json::Value, found: &mut BTreeSet<String>) {
        match value {
            serde_json::Value::Object(map) => {
                if let Some(target) = map.get("$ref").and_then(|t| t.as_str()) {
                    found.insert(target.to_owned());
                }
                map.values().for_each(|v| references(v, found));
            }
            serde_json::Value::Array(list) => list.iter().for_each(|v| references(v, found)),
            _ => {}
        }
    }
    let document = serde_json::to_value(openapi()).unwrap();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 30, "{found:?}");
    for target in found {
        let pointer = target.trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "{target}");
    }
}

#[test]
fn codes_survive_the_wire_and_unknown_ones_are_internal() {
    let mut texts = BTreeSet::new();
    for code in ErrorCode::ALL {
        let body = ErrorBody::new(code, "so it is").with_hint("do this");
        let text = serde_json::to_string(&body).unwrap();
        assert_eq!(serde_json::from_str::<ErrorBody>(&text).unwrap(), body);
        assert!(texts.insert(code.to_string()), "{code} stands twice");
        assert!((400..600).contains(&code.status()));
        assert!(code.exit() != Exit::Ok && code.exit() != Exit::Usage);
    }
    let newer = r#"{"code":"from_the_future","message":"m"}"#;
    let body: ErrorBody = serde_json::from_str(newer).unwrap();
    assert_eq!(body.code, ErrorCode::Internal);
}

#[test]
fn paths_are_filled_in_and_escaped() {
    let key = "shop/web".parse().unwrap();
    assert_eq!(
        routes::service(routes::SERVICE_SCALE, &key),
        "/v1/services/shop/web/scale"
    );
    assert_eq!(
        routes::node(routes::NODE_LABELS, "a/b é?"),
        "/v1/nodes/a%2Fb%20%C3%A9%3F/labels"
    );
}

#[test]
fn requests_take_what_older_clients_send() {
    let deploy = r#"{"services":[{"service":"web","spec":{"command":["true"]}}]}"#;
    let deploy: DeployRequest = serde_json::from_str(deploy).unwrap();
    assert_eq!(deploy.services[0].service.to_string(), "default/web");
    assert_eq!(deploy.services[0].replicas, None);
    assert_eq!(
        serde_json::from_str::<TicketRequest>("{}").unwrap().ttl_ms,
        None
    );
    assert!(
        serde_json::from_str::<LabelsRequest>("{}")
            .unwrap()
            .set
            .is_empty()
    );
}
