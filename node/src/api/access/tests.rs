//! Who may do what on which route.

use super::*;

fn role(text: &str) -> Caller {
    Caller::certified(PublicKey([7; 32]), text.parse().unwrap())
}

/// What of the contract a caller may do, when every namespace in a path is `namespace`.
fn allowed(caller: &Caller, namespace: &str) -> BTreeSet<(&'static str, &'static str)> {
    let routed = routes::ALL.into_iter();
    routed
        .filter(|(method, template)| {
            let need = need(&method.parse().unwrap(), template);
            caller.check(need, Some(namespace)).is_ok()
        })
        .collect()
}

#[test]
fn local_users_and_admins_may_do_everything() {
    let all: BTreeSet<_> = routes::ALL.into_iter().collect();
    assert_eq!(allowed(&role("admin"), "a"), all);
    let mut local = all;
    // It is about the key of a TLS connection.
    local.remove(&("POST", routes::REDEEM));
    assert_eq!(allowed(&Caller::local("root".into()), "a"), local);
}

#[test]
fn viewers_read_everything_and_change_nothing() {
    for (method, template) in allowed(&role("viewer"), "a") {
        assert!(method == "GET" || template == routes::REDEEM, "{template}");
    }
    assert!(role("viewer").may_write("a").is_err());
    assert!(role("viewer").sees("a"));
}

#[test]
fn operators_act_in_exactly_their_namespaces() {
    let caller = role("operator:ab,c");
    for other in ["a", "abc", "b", "", "AB", "ab ", "c,ab"] {
        let refused = caller.may_write(other).unwrap_err().0;
        assert_eq!(refused.code, ErrorCode::Forbidden);
        assert!(refused.message.contains("operator:ab,c"), "{refused}");
        assert!(!caller.sees(other));
        let within = allowed(&caller, other);
        assert!(within.iter().all(|(_, t)| !t.contains("{namespace}")));
    }
    assert!(caller.may_write("ab").is_ok() && caller.sees("c"));
    let within = allowed(&caller, "ab");
    assert!(within.contains(&("POST", routes::SERVICE_SCALE)));
    assert!(!within.contains(&("POST", routes::NODE_AVAILABILITY)));
    assert!(!within.contains(&("POST", routes::TICKET)));
    let everywhere = allowed(&role("operator"), "ab");
    assert!(everywhere.contains(&("POST", routes::NODE_AVAILABILITY)));
    assert!(!everywhere.contains(&("POST", routes::LEAVE)));
}

#[test]
fn strangers_and_nodes_have_nothing_but_the_health_probe() {
    let none = Caller::stranger(None, "who are you");
    assert!(allowed(&none, "default").is_empty());
    assert!(none.check(need(&Method::GET, routes::HEALTH), None).is_ok());
    let keyed = Caller::stranger(Some(PublicKey([1; 32])), "who are you");
    let redeem = BTreeSet::from([("POST", routes::REDEEM)]);
    assert_eq!(allowed(&keyed, "default"), redeem);
    assert_eq!(allowed(&role("node"), "default"), redeem);
}

#[test]
fn a_route_that_is_forgotten_here_is_closed() {
    for method in [Method::GET, Method::POST, Method::DELETE] {
        assert_eq!(need(&method, "/v1/from/the/future"), Need::Admin);
    }
    let scoped = "/v1/secrets/{namespace}/{name}";
    assert_eq!(need(&Method::PUT, scoped), Need::WriteIn);
    assert_eq!(need(&Method::POST, routes::SERVICES), Need::Admin);
    assert_eq!(need(&Method::GET, routes::TICKET), Need::Admin);
}
