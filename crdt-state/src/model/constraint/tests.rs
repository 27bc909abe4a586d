use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Constraint {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn constraints_are_read_and_written() {
    let cases = [
        ("node.labels.zone==north", "node.labels.zone == north"),
        ("node.labels.zone=north", "node.labels.zone == north"),
        (" node.id != abc ", "node.id != abc"),
        ("node.labels.expr == a!=b", "node.labels.expr == a!=b"),
        ("node.labels.expr != a==b", "node.labels.expr != a==b"),
        ("node.labels.z in(a,b , c)", "node.labels.z in (a, b, c)"),
        ("node.labels.z NOT  IN (a)", "node.labels.z not in (a)"),
        (
            "node.hostname=~^web-[0-9]+$",
            "node.hostname =~ ^web-[0-9]+$",
        ),
        ("node.hostname !~ (a|b)", "node.hostname !~ (a|b)"),
        ("node.kernel>=6.1", "node.kernel >= 6.1"),
        ("node.memory < 16g", "node.memory < 16g"),
        ("node.cpus > 3", "node.cpus > 3"),
        ("node.cpus <= 3", "node.cpus <= 3"),
        ("node.labels.in == x", "node.labels.in == x"),
    ];
    for (text, written) in cases {
        let constraint = read(text);
        assert_eq!(constraint.to_string(), written);
        assert_eq!(written.parse(), Ok(constraint));
    }
}

#[test]
fn what_makes_no_sense_is_told_with_its_place() {
    let cases = [
        ("", "compares nothing", 0),
        ("node.id", "compares nothing", 7),
        ("node.id is x", "'is' is not a comparison", 8),
        ("== x", "names nothing", 0),
        ("node.id ==", "no value", 8),
        ("node.labels.z in a, b", "in parentheses", 17),
        ("node.labels.z in ()", "no value", 17),
        ("node.labels.z not in (a, )", "no value", 21),
        ("node.hostname =~ we(b", "unclosed group", 17),
        ("node.hostname =~ (a{999}){999}", "size limit", 17),
        ("node.cpus >= many", "neither a number nor a version", 13),
        ("node.kernel < new", "neither a number nor a version", 14),
    ];
    for (text, words, at) in cases {
        let fault = text.parse::<Constraint>().unwrap_err();
        assert!(fault.text.contains(words), "{text}: {fault}");
        assert!(!fault.hint.is_empty());
        assert_eq!(fault.at, at, "{text}: {fault}");
    }
}

#[test]
fn words_are_compared() {
    let holds = [
        ("node.labels.z == north", "North", true),
        ("node.labels.z == north", "south", false),
        ("node.labels.z != north", "south", true),
        ("node.labels.z in (a, b)", "B", true),
        ("node.labels.z in (a, b)", "c", false),
        ("node.labels.z not in (a, b)", "c", true),
        ("node.labels.z not in (a, b)", "a", false),
        ("node.hostname =~ ^web", "web-1", true),
        ("node.hostname =~ eb-", "web-1", true),
        ("node.hostname =~ ^eb", "web-1", false),
        ("node.hostname =~ WEB", "web-1", false),
        ("node.hostname =~ (?i)WEB", "web-1", true),
        ("node.hostname !~ ^web", "db-1", true),
        ("node.hostname !~ ^web", "web-1", false),
        ("node.platform.arch in (arm64, amd64)", "x86_64", true),
        ("node.platform.arch != arm64", "aarch64", false),
    ];
    for (text, actual, expected) in holds {
        assert_eq!(read(text).holds(Some(actual)), expected, "{text} {actual}");
    }
    for text in ["!= a", "not in (a)", "!~ a"] {
        assert!(read(&format!("node.labels.z {text}")).holds(None), "{text}");
    }
    for text in ["== a", "in (a)", "=~ a", "< 1", "<= 1", "> 0", ">= 0"] {
        assert!(
            !read(&format!("node.labels.z {text}")).holds(None),
            "{text}"
        );
    }
}

#[test]
fn numbers_and_versions_are_ordered() {
    let holds = [
        ("node.kernel > 6.1.9", "6.1.10", true),
        ("node.kernel > 6.1.10", "6.1.9-21-amd64", false),
        ("node.kernel >= 6.1", "6.1.0-21-amd64", true),
        ("node.kernel <= 6.1", "6.1.0-21-amd64", true),
        ("node.kernel < 6.10", "6.9", true),
        ("node.kernel >= 5", "linux", false),
        ("node.labels.price < 1.5", "1.25", true),
        ("node.labels.release < v1.5", "1.25", false),
        ("node.labels.release < 1.5.0", "1.25", false),
        ("node.labels.release >= v2", "V2.0.1", true),
        ("node.memory >= 16g", "17179869184", true),
        ("node.memory > 16g", "17179869184", false),
        ("node.memory == 16g", "17179869184", true),
        ("node.memory in (8g, 16g)", "17179869184", true),
        ("node.labels.disk > 100g", "1t", true),
        ("node.labels.temperature < 0", "-5", true),
        ("node.cpus >= 4", "16", true),
        ("node.cpus >= 4", "", false),
        ("node.devices.nvidia >= 2", "1", false),
    ];
    for (text, actual, expected) in holds {
        assert_eq!(read(text).holds(Some(actual)), expected, "{text} {actual}");
    }
}

#[test]
fn only_facts_labels_and_devices_can_be_constrained() {
    for key in ["node.hostname", "node.labels.zone", "node.devices.kvm"] {
        assert!(Constraint::is_known_key(key), "{key}");
    }
    for key in ["node.labels.", "node.devices.", "node.role", "kernel"] {
        assert!(!Constraint::is_known_key(key), "{key}");
    }
}

#[test]
fn contradictions_are_named() {
    let found = |texts: &[&str]| {
        let all: Vec<Constraint> = texts.iter().map(|t| read(t)).collect();
        let found = contradiction(&all);
        found.map(|f| f.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let clash: [&[&str]; 8] = [
        &["node.labels.z == a", "node.labels.z == b"],
        &["node.labels.z == a", "node.labels.z != A"],
        &["node.labels.z in (a, b)", "node.labels.z not in (a, b, c)"],
        &["node.hostname == web", "node.hostname =~ ^db"],
        &["node.cpus >= 8", "node.cpus < 8"],
        &["node.kernel > 6.10", "node.kernel < 6.9"],
        &["node.platform.arch == amd64", "node.platform.arch == arm64"],
        &["node.labels.n == 3", "node.labels.n > 5"],
    ];
    for texts in clash {
        let others = [
            "node.labels.other == x",
            texts[0],
            "node.cpus > 0",
            texts[1],
        ];
        let two = found(&others).unwrap_or_else(|| panic!("{texts:?}"));
        assert_eq!(two, texts);
    }
    let three = [
        "node.labels.z in (a, b)",
        "node.labels.z != a",
        "node.labels.z != b",
    ];
    assert_eq!(found(&three).unwrap(), three);
    for texts in [
        &["node.labels.z == a", "node.labels.y == b"][..],
        &[
            "node.platform.arch == amd64",
            "node.platform.arch == x86_64",
        ],
        &["node.cpus >= 8", "node.cpus <= 8"],
        &["node.labels.z != a", "node.labels.z !~ b"],
        &[],
    ] {
        assert_eq!(found(texts), None, "{texts:?}");
    }
}

proptest! {
    /// Whatever is read is written so that it reads the same, and nothing panics on the way.
    #[test]
    fn any_text_is_read_or_refused(text in "[ -~]{0,40}", actual in "[ -~]{0,20}") {
        if let Ok(constraint) = text.parse::<Constraint>() {
            constraint.holds(Some(&actual));
            constraint.holds(None);
            prop_assert_eq!(constraint.to_string().parse(), Ok(constraint));
        }
    }

    /// What some value meets is never called a contradiction.
    #[test]
    fn what_can_be_met_is_no_contradiction(
        value in "[abc]|[0-9]|1[0-9]|v[0-3][.][0-3]",
        chosen in proptest::collection::vec((0..10usize, "[abc]|[0-9]|v[0-3][.][0-3]"), 0..6),
    ) {
        let signs = ["==", "!=", "=~", "!~", "<", "<=", ">", ">="];
        let all = chosen.iter().filter_map(|(op, other)| {
            let text = match signs.get(*op) {
                Some(sign) => format!("node.labels.z {sign} {other}"),
                None if *op == 8 => format!("node.labels.z in ({other}, b)"),
                None => format!("node.labels.z not in ({other}, b)"),
            };
            text.parse::<Constraint>().ok()
        });
        let met: Vec<Constraint> = all.filter(|c| c.holds(Some(&value))).collect();
        prop_assert_eq!(contradiction(&met), None);
    }
}
