//! Networks of services.

use super::{bad, good};

fn joined(service: &str, top: &str) -> Vec<String> {
    let text = format!("services:\n  web:\n    image: a\n    networks: {service}\n{top}\n");
    let networks = &good(&text).services[0].spec.networks;
    networks.iter().map(ToString::to_string).collect()
}

#[test]
fn a_service_is_in_the_networks_that_it_names() {
    let top = "networks: {back: {}, front: , shared: {external: true}, old: {name: new.er}}";
    let table: [(&str, &[&str]); 6] = [
        ("[back, front]", &["back", "front"]),
        ("{back: {}, front: }", &["back", "front"]),
        ("[shared]", &["*/shared"]),
        ("[old]", &["new.er"]),
        ("[default]", &["default"]),
        ("[]", &[]),
    ];
    for (service, expected) in table {
        assert_eq!(joined(service, top), expected, "{service}");
    }
    let renamed = "networks: {default: {external: true, name: all}}";
    assert_eq!(joined("[default]", renamed), ["*/all"]);
}

#[test]
fn what_has_no_effect_on_a_network_is_named() {
    let text = "services:\n  web:\n    image: a\n    networks: {back: {aliases: [b]}}\n\
                networks:\n  back: {driver: overlay, attachable: true}\n  other: {driver: macvlan}\n";
    let warnings = good(text).warnings;
    let paths: Vec<&str> = warnings.iter().map(|w| w.path.as_str()).collect();
    let expected = [
        "services.web.networks.back.aliases",
        "networks.back.attachable",
        "networks.other.driver",
    ];
    assert_eq!(paths, expected);
}

#[test]
fn networks_that_cannot_be_are_faults() {
    let head = "services:\n  web:\n    image: a\n    networks: ";
    for (rest, expected) in [
        (
            "[bak]\nnetworks: {back: {}}",
            "the network 'bak' is not declared",
        ),
        ("[back]", "the network 'back' is not declared"),
        (
            "[a]\nnetworks: {a: {name: a/b}}",
            "'a/b' is not a network name",
        ),
        ("[a]\nnetworks: {a: {colour: red}}", "colour"),
    ] {
        let faults = bad(&format!("{head}{rest}\n"));
        assert!(faults.contains(expected), "{rest}: {faults}");
    }
}
