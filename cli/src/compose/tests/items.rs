//! `secrets` and `configs`.

use dunlin_state::model::{FileMount, ItemKind, MAX_ITEM_BYTES};

use super::{good, parse_with, shown};

const FILES: &[(&str, &str)] = &[("/srv/shop/pw.txt", "s3cret"), ("/abs", "other")];

#[test]
fn sources_of_content_are_read_and_external_ones_are_not() {
    let text = "\
services: {web: {image: a, secrets: [pw, token, there], configs: [cfg]}}
secrets:
  pw: {file: pw.txt, labels: {team: a}}
  token: {environment: TOKEN, name: api.token}
  there: {external: true, name: shared_pw}
configs:
  cfg: {content: 'a=1'}
  abs: {file: /abs}
";
    let project = parse_with(text, &[("TOKEN", "t0ken")], FILES).unwrap();
    let items: Vec<_> = project
        .items
        .iter()
        .map(|i| (i.kind, i.key.to_string(), &i.value[..]))
        .collect();
    assert_eq!(
        items,
        [
            (ItemKind::Secret, "default/pw".to_owned(), &b"s3cret"[..]),
            (ItemKind::Secret, "default/api.token".to_owned(), b"t0ken"),
            (ItemKind::Config, "default/cfg".to_owned(), b"a=1"),
            (ItemKind::Config, "default/abs".to_owned(), b"other"),
        ]
    );
    assert_eq!(project.items[0].labels["team"], "a");
    let debug = format!("{project:?}");
    assert!(
        !debug.contains("s3cret") && !debug.contains("115, 51"),
        "{debug}"
    );
    let spec = &project.services[0].spec;
    let named = |source: &str, target: &str| FileMount {
        source: source.to_owned(),
        target: target.to_owned(),
        ..FileMount::default()
    };
    // The file is called as the Compose file calls the secret.
    assert_eq!(
        spec.secrets,
        [
            named("pw", ""),
            named("api.token", "token"),
            named("shared_pw", "there")
        ]
    );
    assert_eq!(spec.configs, [named("cfg", "")]);
}

#[test]
fn the_long_form_says_where_whose_and_how() {
    let text = "\
services:
  web:
    image: a
    x-dunlin: {secret_signal: hup}
    secrets:
      - {source: pw, target: /etc/db/pw, uid: '103', gid: 104, mode: 0440}
    configs:
      - {source: cfg, mode: '0o400'}
secrets: {pw: {external: true}}
configs: {cfg: {external: true}}
";
    let project = good(text);
    let spec = &project.services[0].spec;
    let secret = &spec.secrets[0];
    assert_eq!(
        (secret.uid, secret.gid, secret.mode),
        (Some(103), Some(104), Some(0o440))
    );
    assert_eq!((secret.target(), secret.file_name()), ("/etc/db/pw", "pw"));
    assert_eq!(
        (spec.configs[0].target(), spec.configs[0].mode),
        ("cfg", Some(0o400))
    );
    assert_eq!(spec.secret_signal.as_deref(), Some("SIGHUP"));
    assert!(project.items.is_empty());
}

#[test]
fn faults_are_told_and_no_content_is() {
    let large = "x".repeat(MAX_ITEM_BYTES + 1);
    let files = [("/srv/shop/large", large.as_str())];
    let secret = |lines: &str| format!("services: {{web: {{image: a}}}}\nsecrets: {{{lines}}}\n");
    let service = |lines: &str| {
        format!(
            "services: {{web: {{image: a, {lines}}}}}\nsecrets: {{pw: {{external: true}}, b: {{external: true}}}}\n"
        )
    };
    let table = [
        (secret("pw: {}"), "needs one source"),
        (secret("pw: {file: a, environment: B}"), "needs one source"),
        (
            secret("pw: {file: missing}"),
            "cannot read /srv/shop/missing",
        ),
        (secret("pw: {file: large}"), "has more than 32 KiB"),
        (secret("pw: {environment: NOT_SET}"), "NOT_SET is not set"),
        (
            secret("pw: {external: true, file: large}"),
            "exists already",
        ),
        (
            secret("'a/b': {external: true}"),
            "cannot name a secret or config",
        ),
        (
            secret("pw: {external: true, name: ../x}"),
            "cannot name a secret",
        ),
        (service("secrets: [pq]"), "did you mean 'pw'?"),
        (service("configs: [pw]"), "the config 'pw' is not declared"),
        (
            service("secrets: [pw, pw]"),
            "two secrets have the file name 'pw'",
        ),
        (
            service("secrets: [{source: pw, target: ../x}]"),
            "neither a file name",
        ),
        (
            service("secrets: [{source: pw, target: /a/../b}]"),
            "neither a file name",
        ),
        (
            service("secrets: [{source: pw, mode: 0999}]"),
            "is not a mode",
        ),
        (
            service("secrets: [{source: pw, mode: '4755'}]"),
            "is not a mode",
        ),
        (service("secrets: [{target: x}]"), "add 'source:'"),
        (
            service("secrets: [{source: pw}, {source: b, target: pw}]"),
            "two secrets",
        ),
    ];
    for (text, expected) in table {
        let errors = parse_with(&text, &[], &files).unwrap_err();
        let told = shown(&errors);
        assert!(told.contains(expected), "{text}\n{told}");
        assert!(!told.contains("xxxx"), "{told}");
    }
}
