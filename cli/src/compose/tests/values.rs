//! Durations, sizes, words, variables.

use super::super::interpolate::interpolate;
use super::super::suggest::closest;
use super::super::units::{bytes, cpu_millis, duration_ms};
use super::super::words::{Unsplittable, split};
use super::variables;

#[test]
fn durations() {
    let good = [
        ("0", 0),
        ("0s", 0),
        ("10s", 10_000),
        ("1m30s", 90_000),
        ("1.5h", 5_400_000),
        ("1h5m30s20ms", 3_930_020),
        ("5us", 1),
        ("2d", 172_800_000),
        (".5s", 500),
    ];
    for (text, ms) in good {
        assert_eq!(duration_ms(text), Ok(ms), "{text}");
    }
    let bad = [
        "",
        "s",
        "10",
        "1x",
        "-1s",
        "1s ",
        "1..5s",
        "9999999999999h",
        "53w",
        "ten",
        "1s5",
        ".",
    ];
    for text in bad {
        assert!(duration_ms(text).is_err(), "{text}");
    }
}

#[test]
fn sizes() {
    let good = [
        ("0", 0),
        ("1024", 1024),
        ("2b", 2),
        ("1k", 1024),
        ("1.5m", 1_572_864),
        ("2GB", 2 << 30),
        ("1 GiB", 1 << 30),
        ("1t", 1 << 40),
    ];
    for (text, size) in good {
        assert_eq!(bytes(text), Ok(size), "{text}");
    }
    for text in [
        "",
        "m",
        "-1m",
        "1x",
        "99999999999999999999",
        "99999999999t",
        "1e3",
        "1.2.3k",
    ] {
        assert!(bytes(text).is_err(), "{text}");
    }
}

#[test]
fn cores() {
    let good = [
        ("0.5", 500),
        ("2", 2_000),
        (".25", 250),
        ("0.0001", 1),
        ("1.0005", 1_001),
    ];
    for (text, millis) in good {
        assert_eq!(cpu_millis(text), Ok(millis), "{text}");
    }
    for text in ["", "-1", "1m", "half", "1000000", "1,5"] {
        assert!(cpu_millis(text).is_err(), "{text}");
    }
}

#[test]
fn words() {
    let good: [(&str, &[&str]); 8] = [
        ("a b  c", &["a", "b", "c"]),
        ("", &[]),
        ("a 'b c' \"d e\"", &["a", "b c", "d e"]),
        ("a\\ b", &["a b"]),
        ("a\"b\"'c'", &["abc"]),
        ("'' \"\"", &["", ""]),
        ("\"\\\"\\n\"", &["\"\\n"]),
        ("a \\\n b", &["a", "b"]),
    ];
    for (line, words) in good {
        assert_eq!(
            split(line).map(|w| w.words),
            Ok(words.iter().map(|w| (*w).to_owned()).collect()),
            "{line}"
        );
    }
    assert_eq!(split("a 'b"), Err(Unsplittable::Quote('\'')));
    assert_eq!(split("a \"b"), Err(Unsplittable::Quote('"')));
    assert_eq!(split("a\\"), Err(Unsplittable::Backslash));
    assert_eq!(split("a && b").map(|w| w.shell_syntax), Ok(Some('&')));
    assert_eq!(split("a '&&' b").map(|w| w.shell_syntax), Ok(None));
}

#[test]
fn variables_are_replaced() {
    let known = variables(&[("A", "1"), ("EMPTY", ""), ("LONG_NAME", "x")]);
    let cases = [
        ("$A-$LONG_NAME.", "1-x."),
        ("${A}b", "1b"),
        ("$$A $${A}", "$A ${A}"),
        ("^a$ $. $", "^a$ $. $"),
        ("${N:-d} ${N-d} ${A:-d}", "d d 1"),
        ("${EMPTY:-d}|${EMPTY-d}", "d|"),
        ("${N:-${EMPTY:-${A}}}", "1"),
        ("${A:+y}${EMPTY:+n}${EMPTY+y}${N+n}", "yy"),
        ("${A:?no}${EMPTY?no}", "1"),
        ("${N:-a}b}", "ab}"),
    ];
    for (text, expected) in cases {
        let mut unset = Vec::new();
        assert_eq!(
            interpolate(text, &known, &mut unset),
            Ok(expected.to_owned()),
            "{text}"
        );
        assert_eq!(unset, Vec::new(), "{text}");
    }
}

#[test]
fn unset_variables_are_told_of_where_they_are_used() {
    let mut unset = Vec::new();
    let known = variables(&[("A", "1")]);
    assert_eq!(
        interpolate("$$ $X ${A:-$Y} ${Z}", &known, &mut unset),
        Ok("$  1 ".to_owned())
    );
    let places: Vec<usize> = unset.iter().map(|u| u.dollar).collect();
    assert_eq!(places, [2, 5]);
}

#[test]
fn variables_cannot_explode() {
    let known = variables(&[("A", &"x".repeat(10_000))]);
    assert!(interpolate(&"$A".repeat(1_000), &known, &mut Vec::new()).is_err());
    let nested = format!("{}{}", "${N:-".repeat(5_000), "}".repeat(5_000));
    assert!(interpolate(&nested, &known, &mut Vec::new()).is_err());
}

#[test]
fn suggestions() {
    let keys = || ["image", "ports", "environment", "env_file"].into_iter();
    assert_eq!(closest("imgae", keys()), Some("image"));
    assert_eq!(closest("Image", keys()), Some("image"));
    assert_eq!(closest("port", keys()), Some("ports"));
    assert_eq!(closest("enviromnent", keys()), Some("environment"));
    assert_eq!(closest("zzz", keys()), None);
    assert_eq!(closest(&"x".repeat(1_000_000), keys()), None);
}
